"""Who is in the picture: another background, a second person, things before the person.

All functions take and return BGRA pictures, (H, W, 4) uint8: an image in BGR and, as its alpha, the
person's share of each pixel, 0..255. The data set draws how often each is used.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from transforms.geometry import resize, threshold

TOUCH = 0.02  # share of a side's pixels from which on the frame counts as cutting the person there
PERSON_SCALES = 0.4, 1.1  # of the photo that lends a person, as a share of the size that fits
THING_SHARES = 0.02, 0.15  # of the person's pixels that a thing hides
TRIALS = 4  # places tried for a second person; the one that hides least is taken


def swap_background(
    bgra: NDArray[np.uint8],
    background: NDArray[np.uint8],
    rng: np.random.Generator,
    least_scale: float = 1.0,
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
    scene = cv2.convertScaleAbs(scene, alpha=_half_gain(new, old))
    if least_scale < 1:
        scale = least_scale ** rng.random()
        small, cut = _scaled(bgra, *bgra.shape[:2], scale)
        bgra = _place(small, cut, *bgra.shape[:2], rng)
    return _over(bgra, scene, np.zeros(scene.shape[:2], np.uint8))


def add_person(
    bgra: NDArray[np.uint8], other: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Put the person of another photo beside, behind or before the one of this photo.

    Args:
        bgra: (H, W, 4) uint8.
        other: (h, w, 4) uint8, the photo that lends its person.
        rng: np.random.Generator.

    Returns:
        (H, W, 4) uint8, both persons in its alpha.
    """
    height, width = bgra.shape[:2]
    before, alpha = rng.random() < 0.5, cv2.extractChannel(bgra, 3)
    scale = rng.uniform(*PERSON_SCALES) * min(height / other.shape[0], width / other.shape[1])
    small, cut = _scaled(other, height, width, scale)
    places = [_place(small, cut, height, width, rng) for _ in range(TRIALS)]
    hidden = [int(np.minimum(place[:, :, 3], alpha).sum(dtype=np.int64)) for place in places]
    added = places[int(np.argmin(hidden))]
    image = cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR)
    # Two photos seldom have one light: move the new person half of the way to this photo's.
    person = threshold(cv2.extractChannel(added, 3))
    gain = _half_gain(sum(cv2.mean(added[:, :, :3], person)), sum(cv2.mean(image)))
    added[:, :, :3] = cv2.convertScaleAbs(added[:, :, :3], alpha=gain)
    if not before:  # the person of the photo stays in front
        added[:, :, 3] = np.minimum(added[:, :, 3], 255 - alpha)
    return _over(added, image, alpha)


def cover_part(
    bgra: NDArray[np.uint8], thing: NDArray[np.uint8], rng: np.random.Generator
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
    person = np.flatnonzero(threshold(cv2.extractChannel(bgra, 3)))
    if not len(person):
        return bgra
    y, x = divmod(int(rng.choice(person)), bgra.shape[1])
    side, stretch = np.sqrt(rng.uniform(*THING_SHARES) * len(person)), np.sqrt(rng.uniform(0.3, 1))
    axes = max(1, int(side / stretch / 2)), max(1, int(side * stretch / 2))
    patch, angle = np.zeros(bgra.shape[:2], np.uint8), rng.uniform(0, 180)
    if rng.random() < 0.5:
        cv2.ellipse(patch, (x, y), axes, angle, 0, 360, 255, -1)
    else:
        corners = cv2.boxPoints(((x, y), (2 * axes[0], 2 * axes[1]), angle))
        cv2.fillConvexPoly(patch, np.intp(corners), 255)
    covered = _random_part(thing, *bgra.shape[:2], rng)
    covered[:, :, 3] = np.minimum(patch, bgra[:, :, 3])
    covered = _over(covered, cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR), bgra[:, :, 3])
    covered[:, :, 3] = bgra[:, :, 3]
    return covered


def _half_gain(level, wanted):
    """Factor that moves a brightness half of the way, on a log scale, to the wanted one."""
    return float(np.clip(np.sqrt((wanted + 24) / (level + 24)), 0.6, 1.6))


def _over(bgra, image, alpha):
    """A BGRA picture, feathered, over an image; its alpha joins the given one."""
    feathered = cv2.GaussianBlur(bgra[:, :, 3], (5, 5), 0)
    weight = feathered.astype(np.float32) / 255
    front = cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR)
    mixed = cv2.blendLinear(front, image, weight, 1 - weight)
    return cv2.merge([mixed, np.maximum(alpha, bgra[:, :, 3])])


def _scaled(bgra, height, width, scale):
    """A picture at `scale`, or larger if it must reach across a (height, width) canvas.

    Returns:
        the picture, and whether the frame cuts the person above, left, below and right.
    """
    person = threshold(cv2.extractChannel(bgra, 3))
    cut = [line.mean() > TOUCH for line in (person[0], person[:, 0], person[-1], person[:, -1])]
    top, left, bottom, right = cut
    fill_y, fill_x = height / bgra.shape[0], width / bgra.shape[1]
    if top and bottom:
        scale = max(scale, fill_y)
    if left and right:
        scale = max(scale, fill_x)
    inner = max(1, round(scale * bgra.shape[0])), max(1, round(scale * bgra.shape[1]))
    return resize(bgra, *inner), cut


def _place(small, cut, height, width, rng):
    """A picture on a transparent (height, width) canvas.

    A side where the frame cuts the person lies on the same side of the canvas, or beyond it.
    """
    top, left, bottom, right = cut
    y = _offset(height - small.shape[0], top, bottom, rng)
    x = _offset(width - small.shape[1], left, right, rng)
    canvas = np.zeros((height, width, 4), np.uint8)
    part = canvas[max(y, 0) : y + small.shape[0], max(x, 0) : x + small.shape[1]]
    part[:] = small[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]
    return canvas


def _offset(room, cut_before, cut_after, rng):
    """Where a line begins on a longer (or shorter) one whose ends it may have to reach."""
    if cut_before and not cut_after:
        return min(0, room)
    if cut_after and not cut_before:
        return room
    return int(rng.integers(min(0, room), max(0, room) + 1))


def _random_part(picture, height, width, rng):
    """A random rectangle with the proportions of height x width at that size, mirrored or not."""
    share = rng.uniform(0.6, 1) * min(picture.shape[0] / height, picture.shape[1] / width)
    part_height, part_width = max(1, int(share * height)), max(1, int(share * width))
    top = rng.integers(picture.shape[0] - part_height + 1)
    left = rng.integers(picture.shape[1] - part_width + 1)
    part = resize(picture[top : top + part_height, left : left + part_width], height, width)
    return cv2.flip(part, 1) if rng.random() < 0.5 else part
