"""From the network's answer to the photo's size: regions that are kept, edges that are followed."""

import cv2
import numpy as np
import pytest
from conftest import draw_portrait

from portraitnet.geometry import resize
from portraitnet.postprocess import (
    APPLY_SIDE,
    CLEAR,
    GUIDE_SIDE,
    color_fit,
    drop_doubtful,
    guided_upsample,
    small_guide,
    without_specks,
    without_spikes,
)


def test_regions_too_unsure_or_too_small_are_removed():
    suspicion = np.full((64, 64), 0.1, np.float32)
    suspicion[10:29, 10:29] = 0.7  # unsure: 361 of 4096 pixels
    suspicion[50:53, 50:53] = 0.99  # sure and small: 9 pixels
    suspicion[51, 53:] = 0.3
    assert not drop_doubtful(suspicion).any()


def test_a_network_that_is_unsure_of_everything_shows_its_largest_region():
    unsure = np.full((64, 64), 0.1, np.float32)
    unsure[10:40, 10:40] = 0.6  # 900 of 4096 pixels
    unsure[50:60, 50:60] = 0.6
    kept = drop_doubtful(unsure)
    assert (kept[10:40, 10:40] == np.float32(0.6)).all() and not kept[50:60, 50:60].any()
    unsure[50:60, 50:60] = 0.9  # one sure person: the doubtful region goes, however large
    kept = drop_doubtful(unsure)
    assert not kept[10:40, 10:40].any() and kept[55, 55] == np.float32(0.9)


def test_a_sure_person_may_be_small():
    probability = np.full((64, 64), 0.1, np.float32)
    probability[20:30, 8:28] = 0.95  # 200 of 4096 pixels: less than LARGE_AREA
    assert np.array_equal(drop_doubtful(probability), probability)


def test_a_person_is_kept_and_doubtful_regions_beside_are_removed():
    probability = np.full((64, 64), 0.1, np.float32)
    probability[20:, 8:30] = 0.95
    probability[15:20, 8:30] = 0.6  # the rim of the person
    probability[30:50, 50:60] = 0.7
    probability[28:30, 50:60] = 0.4  # the rim of the blob
    kept = drop_doubtful(probability)
    expected = probability.copy()
    expected[28:50, 50:60] = 0
    assert np.array_equal(kept, expected) and kept.dtype == np.float32


@pytest.mark.parametrize("value", [0, 0.3, 0.5, 1])
def test_a_flat_answer_stays_flat_and_gets_surer(value):
    image, _ = draw_portrait(np.random.default_rng(0), 150, 110)
    refined = guided_upsample(np.full((64, 32), value, np.float32), image)
    odds = value**2, (1 - value) ** 2
    assert refined == pytest.approx(odds[0] / sum(odds), abs=1e-4)


def test_a_textured_photo_changes_the_mask_only_near_the_boundary():
    """A chessboard of random colours behind person and wall alike, and a boundary 30 px wide."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (48, 64, 3), np.uint8), (640, 480), interpolation=0)
    answer = np.zeros((48, 64), np.float32)
    answer[:, 32:] = 1
    answer = cv2.blur(answer, (3, 3))
    plain = guided_upsample(answer, np.full_like(image, 90))
    printed = np.abs(guided_upsample(answer, image) - plain).max(0)
    assert printed[320:328].max() > 0.1, "this photo tests nothing"
    assert printed[:290].max() < 0.01 and printed[350:].max() < 0.01


def test_upsampling_stays_between_0_and_1():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 300, 3), np.uint8)
    probability = (rng.random((32, 64)) > 0.5).astype(np.float32)
    refined = guided_upsample(probability, image)
    assert refined.min() >= 0 and refined.max() <= 1


def test_upsampling_stays_between_the_answers_around():
    """At GUIDE_SIDE nothing is resized: the bounds are the least and the greatest of 3x3 pixels."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (GUIDE_SIDE, 80, 3), np.uint8)
    answer = np.zeros((GUIDE_SIDE, 80), np.float32)
    answer[40:, 30:] = 1
    refined, around = guided_upsample(answer, image), np.ones((3, 3), np.uint8)
    assert (refined >= cv2.erode(answer, around) - 1e-6).all()
    assert (refined <= cv2.dilate(answer, around) + 1e-6).all()
    assert 0.1 < refined[40:, 30:].min() < 0.9, "this photo tests nothing"


def test_the_guide_is_the_photo_at_112_pixels_from_0_to_1():
    guide = small_guide(np.full((560, 280, 3), 255, np.uint8))
    assert guide.shape == (112, 56, 3) and guide.dtype == np.float32
    assert (guide == 1).all()


def test_upsampling_moves_the_mask_to_the_edge_of_the_photo():
    """A mask a few pixels off, and coarse, is drawn to where the photo changes."""
    image, mask = draw_portrait(np.random.default_rng(3), 640, 480)
    coarse = resize(np.roll(mask, (5, 5), (0, 1)) * np.uint8(255), 64, 48) / np.float32(255)

    def wrong(probability):
        return ((probability > 0.5) != mask).mean()

    bilinear = wrong(cv2.resize(coarse, (480, 640)))
    assert wrong(guided_upsample(coarse, image)) < 0.6 * bilinear


def test_beyond_apply_side_the_answer_is_that_of_the_shrunk_photo():
    image, mask = draw_portrait(np.random.default_rng(3), APPLY_SIDE, 600)
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


def test_a_speck_needs_more_than_a_little_support():
    coarse = np.full((50, 50), 0.1, np.float32)
    coarse[10:] = 0.9
    refined = coarse.copy()
    refined[3, 3], refined[40, 40] = 0.9, 0.1
    coarse[3, 3], coarse[40, 40] = 0.7, 0.3  # 0.2 beyond THRESHOLD, less than SUPPORT
    found = without_specks(refined, coarse) > 0.5
    assert not found[3, 3] and found[40, 40]


def test_the_rim_of_a_hole_is_no_speck():
    coarse = np.full((200, 200), 0.6, np.float32)
    refined = coarse.copy()
    refined[100, 100], coarse[100, 100] = 0.2, 0.1  # a hole that the network saw
    assert np.array_equal(without_specks(refined.copy(), coarse), refined)


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


def test_a_color_fit_is_the_mean_of_the_regressions_around():
    rng = np.random.default_rng(6)
    guide = rng.uniform(0, 1, (7, 9, 3)).astype(np.float32)
    probability = rng.uniform(0, 1, (7, 9)).astype(np.float32)
    edge = ((1, 1), (1, 1))
    colors = np.pad(guide, (*edge, (0, 0)), "symmetric").astype(float)
    answers = np.pad(probability, edge, "symmetric").astype(float)
    fits = np.empty((7, 9, 4))
    for row, column in np.ndindex(7, 9):  # a ridge regression in each window of 3x3 pixels
        c = colors[row : row + 3, column : column + 3].reshape(9, 3)
        p = answers[row : row + 3, column : column + 3].ravel()
        covariance = np.cov(c.T, bias=True) + 0.01 * np.eye(3)
        slopes = np.linalg.solve(covariance, (c - c.mean(0)).T @ p / 9)
        fits[row, column] = *slopes, p.mean() - slopes @ c.mean(0)
    fits = np.pad(fits, (*edge, (0, 0)), "symmetric")
    expected = sum(fits[y : y + 7, x : x + 9] for y, x in np.ndindex(3, 3)) / 9
    found = cv2.merge(color_fit(guide, probability, radius=1, epsilon=0.01))
    # float32, determinants of about 1e-4
    assert np.abs(found - expected).max() < 1e-3
