"""Distance between masks' contours and the photos' edges, and its correction."""

import cv2
import numpy as np
from numpy.typing import NDArray

from metrics import distance_to_boundary
from portraitnet.images import Image, Mask, mask_of

REACH = 4  # px on both sides of a contour in which the photo's edge is searched


def inside_distance(mask: Mask) -> NDArray[np.float32]:
    """Signed distance of each pixel's centre to the contour, negative outside the person.

    Args:
        mask: (H, W) uint8 0/1 with pixels of both kinds.

    Returns:
        (H, W) float32, px, never between -0.5 and 0.5.
    """
    distance = distance_to_boundary(mask)
    return np.where(mask == 1, distance, -distance)


def edge_profile(image: Image, mask: Mask) -> NDArray[np.float64] | None:
    """Mean gradient magnitude of the photo at each distance from the contour.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 0/1.

    Returns:
        (2 * REACH,) float64 0..1: means over all three channels of Lab, from the outermost pixels
        to the innermost, divided by the largest mean. None if the contour is too short.
    """
    if mask.all() or not mask.any():
        return None
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    slopes = [cv2.Scharr(lab, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))]
    change = np.sqrt(sum((slope**2).sum(axis=2) for slope in slopes))
    inner = (slice(REACH, -REACH),) * 2  # the photo's frame is not an edge
    ring = np.floor(inside_distance(mask)[inner]).astype(int) + REACH
    near = (ring >= 0) & (ring < 2 * REACH)
    counts = np.bincount(ring[near], minlength=2 * REACH)
    if counts.min() == 0:
        return None
    means = np.bincount(ring[near], change[inner][near], 2 * REACH) / counts
    return means / max(means.max(), 1e-6)


def contour_offset(profiles: list[NDArray[np.float64]]) -> float:
    """Mean distance by which the contours lie outside the photos' edges.

    The result is the centroid of the mean profile's peak. The profile of one photo is noisy because
    clothes and background have edges too. The mean over 100 photos is exact to about 0.1 px.

    Args:
        profiles: one or more results of `edge_profile`.

    Returns:
        float, px; negative if the contours lie inside the edges.
    """
    mean = np.mean(profiles, axis=0)
    weight = np.maximum(mean - max(mean[0], mean[-1]), 0)
    distance = np.arange(-REACH, REACH) + 0.5
    return float((weight * distance).sum() / max(weight.sum(), 1e-12))


def inset(alpha: NDArray[np.uint8], pixels: float) -> NDArray[np.uint8]:
    """Move a soft mask's contour into the person; its softness stays the same.

    Each pixel takes the value that lies `pixels` outwards, perpendicular to the contour at one
    half. Contours along the photo's frame stay where they are.

    Args:
        alpha: (H, W) uint8 0..255, the soft mask.
        pixels: px; a negative value moves the contour outwards.

    Returns:
        (H, W) uint8 0..255.
    """
    mask = mask_of(alpha)
    if mask.all() or not mask.any():
        return alpha
    # The blur removes the staircase of the pixel grid.
    distance = cv2.GaussianBlur(inside_distance(mask), (0, 0), 1)
    slopes = [cv2.Sobel(distance, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))]
    length = np.maximum(np.hypot(*slopes), 0.2)  # halfway between two contours it is 0
    rows, columns = np.indices(mask.shape, np.float32)
    pixels = np.float32(pixels)
    sources = [place - pixels * slope / length for place, slope in zip((columns, rows), slopes)]
    return cv2.remap(alpha, *sources, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
