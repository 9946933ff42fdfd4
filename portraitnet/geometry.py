"""Sizes: shrinking and enlarging, the rectangle the network sees, letterboxed squares."""

from functools import lru_cache

import cv2
import numpy as np

from portraitnet.images import Mask, mask_of

SIZE = 224  # side of the square whose area the network's input has, pixels
Box = tuple[int, int, int, int]  # top, left, height, width
IMAGE_BORDER = 128  # grey around an image that is moved or letterboxed
GRID = 32  # pixels: the sides of a network input are multiples of this
MAX_ELONGATION = 2  # longest side of a network input, in sides of the square
AREA_WEIGHT = (
    0.25  # what a network input loses by more or fewer pixels, beside what it loses by stretching
)


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area averaging where the picture shrinks, bilinear where it grows; (H, W) or (H, W, C)."""
    shrinks = height < picture.shape[0] or width < picture.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=interpolation)


def limited_size(height: int, width: int, side: float) -> tuple[int, int]:
    """(height, width) after shrinking to at most `side` pixels on the longer side."""
    ratio = min(1, side / max(height, width))
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def limited(picture: np.ndarray, side: float) -> np.ndarray:
    """A picture (H, W) or (H, W, C), shrunk to at most `side` pixels on its longer side."""
    height, width = limited_size(*picture.shape[:2], side)
    if (height, width) == picture.shape[:2]:
        return picture
    # To more than half, a pixel and its neighbours suffice: seven times as fast.
    few = 2 * height > picture.shape[0] and 2 * width > picture.shape[1]
    interpolation = cv2.INTER_LINEAR if few else cv2.INTER_AREA
    return cv2.resize(picture, (width, height), interpolation=interpolation)


@lru_cache(1024)  # a video's frames and a data set's photos ask for a few again and again
def input_shape(height: int, width: int, size: float) -> tuple[int, int]:
    """The shape of the network input: nearly the photo's proportions, without padding.

    Both sides are multiples of 32 (the encoder halves five times) and their product is about
    size x size, so that every photo costs the same. 4:3 becomes 192x256 at size 224, 16:9 160x288.
    Few rectangles fit exactly: the photo is stretched, by some per cent, where they do not.

    Args:
        height, width: of the photo, pixels; only their ratio counts.
        size: side of the square with the rectangle's area, pixels.

    Returns:
        (height, width), pixels.
    """
    area, steps = (size / GRID) ** 2, range(1, round(MAX_ELONGATION * size / GRID) + 1)
    shapes = [(h, w) for h in steps for w in steps]

    def misfit(shape):
        h, w = shape
        stretch, surplus = np.log(h / w) - np.log(height / width), np.log(h * w / area)
        return abs(stretch) + AREA_WEIGHT * abs(surplus)

    h, w = min(shapes, key=misfit)
    return h * GRID, w * GRID


def letterbox_box(height: int, width: int, size: int) -> Box:
    """Where a photo lies in its letterboxed square.

    Returns:
        (top, left, height, width) in whole pixels of the size x size square.
    """
    ratio = size / max(height, width)
    inner_height, inner_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    return (size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width


def letterbox(image: np.ndarray, size: int, border: float = IMAGE_BORDER) -> tuple[np.ndarray, Box]:
    """Fit a photo into a square without changing its proportions.

    Args:
        image: (H, W, 3) uint8.
        size: side of the square, pixels.
        border: value of the bars beside the photo.

    Returns:
        square: (size, size, 3) uint8.
        box: (top, left, height, width) of the photo in the square.
    """
    top, left, height, width = box = letterbox_box(*image.shape[:2], size)
    square = np.full((size, size, *image.shape[2:]), border, image.dtype)
    square[top : top + height, left : left + width] = resize(image, height, width)
    return square, box


def letterbox_mask(mask: Mask, size: int) -> Mask:
    """`letterbox` for a mask: averaged, then thresholded at one half; the bars are background.

    Args:
        mask: (H, W) uint8 0/1.

    Returns:
        (size, size) uint8 0/1.
    """
    return mask_of(letterbox(mask * np.uint8(255), size, border=0)[0])
