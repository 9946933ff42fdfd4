"""Photometric transforms: colour, contrast, sharpness, blur and noise; no pixel moves.

Every function takes and returns an (H, W, 3) uint8 BGR image. It computes in float or in OpenCV's
saturating arithmetic, rounds, and clips to 0..255. Every class applies its function with
probability `prob` and draws the strength from the uniform distribution over (min, max).

Source: PortraitNet's official training recipe: brightness and saturation 0.4..1.6, contrast
0.6..1.4, sharpness 0.8..1.2, blur of 3 or 5 pixels, noise of standard deviation 0..10, each with
probability one half. `relight` and `jpeg` are additions of this project.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from portraitnet.images import Image

Range = tuple[float, float]  # (min, max) of a uniform distribution
LEVELS = np.arange(256, dtype=np.float32)
# Source: the smoothing filter of PIL's sharpness enhancement, which the official code uses.
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def _table(levels):
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def hsv(image: Image, hue: float = 0.0, saturation: float = 1.0, value: float = 1.0) -> Image:
    """Shift the hue and multiply saturation and value.

    Args:
        image: (H, W, 3) uint8 BGR.
        hue: shift in OpenCV's units, 180 for a full circle.
        saturation, value: factors >= 0.
    """
    table = np.empty((1, 256, 3), np.uint8)
    table[0, :, 0] = np.rint(LEVELS + hue) % 180
    table[0, :, 1] = _table(LEVELS * saturation)
    table[0, :, 2] = _table(LEVELS * value)
    shifted = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table)
    return cv2.cvtColor(shifted, cv2.COLOR_HSV2BGR)


def brightness(image: Image, factor: float) -> Image:
    """Multiply every pixel by `factor`."""
    return cv2.LUT(image, _table(LEVELS * factor))


def contrast(image: Image, factor: float) -> Image:
    """Scale all channels by `factor` about the image's mean grey, so that no colour cast arises."""
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[0]
    return cv2.LUT(image, _table(mean + factor * (LEVELS - mean)))


def saturation(image: Image, factor: float) -> Image:
    """Blend with the grey image: 0 gives grey, 1 the image, more raises saturation."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, grey, 1 - factor, 0)


def sharpness(image: Image, factor: float) -> Image:
    """Blend with the smoothed image: 0 gives that image, 1 the image, more sharpens."""
    return cv2.addWeighted(image, factor, cv2.filter2D(image, -1, SMOOTH), 1 - factor, 0)


def blur(image: Image, kernel: int) -> Image:
    """Gaussian blur.

    Args:
        image: (H, W, 3) uint8 BGR.
        kernel: size of the kernel, pixels, odd.

    Raises:
        ValueError: `kernel` is even, which would shift the image against its mask.
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
    """Simulate other light: dim or bright, tinted, from one side.

    Args:
        image: (H, W, 3) uint8 BGR.
        gamma: exponent of pixels in 0..1; above 1 darkens the midtones.
        gains: (3,) factors of blue, green and red.
        slope: strength of a brightness ramp from 1 - slope to 1 + slope across the image, 0..1.
        angle: direction of increasing brightness, radians, clockwise from the x axis.
    """
    height, width = image.shape[:2]
    tables = [_table(255 * (LEVELS / 255) ** gamma * gain) for gain in gains]
    lit = cv2.LUT(image, np.stack(tables, axis=-1)[None])
    x = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(slope * np.cos(angle))
    y = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(slope * np.sin(angle))
    ramp = np.clip(1 + x + y[:, None], 0, None)
    return cv2.multiply(lit, cv2.merge([ramp] * 3), dtype=cv2.CV_8U)


def jpeg(image: Image, quality: int) -> Image:
    """JPEG compression artefacts; `quality` is 0..100."""
    data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


class Photometric:
    """A transform that applies `change` to an image with probability `prob`."""

    prob: float

    def change(self, image: Image, rng: np.random.Generator) -> Image:
        raise NotImplementedError

    def __call__(self, image: Image, rng: np.random.Generator | None = None) -> Image:
        rng = rng or np.random.default_rng()
        return self.change(image, rng) if rng.random() < self.prob else image


class RandomHSV(Photometric):
    """`hsv` with random shift and factors.

    The small hue shift imitates tinted light and is our addition to the official recipe. Saturation
    and value keep their factor 1, because RandomSaturation and RandomBrightness have the recipe's
    ranges.

    Args:
        prob: probability of applying.
        hue: (min, max) shift, 180 for a full circle.
        saturation, value: (min, max) factors.
    """

    def __init__(
        self,
        prob: float = 0.5,
        hue: Range = (-8, 8),
        saturation: Range = (1.0, 1.0),
        value: Range = (1.0, 1.0),
    ):
        self.prob, self.hue, self.saturation, self.value = prob, hue, saturation, value

    def change(self, image, rng):
        return hsv(image, *(rng.uniform(*r) for r in (self.hue, self.saturation, self.value)))


class RandomBrightness(Photometric):
    """`brightness` by a random factor.

    Args:
        prob: probability of applying.
        factor: (min, max).
    """

    def __init__(self, prob: float = 0.5, factor: Range = (0.4, 1.6)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return brightness(image, rng.uniform(*self.factor))


class RandomContrast(Photometric):
    """`contrast` by a random factor.

    Args:
        prob: probability of applying.
        factor: (min, max).
    """

    def __init__(self, prob: float = 0.5, factor: Range = (0.6, 1.4)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return contrast(image, rng.uniform(*self.factor))


class RandomSaturation(Photometric):
    """`saturation` by a random factor.

    Args:
        prob: probability of applying.
        factor: (min, max).
    """

    def __init__(self, prob: float = 0.5, factor: Range = (0.4, 1.6)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return saturation(image, rng.uniform(*self.factor))


class RandomSharpness(Photometric):
    """`sharpness` by a random factor.

    Args:
        prob: probability of applying.
        factor: (min, max).
    """

    def __init__(self, prob: float = 0.5, factor: Range = (0.8, 1.2)):
        self.prob, self.factor = prob, factor

    def change(self, image, rng):
        return sharpness(image, rng.uniform(*self.factor))


class RandomBlur(Photometric):
    """`blur` with a random kernel.

    Args:
        prob: probability of applying.
        kernels: odd sizes, pixels.
    """

    def __init__(self, prob: float = 0.5, kernels: Sequence[int] = (3, 5)):
        self.prob, self.kernels = prob, kernels

    def change(self, image, rng):
        return blur(image, int(rng.choice(self.kernels)))


class RandomNoise(Photometric):
    """`noise` with a random standard deviation.

    Args:
        prob: probability of applying.
        sigma: (min, max) of the standard deviation, grey levels of 255.
    """

    def __init__(self, prob: float = 0.5, sigma: Range = (0.0, 10.0)):
        self.prob, self.sigma = prob, sigma

    def change(self, image, rng):
        return noise(image, rng.uniform(*self.sigma), rng)


class RandomRelight(Photometric):
    """`relight` with random strengths; gamma is uniform on a log scale.

    Args:
        prob: probability of applying.
        gamma: largest gamma; the smallest is 1 / gamma.
        cast: largest difference of a channel's gain from 1.
        slope: largest slope, 0..1.
    """

    def __init__(
        self, prob: float = 0.5, gamma: float = 2.2, cast: float = 0.2, slope: float = 0.6
    ):
        self.prob, self.gamma, self.cast, self.slope = prob, gamma, cast, slope

    def change(self, image, rng):
        gamma = self.gamma ** rng.uniform(-1, 1)
        gains = rng.uniform(1 - self.cast, 1 + self.cast, 3)
        return relight(image, gamma, gains, rng.uniform(0, self.slope), rng.uniform(0, 2 * np.pi))


class RandomGrey(Photometric):
    """Removes all colour.

    Args:
        prob: probability of applying.
    """

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def change(self, image, rng):
        return saturation(image, 0)


class RandomJpeg(Photometric):
    """`jpeg` with a random quality.

    Args:
        prob: probability of applying.
        quality: (min, max) of the quality, 0..100; max itself is not drawn.
    """

    def __init__(self, prob: float = 0.5, quality: tuple[int, int] = (30, 80)):
        self.prob, self.quality = prob, quality

    def change(self, image, rng):
        return jpeg(image, int(rng.integers(*self.quality)))
