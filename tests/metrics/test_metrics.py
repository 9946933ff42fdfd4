"""Scores on arrays small enough to count by hand."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from metrics import (
    MATTING,
    PROTOCOLS,
    Scores,
    batch_counts,
    boundary_band,
    boundary_f_score,
    boundary_iou,
    boundary_weighted_iou,
    confusion,
    connectivity_error,
    distance_to_boundary,
    interior_transparency,
    matting_scores,
    mean_iou,
    person_iou,
    pixel_accuracy,
    slopes,
    smooth_mask,
)

EG1800 = Path(__file__).parents[2].parent / "shared" / "EG1800"


def grid(text):
    """Rows of 0, 1 and x (255) -> (H, W) uint8."""
    digits = {"0": 0, "1": 1, "x": 255}
    return np.array([[digits[c] for c in row] for row in text.split()], np.uint8)


def square(size, top, left, height, width):
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


# Regions


def test_counts_and_ratios_by_hand():
    counts = confusion(grid("0111 0100"), grid("0011 1100"))
    assert counts.dtype == np.int64
    assert counts.tolist() == [3, 1, 1, 3]
    assert pixel_accuracy(counts) == 6 / 8
    assert person_iou(counts) == 3 / 5
    # three right of 3 + 2, for the person and for the background
    assert mean_iou(counts) == 3 / 5
    assert mean_iou(np.array([1, 2, 3, 4])) == pytest.approx((4 / 9 + 1 / 6) / 2)


def test_ignored_pixels_do_not_count():
    assert confusion(grid("0101"), grid("01xx")).tolist() == [1, 0, 0, 1]


def test_batch_counts_are_each_photos():
    rng = np.random.default_rng(0)
    predictions, masks = rng.integers(0, 2, (2, 3, 4, 5))
    counts = batch_counts(predictions == 1, masks)
    assert counts.shape == (3, 4)
    for photo, prediction, mask in zip(counts, predictions, masks, strict=True):
        assert photo.tolist() == confusion(prediction, mask).tolist()
    assert counts.sum(0).tolist() == confusion(predictions, masks).tolist()
    assert person_iou(counts).shape == (3,)


def test_counts_are_summed_before_the_ratio():
    """One big right photo and one small wrong one: the set's IoU is not the mean of theirs."""
    counts = np.array([[0, 0, 0, 90], [0, 0, 10, 0]])
    assert person_iou(counts.sum(0)) == 0.9
    assert person_iou(counts).mean() == 0.5


def test_nobody_there_and_nobody_found_is_right():
    nobody = np.zeros((4, 4), np.uint8)
    speck = square(4, 0, 0, 1, 1)
    for score in (boundary_weighted_iou, boundary_iou, boundary_f_score):
        assert score(nobody, nobody) == 1
        assert score(speck, nobody) == 0
        assert score(nobody, speck) == 0
    assert person_iou(confusion(nobody, nobody)) == mean_iou(confusion(nobody, nobody)) == 1
    assert person_iou(confusion(speck, nobody)) == 0


def test_a_wrong_value_or_shape_is_named():
    with pytest.raises(ValueError, match=r"mask \[  0 255\].*allowed are 0 and 1"):
        confusion(grid("00"), grid("0x"), ignore=None)
    with pytest.raises(ValueError, match=r"prediction holds \[  0 255\]"):
        confusion(grid("0x"), grid("00"))
    with pytest.raises(ValueError, match="differ in shape: bring both to one size"):
        confusion(grid("00"), grid("000"))


def test_smooth_mask_is_the_majority_of_25():
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7].flat[:12] = 1  # twelve of the 25 around the centre
    assert smooth_mask(mask)[4, 4] == 0
    mask[2:7, 2:7].flat[12] = 1
    assert smooth_mask(mask)[4, 4] == 1
    assert not smooth_mask(square(9, 4, 4, 1, 1)).any()
    assert smooth_mask(np.ones((6, 6), np.uint8)).all()


# Boundaries


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


def test_the_frame_is_boundary_only_when_asked():
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
    # bands of 3 px all around: both share the sides below row 60 and the bottom
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


# All of them


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
    nobody = np.zeros((224, 224), np.uint8)
    big, small = square(224, 12, 12, 200, 200), square(224, 0, 0, 20, 20)
    summary = scored((big, big), (nobody, small)).summary()
    assert summary["person_iou_raw"] == summary["person_iou_full"] == 0.5
    background = 2 * 224**2 - 40000 - 400
    ious = 40000 / 40400, background / (background + 400)
    assert summary["miou_raw"] == pytest.approx(np.mean(ious))
    assert summary["accuracy"] == pytest.approx(1 - 400 / (2 * 224**2))


def test_half_is_background():
    half = np.full((8, 8), 0.5, np.float32)
    scores = Scores()
    photo = scores.add(half, np.zeros((8, 8), np.uint8))
    assert photo["person_iou_full"] == photo["person_iou_raw"] == 1


def test_scores_of_nothing_and_of_a_0_255_mask():
    with pytest.raises(ValueError, match="add at least one photo"):
        Scores().summary()
    mask = square(8, 2, 2, 4, 4)
    with pytest.raises(ValueError, match=r"mask \[  0 255\]: allowed are 0 and 1"):
        Scores().add(mask.astype("float32"), mask * 255)


def test_a_soft_truth_counts_from_one_half_and_stays_soft_in_the_error():
    scores, share = Scores(matting=True), np.full((8, 8), 0.2, np.float32)
    share[:4] = 0.7
    photo = scores.add((share > 0.5).astype("float32"), share)
    assert photo["person_iou_full"] == photo["boundary_iou"] == 1
    assert photo["absolute_error"] == pytest.approx((0.3 + 0.2) / 2)


def matting(alpha, mask):
    return matting_scores(alpha, mask.astype(np.float32), distance_to_boundary(mask))


def test_smoke_is_what_is_unsure_deep_inside():
    mask = square(320, 100, 100, 100, 100)
    inside = distance_to_boundary(mask) * mask > 8
    alpha = mask.astype(np.float32)
    alpha[100:108] = 0.5  # a rim of 8 px is no inside
    assert interior_transparency(alpha, inside) == matting(alpha, mask)["smoke"] == 0
    alpha[150:160, 150:160] = 0.5
    assert interior_transparency(alpha, inside) == pytest.approx(100 / 84**2)
    assert matting(alpha, mask)["smoke"] == 1
    scores = scored((mask, mask))
    assert scores.summary()["smoke"] == 0
    assert scores.add(alpha, mask)["smoke"] == 1
    assert scores.summary()["smoke"] == 0.5
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


def test_matting_errors_are_means_of_a_pixel():
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


def test_connectivity_punishes_what_floats_free():
    truth = np.zeros((10, 10), np.float32)
    truth[:, :4] = 1
    truth[:, 8:] = 0.6  # 12 px of the person's share, not joined to the person
    alpha = truth.copy()
    assert connectivity_error(alpha, truth) == 0
    alpha[:, 8:] = 0.1  # both float free; the smaller gap is below .15 and none
    assert connectivity_error(alpha, truth) == pytest.approx(0.2 * 0.6)
    alpha = truth.copy()
    alpha[:, :4] = 0.72  # joined up to the level .7, where the truth has a gap and .02 is none
    assert connectivity_error(alpha, truth) == pytest.approx(0.4 * 0.3)


def test_what_is_scored_is_the_letterboxed_answer():
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
