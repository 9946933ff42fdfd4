from collections.abc import Iterable

import cv2
import numpy as np

from portraitnet.images import Image, Mask
from transforms.color import (
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

# The two training lists. Deformation moves image, mask and edge alike; texture touches only the
# second copy of the image, whose output must agree with that of the clean one.
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
    "edge_of",
]


def degrade(
    image: Image,
    rng: np.random.Generator,
    inside: Mask | None = None,
    photometric: Iterable = PHOTOMETRIC,
) -> Image:
    """Every texture transform in turn, each with its probability.

    For the second copy of a training image and, seeded by index, for degraded validation photos.

    Args:
        image: (H, W, 3) uint8 BGR.
        rng: np.random.Generator, the only source of chance.
        inside: (H, W) uint8 0/1, which pixels show the photo; the others, such as the bars of a
            letterbox, keep their values, as if the photo had been bad before it was letterboxed.
        texture: the transforms.

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    varied = image.copy()
    for transform in photometric:
        varied = transform(varied, rng)
    return varied if inside is None else cv2.copyTo(image, 1 - inside, varied)
