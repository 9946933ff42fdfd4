import cv2
import numpy as np
import pytest
from conftest import draw_blob

from data.alignment import REACH, contour_offset, edge_profile, inset, inside_distance


def test_distances_are_signed_and_between_pixels():
    mask = np.zeros((3, 6), np.uint8)
    mask[:, 4:] = 1
    assert inside_distance(mask)[1].tolist() == [-3.5, -2.5, -1.5, -0.5, 0.5, 1.5]


@pytest.mark.parametrize("grow", [-2, -1, 0, 1, 2])
def test_the_offset_of_contours_is_found(grow):
    profiles = [edge_profile(*draw_blob(seed, grow)) for seed in range(20)]
    assert contour_offset(profiles) == pytest.approx(grow, abs=0.3)  # grown by whole pixels, nearly


def test_the_offset_is_the_centroid_of_what_exceeds_both_ends():
    profile = np.full(2 * REACH, 0.1)
    profile[-1], profile[REACH + 1], profile[REACH + 2] = 0.3, 1, 0.5
    assert contour_offset([profile]) == pytest.approx((0.7 * 1.5 + 0.2 * 2.5) / 0.9)
    assert contour_offset([profile[::-1]]) == pytest.approx(-(0.7 * 1.5 + 0.2 * 2.5) / 0.9)


def test_no_profile_without_a_contour():
    image, mask = draw_blob(0)
    thin = np.zeros_like(mask)
    thin[:, 50:53] = 1
    assert edge_profile(image, thin) is None
    assert edge_profile(image, np.zeros_like(mask)) is None
    assert edge_profile(image, np.ones_like(mask)) is None
    corner = np.zeros_like(mask)
    corner[0, 0] = 1
    assert edge_profile(image, corner) is None


@pytest.mark.parametrize("pixels", [-1.5, 0.5, 2])
def test_inset_moves_a_contour_and_keeps_the_rest(pixels):
    _, mask = draw_blob(1)
    hard = 255 * mask
    moved = inset(hard, pixels)
    assert moved.dtype == np.uint8
    expected = inside_distance(mask) - pixels
    assert moved[expected > 1].min() >= 245 and moved[expected < -1].max() <= 10
    assert moved.sum() / 255 - mask.sum() == pytest.approx(
        ((expected > 0).sum() - (expected < 0).sum() - mask.sum() + (mask == 0).sum()) / 2,
        rel=0.15,
    )
    soft = cv2.GaussianBlur(hard, (0, 0), 3)
    assert np.abs(inset(inset(soft, pixels), -pixels).astype(int) - soft).max() < 16
    assert np.abs(inset(soft, pixels).astype(int) - soft).max() > 16


def test_inset_leaves_the_frame_and_masks_without_a_contour():
    person = np.zeros((40, 40), np.uint8)
    person[10:, 10:30] = 255  # down to the lower side
    moved = inset(person, 2)
    assert (moved[-1] == moved[-8]).all() and moved[12, 20] == 255 and moved[10, 20] == 0
    for value in (0, 255):
        assert (inset(np.full((9, 9), value, np.uint8), 2) == value).all()
