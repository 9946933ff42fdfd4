"""What the pixels look like: colour, contrast, sharpness, blur and noise; no pixel moves.

Every function takes and returns an (H, W, 3) uint8 BGR image, computes in float (or in OpenCV's
saturating arithmetic), rounds and clips to 0..255. Every class applies its function with
probability `prob` and draws the strength evenly from (least, most).

Source: PortraitNet's official training recipe: brightness and colour 0.4..1.6, contrast 0.6..1.4,
sharpness 0.8..1.2, blur 3 or 5 pixels, noise of standard deviation 0..10, each with probability
one half. `light` and `jpeg` are ours.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from portraitnet.images import Image

LEVELS = np.arange(256, dtype=np.float32)
# what PIL's sharpness enhancement, used by the official code, starts from
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def _table(levels):
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def hsv(image: Image, hue: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Image:
    """Turn the hue by `hue` (OpenCV's circle of 180) and multiply saturation and value."""
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = np.rint(LEVELS + hue) % 180
    table[0, :, 1] = _table(LEVELS * saturation)
    table[0, :, 2] = _table(LEVELS * value)
    turned = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table)
    return cv2.cvtColor(turned, cv2.COLOR_HSV2BGR)


def brightness(image: Image, factor: float) -> Image:
    """Multiply by `factor`."""
    return cv2.LUT(image, _table(LEVELS * factor))


def contrast(image: Image, factor: float) -> Image:
    """Stretch by `factor` about the image's mean grey, all channels alike: no colour cast."""
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0]
    return cv2.LUT(image, _table(mean + factor * (LEVELS - mean)))


def saturation(image: Image, factor: float) -> Image:
    """Blend with the grey image: 0 is grey, 1 the image, more is more colourful."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def sharpness(image: Image, factor: float) -> Image:
    """Blend with a smoothed image: 0 is smooth, 1 the image, more is sharper."""
    return cv2.addWeighted(image, factor, cv2.filter2D(image, -1, SMOOTH), 1 - factor, 0)


def blur(image: Image, kernel: int) -> Image:
    """Gaussian blur over `kernel` pixels.

    Raises:
        ValueError: an even kernel, which would shift the image against its mask.
    """
    if kernel % 2 == 0:
        raise ValueError(
            f"A blur kernel of {kernel} shifts the image half a pixel: give an odd one."
        )
    return cv2.GaussianBlur(image, (kernel, kernel), 0)


def noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add Gaussian noise of standard deviation `sigma`, independent in every pixel and channel."""
    values = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
    return cv2.add(image, values, dtype=cv2.CV_8U)


def relight(image: Image, gamma: float, gains: ArrayLike, slope: float, angle: float) -> Image:
    """Light that the photo did not have: dim or glaring, coloured, from one side.

    Args:
        image: (H, W, 3) uint8 BGR.
        gamma: exponent of the pixels in 0..1; above 1 it darkens the middle.
        gains: factor of blue, green and red.
        slope: how much brighter one side is: from 1 - slope to 1 + slope across the picture.
        angle: radians, the direction in which it grows brighter.
    """
    height, width = image.shape[:2]
    tables = [_table(255 * (LEVELS / 255) ** gamma * gain) for gain in gains]
    lit = cv2.LUT(image, np.stack(tables, axis=-1)[None])
    x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(slope * np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(slope * np.sin(angle))
    ramp = np.clip(1 + x + y[:, None], 0, None)
    return cv2.multiply(lit, cv2.merge([ramp] * 3), dtype=cv2.CV_8U)


def jpeg(image: Image, quality: int) -> Image:
    """The blocks and rings of a JPEG of this quality, 0..100."""
    data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


class Photometric:
    """Changes an image, (H, W, 3) uint8 BGR, by `change` with probability `prob`."""

    def __call__(self, image: Image, rng: np.random.Generator | None = None) -> Image:
        rng = rng or np.random.default_rng()
        return self.change(image, rng) if rng.random() < self.prob else image


class RandomHSV(Photometric):
    """`hsv` with strengths from `hue`, `saturation` and `value`.

    The recipe turns no hue; its slight turn here is our addition and stands for coloured light.
    Saturation and value stay: RandomSaturation and RandomBrightness have the recipe's ranges.
    """

    def __init__(self, prob=0.5, hue=(-8, 8), saturation=(1.0, 1.0), value=(1.0, 1.0)):
        self.prob, self.hue, self.saturation, self.value = prob, hue, saturation, value

    def change(self, image, rng):
        return hsv(image, *(rng.uniform(*r) for r in (self.hue, self.saturation, self.value)))


class RandomBrightness(Photometric):
    """`brightness` by a factor from `factor`."""

    def __init__(self, prob=0.5, factor=(0.4, 1.6)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return brightness(image, rng.uniform(*self.factor))


class RandomContrast(Photometric):
    """`contrast` by a factor from `factor`."""

    def __init__(self, prob=0.5, factor=(0.6, 1.4)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return contrast(image, rng.uniform(*self.factor))


class RandomSaturation(Photometric):
    """`saturation` by a factor from `factor`."""

    def __init__(self, prob=0.5, factor=(0.4, 1.6)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return saturation(image, rng.uniform(*self.factor))


class RandomSharpness(Photometric):
    """`sharpness` by a factor from `factor`."""

    def __init__(self, prob=0.5, factor=(0.8, 1.2)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return sharpness(image, rng.uniform(*self.factor))


class RandomBlur(Photometric):
    """`blur` with one of `kernels`, odd sizes in pixels."""

    def __init__(self, prob=0.5, kernels=(3, 5)):
        self.prob, self.kernels = prob, kernels

    def change(self, image, rng):
        return blur(image, int(rng.choice(self.kernels)))


class RandomNoise(Photometric):
    """`noise` of a standard deviation from `sigma`, 0..255 scale."""

    def __init__(self, prob=0.5, sigma=(0.0, 10.0)):
        self.prob, self.sigma = prob, sigma

    def change(self, image, rng):
        return noise(image, rng.uniform(*self.sigma), rng)


class RandomRelight(Photometric):
    """`light` with each of its strengths drawn evenly, `gamma` on a log scale.

    Args:
        prob: probability of applying.
        gamma: largest; 1 / gamma is the smallest.
        cast: largest difference of a channel's gain from 1.
        slope: largest.
    """

    def __init__(self, prob=0.5, gamma=2.2, cast=0.2, slope=0.6):
        self.prob, self.gamma, self.cast, self.slope = prob, gamma, cast, slope

    def change(self, image, rng):
        gamma = self.gamma ** rng.uniform(-1, 1)
        gains = rng.uniform(1 - self.cast, 1 + self.cast, 3)
        return relight(image, gamma, gains, rng.uniform(0, self.slope), rng.uniform(0, 2 * np.pi))


class RandomGrey(Photometric):
    """Takes all colour away: a black-and-white photo."""

    def __init__(self, prob=0.5):
        self.prob = prob

    def change(self, image, rng):
        return saturation(image, 0)


class RandomJpeg(Photometric):
    """`jpeg` of a quality from `quality`."""

    def __init__(self, prob=0.5, quality=(30, 80)):
        self.prob, self.quality = prob, quality

    def change(self, image, rng):
        return jpeg(image, int(rng.integers(*self.quality)))
