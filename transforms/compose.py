"""What is put into a photo: another background, and things before the person.

All functions take and return BGRA pictures, (H, W, 4) uint8: an image in BGR and, as its alpha, the
person's share of each pixel, 0..255. The data set draws how often each is used.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.geometry import resize
from portraitnet.images import mask_of

TOUCH = 0.02  # share of a side's pixels from which on the frame counts as cutting the person there
OCCLUDED_FRACTION = 0.02, 0.15  # of the person's pixels that a thing hides


def swap_background(
    bgra: NDArray[np.uint8],
    background: NDArray[np.uint8],
    rng: np.random.Generator,
    min_person_scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Put the person of one photo in front of another photo, smaller or as large as before.

    Where the frame cut the person it does so again: legs that leave the photo below leave the new
    one below. A person who is cut on opposite sides keeps size and place. The background is
    blurred half of the time, as lenses do, its brightness moves half of the way to that of the old
    one, and the mask is feathered, so that no cut-out line gives the person away.

    Args:
        bgra: (H, W, 4) uint8.
        background: (h, w, 4) uint8; a random part of it with the proportions of `bgra` is used.
        rng: np.random.Generator, the only source of chance.
        least_scale: smallest size of the person, as a share of the size that it has.

    Returns:
        (H, W, 4) uint8.
    """
    scene = cv2.cvtColor(_random_part(background, *bgra.shape[:2], rng), cv2.COLOR_BGRA2BGR)
    if rng.random() < 0.5:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.5, 3))
    image, alpha = cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR), cv2.extractChannel(bgra, 3)
    old, new = sum(cv2.mean(image, 255 - alpha)), sum(cv2.mean(scene))
    gain = np.sqrt((old + 24) / (new + 24))  # two photos seldom have one light
    scene = cv2.convertScaleAbs(scene, alpha=float(np.clip(gain, 0.6, 1.6)))
    if min_person_scale < 1:
        bgra = _smaller(bgra, min_person_scale ** rng.random(), rng)
    return cv2.merge([_over(bgra, scene), cv2.extractChannel(bgra, 3)])


def occlude(
    bgra: NDArray[np.uint8], occluder: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Hold something before the person: a patch of another photo, inside the outline.

    The alpha stays, for what somebody holds is cut out with them.

    Args:
        bgra: (H, W, 4) uint8.
        thing: (h, w, 4) uint8, the photo that lends its pixels.
        rng: np.random.Generator.

    Returns:
        (H, W, 4) uint8.
    """
    person = np.flatnonzero(mask_of(cv2.extractChannel(bgra, 3)))
    if not len(person):
        return bgra
    y, x = divmod(int(rng.choice(person)), bgra.shape[1])
    side, stretch = (
        np.sqrt(rng.uniform(*OCCLUDED_FRACTION) * len(person)),
        np.sqrt(rng.uniform(0.3, 1)),
    )
    axes = max(1, int(side / stretch / 2)), max(1, int(side * stretch / 2))
    patch, angle = np.zeros(bgra.shape[:2], np.uint8), rng.uniform(0, 180)
    if rng.random() < 0.5:
        cv2.ellipse(patch, (x, y), axes, angle, 0, 360, 255, -1)
    else:
        corners = cv2.boxPoints(((x, y), (2 * axes[0], 2 * axes[1]), angle))
        cv2.fillConvexPoly(patch, np.intp(corners), 255)
    covered = _random_part(occluder, *bgra.shape[:2], rng)
    covered[:, :, 3] = np.minimum(patch, bgra[:, :, 3])
    image = _over(covered, cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR))
    return cv2.merge([image, cv2.extractChannel(bgra, 3)])


def _over(bgra, image):
    """A BGRA picture, feathered, over an image of its size -> (H, W, 3) uint8."""
    weight = cv2.GaussianBlur(bgra[:, :, 3], (5, 5), 0).astype(np.float32) / 255
    return cv2.blendLinear(cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR), image, weight, 1 - weight)


def _smaller(bgra, scale, rng):
    """The picture at `scale` somewhere on a transparent canvas of its own size.

    A side where the frame cuts the person lies on the same side of the canvas; a person who is cut
    on opposite sides keeps the size.
    """
    height, width = bgra.shape[:2]
    person = mask_of(cv2.extractChannel(bgra, 3))
    lines = person[0], person[:, 0], person[-1], person[:, -1]
    top, left, bottom, right = (line.mean() > TOUCH for line in lines)
    if (top and bottom) or (left and right):
        scale = 1
    small = resize(bgra, max(1, round(scale * height)), max(1, round(scale * width)))
    y = _offset(height - small.shape[0], top, bottom, rng)
    x = _offset(width - small.shape[1], left, right, rng)
    canvas = np.zeros_like(bgra)
    canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
    return canvas


def _offset(room, cut_before, cut_after, rng):
    """Where a line begins on a longer one, at whose ends it may have to lie."""
    if cut_before or cut_after:
        return 0 if cut_before else room
    return int(rng.integers(room + 1))


def _random_part(picture, height, width, rng):
    """A random rectangle with the proportions of height x width at that size, mirrored or not."""
    share = rng.uniform(0.6, 1) * min(picture.shape[0] / height, picture.shape[1] / width)
    part_height, part_width = max(1, int(share * height)), max(1, int(share * width))
    top = rng.integers(picture.shape[0] - part_height + 1)
    left = rng.integers(picture.shape[1] - part_width + 1)
    part = resize(picture[top : top + part_height, left : left + part_width], height, width)
    return cv2.flip(part, 1) if rng.random() < 0.5 else part
