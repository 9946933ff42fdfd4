"""What changes from epoch to epoch: sizes, learning rate, deformation, order of the photos."""

import math

import numpy as np


def epoch_sizes(schedule, size, epochs):
    """The size of each epoch: epoch_sizes("128:2", 224, 3) = [128, 128, 224]."""
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


def parse_aspects(aspects):
    """["4:3", "1:1"] -> [(4.0, 3.0), (1.0, 1.0)]."""
    parsed = []
    for aspect in aspects:
        try:
            height, width = map(float, aspect.split(":"))
            if not (math.isfinite(height / width) and height > 0 and width > 0):
                raise ValueError
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"--aspects wants HEIGHT:WIDTH such as 4:3, not {aspect!r}") from None
        parsed.append((height, width))
    return parsed


def learning_rate(epoch, args):
    """Learning rate at a fractional epoch: linear warm-up, then the schedule."""
    if epoch < args.warmup:
        return args.lr * (epoch + 1e-3) / args.warmup
    if args.schedule == "step":
        return args.lr * 0.95 ** (int(epoch) // 20)
    if args.schedule == "constant":
        return args.lr
    done = (epoch - args.warmup) / max(args.epoch - args.warmup, 1e-3)
    return args.lr * 0.5 * (1 + math.cos(math.pi * done))


def deformation_strength(epoch, args):
    """Share of rotation, scale and shift in an epoch: from 1 evenly to --final_strength.

    Photos to be judged stand upright and whole: the last epochs look more and more like them.
    """
    return 1 + (args.final_strength - 1) * epoch / max(args.epoch - 1, 1)


def epoch_steps(count, batch_size, shapes, seed, epoch):
    """The steps of one epoch: shuffled indices in lists of `batch_size`, each with a view's shape.

    A last short batch is dropped, unless it is the only one.

    Args:
        count: photos.
        shapes: list of (height, width) to draw from.

    Returns:
        list of ((height, width), list of indices).
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(count).tolist()
    batches = [order[i : i + batch_size] for i in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    return [(shapes[rng.integers(len(shapes))], indices) for indices in batches]
