from collections.abc import Iterable

import numpy as np

from images import Image, Mask, cv2
from transforms.color import (
    RandomBlur,
    RandomBrightness,
    RandomContrast,
    RandomHSV,
    RandomJpeg,
    RandomLight,
    RandomNoise,
    RandomSaturation,
    RandomSharpness,
)
from transforms.geometry import (
    RandomHorizontalFlip,
    RandomRotation,
    RandomTranslate,
    letterbox,
    letterbox_mask,
    view_shape,
)
from transforms.tensor import MEAN, SCALE, edge_of, to_batch

SIZE = 224  # side of the square whose area the network's view has, pixels

# The two training lists. Deformation moves image, mask and edge alike; texture touches only the
# second copy of the image, whose output must agree with that of the clean one.
DEFORMATION = (RandomHorizontalFlip(), RandomRotation(), RandomTranslate())
TEXTURE = (
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
    "MEAN",
    "SCALE",
    "SIZE",
    "TEXTURE",
    "RandomBlur",
    "RandomBrightness",
    "RandomContrast",
    "RandomHSV",
    "RandomHorizontalFlip",
    "RandomJpeg",
    "RandomLight",
    "RandomNoise",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomTranslate",
    "degrade",
    "edge_of",
    "letterbox",
    "letterbox_mask",
    "to_batch",
    "view_shape",
]


def degrade(
    image: Image, rng: np.random.Generator, inside: Mask | None = None, texture: Iterable = TEXTURE
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
    for transform in texture:
        varied = transform(varied, rng)
    return varied if inside is None else cv2.copyTo(image, 1 - inside, varied)
