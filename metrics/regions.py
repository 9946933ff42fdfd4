"""Segmentation scores: integer counts first, one ratio last, each named with its protocol.

A prediction and a mask are 0/1 arrays of one shape. A ratio of nothing to nothing is 1: a photo
without a person in which none is found is right, as in the official code; one false pixel there
makes an IoU of 0.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.images import Mask


def ratio(part, whole):
    """part / whole in float64, and 1 where the whole is 0; numbers or arrays."""
    whole = np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)[()]


def batch_counts(
    prediction: np.ndarray, mask: np.ndarray, ignore: int | None = 255
) -> NDArray[np.int64]:
    """The four counts of each photo, from which every score of regions is made.

    Args:
        prediction: (N, ...) bool or 0/1 of any dtype.
        mask: (N, ...) 0/1, the same shape.
        ignore: value of the mask's pixels that do not count.

    Returns:
        (N, 4) int64 pixels: background found, background called person, person missed, person
        found. Sum over axis 0 for the whole set.

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
    # Each pixel must be in one cell; np.unique is slow, so it only words the error.
    if np.sum(counts) + np.count_nonzero(mask == ignore) != mask.size:
        raise ValueError(
            f"the prediction holds {np.unique(prediction)[:5]} and the mask {np.unique(mask)[:5]}: "
            f"allowed are 0 and 1, and {ignore} in the mask for a pixel that does not count"
        )
    return np.stack(counts, axis=1).astype(np.int64)


def confusion(
    prediction: np.ndarray, mask: np.ndarray, ignore: int | None = 255
) -> NDArray[np.int64]:
    """As `batch_counts`, over all pixels of arrays of any shape at once: (4,) int64."""
    return batch_counts(np.asarray(prediction)[None], np.asarray(mask)[None], ignore)[0]


def pixel_accuracy(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of right pixels; counts (..., 4) -> float64 (...)."""
    return ratio(counts[..., 0] + counts[..., 3], counts.sum(-1))


def person_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection of the predicted and the true person over their union; (..., 4) -> (...)."""
    return ratio(counts[..., 3], counts[..., 1:].sum(-1))


def mean_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of the person's and the background's IoU; counts (..., 4) -> float64 (...)."""
    return (person_iou(counts) + person_iou(counts[..., ::-1])) / 2


def smooth_mask(mask: Mask) -> Mask:
    """Each pixel becomes what at least 13 of the 25 pixels around it are.

    Args:
        mask: (H, W) uint8 0/1, letterboxed already; mirrored beyond its border.

    Returns:
        (H, W) uint8 0/1.

    Source: PortraitNet's published data loader, which smooths the test masks too.
    """
    return (cv2.boxFilter(mask, -1, (5, 5), normalize=False) >= 13).astype(np.uint8)
