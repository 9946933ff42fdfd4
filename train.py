"""Train PortraitNet: python train.py --epoch 60 --lr 0.001 --batch_size 32 --data_root EG1800/

The epoch's loop is `train_one_epoch`; the course of the whole training is `train`.
"""

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from data.cache import default_cache_dir
from data.lists import DATA_ROOT, split_backgrounds
from data.loader import default_workers, load_batches
from data.portraits import PortraitDataset, TrainingSamples, validation_sets
from metrics import SELECTION, score
from portraitnet.backends import import_paddle
from portraitnet.cli import STOPPED, command, float_range, int_range, make_parser
from portraitnet.files import write_json
from portraitnet.geometry import SIZE
from portraitnet.predictor import Predictor, to_batch
from training.checkpoints import runner
from training.distillation import Teacher, load_teacher
from training.plots import log_epoch, open_writer
from training.report import Progress, ending, print_epoch, write_history
from training.schedule import Schedule, epoch_sizes
from transforms import (
    PHOTOMETRIC,
    RandomGrey,
    RandomHorizontalFlip,
    RandomJpeg,
    RandomRelight,
    RandomRotation,
    RandomTranslate,
)

MAX_WIDTH = 8  # that of models.weights, named here because --help works without Paddle


def train_one_epoch(state, schedule, steps, samples, loss_weights, teacher, progress, stop):
    """One pass over the training photos, from the iteration at which `state` stands.

    Args:
        state: TrainingState.
        schedule: Schedule.
        steps: those of the whole epoch; see `Schedule.steps`.
        samples: TrainingSamples.
        loss_weights: LossWeights.
        teacher: Teacher, or None.
        progress: Progress.
        stop: StopRequest; the epoch ends after the iteration in which a stop was asked for.

    Raises:
        FloatingPointError: the loss is not finite; every term is named.
    """
    state.model.train()
    own = [(shape, indices[state.rank :: state.world]) for shape, indices in steps[state.batch :]]
    strength = schedule.geometry_strength(state.epoch)
    batches = load_batches(samples, own, state.epoch, strength, default_workers(state.world))
    for (_, indices), batch in zip(own, progress.timed(batches)):
        image, photometric, mask, edge = batch
        if teacher:
            mask = teacher(mask, photometric, indices)
        # Without the consistency term nothing needs the clean copy, and it is not computed.
        copies = [image, photometric] if loss_weights.consistency else [photometric]
        mask_logits, edge_logits = state.forward(to_batch(np.concatenate(copies)))
        terms = state.loss(mask_logits, edge_logits, mask, edge, loss_weights)
        state.backward(terms["total"], stop)
        lr = schedule.learning_rate(state.epoch + state.batch / len(steps))
        state.step_optimizer(lr)
        state.update_average()
        state.count(terms)
        progress.log(terms, lr, mask_logits, mask)
        if stop.asked:
            break
    batches.close()


def validate(model, sets):
    """Every score of every validation list, as `evaluate.py --no-refine`.

    Returns:
        {"val": {name of the list: {score: value}}, "mean_person_iou": over the lists}.
    """
    model.eval()
    predictor = Predictor.of(runner(model), model.size, refine=False)
    val = {name: score(predictor.probabilities, each).summary() for name, each in sets.items()}
    mean = float(np.mean([summary[SELECTION] for summary in val.values()]))
    return {"val": val, "mean_person_iou": mean}


def train(args):
    """Run all epochs; returns the exit code."""
    import kernels
    from models import count_parameters
    from training.distributed import StopRequest
    from training.state import LossWeights, lock_output, make_state

    kernels.keep_memory()
    optimizer = args.lr, args.weight_decay, args.ema
    state, notes = make_state(
        args.pretrained, args.width, *optimizer, args.seed, args.amp, args.lite
    )
    first, output, settings = state.rank == 0, Path(args.output), vars(args)
    with lock_output(output, args.resume) if first else nullcontext():
        samples = make_samples(
            args.data_root,
            args.seed,
            args.rotation,
            args.scale,
            args.photometric_prob,
            args.relight_prob,
            args.backgrounds,
            args.background_prob,
            args.negative_prob,
            args.min_person_scale,
            args.occlusion_prob,
        )
        sets = validation_sets(args.data_root, "val", args.seed)
        check_readable(sets)
        teacher = args.teacher and Teacher(
            [load_teacher(path) for path in args.teacher],
            args.teacher_weight,
            samples.pairs,
            args.teacher_data,
        )
        course = args.lr, args.lr_schedule, args.final_geometry, args.seed
        schedule = Schedule(args.epoch, args.batch_size, args.sizes, *course)
        weights = LossWeights(*args.loss_weights)
        state.photos = samples.digest()
        if args.resume:
            notes += state.load(settings, output)
        if first:
            write_json(output / "args.json", settings)
            counts = ", ".join(f"{len(each)} of {name}" for name, each in sets.items())
            print(*samples.notes, *notes, sep="\n")
            print(f"{len(samples)} training photos; validation: {counts}.")
            kind = "averaged" if args.ema else "raw"
            print(f"{count_parameters(state.model):,} parameters; checkpoints hold {kind} weights.")
        writer = open_writer(output) if first else None
        stop = StopRequest()

        while state.epoch < args.epoch:
            steps = schedule.steps(len(samples), state.epoch)
            progress = Progress(state, len(steps), args.batch_size, args.log_iter, writer)
            try:
                train_one_epoch(state, schedule, steps, samples, weights, teacher, progress, stop)
            except (OSError, ValueError):  # an unreadable photo: once it is mended, --resume works
                if first:
                    state.save(settings, output)
                raise
            finally:
                result = progress.finish()
            if stop.asked:
                if first:
                    state.save(settings, output)
                    where = f"epoch {state.epoch + 1}, iteration {state.batch}"
                    print(f"Stopped in {where}; --resume continues from there.")
                return STOPPED
            state.average_statistics()
            state.check_finite()  # the sentence names --lr; validation could not
            if first:
                started = time.perf_counter()
                result |= validate(state.evaluated, sets)
                state.seconds += time.perf_counter() - started
                state.finish_epoch(result, args.sizes[state.epoch], output)
                print_epoch(state.history, schedule.epoch_costs)
                write_history(state.history, output)
                log_epoch(writer, state, next(iter(sets.values())))
            state.next_epoch()
            if first:
                state.save(settings, output)
        if first:
            print(ending(state.history, output, args.data_root))
    return 0


def check_readable(sets):
    """Read every validation photo, so that a broken one is found now and not after an epoch."""
    for dataset in sets.values():
        for index in range(len(dataset)):
            dataset.photo(index)


def make_samples(
    data_root,
    seed,
    rotation,
    scale,
    photometric_prob,
    relight_prob,
    backgrounds,
    background_prob,
    negative_prob,
    min_person_scale,
    occlusion_prob,
):
    """TrainingSamples of the flags of these names."""
    dataset = PortraitDataset(data_root, "train", seed)
    degrees, turn_prob = (*rotation, 0.0)[:2]
    samples = TrainingSamples(
        dataset.pairs,
        deformation=(
            RandomHorizontalFlip(),
            RandomRotation(angle=degrees, scale=scale),
            RandomTranslate(shift=degrees / 180),
        ),
        photometric=(
            RandomRelight(relight_prob),
            *PHOTOMETRIC,
            RandomJpeg(relight_prob),
            RandomGrey(relight_prob),
        ),
        photometric_prob=photometric_prob,
        seed=seed,
        backgrounds=split_backgrounds(backgrounds)[0] if backgrounds else (),
        background_prob=background_prob,
        negative_prob=negative_prob,
        min_person_scale=min_person_scale,
        occlusion_prob=occlusion_prob,
        turn_prob=turn_prob,
        cache_dir=default_cache_dir(),
    )
    samples.notes[:0] = dataset.notes
    return samples


def parse_args(argv=None):
    parser = make_parser(
        "Train PortraitNet: photos and masks in, checkpoints, scores and curves out. The best epoch"
        " on the validation photos is best.pdparams.",
        example="python train.py --epoch 60 --lr 0.001 --batch_size 32 --data_root EG1800/",
    )
    add_main_flags(parser.add_argument_group("flags that matter first"))
    add_optimization_flags(parser.add_argument_group("network, loss and optimization"))
    add_augmentation_flags(parser.add_argument_group("augmentation"))
    args = parser.parse_args(argv)
    if args.scale[0] > args.scale[1]:
        parser.error(f"argument --scale: give the smaller value first, not {args.scale}")
    if len(args.rotation) > 2 or not 0 <= (*args.rotation, 0)[1] <= 1:
        parser.error(f"argument --rotation: must be DEGREES [PROBABILITY], not {args.rotation}")
    if not set(args.teacher_data or ()) <= set(args.data_root):
        parser.error("argument --teacher_data: must name folders of --data_root")
    if args.lite and args.width != 1:
        parser.error("argument --lite: has no --width, so leave one of them out")
    if args.lite and "imagenet" in (args.pretrained or ()):
        parser.error("argument --lite: has no ImageNet weights: start from person, none or a file")
    try:
        args.sizes = epoch_sizes(args.size, args.epoch)
    except ValueError as error:
        parser.error(f"argument --size: {error}")
    if args.pretrained is None:
        args.pretrained = ["person" if args.width == 1 else "none"]
    return args


def add_main_flags(group):
    add = group.add_argument
    add("--data_root", nargs="+", default=[DATA_ROOT], help="data folders (docs/data.md)")
    add("--output", default="output", help="folder of checkpoints and logs")
    add("--epoch", type=int_range(1, 100_000), default=60, help="number of epochs")
    add("--lr", type=float_range(above=0), default=0.001, help="peak learning rate")
    add("--batch_size", type=int_range(1), default=32, help="photos in a step, all processes")
    add("--resume", action="store_true", help="continue the training in --output")
    start = (
        "person, imagenet, none, or a .pdparams file to start from; of several files, their mean"
        " (default: person, or none for another --width than 1)"
    )
    add("--pretrained", nargs="+", help=start)
    size = "input size: the input's area is about SIZE x SIZE pixels; smaller sizes for the first"
    size += " epochs with SIZE:EPOCHS,...,SIZE, such as 128:8,160:4,224"
    add("--size", default=str(SIZE), help=size)


def add_optimization_flags(group):
    add = group.add_argument
    width = "factor on the network's channels"
    add("--width", type=float_range(above=0, high=MAX_WIDTH), default=1.0, help=width)
    add("--lite", action="store_true", help="the smaller network of models/lite.py, for phones")
    lr_schedule = "course of the learning rate; step is the paper's, without a warm-up"
    add("--lr_schedule", choices=["cosine", "step", "constant"], default="cosine", help=lr_schedule)
    decay = "weight decay of AdamW, on convolution weights only"
    add("--weight_decay", type=float_range(), default=5e-4, help=decay)
    add("--ema", type=float_range(0, 1), default=0.999, help="decay of the averaged weights")
    add(
        "--loss_weights",
        type=float_range(),
        nargs=2,
        default=(0.1, 1.0),
        metavar=("EDGE", "CONSISTENCY"),
        help="weights of the boundary focal loss and of the consistency KL loss",
    )
    teacher = (
        "network whose answers are mixed into the masks: a model file, or MediaPipe's .tflite; of "
        "several, the mean of their logits"
    )
    add("--teacher", nargs="+", help=teacher)
    weight = "weight of the teacher's answers in the masks"
    add("--teacher_weight", type=float_range(0, 1), default=0.35, help=weight)
    add("--teacher_data", nargs="+", help="apply the teacher only to these data roots")
    add("--seed", type=int_range(), default=0, help="seed of weights, order and augmentation")
    add("--procs", type=int_range(1), default=1, help="training processes on this machine")
    add("--amp", action="store_true", help="mixed precision: on a GPU, or a CPU with AVX512-BF16")
    add("--log_iter", type=int_range(1), default=10, help="iterations between log lines")


def add_augmentation_flags(group):
    add = group.add_argument
    add("--backgrounds", help="folder of photos without people; every tenth is held out")
    prob = float_range(0, 1)
    add("--background_prob", type=prob, default=0.0, help="probability of another background")
    scale = "smallest scale of a person before another background"
    add("--min_person_scale", type=float_range(above=0, high=1), default=1.0, help=scale)
    add("--negative_prob", type=prob, default=0.0, help="probability of a photo without a person")
    occlusion = "probability of an occluder in front of the person"
    add("--occlusion_prob", type=prob, default=0.0, help=occlusion)
    rotation = "largest rotation in degrees, and probability of a turn by 90, 180 or 270 degrees"
    rotation += "; the largest shift is DEGREES/180 of the input's sides"
    add(
        "--rotation",
        type=float_range(0, 180),
        nargs="+",
        default=(45.0,),
        metavar=("DEGREES", "PROBABILITY"),
        help=rotation,
    )
    add("--scale", type=float_range(above=0), nargs=2, default=(0.5, 1.5), help="range of scaling")
    final = "fraction of rotation, scale and shift that remains in the last epoch"
    add("--final_geometry", type=prob, default=1.0, help=final)
    photometric = "probability of other light, blur and noise"
    add("--photometric_prob", type=prob, default=1.0, help=photometric)
    relight = "of these, probability of each harder change: tinted light, JPEG blocks, no colour"
    add("--relight_prob", type=prob, default=0.0, help=relight)


@command("train.py")
def main(argv=None):
    args = parse_args(argv)
    paddle = import_paddle()
    if args.procs > 1 and "PADDLE_TRAINER_ID" not in os.environ:
        from training.distributed import launch

        flags = sys.argv[1:] if argv is None else argv
        return launch(__file__, flags, args.procs, f"{args.output}/launcher")
    # Names from zero: the optimizer's state must not depend on what was built before.
    with paddle.utils.unique_name.guard():
        return train(args)


if __name__ == "__main__":
    sys.exit(main())
