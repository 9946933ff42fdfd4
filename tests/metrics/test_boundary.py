"""Scores of the boundary, on shapes whose bands can be counted by hand."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import grid, square

from metrics import (
    boundary_band,
    boundary_f_score,
    boundary_iou,
    boundary_weighted_iou,
    confusion,
    distance_to_boundary,
    person_iou,
)

EG1800 = Path(__file__).parents[2].parent / "shared" / "EG1800"


def test_no_person_and_none_found_is_right():
    empty, speck = np.zeros((4, 4), np.uint8), square(4, 0, 0, 1, 1)
    for score in (boundary_weighted_iou, boundary_iou, boundary_f_score):
        assert score(empty, empty) == 1
        assert score(speck, empty) == 0
        assert score(empty, speck) == 0


def test_distance_is_to_the_line_between_person_and_background():
    distance = distance_to_boundary(grid("0001111 0001111"))
    np.testing.assert_allclose(distance[0], [2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 3.5])
    assert np.isinf(distance_to_boundary(np.ones((3, 3), np.uint8))).all()


def test_boundary_weighted_iou_by_hand():
    mask, prediction = grid("000111"), grid("001111")

    def weight(distance):
        return math.exp(-(distance**2) / (2 * 2.0**2))

    union = 2 * weight(0.5) + weight(1.5) + weight(2.5)
    expected = (union - weight(0.5)) / union
    assert boundary_weighted_iou(prediction, mask, sigma=2.0) == pytest.approx(expected)


def test_boundary_weight_forgets_far_errors_and_tends_to_plain_iou():
    mask = square(60, 10, 10, 40, 40)
    hole, near = mask.copy(), mask.copy()
    hole[25:35, 25:35] = 0
    near[10:12, 10:50] = 0  # fewer pixels, but at the boundary
    assert boundary_weighted_iou(hole, mask, 3.0) > boundary_weighted_iou(near, mask, 3.0)
    plain = person_iou(confusion(hole, mask))
    assert boundary_weighted_iou(hole, mask, 1e4) == pytest.approx(plain, abs=1e-5)
    whole = np.ones((4, 4), np.uint8)
    assert boundary_weighted_iou(grid("1100 1100 0000 0000"), whole) == 0.25


def test_boundary_band_by_hand():
    mask = square(7, 1, 1, 5, 5)
    assert (boundary_band(mask, 1) == mask - square(7, 2, 2, 3, 3)).all()
    assert (boundary_band(mask, 2) == mask - square(7, 3, 3, 1, 1)).all()


def test_the_frame_is_boundary_only_if_asked():
    cut = square(6, 2, 0, 4, 6)  # a body that the frame cuts on three sides
    assert boundary_band(cut, 1).sum() == 6
    assert boundary_band(cut, 1, frame=True).sum() == 4 * 6 - 2 * 4


def test_boundary_iou_by_hand():
    """100 x 100: the diagonal's 2 % is 2.8, a band of 3 px."""
    mask, prediction = square(100, 20, 20, 40, 40), square(100, 20, 22, 40, 40)
    ring = 40 * 40 - 34 * 34
    # the rings of two squares 2 px apart: their overlap, counted side by side
    both = np.zeros((100, 100), int)
    for left in (20, 22):
        both += square(100, 20, left, 40, 40).astype(int) - square(100, 23, left + 3, 34, 34)
    overlap = (both == 2).sum()
    assert overlap == 2 * 3 * 38 + 2 * 1 * 34  # top and bottom rows, and one column a side
    assert boundary_iou(prediction, mask) == pytest.approx(overlap / (2 * ring - overlap))
    assert boundary_iou(mask, mask) == 1


def test_boundary_iou_of_a_cut_body_with_and_without_the_frame():
    mask, prediction = square(100, 50, 0, 50, 100), square(100, 60, 0, 40, 100)
    assert boundary_iou(prediction, mask) == 0
    # bands of 3 px all around: both hold the sides below row 60 and the bottom
    overlap = 2 * 3 * 40 + 3 * 94
    union = (50 * 100 - 44 * 94) + (40 * 100 - 34 * 94) - overlap
    assert boundary_iou(prediction, mask, frame=True) == pytest.approx(overlap / union)


def test_boundary_f_by_hand():
    """400 x 400: 0.75 % of the diagonal is 4.24 px."""
    mask = square(400, 100, 0, 300, 400)
    assert boundary_f_score(square(400, 104, 0, 296, 400), mask) == 1
    assert boundary_f_score(square(400, 105, 0, 295, 400), mask) == 0
    # Right half 20 px too low: its boundary is 200 px at row 100, 19 down the step, 1 in the step's
    # corner and 200 at row 120; the step's first 4 px are near, and so are 4 px on the true side.
    step = square(400, 100, 0, 300, 200) | square(400, 120, 200, 280, 200)
    precision, recall = 204 / (200 + 19 + 1 + 200), 204 / 400
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f_score(step, mask) == pytest.approx(expected)


@pytest.mark.skipif(not EG1800.exists(), reason="needs ../shared/EG1800")
def test_a_true_mask_reduced_to_224_and_back_keeps_its_boundary():
    """Measured elsewhere on EG1800's test photos: person IoU .995, boundary IoU .948."""
    names = (EG1800 / "eg1800_val.txt").read_text().split()[:20]
    scores = []
    for name in names:
        mask = cv2.imread(
            str(EG1800 / "Labels" / Path(name).with_suffix(".png")), cv2.IMREAD_GRAYSCALE
        )
        mask = (mask > 127).astype(np.uint8)
        height, width = mask.shape
        small = (round(width * 224 / height), 224)
        reduced = cv2.resize(mask.astype("float32"), small, interpolation=cv2.INTER_AREA)
        back = cv2.resize(reduced, (width, height)) > 0.5
        scores.append((person_iou(confusion(back, mask)), boundary_iou(back, mask)))
    assert np.mean(scores, axis=0) == pytest.approx([0.995, 0.948], abs=0.015)


def test_a_distance_does_not_depend_on_where_the_mask_lies_in_memory():
    mask = np.zeros((64, 64), np.uint8)
    cv2.circle(mask, (30, 33), 17, 1, -1)
    buffer, seen = np.zeros(mask.size + 64, np.uint8), set()
    kept = [np.empty(1000 + 4 * step, np.uint8) for step in range(64)]  # moves what is made next
    for start in range(64):
        placed = buffer[start : start + mask.size].reshape(mask.shape)
        placed[:] = mask
        kept[start] = None
        seen.add(distance_to_boundary(placed).tobytes())
    assert len(seen) == 1
