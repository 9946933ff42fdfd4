"""Train PortraitNet: python train.py --epoch 60 --lr 0.001 --batch_size 32 --data_root EG1800/"""

import json
import math
import os
import shlex
import sys
import time
import warnings
from pathlib import Path

import numpy as np

with warnings.catch_warnings():  # Paddle asks all who import it to install a compiler's cache
    warnings.simplefilter("ignore")
    import paddle
import paddle.distributed as dist
from tqdm import tqdm
from visualdl import LogWriter

import kernels
from backends import runner
from curves import draw_curves, log_epoch
from dataset import (
    PortraitDataset,
    TrainingSamples,
    default_cache_dir,
    load_batches,
    validation_sets,
)
from files import write_json, write_whole
from flags import STOPPED, command, make_parser, real, whole
from metrics import SELECTION, THRESHOLD, batch_counts, mean_iou, pixel_accuracy, score
from models import PortraitNet, count_parameters
from models.weights import MOST_WIDTH, load_pretrained, save_atomically
from pairs import DATA_ROOT, split_backgrounds
from predictor import Predictor
from processes import StopRequest, all_reduce_mean, launch
from run import Run, claim
from schedule import deformation_strength, epoch_sizes, epoch_steps, learning_rate, parse_aspects
from teacher import Teacher, load_teacher
from transforms import (
    SIZE,
    TEXTURE,
    RandomHorizontalFlip,
    RandomJpeg,
    RandomLight,
    RandomRotation,
    RandomTranslate,
    to_batch,
    view_shape,
)

# Height to width of the views, drawn evenly for each batch: portraits most of all, but also what a
# phone and a camera see upright and across.
ASPECTS = ("4:3", "4:3", "4:3", "3:2", "16:9", "1:1", "3:4", "9:16")


def parse_args(argv=None):
    parser = make_parser(
        "Train PortraitNet: photos and masks in, checkpoints, scores and curves out. The best epoch"
        " on the validation photos is best.pdparams.",
        example="python train.py --epoch 60 --lr 0.001 --batch_size 32 --data_root EG1800/",
    )
    add_data_flags(parser.add_argument_group("data"))
    add_optimisation_flags(parser.add_argument_group("network and optimisation"))
    add_augmentation_flags(parser.add_argument_group("augmentation"))
    add_machine_flags(parser.add_argument_group("machine"))
    args = parser.parse_args(argv)
    if args.scale[0] > args.scale[1]:
        parser.error(f"argument --scale: wants the least, then the most, not {args.scale}")
    if not set(args.taught or ()) <= set(args.data_root):
        parser.error(f"argument --taught: wants some of --data_root, not {' '.join(args.taught)}")
    try:
        args.sizes = epoch_sizes(args.size_schedule, args.size, args.epoch)
        parse_aspects(args.aspects)
    except ValueError as error:
        parser.error(str(error))
    if args.pretrained is None:
        args.pretrained = ["person" if args.width == 1 else "none"]
    if args.num_workers is None:
        args.num_workers = min(2, kernels.core_count() - 1)
    return args


def add_data_flags(group):
    add = group.add_argument
    add("--data_root", nargs="+", default=[DATA_ROOT], help="data folders (docs/data.md)")
    add("--output", default="output", help="folder of checkpoints and logs")
    add("--resume", action="store_true", help="go on where the run in --output stopped")
    add("--epoch", type=whole(1, 100_000), default=60, help="epochs in all")
    add("--batch_size", type=whole(1), default=32, help="photos in a step, over all processes")
    add(
        "--size",
        type=whole(32, multiple=32),
        default=SIZE,
        help="side of the square with the views' area, pixels",
    )
    add("--size_schedule", default="", help="smaller views first, SIZE:EPOCHS,...: 128:8,160:4")
    add("--aspects", nargs="+", default=list(ASPECTS), help="HEIGHT:WIDTH of views, drawn by batch")


def add_optimisation_flags(group):
    add = group.add_argument
    more = (
        "person, imagenet, none, or a .pdparams file to start from; of several files, their mean"
        " (default: person, which has width 1; none for another --width)"
    )
    add("--pretrained", nargs="+", help=more)
    add(
        "--width",
        type=real(above=0, most=MOST_WIDTH),
        default=1.0,
        help="multiplies the network's channels",
    )
    add("--lr", type=real(above=0), default=0.001, help="peak learning rate")
    add("--warmup", type=real(), default=0.5, help="epochs over which the learning rate rises")
    schedules = ["cosine", "step", "constant"]
    add("--schedule", choices=schedules, default="cosine", help="how the learning rate falls")
    add("--weight_decay", type=real(), default=5e-4, help="AdamW's, on convolution weights only")
    add("--ema", type=real(0, 1), default=0.999, help="decay of the averaged weights; 0: none")
    add("--edge_weight", type=real(), default=0.1, help="weight of the boundary focal loss")
    add("--consistency_weight", type=real(), default=1.0, help="weight of the consistency KL")
    teacher = "model mixed into the masks: one of this project's or MediaPipe's .tflite"
    add("--teacher", help=teacher)
    add("--teacher_share", type=real(0, 1), default=0.35, help="share of its answers in them")
    add("--taught", nargs="+", help="those of --data_root whose photos it teaches (default: all)")
    add("--temperature", type=real(above=0), default=1.0, help="temperature of the consistency KL")


def add_augmentation_flags(group):
    add = group.add_argument
    add("--backgrounds", help="folder of photos without people; every tenth is left out")
    add("--background_prob", type=real(0, 1), default=0.0, help="share of people put before them")
    add(
        "--least_scale",
        type=real(above=0, most=1),
        default=1.0,
        help="smallest person there, as a share of the old size",
    )
    add("--empty_share", type=real(0, 1), default=0.0, help="share of samples without a person")
    add("--thing_prob", type=real(0, 1), default=0.0, help="share with a thing held in front")
    add("--rotation", type=real(0, 180), default=45, help="largest rotation, degrees")
    add("--scale", type=real(above=0), nargs=2, default=(0.5, 1.5), help="range of the enlargement")
    add("--shift", type=real(0, 1), default=0.25, help="largest shift, as a share of the view")
    final = "share of rotation, scale and shift that is left in the last epoch"
    add("--final_strength", type=real(0, 1), default=1.0, help=final)
    add("--texture_prob", type=real(0, 1), default=1.0, help="share in other light, blur and noise")
    add("--light_prob", type=real(0, 1), default=0.0, help="share of these in dim or tinted light")
    add("--jpeg_prob", type=real(0, 1), default=0.0, help="share of these with JPEG blocks")


def add_machine_flags(group):
    add = group.add_argument
    add("--seed", type=whole(), default=0, help="seed of weights, order and augmentation")
    workers = "processes that read and augment, 0: none (default: 2, but no more than other cores)"
    add("--num_workers", type=whole(), help=workers)
    add("--cache_dir", default=str(default_cache_dir()), help="folder for decoded photos; '': none")
    add("--procs", type=whole(1), default=1, help="training processes on this machine")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: the GPU, if any")
    add("--amp", action="store_true", help="mixed precision, on a GPU or on a CPU with AVX512-BF16")
    add("--log_iter", type=whole(1), default=10, help="iterations between log lines")


def make_optimizer(model, args):
    """AdamW; weight decay on convolution weights alone."""
    decayed = {p.name for p in model.parameters() if p.ndim > 1}
    return paddle.optimizer.AdamW(
        learning_rate=args.lr,
        parameters=[p for p in model.parameters() if not p.stop_gradient],
        weight_decay=args.weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
    )


def train_one_epoch(run, args, samples, teacher, writer, stop):
    """One pass over the training photos, from where `run` stands in it.

    Returns:
        {"loss": mean of each term, "photos_per_second": float, "data_wait": share of the time}.

    Raises:
        FloatingPointError: the loss is not finite; every term is named.
    """
    run.model.train()
    rank, world = dist.get_rank(), dist.get_world_size()
    size = args.sizes[run.epoch]
    shapes = [view_shape(*aspect, size) for aspect in parse_aspects(args.aspects)]
    steps = epoch_steps(len(samples), args.batch_size, shapes, args.seed, run.epoch)
    own = [(shape, indices[rank::world]) for shape, indices in steps[run.batch :]]
    strength = deformation_strength(run.epoch, args)
    loader = load_batches(samples, own, run.epoch, strength, args.num_workers)
    bar = tqdm(total=len(steps), initial=run.batch, desc=f"epoch {run.epoch}", disable=rank > 0)
    photos = sum(len(indices) for _, indices in steps[: run.batch])
    waited, before, started = 0.0, run.seconds, time.perf_counter()
    for _, indices in steps[run.batch :]:
        asked = time.perf_counter()
        sample = next(loader)
        waited += time.perf_counter() - asked
        if teacher:
            sample[2] = teacher(sample[2], sample[1], indices[rank::world])
        lr = learning_rate(run.epoch + run.batch / len(steps), args)
        run.optimizer.set_lr(lr)
        mask_logits, terms = forward(run.model, sample, args)
        backward_and_step(terms["total"], run, world, stop)
        if run.average is not None:
            run.update_average(args.ema)

        run.step += 1
        run.batch += 1
        photos += len(indices)
        # Sums stay tensors: reading them would make a GPU wait in every iteration.
        for name, term in terms.items():
            run.sums[name] = run.sums.get(name, 0.0) + term.detach()
        if run.batch % args.log_iter == 0 or run.batch == len(steps):
            values = finite_values(terms, run)
            if rank == 0:
                rate = photos / (before + time.perf_counter() - started)
                log_iteration(run, values | {"lr": lr}, mask_logits, sample, rate, bar, writer)
        bar.update()
        if stop.asked:
            break
    loader.close()
    bar.close()
    seconds = time.perf_counter() - started
    run.seconds += seconds
    return {
        "loss": {name: float(value) / run.batch for name, value in run.sums.items()},
        "photos_per_second": photos / run.seconds,
        "data_wait": waited / seconds,
    }


def forward(model, sample, args):
    """Logits and loss terms of one batch; clean and augmented copies pass the network together."""
    clean, texture, mask, edge = sample
    # Without the consistency term nothing needs the clean copy, and it is not computed.
    copies = [clean, texture] if args.consistency_weight else [texture]
    batch = paddle.to_tensor(to_batch(np.concatenate(copies)))
    # On a CPU our kernels do it inside the blocks; Paddle's casts would only add work.
    with paddle.amp.auto_cast(enable=args.amp and not batch.place.is_cpu_place()):
        mask_logits, edge_logits = model(batch)
    terms = kernels.portrait_loss(
        mask_logits.astype("float32"),
        edge_logits.astype("float32"),
        paddle.to_tensor(mask),
        paddle.to_tensor(edge),
        edge_weight=args.edge_weight,
        consistency_weight=args.consistency_weight,
        temperature=args.temperature,
    )
    return mask_logits, terms


def backward_and_step(loss, run, world, stop):
    """Backward pass, gradients averaged over the processes, optimiser step.

    A stop that one process was asked for travels with the gradients, so that all stop together.
    """
    optimizer, scaler = run.optimizer, run.scaler
    (loss if scaler is None else scaler.scale(loss)).backward()
    if world > 1:
        asked = paddle.to_tensor([float(stop.asked)])
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        all_reduce_mean([*gradients, asked])
        stop.asked = asked.item() > 0
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.clear_grad()


def finite_values(terms, run):
    """The loss terms as floats; FloatingPointError with all of them if the total is not finite."""
    values = {name: term.item() for name, term in terms.items()}
    if not math.isfinite(values["total"]):
        told = ", ".join(f"{name} {value}" for name, value in values.items())
        raise FloatingPointError(
            f"The loss is not finite at epoch {run.epoch} iter {run.batch - 1} ({told}); "
            "lower --lr."
        )
    return values


def log_iteration(run, values, mask_logits, sample, rate, bar, writer):
    """The report's line, the bar's figures and VisualDL's curves, from the augmented half."""
    mask = sample[2] > THRESHOLD
    counts = batch_counts(mask_logits[-len(mask) :].argmax(1).numpy(), mask).sum(0)
    accuracy, miou = pixel_accuracy(counts), mean_iou(counts)
    told = f"loss:{values['total']:.4f} , acc: {accuracy:.4f}, miou: {miou:.4f}"
    tqdm.write(f"iter {run.batch - 1} {told}")
    bar.set_postfix_str(f"{told}, {rate:.1f} photos/s")
    for name, value in (values | {"accuracy": accuracy, "mean_iou": miou}).items():
        writer.add_scalar(f"train/{name}", value, run.step)


def validate(model, sets):
    """Every score of every validation list, as evaluate.py without refinement.

    Returns:
        {"val": {name of the list: {score: value}}, "mean_person_iou": over the lists}.
    """
    model.eval()
    predictor = Predictor.of(runner(model), refine=False)
    val = {name: score(predictor.probabilities, each).summary() for name, each in sets.items()}
    mean = float(np.mean([summary[SELECTION] for summary in val.values()]))
    return {"val": val, "mean_person_iou": mean}


def choose_device(args):
    """Set the device and return its name; a GPU that was asked for and is not there is an error."""
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if args.device == "gpu" and not has_gpu:
        raise RuntimeError(
            "--device gpu, but Paddle sees no GPU: install paddlepaddle-gpu or use --device cpu."
        )
    device = "cpu" if args.device == "cpu" or not has_gpu else "gpu"
    if args.amp and device == "cpu" and not kernels.has_bfloat16():
        raise RuntimeError(
            "--amp needs a GPU or a processor with AVX512-BF16, and this has neither; leave it out."
        )
    paddle.set_device(device)
    return device


def make_samples(args):
    """The training photos as training sees them."""
    train = PortraitDataset(args.data_root, "train", args.seed)
    samples = TrainingSamples(
        train.pairs,
        deformation=(
            RandomHorizontalFlip(),
            RandomRotation(angle=args.rotation, scale=args.scale),
            RandomTranslate(shift=args.shift),
        ),
        texture=(RandomLight(args.light_prob), *TEXTURE, RandomJpeg(args.jpeg_prob)),
        texture_prob=args.texture_prob,
        seed=args.seed,
        backgrounds=split_backgrounds(args.backgrounds)[0] if args.backgrounds else (),
        background_prob=args.background_prob,
        empty_share=args.empty_share,
        least_scale=args.least_scale,
        thing_prob=args.thing_prob,
        cache_dir=args.cache_dir or None,
    )
    samples.notes[:0] = train.notes
    return samples


def make_run(args):
    """A fresh run, and sentences for the user."""
    paddle.seed(args.seed)
    model = PortraitNet(width=args.width)
    neighbours = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))
    threads = max(1, kernels.core_count() // neighbours)
    on_cpu = paddle.device.get_device() == "cpu"
    notes = [load_pretrained(model, *args.pretrained)]
    # From here on the model's blocks run this project's C++ instead of their own `forward`.
    notes.append(kernels.accelerate(model, threads, half=args.amp and on_cpu))
    average = None
    if args.ema:
        average = PortraitNet(width=args.width)
        average.set_state_dict(model.state_dict())
        kernels.accelerate(average, threads)
    scaler = paddle.amp.GradScaler() if args.amp and not on_cpu else None
    return Run(model, average, make_optimizer(model, args), scaler), notes


def train(args):
    """Run all epochs; returns the exit code."""
    kernels.keep_memory()
    device = choose_device(args)
    if int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) > 1:
        if device == "cpu":  # Paddle would try NCCL
            os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
        dist.init_parallel_env()
    first, world = dist.get_rank() == 0, dist.get_world_size()
    output = Path(args.output)
    held = claim(output, args.resume) if first else None  # noqa: F841, until this function ends
    samples, sets = make_samples(args), validation_sets(args.data_root, "val", args.seed)
    for dataset in sets.values():  # a broken photo is found now and not after an epoch
        for index in range(len(dataset)):
            dataset.photo(index)
    teacher = args.teacher and Teacher(
        load_teacher(args.teacher), args.teacher_share, samples.pairs, args.taught
    )
    run, notes = make_run(args)
    run.photos = samples.digest()
    if args.resume:
        notes += run.load(args, output)
    if first:
        write_json(output / "args.json", vars(args))
        print(*samples.notes, *notes, sep="\n")
        told = ", ".join(f"{len(each)} of {name}" for name, each in sets.items())
        print(f"Training on {device}: {len(samples)} photos; to validate {told}.")
        kind = "averaged" if args.ema else "raw"
        print(f"{count_parameters(run.model):,} parameters; checkpoints hold {kind} weights.")
    writer = LogWriter(str(output / "visualdl")) if first else None
    stop = StopRequest()

    while run.epoch < args.epoch:
        try:
            result = train_one_epoch(run, args, samples, teacher, writer, stop)
        except (OSError, ValueError):  # a photo cannot be read: once it is mended, --resume goes on
            if first:
                run.save(args, output)
            raise
        if stop.asked:
            if first:
                run.save(args, output)
                print(
                    f"Stopped at epoch {run.epoch} iter {run.batch}; --resume goes on from there."
                )
            return STOPPED
        if world > 1:  # each process kept the BatchNorm statistics of its own share
            for model in filter(None, (run.model, run.average)):
                all_reduce_mean([t for t in model.state_dict().values() if t.stop_gradient])
        if first:
            started = time.perf_counter()
            result |= validate(run.evaluated, sets)
            run.seconds += time.perf_counter() - started
            finish_epoch(run, result, args, output)
            log_epoch(writer, run, next(iter(sets.values())))
        run.epoch, run.batch, run.sums, run.seconds = run.epoch + 1, 0, {}, 0.0
        if first:
            run.save(args, output)
    if first:
        print(ending(run, args, output))
    return 0


def finish_epoch(run, result, args, output):
    """Print the epoch and write its checkpoint, the best one, the log and the curves."""
    loss, rate, seconds = result["loss"]["total"], result["photos_per_second"], run.seconds
    pixels = np.square(args.sizes)  # an epoch's time goes with its pixels
    left = int(seconds * pixels[run.epoch + 1 :].sum() / pixels[run.epoch] / 60)
    told = f"{rate:.2f} photos/s, {seconds:.0f} s, about {left // 60}:{left % 60:02} h to go"
    print(f"epoch {run.epoch} loss:{loss:.4f}, {told}", flush=True)
    for name, summary in result["val"].items():
        told = "acc: {accuracy:.4f}, miou: {miou_raw:.4f}, person iou: {person_iou_smoothed:.4f}"
        print(f"eval {name}: {told}, boundary iou: {{boundary_iou:.4f}}".format(**summary))
    weights = run.evaluated.state_dict()
    save_atomically(weights, output / f"model_{run.epoch}.pdparams")
    if result["mean_person_iou"] > run.best:
        run.best = result["mean_person_iou"]
        save_atomically(weights, output / "best.pdparams")
    head = {"epoch": run.epoch, "size": args.sizes[run.epoch], "seconds": round(seconds, 1)}
    run.history.append(head | result)
    # Rewritten whole, so that a killed and resumed run repeats no line.
    lines = "".join(json.dumps(line) + "\n" for line in run.history)
    write_whole(output / "log.jsonl", lines.encode())
    write_whole(output / "curves.svg", draw_curves(run.history).encode())


def ending(run, args, output):
    """What the user has now and may do next, a few lines."""
    best = max(run.history, key=lambda line: line["mean_person_iou"])
    scores = ", ".join(f"{name} {each[SELECTION]:.4f}" for name, each in best["val"].items())
    path, curves = output / "best.pdparams", output / "curves.svg"
    return f"""Done. Epoch {best["epoch"]} of {len(run.history)} is the best, with a person IoU of:
  {scores} (validation photos)
  {path}   its weights
  {curves}   loss and scores of every epoch, for a browser
Next:
  python evaluate.py --model_path {path} --split val --data_root {shlex.join(args.data_root)}
  python predict.py photo.jpg --model_path {path}"""


@command("train.py")
def main(argv=None):
    args = parse_args(argv)
    if args.procs > 1 and "PADDLE_TRAINER_ID" not in os.environ:
        flags = sys.argv[1:] if argv is None else argv
        return launch(__file__, flags, args.procs, f"{args.output}/launcher")
    # Names from zero: the optimiser's state must not depend on what was built before.
    with paddle.utils.unique_name.guard():
        return train(args)


if __name__ == "__main__":
    sys.exit(main())
