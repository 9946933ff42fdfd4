"""Geometric transforms: flip, rotation with scale, translation; one by one or as a single warp.

Matrices are 3x3 and act on (x, y, 1) in continuous coordinates: pixel (0, 0) covers [0, 1) in x and
y. So a picture's centre is (width / 2, height / 2) and matrices multiply without half-pixel terms.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.geometry import IMAGE_BORDER, resize
from portraitnet.images import Image, Mask, mask_of

MAX_STRETCH = 0.15  # largest change of log(width / height) that fits a photo to a network input


def fit_matrix(
    photo_shape: tuple[int, int], input_shape: tuple[int, int], zoom: float = 0.0
) -> NDArray[np.float64]:
    """The matrix from a photo to a network input, centred, with limited stretching.

    Args:
        photo_shape, input_shape: (height, width), pixels.
        zoom: 0 shows the whole photo, with bars if its proportions differ; 1 fills the network
            input and crops the photo; values between interpolate.

    Returns:
        (3, 3) float64 matrix.
    """
    fill_y, fill_x = input_shape[0] / photo_shape[0], input_shape[1] / photo_shape[1]
    mismatch = np.log(fill_x / fill_y)
    stretch = np.clip(mismatch, -MAX_STRETCH, MAX_STRETCH)
    rest = mismatch - stretch
    # One side fits exactly at zoom 0, the other one at zoom 1.
    scale_y = fill_y * np.exp(min(rest, 0) + zoom * abs(rest))
    scale_x = scale_y * np.exp(stretch)
    left = (input_shape[1] - scale_x * photo_shape[1]) / 2
    top = (input_shape[0] - scale_y * photo_shape[0]) / 2
    return np.array([[scale_x, 0, left], [0, scale_y, top], [0, 0, 1]])


def flip_matrix(width: int) -> NDArray[np.float64]:
    """The matrix that mirrors left and right; `width` in pixels."""
    return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def rotation_matrix(
    height: int, width: int, degrees: float, scale: float = 1.0
) -> NDArray[np.float64]:
    """The matrix that rotates counter-clockwise about the centre and scales.

    Args:
        height, width: size of the picture, pixels.
        degrees: angle.
        scale: factor of the size.

    Returns:
        (3, 3) float64 matrix.
    """
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
    """The matrix that shifts by `dx` pixels to the right and `dy` pixels down."""
    return np.array([[1.0, 0, dx], [0, 1, dy], [0, 0, 1]])


def stack(image: Image, mask: Mask) -> NDArray[np.uint8]:
    """Image (H, W, 3) and mask (H, W) uint8 0/1 -> BGRA (H, W, 4) uint8, as `warp` takes it."""
    return cv2.merge([image, mask * np.uint8(255)])


def warp(
    bgra: NDArray[np.uint8], matrix: NDArray[np.float64], height: int, width: int
) -> tuple[Image, NDArray[np.uint8]]:
    """Warp an image and its mask by one matrix, with one interpolation.

    Args:
        bgra: (H, W, 4) uint8: an image and, as alpha, its mask 0..255.
        matrix: (3, 3), from `bgra` to the result.
        height, width: size of the result, pixels.

    Returns:
        image: (height, width, 3) uint8 BGR, grey (128) outside the photo.
        alpha: (height, width) uint8 0..255, 0 outside the photo.
    """
    while np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) < 0.6:  # bilinear sampling would alias
        old_height, old_width = bgra.shape[:2]
        bgra = resize(bgra, (old_height + 1) // 2, (old_width + 1) // 2)
        matrix = matrix @ np.diag([old_width / bgra.shape[1], old_height / bgra.shape[0], 1])
    # OpenCV's coordinates start at the centre of pixel (0, 0).
    centred = translation_matrix(-0.5, -0.5) @ matrix @ translation_matrix(0.5, 0.5)
    border = (IMAGE_BORDER, IMAGE_BORDER, IMAGE_BORDER, 0)
    moved = cv2.warpAffine(bgra, centred[:2], (width, height), borderValue=border)
    return cv2.cvtColor(moved, cv2.COLOR_BGRA2BGR), cv2.extractChannel(moved, 3)


def inside_of(
    photo_shape: tuple[int, int], matrix: NDArray[np.float64], input_shape: tuple[int, int]
) -> Mask:
    """The pixels of a network input that show the warped photo.

    Args:
        photo_shape: (height, width) of the photo before the warp, pixels.
        matrix: (3, 3), from the photo to the network input.
        input_shape: (height, width), pixels.

    Returns:
        (height, width) uint8, 1 where the photo is.
    """
    y, x = photo_shape
    corners = np.array([[0, 0, 1], [x, 0, 1], [x, y, 1], [0, y, 1]])
    points = (corners @ matrix.T)[:, :2] - 0.5  # to OpenCV's coordinates
    inside = np.zeros(input_shape, np.uint8)
    cv2.fillConvexPoly(inside, np.round(points * 16).astype(np.int32), 1, shift=4)
    return inside


def flip(image: Image, mask: Mask) -> tuple[Image, Mask]:
    """Mirror image (H, W, 3) and mask (H, W) left and right."""
    return cv2.flip(image, 1), cv2.flip(mask, 1)


def rotate(image: Image, mask: Mask, degrees: float, scale: float = 1.0) -> tuple[Image, Mask]:
    """Rotate image (H, W, 3) and mask (H, W) counter-clockwise about the centre and scale them."""
    return _moved(image, mask, rotation_matrix(*mask.shape, degrees, scale))


def translate(image: Image, mask: Mask, dx: float, dy: float) -> tuple[Image, Mask]:
    """Shift image (H, W, 3) and mask (H, W) by `dx` pixels to the right and `dy` down."""
    return _moved(image, mask, translation_matrix(dx, dy))


def _moved(image, mask, matrix):
    moved, alpha = warp(stack(image, mask), matrix, *mask.shape)
    return moved, mask_of(alpha)


class Deformation:
    """A transform that moves image and mask with probability `prob` by a random matrix of `draw`.

    TrainingSamples multiplies several of these matrices and warps only once.
    """

    prob: float

    def draw(
        self, height: int, width: int, rng: np.random.Generator, strength: float
    ) -> NDArray[np.float64]:
        raise NotImplementedError

    def matrix(
        self, input_shape: tuple[int, int], rng: np.random.Generator, strength: float = 1.0
    ) -> NDArray[np.float64]:
        """A random (3, 3) float64 matrix; the identity if the transform is not applied.

        Args:
            input_shape: (height, width) of the picture, pixels.
            rng: generator of all random numbers.
            strength: fraction of the ranges in use, 0..1.
        """
        if rng.random() >= self.prob:
            return np.eye(3)
        return self.draw(*input_shape, rng, strength)

    def __call__(
        self, image: Image, mask: Mask, rng: np.random.Generator | None = None
    ) -> tuple[Image, Mask]:
        return _moved(image, mask, self.matrix(mask.shape, rng or np.random.default_rng()))


class RandomHorizontalFlip(Deformation):
    """Mirrors left and right; `strength` has no effect.

    Args:
        prob: probability of applying.
    """

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def draw(self, height, width, rng, strength):
        return flip_matrix(width)


class RandomRotation(Deformation):
    """Rotates about the centre and scales.

    Args:
        prob: probability of applying.
        angle: degrees; the angle is uniform in -angle..angle.
        scale: (min, max) scale, uniform on a log scale, so that enlarging and shrinking are alike.

    Raises:
        ValueError: `scale` is not a range above 0.

    Source: official training recipe, +-45 degrees and 0.5..1.5 (uniform there).
    """

    def __init__(
        self, prob: float = 1.0, angle: float = 45.0, scale: tuple[float, float] = (0.5, 1.5)
    ):
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"The scale {scale} is no range: give min above 0, then max.")
        self.prob, self.angle, self.scale = prob, angle, scale

    def draw(self, height, width, rng, strength):
        degrees = rng.uniform(-strength * self.angle, strength * self.angle)
        scale = np.exp(rng.uniform(*(strength * np.log(self.scale))))
        return rotation_matrix(height, width, degrees, float(scale))


class RandomTranslate(Deformation):
    """Shifts in x and y.

    Args:
        prob: probability of applying.
        shift: largest shift in either direction, as a fraction of width and height.

    Source: official training recipe, +-56 pixels of 224, a quarter.
    """

    def __init__(self, prob: float = 1.0, shift: float = 0.25):
        self.prob, self.shift = prob, shift

    def draw(self, height, width, rng, strength):
        x, y = strength * rng.uniform(-self.shift, self.shift, 2)
        return translation_matrix(x * width, y * height)
