import cv2
import numpy as np
import pytest

from portraitnet.geometry import (
    input_shape,
    letterbox,
    letterbox_mask,
    limited,
    limited_size,
)


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (1, 1), (1, 500), (333, 32), (32, 32)])
def test_letterbox_keeps_proportions(shape):
    square, (top, left, height, width) = letterbox(np.full((*shape, 3), 7, np.uint8), 32)
    assert square.shape == (32, 32, 3)
    assert max(height, width) == 32
    assert abs(height - 32 * shape[0] / max(shape)) <= max(0.5, height == 1)
    assert abs(width - 32 * shape[1] / max(shape)) <= max(0.5, width == 1)
    assert (square[top : top + height, left : left + width] == 7).all()
    assert (square == 7).all(axis=2).sum() == height * width
    assert (square[0, 0] == 128).all() or (top, left) == (0, 0)


def test_letterbox_of_a_mask():
    square = letterbox_mask(np.ones((60, 40), np.uint8), 30)
    assert square.sum() == 30 * 20
    assert square[:, 5:25].all()


@pytest.mark.parametrize("size", [128, 160, 224])
def test_a_network_input_has_the_squares_area_and_the_photos_proportions(size):
    assert input_shape(100, 100, size) == (size, size)
    for height, width in ((4, 3), (3, 2), (16, 9), (2, 1), (480, 640), (1080, 1920), (5, 4)):
        h, w = input_shape(height, width, size)
        assert h % 32 == 0 and w % 32 == 0
        assert 0.7 <= h * w / size**2 <= 1.5
        assert abs(np.log(h / w) - np.log(height / width)) < 0.2
        assert input_shape(width, height, size) == (w, h)
    assert input_shape(4, 3, 224) == (256, 192) and input_shape(720, 1280, 224) == (160, 288)


@pytest.mark.parametrize(
    "side, size", [(30, (20, 30)), (59, (39, 59)), (60, (40, 60)), (1, (1, 1))]
)
def test_limited_shrinks_in_proportion_and_never_grows(side, size):
    picture = np.full((40, 60, 3), 7, np.uint8)
    assert limited(picture, side).shape == (*size, 3) == (*limited_size(40, 60, side), 3)
    assert (limited(picture, side) == 7).all()
    assert limited(picture, 61) is picture


@pytest.mark.parametrize(
    "shape, side, how",
    [
        ((40, 60), 45, cv2.INTER_LINEAR),
        ((40, 60), 30, cv2.INTER_AREA),
        ((3, 100), 50, cv2.INTER_AREA),  # to two rows of three, but to half of the columns
    ],
)
def test_limited_averages_areas_from_the_half_on(shape, side, how):
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    height, width = limited_size(*shape, side)
    expected = cv2.resize(picture, (width, height), interpolation=how)
    assert np.array_equal(limited(picture, side), expected)
