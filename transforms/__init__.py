"""Random transforms of photos and masks, and the two lists that training applies."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from portraitnet.geometry import SIZE, letterbox_box, resize
from portraitnet.images import Image, Mask
from transforms.color import (
    Photometric,
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomGrey,
    RandomHSV,
    RandomJpeg,
    RandomNoise,
    RandomRelight,
    RandomSaturation,
    RandomSharpness,
)
from transforms.edge import edge_of
from transforms.geometry import RandomHorizontalFlip, RandomRotation, RandomTranslate

# The two training lists. Deformations move image, mask and edge together. Photometric transforms
# change only the photometric copy; the consistency loss compares its output with the clean image's.
DEFORMATION = (RandomHorizontalFlip(), RandomRotation(), RandomTranslate())
PHOTOMETRIC = (
    RandomSaturation(),
    RandomBrightness(),
    RandomContrast(),
    RandomHSV(),
    RandomSharpness(),
    RandomBlur(),
    RandomNoise(),
)

__all__ = [
    "DEFORMATION",
    "PHOTOMETRIC",
    "RandomBlur",
    "RandomBrightness",
    "RandomContrast",
    "RandomGrey",
    "RandomHSV",
    "RandomHorizontalFlip",
    "RandomJpeg",
    "RandomNoise",
    "RandomRelight",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomTranslate",
    "degrade",
    "degrade_photo",
    "edge_of",
]


def degrade(
    image: Image,
    rng: np.random.Generator,
    inside: Mask | None = None,
    photometric: Iterable[Photometric] = PHOTOMETRIC,
) -> Image:
    """Apply photometric transforms one after the other, each with its own probability.

    Args:
        image: (H, W, 3) uint8 BGR.
        rng: generator of all random numbers.
        inside: (H, W) uint8 0/1, 1 where pixels show the photo; None for all. Other pixels, such as
            the bars of a letterbox, keep their values.
        photometric: the transforms.

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    varied = image.copy()
    for transform in photometric:
        varied = transform(varied, rng)
    return varied if inside is None else cv2.copyTo(image, 1 - inside, varied)


def degrade_photo(image: Image, seed: int | Sequence[int]) -> Image:
    """Apply `degrade` to a photo at the network's resolution, for which the transforms were tuned.

    Args:
        image: (H, W, 3) uint8 BGR, any size.
        seed: seed of all random numbers, such as (seed, index of the photo).

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    height, width = letterbox_box(*image.shape[:2], SIZE)[2:]
    small = degrade(resize(image, height, width), np.random.default_rng(seed))
    return resize(small, *image.shape[:2])
