"""Composition: another background behind the person, and occluders in front.

All functions take and return BGRA pictures, (H, W, 4) uint8: an image and, as alpha, its mask
0..255.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.geometry import resize
from portraitnet.images import mask_of

TOUCH = 0.02  # of a frame side's pixels; with more person the frame cuts the person at that side
OCCLUDED_FRACTION = 0.02, 0.15  # (min, max) of the person's pixels that an occluder covers


def swap_background(
    bgra: NDArray[np.uint8],
    background: NDArray[np.uint8],
    rng: np.random.Generator,
    min_person_scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Composite the person of one photo over another photo, at random scale and position.

    A person whom the frame cuts at one side stays at that side. A person cut at opposite sides
    keeps scale and position. Half of the backgrounds are blurred, like the bokeh of a lens. The
    background's brightness moves half of the way to that of the old background. The mask is
    feathered, so that the network cannot learn a hard cut-out line.

    Args:
        bgra: (H, W, 4) uint8, the person.
        background: (h, w, 4) uint8; a random part with the proportions of `bgra` is used.
        rng: generator of all random numbers.
        min_person_scale: smallest scale of the person, 0..1.

    Returns:
        (H, W, 4) uint8.
    """
    scene = cv2.cvtColor(_random_part(background, *bgra.shape[:2], rng), cv2.COLOR_BGRA2BGR)
    if rng.random() < 0.5:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.5, 3))
    image, alpha = cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR), cv2.extractChannel(bgra, 3)
    old, new = sum(cv2.mean(image, 255 - alpha)), sum(cv2.mean(scene))
    gain = np.sqrt((old + 24) / (new + 24))  # two photos seldom have the same exposure
    scene = cv2.convertScaleAbs(scene, alpha=float(np.clip(gain, 0.6, 1.6)))
    if min_person_scale < 1:
        bgra = _smaller(bgra, min_person_scale ** rng.random(), rng)
    return cv2.merge([_over(bgra, scene), cv2.extractChannel(bgra, 3)])


def occlude(
    bgra: NDArray[np.uint8], occluder: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cover a part of the person with a patch of another photo, inside the person's outline.

    The alpha stays unchanged, because objects that a person holds belong to the person.

    Args:
        bgra: (H, W, 4) uint8, the person.
        occluder: (h, w, 4) uint8, the photo of the patch.
        rng: generator of all random numbers.

    Returns:
        (H, W, 4) uint8; `bgra` itself if it shows no person.
    """
    person = np.flatnonzero(mask_of(cv2.extractChannel(bgra, 3)))
    if not len(person):
        return bgra
    y, x = divmod(int(rng.choice(person)), bgra.shape[1])
    side = np.sqrt(rng.uniform(*OCCLUDED_FRACTION) * len(person))
    stretch = np.sqrt(rng.uniform(0.3, 1))
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
    """A BGRA picture, feathered, over an image of the same size -> (H, W, 3) uint8 BGR."""
    weight = cv2.GaussianBlur(bgra[:, :, 3], (5, 5), 0).astype(np.float32) / 255
    return cv2.blendLinear(cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR), image, weight, 1 - weight)


def _smaller(bgra, scale, rng):
    """The picture at `scale`, at a random position on a transparent canvas of the same size.

    A side at which the frame cuts the person stays at that side of the canvas. A person cut at
    opposite sides keeps the scale.
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
    """Random offset 0..room, or the end at which the frame cuts the person."""
    if cut_before or cut_after:
        return 0 if cut_before else room
    return int(rng.integers(room + 1))


def _random_part(picture, height, width, rng):
    """A random part with the proportions of height x width at that size, perhaps mirrored."""
    ratio = rng.uniform(0.6, 1) * min(picture.shape[0] / height, picture.shape[1] / width)
    part_height, part_width = max(1, int(ratio * height)), max(1, int(ratio * width))
    top = rng.integers(picture.shape[0] - part_height + 1)
    left = rng.integers(picture.shape[1] - part_width + 1)
    part = resize(picture[top : top + part_height, left : left + part_width], height, width)
    return cv2.flip(part, 1) if rng.random() < 0.5 else part
