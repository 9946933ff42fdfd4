"""Region scores: integer counts first, one ratio last.

A prediction and a mask are 0/1 arrays of one shape. The ratio 0 / 0 is 1, as in the official code:
an empty prediction for a photo without a person is right, one false pixel there gives an IoU of 0.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from portraitnet.images import Mask


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """part / whole, and 1 where `whole` is 0.

    Args:
        part, whole: numbers or arrays of one shape.

    Returns:
        float64 of that shape.
    """
    whole = np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)[()]


def batch_counts(
    prediction: np.ndarray, mask: np.ndarray, ignore: int | None = 255
) -> NDArray[np.int64]:
    """The confusion counts of each photo, from which every region score follows.

    Args:
        prediction: (N, ...) bool or 0/1 of any dtype.
        mask: (N, ...) 0/1, the same shape.
        ignore: mask value of ignored pixels; None if there are none.

    Returns:
        (N, 4) int64 pixels: true background, false person, false background, true person. Their
        sum over axis 0 gives the counts of the whole set.

    Raises:
        ValueError: the shapes differ, or a value is not 0, 1 or (in the mask) `ignore`.
    """
    prediction, mask = np.asarray(prediction), np.asarray(mask)
    if prediction.shape != mask.shape:
        raise ValueError(
            f"the prediction {prediction.shape} and the mask {mask.shape} differ in shape: "
            "bring both to one size first"
        )
    prediction, mask = prediction.reshape(len(mask), -1), mask.reshape(len(mask), -1)
    called = {0: prediction == 0, 1: prediction == 1}
    true = {0: mask == 0, 1: mask == 1}
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    counts = [np.count_nonzero(true[t] & called[c], axis=1) for t, c in cells]
    # Each pixel must be in one cell. np.unique is slow, so only the error message uses it.
    if np.sum(counts) + np.count_nonzero(mask == ignore) != mask.size:
        raise ValueError(
            f"the prediction holds {np.unique(prediction)[:5]} and the mask {np.unique(mask)[:5]}: "
            f"allowed are 0 and 1, and {ignore} in the mask for an ignored pixel"
        )
    return np.stack(counts, axis=1).astype(np.int64)


def confusion(
    prediction: np.ndarray, mask: np.ndarray, ignore: int | None = 255
) -> NDArray[np.int64]:
    """The four counts of `batch_counts` over all pixels of arrays of any shape.

    Args and errors: see `batch_counts`, without the leading axis.

    Returns:
        (4,) int64 pixels.
    """
    return batch_counts(np.asarray(prediction)[None], np.asarray(mask)[None], ignore)[0]


def pixel_accuracy(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fraction of right pixels: counts (..., 4) int64 -> (...) float64, 0..1."""
    return ratio(counts[..., 0] + counts[..., 3], counts.sum(-1))


def person_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The person's intersection over union: counts (..., 4) int64 -> (...) float64, 0..1."""
    return ratio(counts[..., 3], counts[..., 1:].sum(-1))


def mean_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean IoU of person and background: counts (..., 4) int64 -> (...) float64, 0..1."""
    return (person_iou(counts) + person_iou(counts[..., ::-1])) / 2


def smooth_mask(mask: Mask) -> Mask:
    """Majority vote in a 5x5 window: person where at least 13 of 25 pixels are person.

    Args:
        mask: (H, W) uint8 0/1, letterboxed already; the border is mirrored.

    Returns:
        (H, W) uint8 0/1.

    Source: PortraitNet's published data loader, which smooths the test masks too.
    """
    return (cv2.boxFilter(mask, -1, (5, 5), normalize=False) >= 13).astype(np.uint8)
