"""Boundary scores: how exactly a mask's contour follows the true one."""

import cv2
import numpy as np
from numpy.typing import NDArray

from metrics.regions import confusion, person_iou, ratio
from portraitnet.images import Mask

SIGMA = 5.0  # px of the letterboxed 224 square, of the boundary weight
BAND = 0.02  # width of boundary IoU's band, as a fraction of the photo's diagonal
TOLERANCE = 0.0075  # distance at which boundaries match, as a fraction of the photo's diagonal


def distance_to_boundary(mask: Mask) -> NDArray[np.float32]:
    """Distance of each pixel's centre to the line between person and background.

    The photo's frame is not a boundary. Without a boundary all distances are infinite.

    Args:
        mask: (H, W) uint8 0/1.

    Returns:
        (H, W) float32, px, at least 0.5.
    """
    if mask.all() or not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return distance_to_zero(mask) + distance_to_zero(1 - mask) - 0.5


def distance_to_zero(mask: Mask) -> NDArray[np.float32]:
    """Distance of each pixel to the nearest zero.

    The last digit of OpenCV's result depends on the mask's memory address. The squared distance is
    an integer, so rounding the square makes the result exact.

    Args:
        mask: (H, W) uint8 0/1.

    Returns:
        (H, W) float32, px.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(distance * distance))


def boundary_weighted_iou(prediction: Mask, mask: Mask, sigma: float = SIGMA) -> float:
    """Person IoU where a pixel at distance d from the true boundary weighs exp(-d^2 / 2 sigma^2).

    A smaller sigma gives the boundary more weight. Without a boundary this is the plain IoU.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1.
        sigma: px.

    Returns:
        float 0..1.

    Source: PortraitNet section 4 weighs each pixel by its distance to the boundary, with a
        parameter sigma. Its code is not published. The Gaussian and the value of sigma are our
        interpretation, so compare only figures of this project.
    """
    prediction, mask = np.asarray(prediction, bool), np.asarray(mask, np.uint8)
    distance = distance_to_boundary(mask)
    if np.isinf(distance[0, 0]):
        return float(person_iou(confusion(prediction, mask)))
    weight = np.exp(-(distance**2) / (2 * sigma**2))
    overlap, union = prediction & (mask == 1), prediction | (mask == 1)
    return float(ratio(weight[overlap].sum(), weight[union].sum()))


def boundary_band(mask: Mask, width: int, frame: bool = False) -> Mask:
    """The person's pixels within `width` px (chessboard distance) of a background pixel.

    Args:
        mask: (H, W) bool or uint8 0/1.
        width: px, at least 1.
        frame: whether the outside of the photo counts as background, so that the photo's frame is
            a boundary.

    Returns:
        (H, W) uint8 0/1.
    """
    mask = np.asarray(mask, np.uint8)
    outside = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0 if frame else 1}
    return mask - cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width, **outside)


def boundary_iou(prediction: Mask, mask: Mask, frame: bool = False) -> float:
    """IoU of the inner boundary bands of prediction and mask.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1, at the photo's size.
        frame: whether the photo's frame counts as boundary, as in the published code. That part of
            the boundary is nearly always right and adds about ten points on EG1800.

    Returns:
        float 0..1.

    Source: Cheng et al., "Boundary IoU", CVPR 2021; band 2 % of the diagonal, at least 1 px.
    """
    width = max(1, round(BAND * float(np.hypot(*mask.shape))))
    bands = [boundary_band(m, width, frame) for m in (prediction, mask)]
    return float(person_iou(confusion(*bands)))


def boundary_f_score(prediction: Mask, mask: Mask, frame: bool = False) -> float:
    """Harmonic mean of the boundary's precision and recall within a tolerance.

    Precision is the fraction of predicted boundary pixels with a true one within the tolerance,
    recall the reverse. If neither mask has a boundary the score is 1, if only one has, 0.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1, at the photo's size.
        frame: whether the photo's frame counts as boundary.

    Returns:
        float 0..1.

    Source: Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
        2013; tolerance 0.75 % of the diagonal, at least 1 px.
    """
    tolerance = max(1.0, TOLERANCE * float(np.hypot(*mask.shape)))
    found, true = (boundary_band(m, 1, frame) for m in (prediction, mask))
    if not (found.any() and true.any()):
        return float(found.any() == true.any())
    near_found, near_true = (distance_to_zero(1 - line) <= tolerance for line in (found, true))
    precision = np.count_nonzero(near_true & (found == 1)) / np.count_nonzero(found)
    recall = np.count_nonzero(near_found & (true == 1)) / np.count_nonzero(true)
    return 2 * precision * recall / max(precision + recall, 1e-12)
