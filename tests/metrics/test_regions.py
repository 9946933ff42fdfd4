"""Counts and ratios of regions, on arrays small enough to count by hand."""

import numpy as np
import pytest
from conftest import grid, square

from metrics import (
    batch_counts,
    confusion,
    mean_iou,
    person_iou,
    pixel_accuracy,
    smooth_mask,
)


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


def test_batch_counts_are_those_of_each_photo():
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


def test_no_person_and_none_found_is_right():
    empty, speck = np.zeros((4, 4), np.uint8), square(4, 0, 0, 1, 1)
    assert person_iou(confusion(empty, empty)) == mean_iou(confusion(empty, empty)) == 1
    assert person_iou(confusion(speck, empty)) == 0


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
