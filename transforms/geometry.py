"""Where the pixels go: flip, rotation with scale, translation, letterbox, alone or as one warp.

Matrices are 3x3 and act on (x, y, 1) in continuous coordinates: pixel (0, 0) covers [0, 1) in x and
y, so a picture's centre is (width / 2, height / 2) and matrices multiply without half-pixel terms.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from images import Image, Mask, cv2

Box = tuple[int, int, int, int]  # top, left, height, width
IMAGE_BORDER = 128  # grey around an image that is moved or letterboxed
GRID = 32  # pixels: a view's sides are multiples of it
MOST_ELONGATED = 2  # longest side of a view as a multiple of the square's
MOST_STRETCH = 0.15  # log of width over height: how much a photo is stretched to fit a view
AREA_WEIGHT = 0.25  # what a view loses by more or fewer pixels, beside what it loses by stretching


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area averaging where the picture shrinks, bilinear where it grows; (H, W) or (H, W, C)."""
    shrinks = height < picture.shape[0] or width < picture.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=interpolation)


@lru_cache(1024)  # a film's frames and a data set's photos ask for a few again and again
def view_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """The rectangle in which the network sees a photo: its proportions, nearly, and no padding.

    Both sides are multiples of 32 (the encoder halves five times) and their product is about
    size * size, so that every photo costs the same. 4:3 becomes 192x256 at size 224, 16:9 160x288.
    Few rectangles fit exactly: the photo is stretched, by some per cent, where they do not.

    Args:
        height, width: of the photo, pixels; only their ratio counts.
        size: side of the square with the rectangle's area, pixels.

    Returns:
        (height, width) of the view, pixels.
    """
    area, steps = (size / GRID) ** 2, range(1, round(MOST_ELONGATED * size / GRID) + 1)
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
    return threshold(letterbox(mask * np.uint8(255), size, border=0)[0])


def fit_matrix(
    photo_shape: tuple[int, int], view_shape: tuple[int, int], zoom: float = 0.0
) -> NDArray[np.float64]:
    """From a photo to a view, stretched no more than `view_shape` asks of a photo that fits it.

    Args:
        photo_shape, view_shape: (height, width).
        zoom: 0 shows the whole photo, with bars where its proportions are not the view's; 1 fills
            the view and cuts off what stands out; in between, in between.

    Returns:
        (3, 3) matrix.
    """
    fill_y, fill_x = view_shape[0] / photo_shape[0], view_shape[1] / photo_shape[1]
    mismatch = np.log(fill_x / fill_y)
    stretch = np.clip(mismatch, -MOST_STRETCH, MOST_STRETCH)
    rest = mismatch - stretch
    # Either side fits exactly at zoom 0, and the other at zoom 1.
    scale_y = fill_y * np.exp(min(rest, 0) + zoom * abs(rest))
    scale_x = scale_y * np.exp(stretch)
    left = (view_shape[1] - scale_x * photo_shape[1]) / 2
    top = (view_shape[0] - scale_y * photo_shape[0]) / 2
    return np.array([[scale_x, 0, left], [0, scale_y, top], [0, 0, 1]])


def flip_matrix(width: int) -> NDArray[np.float64]:
    """Mirror left and right."""
    return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def rotation_matrix(
    height: int, width: int, degrees: float, scale: float = 1.0
) -> NDArray[np.float64]:
    """Turn about the centre, counter-clockwise as seen, and enlarge by `scale`."""
    angle, x, y = np.radians(degrees), width / 2, height / 2
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array(
        [
            [cos, sin, x - cos * x - sin * y],
            [-sin, cos, y + sin * x - cos * y],
            [0, 0, 1],
        ]
    )


def translation_matrix(dx: float, dy: float) -> NDArray[np.float64]:
    """Shift by `dx` pixels to the right and `dy` down."""
    return np.array([[1.0, 0, dx], [0, 1, dy], [0, 0, 1]])


def stack(image: Image, mask: Mask) -> NDArray[np.uint8]:
    """(H, W, 3) image and (H, W) mask 0/1 -> BGRA (H, W, 4) uint8, as `warp` takes it."""
    return cv2.merge([image, mask * np.uint8(255)])


def warp(
    bgra: NDArray[np.uint8], matrix: NDArray[np.float64], height: int, width: int
) -> tuple[Image, NDArray[np.uint8]]:
    """Move an image and its mask by one matrix, in one interpolation.

    Args:
        bgra: (H, W, 4) uint8: image in BGR and, as alpha, the person's share 0..255.
        matrix: (3, 3), from `bgra` to the result.
        height, width: of the result.

    Returns:
        image: (height, width, 3) uint8, 128 outside the photo.
        share: (height, width) uint8 0..255, 0 outside.
    """
    while np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) < 0.6:  # bilinear alone would skip pixels
        old_height, old_width = bgra.shape[:2]
        bgra = resize(bgra, (old_height + 1) // 2, (old_width + 1) // 2)
        matrix = matrix @ np.diag([old_width / bgra.shape[1], old_height / bgra.shape[0], 1])
    # OpenCV counts from pixel centres
    centred = translation_matrix(-0.5, -0.5) @ matrix @ translation_matrix(0.5, 0.5)
    border = (IMAGE_BORDER, IMAGE_BORDER, IMAGE_BORDER, 0)
    moved = cv2.warpAffine(bgra, centred[:2], (width, height), borderValue=border)
    return cv2.cvtColor(moved, cv2.COLOR_BGRA2BGR), cv2.extractChannel(moved, 3)


def threshold(share: NDArray[np.uint8]) -> Mask:
    """(H, W) uint8 0..255 -> mask (H, W) uint8 0/1: person where more than half of a pixel is."""
    return cv2.threshold(share, 127, 1, cv2.THRESH_BINARY)[1]


def inside_of(
    photo_shape: tuple[int, int], matrix: NDArray[np.float64], view_shape: tuple[int, int]
) -> Mask:
    """Which pixels of a view show the photo that `matrix` brought there.

    Args:
        photo_shape: (height, width) of the photo before the warp.
        matrix: (3, 3), from the photo to the view.
        view_shape: (height, width).

    Returns:
        inside: (height, width) uint8 0/1.
    """
    y, x = photo_shape
    corners = np.array([[0, 0, 1], [x, 0, 1], [x, y, 1], [0, y, 1]])
    points = (corners @ matrix.T)[:, :2] - 0.5  # OpenCV counts from pixel centres
    inside = np.zeros(view_shape, np.uint8)
    cv2.fillConvexPoly(inside, np.round(points * 16).astype(np.int32), 1, shift=4)
    return inside


def flip(image: Image, mask: Mask) -> tuple[Image, Mask]:
    """Mirror image (H, W, 3) and mask (H, W) left and right."""
    return cv2.flip(image, 1), cv2.flip(mask, 1)


def rotate(image: Image, mask: Mask, degrees: float, scale: float = 1.0) -> tuple[Image, Mask]:
    """Turn image (H, W, 3) and mask (H, W) counter-clockwise about the centre and enlarge them."""
    return _moved(image, mask, rotation_matrix(*mask.shape, degrees, scale))


def translate(image: Image, mask: Mask, dx: float, dy: float) -> tuple[Image, Mask]:
    """Shift image (H, W, 3) and mask (H, W) by `dx` pixels to the right and `dy` down."""
    return _moved(image, mask, translation_matrix(dx, dy))


def _moved(image, mask, matrix):
    moved, share = warp(stack(image, mask), matrix, *mask.shape)
    return moved, threshold(share)


class Deformation:
    """Moves image and mask with probability `prob`, by what `draw` draws.

    A data set takes the `matrix` alone, to join several of them in one warp.
    """

    def matrix(
        self, view_shape: tuple[int, int], rng: np.random.Generator, strength: float = 1.0
    ) -> NDArray[np.float64]:
        """The (3, 3) matrix of one draw; the identity where it is not applied.

        Args:
            view_shape: (height, width) of what is moved.
            strength: share of the ranges in use, 0..1.
        """
        if rng.random() >= self.prob:
            return np.eye(3)
        return self.draw(*view_shape, rng, strength)

    def __call__(
        self, image: Image, mask: Mask, rng: np.random.Generator | None = None
    ) -> tuple[Image, Mask]:
        return _moved(image, mask, self.matrix(mask.shape, rng or np.random.default_rng()))


class RandomHorizontalFlip(Deformation):
    """Mirrors left and right; `strength` means nothing to it."""

    def __init__(self, prob=0.5):
        self.prob = prob

    def draw(self, height, width, rng, strength):
        return flip_matrix(width)


class RandomRotation(Deformation):
    """Turns about the centre and scales.

    Args:
        prob: probability of applying.
        angle: degrees; drawn evenly from -angle..angle.
        scale: (least, most) enlargement, drawn evenly on a log scale: as often smaller as larger.

    Source: official training recipe, +-45 degrees and 0.5..1.5 (evenly there).
    """

    def __init__(self, prob=1.0, angle=45.0, scale=(0.5, 1.5)):
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(
                f"The scale {scale} is no range: give the least above 0, then the most."
            )
        self.prob, self.angle, self.scale = prob, angle, scale

    def draw(self, height, width, rng, strength):
        degrees = rng.uniform(-strength * self.angle, strength * self.angle)
        scale = np.exp(rng.uniform(*(strength * np.log(self.scale))))
        return rotation_matrix(height, width, degrees, float(scale))


class RandomTranslate(Deformation):
    """Shifts in x and y.

    Args:
        prob: probability of applying.
        shift: most shift either way, as a share of the picture's width and height.

    Source: official training recipe, +-56 pixels of 224, a quarter.
    """

    def __init__(self, prob=1.0, shift=0.25):
        self.prob, self.shift = prob, shift

    def draw(self, height, width, rng, strength):
        x, y = strength * rng.uniform(-self.shift, self.shift, 2)
        return translation_matrix(x * width, y * height)
