"""Where the pixels go: flip, rotation with scale, translation, letterbox, alone or as one warp.

Matrices are 3x3 and act on (x, y, 1) in continuous coordinates: pixel (0, 0) covers [0, 1) in x and
y, so a picture's centre is (width / 2, height / 2) and matrices multiply without half-pixel terms.
"""

import cv2
import numpy as np

IMAGE_BORDER = 128  # grey around an image that is moved or letterboxed
GRID = 32  # pixels: a view's sides are multiples of it
MOST_ELONGATED = 2  # longest side of a view as a multiple of the square's
AREA_WEIGHT = 0.25  # what a view loses by more or fewer pixels, beside what it loses by stretching


def resize(picture, height, width):
    """Area averaging where the picture shrinks, bilinear where it grows; (H, W) or (H, W, C)."""
    shrinks = height < picture.shape[0] or width < picture.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=interpolation)


def view_shape(height, width, size):
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


def letterbox_box(height, width, size):
    """Where a photo lies in its letterboxed square.

    Returns:
        (top, left, height, width) in whole pixels of the size x size square.
    """
    ratio = size / max(height, width)
    inner_height, inner_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    return (size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width


def letterbox(image, size, border=IMAGE_BORDER):
    """Fit a photo into a square without changing its proportions.

    Args:
        image: (H, W, 3) uint8.
        size: side of the square, pixels.
        border: value of the bars beside the photo.

    Returns:
        square: (size, size, 3) uint8.
        box: (top, left, height, width) of the photo in the square, for `unletterbox`.
    """
    top, left, height, width = box = letterbox_box(*image.shape[:2], size)
    square = np.full((size, size, *image.shape[2:]), border, image.dtype)
    square[top : top + height, left : left + width] = resize(image, height, width)
    return square, box


def letterbox_mask(mask, size):
    """`letterbox` for a mask: averaged, then thresholded at one half; the bars are background.

    Args:
        mask: (H, W) uint8 0/1.

    Returns:
        (size, size) uint8 0/1.
    """
    return (letterbox(mask * np.uint8(255), size, border=0)[0] > 127).astype(np.uint8)


def unletterbox(probability, box, shape, interpolation=cv2.INTER_LINEAR):
    """Cut the photo out of its square and bring it back to the photo's own size.

    Args:
        probability: (size, size) float32, 0..1.
        box: what `letterbox` returned.
        shape: (height, width) of the photo.
        interpolation: cv2.INTER_LINEAR, or cv2.INTER_CUBIC (clipped to 0..1 again).

    Returns:
        (height, width) float32, 0..1.
    """
    top, left, height, width = box
    inner = probability[top : top + height, left : left + width]
    photo = cv2.resize(inner, (shape[1], shape[0]), interpolation=interpolation)
    return np.clip(photo, 0, 1, out=photo) if interpolation == cv2.INTER_CUBIC else photo


def letterbox_matrix(height, width, size):
    """From a photo to its letterboxed square, without the rounding to whole pixels."""
    ratio = size / max(height, width)
    return np.array(
        [
            [ratio, 0, (size - ratio * width) / 2],
            [0, ratio, (size - ratio * height) / 2],
            [0, 0, 1],
        ]
    )


def flip_matrix(width):
    """Mirror left and right."""
    return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def rotation_matrix(height, width, degrees, scale=1.0):
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


def translation_matrix(dx, dy):
    """Shift by `dx` pixels to the right and `dy` down."""
    return np.array([[1.0, 0, dx], [0, 1, dy], [0, 0, 1]])


def stack(image, mask):
    """(H, W, 3) image and (H, W) mask 0/1 -> (H, W, 4) uint8, the `photo` of `warp`."""
    return cv2.merge([image, mask * np.uint8(255)])


def warp(photo, matrix, height, width):
    """Move a photo and its mask by one matrix, in one interpolation.

    Args:
        photo: (H, W, 4) uint8: image in BGR and its mask 0..255, which may be soft.
        matrix: (3, 3), from `photo` to the result.
        height, width: of the result.

    Returns:
        image: (height, width, 3) uint8, 128 outside the photo.
        mask: (height, width) uint8 0/1, 0 outside: the bilinear mask thresholded at one half.
    """
    while np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) < 0.6:  # bilinear alone would skip pixels
        old_height, old_width = photo.shape[:2]
        photo = resize(photo, (old_height + 1) // 2, (old_width + 1) // 2)
        matrix = matrix @ np.diag([old_width / photo.shape[1], old_height / photo.shape[0], 1])
    # OpenCV counts from pixel centres
    centred = translation_matrix(-0.5, -0.5) @ matrix @ translation_matrix(0.5, 0.5)
    border = (IMAGE_BORDER, IMAGE_BORDER, IMAGE_BORDER, 0)
    moved = cv2.warpAffine(photo, centred[:2], (width, height), borderValue=border)
    mask = cv2.threshold(cv2.extractChannel(moved, 3), 127, 1, cv2.THRESH_BINARY)[1]
    return cv2.cvtColor(moved, cv2.COLOR_BGRA2BGR), mask


def inside_of(photo_height, photo_width, matrix, size):
    """Which pixels of a square show the photo that `matrix` brought there.

    Args:
        photo_height, photo_width: of the photo before the warp.
        matrix: (3, 3), from the photo to the square.

    Returns:
        inside: (size, size) uint8 0/1.
    """
    x, y = photo_width, photo_height
    corners = np.array([[0, 0, 1], [x, 0, 1], [x, y, 1], [0, y, 1]])
    points = (corners @ matrix.T)[:, :2] - 0.5  # OpenCV counts from pixel centres
    inside = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(inside, np.round(points * 16).astype(np.int32), 1, shift=4)
    return inside


def flip(image, mask):
    """Mirror image (H, W, 3) and mask (H, W) left and right."""
    return cv2.flip(image, 1), cv2.flip(mask, 1)


def rotate(image, mask, degrees, scale=1.0):
    """Turn image (H, W, 3) and mask (H, W) counter-clockwise about the centre and enlarge them."""
    matrix = rotation_matrix(*mask.shape, degrees, scale)
    return warp(stack(image, mask), matrix, *mask.shape)


def translate(image, mask, dx, dy):
    """Shift image (H, W, 3) and mask (H, W) by `dx` pixels to the right and `dy` down."""
    return warp(stack(image, mask), translation_matrix(dx, dy), *mask.shape)


class RandomHorizontalFlip:
    """Mirrors with probability `prob`.

    Like the other two: calling it draws and applies it to a photo of any shape; `matrix(size, rng)`
    only draws, for a size x size square, so that a data set can join several in one warp.
    """

    def __init__(self, prob=0.5):
        self.prob = prob

    def matrix(self, size, rng):
        return flip_matrix(size) if rng.random() < self.prob else np.eye(3)

    def __call__(self, image, mask, rng=None):
        rng = rng or np.random.default_rng()
        return flip(image, mask) if rng.random() < self.prob else (image, mask)


class RandomRotation:
    """Turns about the centre and scales.

    Args:
        prob: probability of applying.
        angle: degrees; drawn evenly from -angle..angle.
        scale: (least, most) enlargement, drawn evenly.

    Source: official training recipe, +-45 degrees and 0.5..1.5.
    """

    def __init__(self, prob=1.0, angle=45.0, scale=(0.5, 1.5)):
        self.prob, self.angle, self.scale = prob, angle, scale

    def _draw(self, rng):
        return rng.uniform(-self.angle, self.angle), rng.uniform(*self.scale)

    def matrix(self, size, rng):
        if rng.random() >= self.prob:
            return np.eye(3)
        return rotation_matrix(size, size, *self._draw(rng))

    def __call__(self, image, mask, rng=None):
        rng = rng or np.random.default_rng()
        return rotate(image, mask, *self._draw(rng)) if rng.random() < self.prob else (image, mask)


class RandomTranslate:
    """Shifts in x and y.

    Args:
        prob: probability of applying.
        shift: most shift either way, as a share of the picture's width and height.

    Source: official training recipe, +-56 pixels of 224, a quarter.
    """

    def __init__(self, prob=1.0, shift=0.25):
        self.prob, self.shift = prob, shift

    def _draw(self, height, width, rng):
        x, y = rng.uniform(-self.shift, self.shift, 2)
        return x * width, y * height

    def matrix(self, size, rng):
        if rng.random() >= self.prob:
            return np.eye(3)
        return translation_matrix(*self._draw(size, size, rng))

    def __call__(self, image, mask, rng=None):
        rng = rng or np.random.default_rng()
        if rng.random() >= self.prob:
            return image, mask
        return translate(image, mask, *self._draw(*mask.shape, rng))
