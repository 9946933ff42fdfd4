"""Every score of a data set: names, means, intervals."""

import numpy as np
import pytest
from conftest import square

from metrics import (
    MATTING,
    PROTOCOLS,
    Scores,
    distance_to_boundary,
    matting_scores,
)


def scored(*photos):
    scores = Scores(matting=True)
    for prediction, mask in photos:
        scores.add(prediction.astype("float32"), mask)
    return scores


def test_scores_name_every_protocol_in_order():
    mask = square(300, 50, 60, 200, 150)
    scores = scored((mask, mask))
    summary = scores.summary()
    assert list(summary) == list(PROTOCOLS)
    raw = {name: value for name, value in summary.items() if not PROTOCOLS[name].count("5x5")}
    errors = [raw.pop(alpha + name) for alpha in ("", "matte_") for name in MATTING]
    assert errors == pytest.approx([0] * 12, abs=1e-9)
    assert set(raw.values()) == {1.0}
    # only the corners of the rectangle are smoothed away
    assert 0.99 < summary["person_iou_smoothed"] < 1
    assert set(scores.photo_scores[0]) == {n for n in PROTOCOLS if "over photos" in PROTOCOLS[n]}


def test_scores_are_set_counts_or_photo_means_as_promised():
    empty = np.zeros((224, 224), np.uint8)
    big, small = square(224, 12, 12, 200, 200), square(224, 0, 0, 20, 20)
    summary = scored((big, big), (empty, small)).summary()
    assert summary["person_iou_raw"] == summary["person_iou_full"] == 0.5
    background = 2 * 224**2 - 40000 - 400
    ious = 40000 / 40400, background / (background + 400)
    assert summary["miou_raw"] == pytest.approx(np.mean(ious))
    assert summary["accuracy"] == pytest.approx(1 - 400 / (2 * 224**2))


def test_a_probability_of_one_half_is_background():
    half = np.full((8, 8), 0.5, np.float32)
    scores = Scores()
    photo = scores.add(half, np.zeros((8, 8), np.uint8))
    assert photo["person_iou_full"] == photo["person_iou_raw"] == 1


def test_scores_of_no_photo_and_of_a_0_255_mask():
    with pytest.raises(ValueError, match="add at least one photo"):
        Scores().summary()
    mask = square(8, 2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"mask \[  0 255\]: allowed are 0 and 1"):
        Scores().add(mask.astype("float32"), mask * 255)


def test_a_soft_truth_counts_from_one_half_and_stays_soft_in_the_error():
    scores, truth = Scores(matting=True), np.full((8, 8), 0.2, np.float32)
    truth[:4] = 0.7
    photo = scores.add((truth > 0.5).astype("float32"), truth)
    assert photo["person_iou_full"] == photo["boundary_iou"] == 1
    assert photo["absolute_error"] == pytest.approx((0.3 + 0.2) / 2)


def matting(alpha, mask):
    return matting_scores(alpha, mask.astype(np.float32), distance_to_boundary(mask))


def test_the_set_counts_the_photos_whose_inside_is_transparent():
    mask = square(320, 100, 100, 100, 100)
    alpha = mask.astype(np.float32)
    alpha[150:160, 150:160] = 0.5
    scores = scored((mask, mask))
    assert scores.summary()["interior_transparency"] == 0
    assert scores.add(alpha, mask)["interior_transparency"] == 1
    assert scores.summary()["interior_transparency"] == 0.5


def test_the_letterboxed_answer_is_scored():
    """A wide photo: half of its square is padding, which no person is found in."""
    mask = square(112, 0, 0, 112, 112)
    mask = np.hstack([mask, np.zeros_like(mask)])
    scores = scored((mask, mask))
    assert scores.raw_counts[0].tolist() == [224 * 224 - 112 * 112, 0, 0, 112 * 112]


def test_intervals_hold_the_score_and_shrink_with_more_photos():
    mask = square(60, 10, 10, 40, 40)
    worse = square(60, 10, 10, 40, 20)
    few, many = (
        scored(*[(mask, mask), (worse, mask)] * 4),
        scored(*[(mask, mask), (worse, mask)] * 32),
    )
    assert few.summary() == pytest.approx(many.summary())
    for name, value in few.summary().items():
        low, high = few.intervals()[name]
        narrow_low, narrow_high = many.intervals()[name]
        assert low <= value <= high and narrow_low <= value <= narrow_high
        if high > low:
            assert narrow_high - narrow_low < 0.5 * (high - low)
    iou = few.intervals()["person_iou_full"]  # photos score 1 and 0.5: mean of 8 fair coins
    assert iou == pytest.approx((0.5625, 0.9375), abs=0.07)


def test_intervals_leave_a_fortieth_out_on_each_side():
    mask = square(60, 10, 10, 40, 40)
    many = scored((mask, mask), (square(60, 10, 10, 40, 20), mask))
    for counts in (many.raw_counts, many.smoothed_counts, many.photo_scores):
        counts *= 512
    # The mean of 1024 photos with a standard deviation of 0.25 is nearly normal. Of 2000 means,
    # a fortieth ends within 0.0005, one standard deviation.
    low, high = many.intervals()["person_iou_full"]
    reach = 1.96 * 0.25 / 1024**0.5
    assert (low, high) == pytest.approx((0.75 - reach, 0.75 + reach), abs=1e-3)
