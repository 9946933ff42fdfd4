"""Train PortraitNet: python train.py --epoch 60 --lr 0.001 --batch_size 32 --data_root EG1800/"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import paddle.distributed as dist
from tqdm import tqdm
from visualdl import LogWriter

import kernels
from backends import runner
from dataset import PortraitDataset, default_cache_dir, load_batches
from effects import overlay
from images import write_json, write_whole
from losses import portrait_loss
from metrics import batch_counts, mean_iou, person_iou, pixel_accuracy
from models import PortraitNet, count_parameters
from models.weights import load_pretrained, load_state, load_whole, save_atomically
from transforms import SIZE, to_batch

RESUME_FILE = "resume.pdstate"  # all that --resume needs; the epoch's weights lie beside it


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    add("--output", default="output", help="folder of checkpoints and logs")
    add("--resume", action="store_true", help="go on where the run in --output stopped")
    add(
        "--pretrained",
        nargs="+",
        default=["none"],
        help="none, imagenet, or a .pdparams file to start from; of several, their mean",
    )
    add("--epoch", type=int, default=60, help="epochs in all")
    add("--batch_size", type=int, default=32, help="photos a step, over all processes")
    add("--size", type=int, default=SIZE, help="side of the training square, pixels")
    add("--size_schedule", default="", help="smaller squares first, SIZE:EPOCHS,..: 128:8,160:4")
    add("--width", type=float, default=1.0, help="channel multiplier of the network")
    add("--lr", type=float, default=0.001, help="peak learning rate")
    add("--encoder_lr", type=float, default=1.0, help="the encoder's rate as a multiple of --lr")
    add("--warmup", type=float, default=0.5, help="epochs of linear warm-up")
    add("--schedule", choices=["cosine", "step", "constant"], default="cosine", help="of --lr")
    add("--weight_decay", type=float, default=5e-4, help="AdamW's, on convolution weights only")
    add("--ema", type=float, default=0.999, help="decay of the averaged weights; 0: none")
    add("--edge_weight", type=float, default=0.1, help="weight of the boundary focal loss")
    add("--consistency_weight", type=float, default=1.0, help="weight of the consistency KL")
    add("--temperature", type=float, default=1.0, help="temperature of the consistency KL")
    add("--boundary_weight", type=float, default=0.0, help="extra mask loss of edge pixels")
    add("--dice_weight", type=float, default=0.0, help="weight of a soft dice term on the mask")
    add("--backgrounds", help="folder of person-free photos; every tenth is left out")
    add("--background_prob", type=float, default=0.0, help="share of swapped backgrounds")
    add("--empty_share", type=float, default=0.0, help="share of samples without a person")
    add("--cache_dir", default=str(default_cache_dir()), help="for decoded photos; '': none")
    add("--cache_gb", type=float, default=8.0, help="bound of that folder, GB")
    add("--rotation", type=float, default=45, help="largest rotation, degrees")
    add("--scale", type=float, nargs=2, default=(0.5, 1.5), help="range of the scaling")
    add("--shift", type=float, default=0.25, help="largest shift, as a share of the square")
    add("--final_strength", type=float, default=1.0, help="share of these three at the last epoch")
    add("--texture_prob", type=float, default=1.0, help="share of samples in other light")
    add("--seed", type=int, default=0, help="of weights, order and augmentation")
    add("--num_workers", type=int, default=2, help="processes that read and augment; 0: none")
    add("--procs", type=int, default=1, help="training processes on this machine")
    add("--device", choices=["auto", "cpu", "gpu"], default="auto", help="auto: a GPU if there")
    add("--amp", action="store_true", help="mixed precision: a GPU, or a CPU with AVX512-BF16")
    add("--val_interval", type=int, default=1, help="epochs between validations")
    add("--log_iter", type=int, default=10, help="iterations between log lines")
    args = parser.parse_args(argv)
    if args.size % 32 or args.size < 32:
        parser.error(f"--size must be a multiple of 32, not {args.size}")
    try:
        args.sizes = epoch_sizes(args.size_schedule, args.size, args.epoch)
    except ValueError as error:
        parser.error(str(error))
    return args


def epoch_sizes(schedule, size, epochs):
    """The training square of each epoch: epoch_sizes("128:2", 224, 3) = [128, 128, 224]."""
    sizes = []
    for part in filter(None, schedule.split(",")):
        try:
            side, count = map(int, part.split(":"))
        except ValueError:
            raise ValueError(f"--size_schedule wants SIZE:EPOCHS,..., not {schedule!r}") from None
        if side % 32 or side < 32:
            raise ValueError(f"--size_schedule needs multiples of 32, not {side}")
        sizes += [side] * count
    return (sizes + [size] * epochs)[:epochs]


def learning_rate(epoch, args):
    """Learning rate at a fractional epoch: linear warm-up, then the schedule."""
    if epoch < args.warmup:
        return args.lr * (epoch + 1e-3) / args.warmup
    if args.schedule == "step":
        return args.lr * 0.95 ** (int(epoch) // 20)
    if args.schedule == "constant":
        return args.lr
    return (
        args.lr
        * 0.5
        * (1 + math.cos(math.pi * (epoch - args.warmup) / max(args.epoch - args.warmup, 1e-3)))
    )


def deformation_strength(epoch, args):
    """Share of rotation, scale and shift in an epoch: from 1 evenly to --final_strength.

    Photos to be judged stand upright and whole: the last epochs look more and more like them.
    """
    return 1 + (args.final_strength - 1) * epoch / max(args.epoch - 1, 1)


def epoch_batches(count, batch_size, seed, epoch):
    """Shuffled indices of one epoch in lists of `batch_size`.

    A last short batch is dropped, unless it is the only one.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count).tolist()
    batches = [order[i : i + batch_size] for i in range(0, count, batch_size)]
    return batches if len(batches) == 1 or len(batches[-1]) == batch_size else batches[:-1]


def make_optimizer(model, args):
    """AdamW; weight decay on convolution weights alone, the encoder at its own learning rate."""
    decayed = {p.name for p in model.parameters() if p.ndim > 1}
    encoder = [p for p in model.encoder.parameters() if not p.stop_gradient]
    encoder_names = {p.name for p in encoder}
    others = [p for p in model.parameters() if not p.stop_gradient and p.name not in encoder_names]
    return paddle.optimizer.AdamW(
        learning_rate=args.lr,
        parameters=[{"params": encoder, "learning_rate": args.encoder_lr}, {"params": others}],
        weight_decay=args.weight_decay,
        apply_decay_param_fun=lambda name: name in decayed,
    )


def update_average(average, model, decay, step):
    """Move averaged weights and BatchNorm statistics towards the model's; at first further."""
    decay = min(decay, (1 + step) / (10 + step))
    means, values = (list(network.state_dict().values()) for network in (average, model))
    kernels.move_average(means, values, 1 - decay)


def all_reduce_mean(tensors):
    """Average a list of tensors over the processes, in one message."""
    with paddle.no_grad():
        flat = paddle.concat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = paddle.split(flat / dist.get_world_size(), [int(np.prod(t.shape)) for t in tensors])
        for tensor, part in zip(tensors, parts):
            tensor.copy_(part.reshape(tensor.shape), False)


def is_first_process():
    return dist.get_rank() == 0


class StopRequest:
    """Ctrl-C or SIGTERM: stop after the running iteration; a second Ctrl-C: at once."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGINT, self.ask)
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, number, frame):
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train_one_epoch(run, epoch, args, dataset, writer, stop):
    """One pass over the training photos.

    Args:
        run: what `build_run` made; `batch` iterations of this epoch were done before a resume.

    Returns:
        {"loss": mean of each term, "images_per_second": float, "data_wait": share of the time}.

    Raises:
        FloatingPointError: the loss is not finite; every term is named.
    """
    model, optimizer = run["model"], run["optimizer"]
    model.train()
    rank, world = dist.get_rank(), dist.get_world_size()
    batches = epoch_batches(len(dataset), args.batch_size, args.seed, epoch)
    own = [batch[rank::world] for batch in batches[run["batch"] :]]
    bar = tqdm(total=len(batches), initial=run["batch"], desc=f"epoch {epoch}", disable=rank > 0)
    sums, waited, images, started = {}, 0.0, 0, time.perf_counter()
    loader = load_batches(dataset, own, args.num_workers)
    for _ in own:
        asked = time.perf_counter()
        sample = next(loader)
        waited += time.perf_counter() - asked
        lr = learning_rate(epoch + run["batch"] / len(batches), args)
        optimizer.set_lr(lr)
        mask_logits, terms = forward(model, sample, args)
        backward_and_step(terms["total"], run, world, stop)
        if run["average"] is not None:
            update_average(run["average"], model, args.ema, run["step"])

        run["step"] += 1
        run["batch"] += 1
        images += args.batch_size if len(batches) > 1 else len(dataset)
        # Sums stay tensors: reading them would make a GPU wait in every iteration.
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.detach()
        if run["batch"] % args.log_iter == 0 or run["batch"] == len(batches):
            values = finite_values(terms, epoch, run["batch"])
            if rank == 0:
                rate = images / (time.perf_counter() - started)
                log_iteration(run, values | {"lr": lr}, mask_logits, sample, rate, bar, writer)
        bar.update()
        if stop.asked:
            break
    loader.close()
    bar.close()
    seconds = time.perf_counter() - started
    return {
        "loss": {name: value.item() / max(len(own), 1) for name, value in sums.items()},
        "images_per_second": images / seconds,
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
    terms = portrait_loss(
        mask_logits.astype("float32"),
        edge_logits.astype("float32"),
        paddle.to_tensor(mask),
        paddle.to_tensor(edge),
        edge_weight=args.edge_weight,
        consistency_weight=args.consistency_weight,
        temperature=args.temperature,
        boundary_weight=args.boundary_weight,
        dice_weight=args.dice_weight,
    )
    return mask_logits, terms


def backward_and_step(loss, run, world, stop):
    """Backward pass, gradients averaged over the processes, optimiser step.

    A stop that one process was asked for travels with the gradients, so that all stop together.
    """
    optimizer, scaler = run["optimizer"], run["scaler"]
    (loss if scaler is None else scaler.scale(loss)).backward()
    if world > 1:
        asked = paddle.to_tensor([float(stop.asked)])
        gradients = [p.grad for p in run["model"].parameters() if p.grad is not None]
        all_reduce_mean([*gradients, asked])
        stop.asked = asked.item() > 0
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.clear_grad()


def finite_values(terms, epoch, batch):
    """The loss terms as floats; FloatingPointError with all of them if the total is not finite."""
    values = {name: term.item() for name, term in terms.items()}
    if not math.isfinite(values["total"]):
        told = ", ".join(f"{name} {value}" for name, value in values.items())
        raise FloatingPointError(
            f"The loss is not finite at epoch {epoch} iter {batch - 1} ({told}); lower --lr."
        )
    return values


def log_iteration(run, values, mask_logits, sample, rate, bar, writer):
    """The report's line, the bar's figures and VisualDL's curves, from the augmented half."""
    mask = sample[2]
    counts = batch_counts(mask_logits[-len(mask) :].argmax(1).numpy(), mask).sum(0)
    accuracy, miou = pixel_accuracy(counts), mean_iou(counts)
    told = f"loss:{values['total']:.4f} , acc: {accuracy:.4f}, miou: {miou:.4f}"
    tqdm.write(f"iter {run['batch'] - 1} {told}")
    bar.set_postfix_str(f"{told}, {rate:.1f} images/s")
    for name, value in (values | {"accuracy": accuracy, "mean_iou": miou}).items():
        writer.add_scalar(f"train/{name}", value, run["step"])


def validate(model, dataset, batch_size, num_workers):
    """Accuracy, two-class mIoU and mean person IoU of the letterboxed validation photos.

    The truth is the raw mask; evaluate.py has every protocol.
    """
    model.eval()
    rank, world = dist.get_rank(), dist.get_world_size()
    own = list(range(rank, len(dataset), world))
    batches = [own[i : i + batch_size] for i in range(0, len(own), batch_size)]
    totals = np.zeros(6)  # confusion counts, sum of the person IoUs, photos
    for image, _, mask, _ in load_batches(dataset, batches, num_workers):
        with paddle.no_grad():
            logits = model.mask_logits(paddle.to_tensor(to_batch(image)))
        counts = batch_counts(logits.argmax(1).numpy(), mask)
        totals += [*counts.sum(0), person_iou(counts).sum(), len(counts)]
    if world > 1:
        totals = paddle.to_tensor(totals)
        dist.all_reduce(totals)
        totals = totals.numpy()
    counts = totals[:4]
    return {
        "accuracy": float(pixel_accuracy(counts)),
        "mean_iou": float(mean_iou(counts)),
        "person_iou": float(totals[4] / totals[5]),
    }


def draw_panel(model, dataset, count=8):
    """First validation photos with the predicted mask over them, side by side, RGB."""
    photos = [dataset[i][0] for i in range(min(count, len(dataset)))]
    pictures = map(overlay, photos, runner(model)(to_batch(photos)))
    return np.hstack(list(pictures))[:, :, ::-1]


def save_run(run, epoch, best, args, output):
    """Write what --resume needs to go on bit for bit: weights, optimiser, place in the run."""
    state = {
        "model": run["model"].state_dict(),
        "average": run["average"].state_dict() if run["average"] is not None else None,
        "optimizer": run["optimizer"].state_dict(),
        "scaler": run["scaler"].state_dict() if run["scaler"] is not None else None,
        "place": {k: run[k] for k in ("batch", "step", "history")} | {"epoch": epoch, "best": best},
        "args": vars(args),
    }
    save_atomically(state, output / RESUME_FILE)


def load_run(run, output):
    """Put the state of `save_run` back into a run; returns (epoch, best).

    Raises:
        FileNotFoundError: there is nothing to resume in `output`.
        ValueError: its file is damaged or of another network.
    """
    path = output / RESUME_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path} to resume from; start without --resume or name the run's --output."
        )
    state = load_whole(path)
    load_state(run["model"], state["model"], path)
    if run["average"] is not None:
        if state["average"] is None:
            raise ValueError(
                f"The run in {output} kept no averaged weights; resume it with --ema 0."
            )
        load_state(run["average"], state["average"], path)
    run["optimizer"].set_state_dict(state["optimizer"])
    if run["scaler"] is not None:
        run["scaler"].load_state_dict(state["scaler"])
    place = state["place"]
    run["batch"], run["step"], run["history"] = place["batch"], place["step"], place["history"]
    return place["epoch"], place["best"]


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


def build_run(args):
    """Model, averaged copy, optimiser, scaler and place of a fresh run, in one dict."""
    paddle.seed(args.seed)
    model = PortraitNet(width=args.width)
    neighbours = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))
    threads = max(1, kernels.core_count() // neighbours)
    on_cpu = paddle.device.get_device() == "cpu"
    notes = [load_pretrained(model, *args.pretrained)]
    notes.append(kernels.accelerate(model, threads, half=args.amp and on_cpu))
    average = None
    if args.ema:
        average = PortraitNet(width=args.width)
        average.set_state_dict(model.state_dict())
        kernels.accelerate(average, threads)
    scaler = paddle.amp.GradScaler() if args.amp and not on_cpu else None
    run = {
        "model": model,
        "average": average,
        "optimizer": make_optimizer(model, args),
        "scaler": scaler,
    }
    return run | {"step": 0, "batch": 0, "history": []}, notes


def train(args):
    """Run all epochs; returns the exit code."""
    kernels.keep_memory()
    device = choose_device(args)
    if int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) > 1:
        if device == "cpu":  # Paddle would try NCCL
            os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
        dist.init_parallel_env()
    first, world = is_first_process(), dist.get_world_size()
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    if not args.resume and (output / RESUME_FILE).exists():
        raise FileExistsError(
            f"{output} holds another run; go on with --resume or name another --output."
        )

    augmentation = {
        "rotation": args.rotation,
        "scale": tuple(args.scale),
        "shift": args.shift,
        "texture_prob": args.texture_prob,
        "backgrounds": args.backgrounds,
    }
    augmentation |= {"background_prob": args.background_prob, "empty_share": args.empty_share}
    cache = {"cache_dir": args.cache_dir or None, "cache_gb": args.cache_gb}
    dataset = PortraitDataset(
        args.data_root, "train", augment=True, seed=args.seed, **augmentation, **cache
    )
    validation = PortraitDataset(args.data_root, "val", size=args.size, seed=args.seed)
    run, notes = build_run(args)
    start, best = load_run(run, output) if args.resume else (0, 0.0)
    if first:
        write_json(output / "args.json", vars(args))
        print(*dataset.notes, *notes, sep="\n")
        print(f"Training on {device}: {len(dataset)} photos, {len(validation)} to validate.")
        kind = "averaged" if args.ema else "raw"
        print(f"{count_parameters(run['model']):,} parameters; checkpoints hold {kind} weights.")
    writer = LogWriter(str(output / "visualdl")) if first else None
    stop = StopRequest()
    evaluated = run["average"] if args.ema else run["model"]

    for epoch in range(start, args.epoch):
        started = time.perf_counter()
        dataset.set_epoch(epoch)
        dataset.size = args.sizes[epoch]
        dataset.strength = deformation_strength(epoch, args)
        result = train_one_epoch(run, epoch, args, dataset, writer, stop)
        if stop.asked:
            if first:
                save_run(run, epoch, best, args, output)
                print(f"Stopped at epoch {epoch} iter {run['batch']}; --resume goes on from there.")
            return 130
        run["batch"] = 0
        if world > 1:  # each process kept the BatchNorm statistics of its own share
            for model in filter(None, (run["model"], run["average"])):
                all_reduce_mean([t for t in model.state_dict().values() if t.stop_gradient])
        if (epoch + 1) % args.val_interval == 0 or epoch + 1 == args.epoch:
            result |= validate(evaluated, validation, args.batch_size, args.num_workers)
        if first:
            best = finish_epoch(
                run, epoch, best, result, time.perf_counter() - started, args, output
            )
            log_epoch(writer, epoch, result, evaluated, validation)
    return 0


def finish_epoch(run, epoch, best, result, seconds, args, output):
    """Print the epoch and write its checkpoint, log and resume state; returns the best mIoU."""
    loss, rate = result["loss"].get("total", 0.0), result["images_per_second"]
    pixels = np.square(args.sizes)  # an epoch's time goes with its pixels
    left = seconds * pixels[epoch + 1 :].sum() / pixels[epoch] / 60
    told = f"{rate:.2f} images/s, {seconds:.0f} s, about {left:.0f} min to go"
    print(f"epoch {epoch} loss:{loss:.4f}, {told}", flush=True)
    weights = (run["average"] if args.ema else run["model"]).state_dict()
    save_atomically(weights, output / f"model_{epoch}.pdparams")
    if "mean_iou" in result:
        print(
            "eval: acc: {accuracy:.4f}, miou: {mean_iou:.4f}, person iou: {person_iou:.4f}".format(
                **result
            )
        )
        if result["mean_iou"] > best:
            best = result["mean_iou"]
            save_atomically(weights, output / "best.pdparams")
    run["history"].append(
        {"epoch": epoch, "size": args.sizes[epoch], "seconds": round(seconds, 1)} | result
    )
    write_log(run["history"], output / "log.jsonl")
    save_run(run, epoch + 1, best, args, output)
    return best


def write_log(history, path):
    """One JSON line an epoch; rewritten whole so that a killed and resumed run repeats none."""
    write_whole(path, "".join(json.dumps(line) + "\n" for line in history).encode())


def log_epoch(writer, epoch, result, model, validation):
    """Validation figures and a panel of masks for VisualDL."""
    for name in ("accuracy", "mean_iou", "person_iou"):
        if name in result:
            writer.add_scalar(f"val/{name}", result[name], epoch)
    writer.add_image("val/masks", draw_panel(model, validation), epoch)


def launch(argv, args):
    """Run this command as --procs processes of Paddle's launcher; returns the exit code."""
    command = [sys.executable, "-m", "paddle.distributed.launch"]
    command += ["--nproc_per_node", str(args.procs), "--log_dir", f"{args.output}/launcher"]
    process = subprocess.Popen([*command, __file__, *argv])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the processes hear it too, and save
    if process.wait() == 0:
        return 0
    told = f"A training process ended early, see {args.output}/launcher; go on with --resume."
    print(f"train.py: {told}", file=sys.stderr)
    return 1


def main(argv=None):
    args = parse_args(argv)
    if args.procs > 1 and "PADDLE_TRAINER_ID" not in os.environ:
        return launch(sys.argv[1:] if argv is None else argv, args)
    try:
        # Names from zero: the optimiser's state must not depend on what was built before.
        with paddle.utils.unique_name.guard():
            return train(args)
    except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
        if "\n" in str(error):  # Paddle's own errors keep their traceback
            raise
        print(f"train.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
