"""The edge label of a mask."""

import cv2
import numpy as np

from portraitnet.images import Mask

EDGE_WIDTH = 4 / 224  # fraction of the longer side; source: PortraitNet's official code


def edge_of(mask: Mask, inside: Mask | None = None, width: int | None = None) -> Mask:
    """The boundary band of a mask, half inside and half outside the person.

    The frame that cuts a body is not a contour. So the border of `mask` gives no edge, nor does the
    border of `inside` if the photo is letterboxed or rotated.

    Args:
        mask: (H, W) uint8 0/1.
        inside: (H, W) uint8 0/1, 1 where pixels show the photo; None for all.
        width: width of the band, pixels; None for 4 at 224, proportional to the longer side.

    Returns:
        edge (H, W) uint8 0/1.
    """
    width = max(2, round(EDGE_WIDTH * max(mask.shape))) if width is None else width
    inner, outer = _disc(width // 2), _disc(width - width // 2)
    # OpenCV's default border value keeps the border of `mask` out of both operations.
    if inside is None:
        return cv2.dilate(mask, outer) - cv2.erode(mask, inner)
    # Interpolation blurs the outermost pixels of a rotated photo: leave them out.
    inside = cv2.erode(inside, np.ones((3, 3), np.uint8))
    return (cv2.dilate(mask & inside, outer) - cv2.erode(mask | (1 - inside), inner)) * inside


def _disc(radius):
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
