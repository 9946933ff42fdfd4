import inspect

import cv2
import numpy as np
import pytest

import transforms
from transforms import color

COLOR_CLASSES = [cls for name, cls in inspect.getmembers(color) if name.startswith("Random")]


def test_strength_one_changes_nothing(image):
    for function in (color.brightness, color.contrast, color.saturation, color.sharpness):
        assert np.array_equal(function(image, 1.0), image)
    assert np.array_equal(color.blur(image, 1), image)
    assert np.abs(color.hsv(image).astype(int) - image).max() <= 4  # HSV rounds


def test_bright_pixels_clip_and_do_not_wrap():
    bright = np.full((4, 4, 3), 200, np.uint8)
    assert (color.brightness(bright, 1.6) == 255).all()
    assert (color.brightness(bright, 0.5) == 100).all()
    assert (color.hsv(bright, value=1.6) == 255).all()
    half = np.repeat(np.array([[10, 240]], np.uint8), 3).reshape(1, 2, 3)
    assert color.contrast(half, 1.5).tolist() == [[[0] * 3, [255] * 3]]


def test_hue_is_a_circle():
    red = np.full((1, 1, 3), (0, 0, 200), np.uint8)
    assert color.hsv(red, 60).tolist() == [[[0, 200, 0]]]  # 120 degrees on: green
    assert color.hsv(red, -60).tolist() == [[[200, 0, 0]]]  # below 0: blue
    assert np.array_equal(color.hsv(red, 180), red)


def test_contrast_keeps_grey_grey_and_the_mean():
    grey = np.repeat(np.array([[60, 100, 140]], np.uint8), 3).reshape(1, 3, 3)
    assert color.contrast(grey, 0.5).tolist() == [[[80] * 3, [100] * 3, [120] * 3]]


def test_saturation_zero_is_grey(image):
    grey = color.saturation(image, 0)
    assert np.ptp(grey, axis=2).max() == 0
    assert np.abs(grey[:, :, 0].astype(int) - cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)).max() <= 1


def test_sharpness_and_blur_order_the_contrast_of_neighbours(image):
    def roughness(picture):
        return np.abs(np.diff(picture.astype(int), axis=1)).mean()

    assert roughness(color.sharpness(image, 0.8)) < roughness(image)
    assert roughness(image) < roughness(color.sharpness(image, 1.2))
    assert roughness(color.blur(image, 5)) < roughness(color.blur(image, 3)) < roughness(image)


def test_blur_does_not_shift():
    dot = np.zeros((15, 15, 3), np.uint8)
    dot[7, 7] = 255
    blurred = color.blur(dot, 5)
    assert blurred[7, 8].sum() > 0
    assert np.array_equal(blurred, blurred[::-1, ::-1])
    with pytest.raises(ValueError, match="kernel of 4 shifts the image half a pixel"):
        color.blur(dot, 4)


def test_noise_is_gaussian_noise(rng):
    grey = np.full((200, 200, 3), 128, np.uint8)
    added = color.noise(grey, 10, rng).astype(int) - 128
    assert added.mean() == pytest.approx(0, abs=0.1)
    assert added.std() == pytest.approx(10, rel=0.02)
    neighbours = np.corrcoef(added[:, :-1].ravel(), added[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.02  # a blur would correlate them
    assert np.array_equal(color.noise(grey, 0, rng), grey)
    again = [color.noise(grey, 10, np.random.default_rng(1)) for _ in range(2)]
    assert np.array_equal(*again)


@pytest.mark.parametrize("cls", COLOR_CLASSES)
def test_prob_is_the_probability_of_applying(cls, image, rng):
    before = image.copy()
    assert all(np.array_equal(cls(prob=0)(image, rng), image) for _ in range(10))
    changed = [not np.array_equal(cls(prob=1)(image, rng), before) for _ in range(10)]
    assert sum(changed) >= 8  # a strength near 1 may round to nothing
    assert np.array_equal(image, before)


def test_random_blur_draws_odd_kernels_only(image, rng):
    results = {transforms.RandomBlur(prob=1)(image, rng).tobytes() for _ in range(30)}
    assert results == {color.blur(image, kernel).tobytes() for kernel in (3, 5)}


def test_relight_by_hand():
    grey = np.full((3, 5, 3), 128, np.uint8)
    assert np.array_equal(color.relight(grey, 1, (1, 1, 1), 0, 0), grey)
    squared = color.relight(grey, 2, (1, 0.5, 1), 0, 0)
    assert squared[1, 1].tolist() == [64, 32, 64]  # 255 (128 / 255)^2 = 64.25
    ramp = color.relight(grey, 1, (1, 1, 1), 0.5, 0)[1, :, 0]
    assert ramp.tolist() == [64, 96, 128, 160, 192]
    assert color.relight(grey, 1, (1, 1, 1), 0.5, np.pi / 2)[:, 0, 0].tolist() == [64, 128, 192]
    assert color.relight(grey, 1, (9, 9, 9), 0, 0).min() == 255


def test_jpeg_loses_more_at_lower_quality(image):
    lost = [np.abs(color.jpeg(image, q).astype(int) - image).mean() for q in (95, 50, 10)]
    assert 0 < lost[0] < lost[1] < lost[2] and color.jpeg(image, 10).shape == image.shape
