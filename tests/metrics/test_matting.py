"""Scores of soft masks, with errors computed by hand."""

import numpy as np
import pytest
from conftest import square

from metrics import (
    MATTING,
    connectivity_error,
    distance_to_boundary,
    interior_transparency,
    matting_scores,
    slopes,
)


def matting(alpha, mask):
    return matting_scores(alpha, mask.astype(np.float32), distance_to_boundary(mask))


def test_interior_transparency_is_what_is_unsure_deep_inside():
    mask = square(320, 100, 100, 100, 100)
    inside = distance_to_boundary(mask) * mask > 8
    alpha = mask.astype(np.float32)
    alpha[100:108] = 0.5  # a rim of 8 px is no inside
    assert interior_transparency(alpha, inside) == 0
    assert matting(alpha, mask)["interior_transparency"] == 0
    alpha[150:160, 150:160] = 0.5
    assert interior_transparency(alpha, inside) == pytest.approx(100 / 84**2)
    assert matting(alpha, mask)["interior_transparency"] == 1
    assert interior_transparency(alpha, np.zeros_like(inside)) == 0


def test_halo_is_alpha_away_from_the_person():
    mask = square(320, 0, 0, 320, 100)
    alpha = np.zeros(mask.shape, np.float32)
    alpha[:, :106] = 1  # 6 columns more than the person are no halo
    assert matting(alpha, mask)["halo"] == 0
    alpha[:, 200:210] = 0.5
    assert matting(alpha, mask)["halo"] == pytest.approx(0.5 * 10 / 214)
    assert matting(alpha, square(320, 0, 0, 320, 320))["halo"] == 0
    assert matting(alpha, np.zeros_like(mask))["halo"] == pytest.approx(alpha.mean())


def test_matting_errors_are_means_over_pixels():
    mask = square(10, 0, 0, 10, 5)
    alpha = np.where(mask, 0.75, 0.25).astype(np.float32)
    scores = matting(alpha, mask)
    assert list(scores) == list(MATTING)
    assert scores["absolute_error"] == 0.25 and scores["squared_error"] == 0.0625
    # All slopes are half as long: the error is a quarter of the true ones' mean square.
    true = np.square(slopes(mask.astype(np.float32))).mean()
    assert scores["gradient_error"] == pytest.approx(true / 4, rel=1e-5)
    perfect = matting(mask.astype(np.float32), mask)
    assert list(perfect.values()) == pytest.approx([0] * 6, abs=1e-9)


def test_a_slope_is_the_gradient_under_a_gaussian():
    ramp = np.tile(np.arange(21, dtype=np.float32) / 20, (21, 1))
    at = np.arange(-4, 5)
    gauss = np.exp(-(at**2) / (2 * 1.4**2))
    moved = at * gauss
    expected = (at * moved).sum() / 20 * gauss.sum() / np.linalg.norm(moved) / np.linalg.norm(gauss)
    for plane in (ramp, ramp.T):
        assert slopes(np.ascontiguousarray(plane))[4:-4, 4:-4] == pytest.approx(expected, rel=1e-4)
    assert slopes(np.full((9, 9), 0.3, np.float32)) == pytest.approx(0, abs=1e-6)


def test_connectivity_punishes_disconnected_regions():
    truth = np.zeros((10, 10), np.float32)
    truth[:, :4] = 1
    truth[:, 8:] = 0.6  # 20 px at alpha 0.6, not connected with the person
    alpha = truth.copy()
    assert connectivity_error(alpha, truth) == 0
    alpha[:, 8:] = 0.1  # both are disconnected; the smaller gap is below .15 and does not count
    assert connectivity_error(alpha, truth) == pytest.approx(0.2 * 0.6)


@pytest.mark.parametrize(("alpha", "level"), [(0.72, 0.7), (0.85, 0.8), (0.67, 0.6)])
def test_connectivity_is_found_in_steps_of_a_tenth(alpha, level):
    """Both masks are connected up to the level; what alpha exceeds it by is below .15."""
    truth = np.zeros((10, 10), np.float32)
    truth[:, :4] = 1
    assert connectivity_error(truth * np.float32(alpha), truth) == pytest.approx(0.4 * (1 - level))
