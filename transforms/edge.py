"""From pictures to what the network takes, and the edge label."""

import cv2
import numpy as np

from portraitnet.images import Mask

EDGE_WIDTH = 4 / 224  # of the contour band, as a share of the longer side; source: official code


def edge_of(mask: Mask, inside: Mask | None = None, width: int | None = None) -> Mask:
    """The contour of a mask as a band, half of it on either side.

    Where the body is cut by the frame there is no contour: neither along the border of `mask` nor,
    when the photo lies letterboxed or turned in the square, along the border of `inside`.

    Args:
        mask: (H, W) uint8 0/1.
        inside: (H, W) uint8 0/1, which pixels show the photo; None for all.
        width: of the band in pixels; None for 4 at 224, in proportion to the longer side.

    Returns:
        edge (H, W) uint8 0/1.
    """
    width = max(2, round(EDGE_WIDTH * max(mask.shape))) if width is None else width
    inner, outer = _disc(width // 2), _disc(width - width // 2)
    # OpenCV's default border value keeps the frame of the picture out of both
    if inside is None:
        return cv2.dilate(mask, outer) - cv2.erode(mask, inner)
    # interpolation blurs the outermost pixels of a turned photo: leave them out
    inside = cv2.erode(inside, np.ones((3, 3), np.uint8))
    return (cv2.dilate(mask & inside, outer) - cv2.erode(mask | (1 - inside), inner)) * inside


def _disc(radius):
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
