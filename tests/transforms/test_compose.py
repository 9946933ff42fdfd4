import cv2
import numpy as np
from conftest import draw_portrait

from transforms import compose


def person(height, width, top, left, bottom, right, value=200):
    """A BGRA picture of one flat person on black."""
    bgra = np.zeros((height, width, 4), np.uint8)
    bgra[top:bottom, left:right] = (value, value, value, 255)
    return bgra


def test_a_smaller_person_keeps_the_sides_where_the_frame_cuts():
    green = np.zeros((80, 80, 4), np.uint8)
    green[:, :, 1] = 200
    cut_below = person(80, 60, 30, 20, 80, 40)
    sizes = []
    for seed in range(20):
        alpha = compose.swap_background(cut_below, green, np.random.default_rng(seed), 0.3)[:, :, 3]
        assert alpha[-1].any() and not alpha[0].any()  # legs leave the photo below, as before
        sizes.append(np.count_nonzero(alpha > 127) / np.count_nonzero(cut_below[:, :, 3]))
    assert min(sizes) < 0.3 and max(sizes) > 0.7  # an area: 0.3 of the size is 0.09 of it
    across = person(80, 60, 30, 0, 80, 60)  # cut left and right: neither size nor place may change
    for seed in range(5):
        swapped = compose.swap_background(across, green, np.random.default_rng(seed), 0.3)
        assert np.array_equal(swapped[:, :, 3], across[:, :, 3])


def test_an_occluder_hides_a_part_of_the_person_and_keeps_the_mask():
    bgra, red = person(80, 80, 20, 20, 80, 60), np.zeros((50, 50, 4), np.uint8)
    red[:, :, 2] = 255
    for seed in range(10):
        covered = compose.occlude(bgra, red, np.random.default_rng(seed))
        assert np.array_equal(covered[:, :, 3], bgra[:, :, 3])
        changed = (covered[:, :, :3] != bgra[:, :, :3]).any(axis=2)
        assert 0 < changed.sum() <= 0.3 * np.count_nonzero(bgra[:, :, 3])
    empty = np.zeros((8, 8, 4), np.uint8)
    assert np.array_equal(compose.occlude(empty, red, np.random.default_rng(0)), empty)


def test_a_swapped_background_keeps_the_person():
    rng = np.random.default_rng(0)
    image, mask = draw_portrait(rng, 200, 160)
    photo = cv2.merge([image, mask * np.uint8(255)])
    green = cv2.merge([np.full((90, 130), value, np.uint8) for value in (0, 200, 0, 0)])
    swapped = compose.swap_background(photo, green, rng)
    assert np.array_equal(swapped[:, :, 3], photo[:, :, 3])
    inner = cv2.erode(mask, np.ones((7, 7)), borderValue=1) == 1
    outer = cv2.dilate(mask, np.ones((7, 7))) == 0
    assert np.array_equal(swapped[:, :, :3][inner], image[inner])
    assert swapped[:, :, [0, 2]][outer].max() == 0 and swapped[:, :, 1][outer].min() > 100
    # feathered: the step from person to background is spread over several pixels
    step = np.abs(np.diff(swapped[150, :, 2].astype(int)))
    assert step.max() < 0.7 * image[150, :, 2].max()
