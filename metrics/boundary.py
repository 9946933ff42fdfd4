"""How well a mask's contour lies: scores of the pixels near the boundary."""

import cv2
import numpy as np
from numpy.typing import NDArray

from metrics.regions import confusion, person_iou, ratio
from portraitnet.images import Mask

SIGMA = 5.0  # px of the letterboxed 224 square: how fast the boundary weight falls off
BAND = 0.02  # of the photo's diagonal: the width of boundary IoU's band
TOLERANCE = 0.0075  # of the photo's diagonal: how far apart two boundaries may lie


def distance_to_boundary(mask: Mask) -> NDArray[np.float32]:
    """Distance in px of each pixel's centre from the line between person and background.

    The photo's frame is no boundary. Without any boundary all distances are infinite.

    Args:
        mask: (H, W) uint8 0/1.

    Returns:
        (H, W) float32, at least 0.5.
    """
    if mask.all() or not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return distance_to_zero(mask) + distance_to_zero(1 - mask) - 0.5


def distance_to_zero(mask):
    """Each pixel's distance to the nearest zero, px, (H, W) float32.

    OpenCV's last digit depends on where in memory the mask lies; the square is a whole number.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(distance * distance))


def boundary_weighted_iou(prediction: Mask, mask: Mask, sigma: float = SIGMA) -> float:
    """Person IoU where a pixel at distance d from the true boundary weighs exp(-d^2 / 2 sigma^2).

    The smaller sigma, the more the boundary counts. Without a boundary it is the plain IoU.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1.
        sigma: px of these arrays.

    Returns:
        float 0..1.

    Source: PortraitNet section 4, which weighs each pixel by its distance to the boundary, sigma
        saying how fast the weight falls off. No code of it is published: the Gaussian and the
        value of sigma are our reading, so compare only figures made here.
    """
    prediction, mask = np.asarray(prediction, bool), np.asarray(mask, np.uint8)
    distance = distance_to_boundary(mask)
    if np.isinf(distance[0, 0]):
        return float(person_iou(confusion(prediction, mask)))
    weight = np.exp(-(distance**2) / (2 * sigma**2))
    overlap, union = prediction & (mask == 1), prediction | (mask == 1)
    return float(ratio(weight[overlap].sum(), weight[union].sum()))


def boundary_band(mask: Mask, width: int, frame: bool = False) -> Mask:
    """The person's pixels that are within `width` px of a background pixel, also diagonally.

    Args:
        mask: (H, W) bool or uint8 0/1.
        width: px, at least 1.
        frame: take what lies outside the photo for background: its frame is boundary then.

    Returns:
        (H, W) uint8 0/1.
    """
    mask = np.asarray(mask, np.uint8)
    outside = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0 if frame else 1}
    return mask - cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width, **outside)


def boundary_iou(prediction: Mask, mask: Mask, frame: bool = False) -> float:
    """IoU of the bands inside the boundaries of prediction and mask.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1, at the photo's size.
        frame: count the photo's frame as boundary, as the published code does. Where it cuts the
            body that part is nearly always right: it adds about ten points on EG1800.

    Returns:
        float 0..1.

    Source: Cheng et al., "Boundary IoU", CVPR 2021; band 2 % of the diagonal, at least 1 px.
    """
    width = max(1, round(BAND * float(np.hypot(*mask.shape))))
    bands = [boundary_band(m, width, frame) for m in (prediction, mask)]
    return float(person_iou(confusion(*bands)))


def boundary_f_score(prediction: Mask, mask: Mask, frame: bool = False) -> float:
    """Harmonic mean of the boundary's precision and recall within a tolerance.

    Precision is the share of predicted boundary pixels that have a true one within the tolerance,
    recall the reverse. Two masks without boundary score 1, a boundary on one side alone 0.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1, at the photo's size.
        frame: count the photo's frame as boundary.

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
