"""Masks whose contour lies beside the edge that the photo shows: how far, and moved onto it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from metrics import distance_to_boundary
from portraitnet.images import Image, Mask, mask_of

REACH = 4  # px to both sides of a contour in which the photo's edge is looked for


def inside_distance(mask: Mask) -> NDArray[np.float32]:
    """Distance in px of each pixel's centre from the contour, negative outside the person.

    Args:
        mask: (H, W) uint8 0/1 with pixels of both kinds.

    Returns:
        (H, W) float32, never between -0.5 and 0.5.
    """
    distance = distance_to_boundary(mask)
    return np.where(mask == 1, distance, -distance)


def edge_profile(image: Image, mask: Mask) -> NDArray[np.float64] | None:
    """How much the photo changes at each distance from the contour.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 0/1.

    Returns:
        2 * REACH means of the gradient's length in Lab (all three channels), from the outermost
        pixels to the innermost, divided by the largest; None where the contour is too short.
    """
    if mask.all() or not mask.any():
        return None
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    slopes = [cv2.Scharr(lab, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1))]
    change = np.sqrt(sum((slope**2).sum(axis=2) for slope in slopes))
    inner = (slice(REACH, -REACH),) * 2  # the photo's frame is no edge
    ring = np.floor(inside_distance(mask)[inner]).astype(int) + REACH
    near = (ring >= 0) & (ring < 2 * REACH)
    counts = np.bincount(ring[near], minlength=2 * REACH)
    if counts.min() == 0:
        return None
    means = np.bincount(ring[near], change[inner][near], 2 * REACH) / counts
    return means / max(means.max(), 1e-6)


def contour_offset(profiles: list[NDArray[np.float64]]) -> float:
    """How far outside the photos' edges the contours lie, in px; negative: inside.

    The centre of what stands out of the mean profile. One photo's says little: its clothes and
    its background have edges too. Those of a hundred cancel, but for a tenth of a pixel or so.

    Args:
        profiles: of `edge_profile`, at least one.
    """
    mean = np.mean(profiles, axis=0)
    weight = np.maximum(mean - max(mean[0], mean[-1]), 0)
    distance = np.arange(-REACH, REACH) + 0.5
    return float((weight * distance).sum() / max(weight.sum(), 1e-12))


def inset(share: NDArray[np.uint8], pixels: float) -> NDArray[np.uint8]:
    """A soft mask whose contour lies `pixels` further inside the person, as hard or hazy as before.

    Each pixel takes the value that many pixels outwards from it, across the contour at one half.
    The photo's frame stays where it is.

    Args:
        share: (H, W) uint8, 0..255 = the person's share.
        pixels: px; negative moves it outwards.

    Returns:
        (H, W) uint8.
    """
    mask = mask_of(share)
    if mask.all() or not mask.any():
        return share
    # Blurred, or the pixels' corners would shine through.
    distance = cv2.GaussianBlur(inside_distance(mask), (0, 0), 1)
    slopes = [cv2.Sobel(distance, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))]
    length = np.maximum(np.hypot(*slopes), 0.2)  # between two contours there is no direction
    rows, columns = np.indices(mask.shape, np.float32)
    pixels = np.float32(pixels)
    sources = [place - pixels * slope / length for place, slope in zip((columns, rows), slopes)]
    return cv2.remap(share, *sources, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
