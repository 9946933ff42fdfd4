import cv2
import numpy as np
import pytest
from conftest import draw_portrait

from portraitnet.geometry import resize
from portraitnet.postprocess import (
    APPLY_SIDE,
    CLEAR,
    guided_upsample,
    without_specks,
    without_spikes,
)


def portrait(height=150, width=110, seed=0):
    return draw_portrait(np.random.default_rng(seed), height, width)


@pytest.mark.parametrize("value", [0, 0.3, 0.5, 1])
def test_a_flat_answer_stays_flat_and_gets_surer(value):
    image, _ = portrait()
    refined = guided_upsample(np.full((64, 32), value, np.float32), image)
    odds = value**2, (1 - value) ** 2
    assert refined == pytest.approx(odds[0] / sum(odds), abs=1e-4)


def test_texture_leaves_no_print_away_from_the_boundary():
    """A chessboard of random colours behind person and wall alike, and a boundary 30 px wide."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (48, 64, 3), np.uint8), (640, 480), interpolation=0)
    answer = np.zeros((48, 64), np.float32)
    answer[:, 32:] = 1
    answer = cv2.blur(answer, (3, 3))
    plain = guided_upsample(answer, np.full_like(image, 90))
    printed = np.abs(guided_upsample(answer, image) - plain).max(0)
    assert printed[320:328].max() > 0.1, "a test of nothing"
    assert printed[:290].max() < 0.01 and printed[350:].max() < 0.01


def test_refinement_stays_between_0_and_1():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 300, 3), np.uint8)
    probability = (rng.random((32, 64)) > 0.5).astype(np.float32)
    refined = guided_upsample(probability, image)
    assert refined.min() >= 0 and refined.max() <= 1


def test_refinement_moves_the_mask_to_the_edge_of_the_photo():
    """A mask a few pixels off, and coarse, is drawn to where the photo changes."""
    image, mask = portrait(640, 480, seed=3)
    coarse = resize(np.roll(mask, (5, 5), (0, 1)) * np.uint8(255), 64, 48) / np.float32(255)

    def wrong(probability):
        return ((probability > 0.5) != mask).mean()

    bilinear = wrong(cv2.resize(coarse, (480, 640)))
    assert wrong(guided_upsample(coarse, image)) < 0.6 * bilinear


def test_beyond_apply_side_the_answer_is_that_of_the_shrunk_photo():
    image, mask = portrait(APPLY_SIDE, 600, seed=3)
    coarse = resize(mask * np.uint8(255), 64, 48) / np.float32(255)
    large = image.repeat(2, axis=0).repeat(2, axis=1)  # its 2x2 means are the image
    expected = cv2.resize(guided_upsample(coarse, image), (1200, 2 * APPLY_SIDE))
    assert np.array_equal(guided_upsample(coarse, large), expected)


def test_specks_that_the_network_did_not_see_go():
    coarse = np.full((50, 50), 0.1, np.float32)
    coarse[10:] = 0.9
    refined = coarse.copy()
    refined[3, 3] = refined[30, 30] = 0.6  # a speck outside; inside no change of side
    refined[40, 40] = 0.2  # a hole
    refined[20:22, 0] = 0.2  # a hole that touches the frame
    found = without_specks(refined.copy(), coarse) > 0.5
    assert (found == (coarse > 0.5)).all()
    coarse[3, 3], coarse[40, 40] = 0.9, 0.1  # now the network saw both
    found = without_specks(refined.copy(), coarse) > 0.5
    assert found[3, 3] and not found[40, 40] and found[20, 0]


def test_a_faint_speck_becomes_transparent():
    coarse = np.full((50, 50), 0.1, np.float32)
    refined = coarse.copy()
    refined[20, 20] = 0.45
    assert without_specks(refined, coarse).max() == np.float32(CLEAR)


def test_large_regions_stay_without_support():
    coarse = np.full((100, 100), 0.1, np.float32)
    refined = coarse.copy()
    refined[:4, :3] = refined[50, 20:29] = 0.9  # 12 and 9 pixels of 10,000; SPECK is 10
    found = without_specks(refined, coarse) > 0.5
    assert found[:4, :3].all() and found.sum() == 12


def test_spikes_fall_to_the_threshold_or_the_coarse_answer():
    coarse = np.full((80, 80), 0.2, np.float32)
    coarse[:, 40:] = 0.9
    coarse[20, 30:40] = 0.7
    refined = coarse.copy()
    refined[20, 20:40] = 0.8  # one pixel high, from the person into the background
    found = without_spikes(refined, coarse)
    assert (found[20, 20:30] == 0.5).all() and (found[20, 30:39] == coarse[20, 30:39]).all()
    assert (np.delete(found, 20, 0) == np.delete(refined, 20, 0)).all()
    refined[30:60, 20:40] = 0.8  # a region this thick stays
    assert (without_spikes(refined, coarse)[35:55, 22:40] == refined[35:55, 22:40]).all()
