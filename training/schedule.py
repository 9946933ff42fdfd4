"""The course of a training: input sizes, learning rate, deformation, order of the photos."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from portraitnet.geometry import SIZE, input_shape

# Height to width of the network inputs, drawn evenly for each batch: portraits most of all, but
# also what a phone and a camera see upright and across.
ASPECTS = ((4, 3), (4, 3), (4, 3), (3, 2), (16, 9), (1, 1), (3, 4), (9, 16))
WARMUP = 0.5  # epochs over which the learning rate rises
STEP_EPOCHS, STEP_FACTOR = 20, 0.95  # of the paper's schedule; source: official code


@dataclass(frozen=True)
class Schedule:
    """What changes from epoch to epoch, and what does not.

    Attributes:
        epochs: number of epochs.
        batch_size: photos in a step, over all processes.
        sizes: input size of each epoch, pixels; see `epoch_sizes`.
        lr: peak learning rate.
        lr_schedule: cosine, constant, or step: the paper's, without a warm-up.
        final_geometry: fraction of the ranges of rotation, scale and shift in the last epoch.
        seed: of the order of the photos.
    """

    epochs: int
    batch_size: int
    sizes: tuple[int, ...]
    lr: float
    lr_schedule: str = "cosine"
    final_geometry: float = 1.0
    seed: int = 0

    def learning_rate(self, epoch: float) -> float:
        """Learning rate at a fractional epoch: linear warm-up, then the schedule."""
        if self.lr_schedule == "step":
            return self.lr * STEP_FACTOR ** (int(epoch) // STEP_EPOCHS)
        if epoch < WARMUP:
            return self.lr * (epoch + 1e-3) / WARMUP
        if self.lr_schedule == "constant":
            return self.lr
        done = (epoch - WARMUP) / max(self.epochs - WARMUP, 1e-3)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))

    def geometry_strength(self, epoch: int) -> float:
        """Fraction of the ranges of rotation, scale and shift: from 1 evenly to `final_geometry`.

        Photos to be judged stand upright and whole: the last epochs look more and more like them.
        """
        return 1 + (self.final_geometry - 1) * epoch / max(self.epochs - 1, 1)

    def steps(self, count: int, epoch: int) -> list[tuple[tuple[int, int], list[int]]]:
        """The steps of one epoch: shuffled indices in batches, each with an input shape.

        A last short batch is dropped, unless it is the only one.

        Args:
            count: number of photos.

        Returns:
            list of ((height, width), list of indices).
        """
        shapes = [input_shape(*aspect, self.sizes[epoch]) for aspect in ASPECTS]
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(count).tolist()
        size = self.batch_size
        batches = [order[i : i + size] for i in range(0, count, size)]
        if len(batches) > 1 and len(batches[-1]) < size:
            batches.pop()
        return [(shapes[rng.integers(len(shapes))], indices) for indices in batches]

    @cached_property
    def epoch_costs(self) -> np.ndarray:
        """Each epoch's fraction of the training's time, which goes with its pixels; sums to 1."""
        pixels = np.square(np.array(self.sizes, float))
        return pixels / pixels.sum()


def epoch_sizes(text: str, epochs: int) -> tuple[int, ...]:
    """The input size of each epoch: epoch_sizes("128:2,224", 3) = (128, 128, 224).

    Args:
        text: SIZE, or SIZE:EPOCHS,...,SIZE with smaller sizes for the first epochs.

    Raises:
        ValueError: another form, or a size that is not a multiple of 32.
    """
    sizes = []
    *first, last = text.split(",")
    try:
        if ":" in last:  # every size has its epochs; what is left has the full size
            first, last = [*first, last], SIZE
        for part in first:
            size, count = map(int, part.split(":"))
            sizes += [size] * count
        sizes += [int(last)] * epochs
    except ValueError:
        raise ValueError(f"must be SIZE or SIZE:EPOCHS,...,SIZE, not {text!r}") from None
    if wrong := [size for size in sizes if size < 32 or size % 32]:
        raise ValueError(f"sizes must be multiples of 32, not {wrong[0]}")
    return tuple(sizes[:epochs])
