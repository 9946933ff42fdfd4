import cv2
import numpy as np
import pytest

import transforms
from portraitnet.geometry import resize
from portraitnet.images import mask_of
from transforms.geometry import (
    fit_matrix,
    flip,
    flip_matrix,
    inside_of,
    rotate,
    rotation_matrix,
    stack,
    translate,
    translation_matrix,
    warp,
)

GEOMETRY_CLASSES = (
    transforms.RandomHorizontalFlip,
    transforms.RandomRotation,
    transforms.RandomTranslate,
)


def portrait(mask):
    """An image whose pixels say what the mask must be."""
    return np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)


def test_flip_twice_is_the_identity(image, mask):
    flipped = flip(image, mask)
    assert np.array_equal(flipped[0][:, 0], image[:, -1])
    assert np.array_equal(flipped[1][:, 0], mask[:, -1])
    assert all(map(np.array_equal, flip(*flipped), (image, mask)))


def test_rotation_by_right_angles_moves_whole_pixels(image, mask):
    assert all(map(np.array_equal, rotate(image, mask, 0), (image, mask)))
    turned, turned_mask = rotate(image, mask, 180)
    assert np.array_equal(turned, image[::-1, ::-1])
    assert np.array_equal(turned_mask, mask[::-1, ::-1])
    square, square_mask = image[:40], mask[:40]
    turned, turned_mask = rotate(square, square_mask, 90)  # counter-clockwise, as np.rot90
    assert np.array_equal(turned, np.rot90(square))
    assert np.array_equal(turned_mask, np.rot90(square_mask))


def test_translation_and_its_borders(image, mask):
    moved, moved_mask = translate(image, np.ones_like(mask), 3, -5)
    assert np.array_equal(moved[:-5, 3:], image[5:, :-3])
    assert (moved[-5:] == 128).all() and (moved[:, :3] == 128).all()
    assert moved_mask[:-5, 3:].all()
    assert not moved_mask[-5:].any() and not moved_mask[:, :3].any()


def warped(image, mask, matrix, height, width):
    moved, alpha = warp(stack(image, mask), matrix, height, width)
    return moved, mask_of(alpha)


def test_a_soft_mask_stays_soft_and_an_empty_range_is_an_error(image):
    bgra = cv2.merge([image, np.full(image.shape[:2], 100, np.uint8)])
    alpha = warp(bgra, rotation_matrix(60, 40, 20), 60, 40)[1]
    assert alpha[30, 20] == 100 and mask_of(alpha).max() == 0
    for scale in ((0, 0), (-1, 1), (2, 1)):
        with pytest.raises(ValueError, match="no range: give min above 0"):
            transforms.RandomRotation(scale=scale)


def test_strength_narrows_the_ranges():
    def draws(strength):
        rng = np.random.default_rng(0)
        turns = np.array(
            [transforms.RandomRotation().matrix((9, 9), rng, strength)[:2, :2] for _ in range(300)]
        )
        shifts = [
            transforms.RandomTranslate().matrix((9, 9), rng, strength)[:2, 2] for _ in range(300)
        ]
        degrees = np.degrees(np.arctan2(turns[:, 0, 1], turns[:, 0, 0]))
        return [np.abs(degrees).max(), np.linalg.det(turns).max() ** 0.5, np.abs(shifts).max()]

    whole, half, none = (draws(strength) for strength in (1, 0.5, 0))
    assert half == pytest.approx([whole[0] / 2, whole[1] ** 0.5, whole[2] / 2])
    assert none == pytest.approx([0, 1, 0])


def test_scale_enlarges_the_area(mask):
    _, doubled = rotate(portrait(mask), np.roll(mask, (5, 5), (0, 1)), 0, 1.5)
    assert doubled.sum() == pytest.approx(2.25 * mask.sum(), rel=0.03)


@pytest.mark.parametrize("seed", range(10))
def test_image_and_mask_move_alike(mask, seed):
    rng = np.random.default_rng(seed)
    matrix = fit_matrix((60, 40), (64, 64))
    for transform in transforms.DEFORMATION:
        matrix = transform.matrix((64, 64), rng) @ matrix
    moved, alpha = warp(stack(portrait(mask), mask), matrix, 64, 64)
    moved_mask = mask_of(alpha)
    inside = cv2.erode(inside_of((60, 40), matrix, (64, 64)), np.ones((3, 3)))
    assert np.array_equal((moved[:, :, 0] > 127)[inside == 1], moved_mask[inside == 1] == 1)
    assert set(np.unique(moved_mask)) <= {0, 1}


@pytest.mark.parametrize("cls", GEOMETRY_CLASSES)
def test_prob_is_the_probability_of_applying(cls, image, mask, rng):
    assert all(map(np.array_equal, cls(prob=0)(image, mask, rng), (image, mask)))
    assert not np.array_equal(cls(prob=1)(image, mask, rng)[0], image)
    assert np.array_equal(cls(prob=0).matrix((64, 64), rng), np.eye(3))
    draw = [np.random.default_rng(3) for _ in range(2)]
    assert np.array_equal(cls()(image, mask, draw[0])[0], cls()(image, mask, draw[1])[0])


@pytest.mark.parametrize("cls", GEOMETRY_CLASSES)
def test_matrix_and_call_draw_the_same(cls, image, mask):
    image, mask = image[:40], mask[:40]
    for seed in range(5):
        matrix = cls().matrix((40, 40), np.random.default_rng(seed))
        joined = warped(image, mask, matrix, 40, 40)
        assert all(map(np.array_equal, joined, cls()(image, mask, np.random.default_rng(seed))))


def test_ranges_are_kept():
    rng = np.random.default_rng(0)
    rotation, translation = transforms.RandomRotation(), transforms.RandomTranslate()
    turns = np.array([rotation.matrix((224, 224), rng)[:2, :2] for _ in range(500)])
    scales = np.sqrt(np.linalg.det(turns))
    degrees = np.degrees(np.arctan2(turns[:, 0, 1], turns[:, 0, 0]))
    shifts = np.array([translation.matrix((224, 224), rng)[:2, 2] for _ in range(500)])
    assert 0.5 <= scales.min() < 0.52 and 1.48 < scales.max() <= 1.5
    assert -45 <= degrees.min() < -44 and 44 < degrees.max() <= 45
    assert -56 <= shifts.min() < -54 and 54 < shifts.max() <= 56


def test_one_joined_warp_equals_its_parts_in_turn(image, mask):
    parts = flip(*translate(image, mask, 4, -6))
    joined = flip_matrix(40) @ translation_matrix(4, -6)
    assert all(map(np.array_equal, warped(image, mask, joined, 60, 40), parts))


def test_warp_does_not_skip_pixels_when_it_shrinks():
    stripes = np.zeros((240, 240, 3), np.uint8)
    stripes[:, ::4] = 255
    photo = stack(stripes, np.ones((240, 240), np.uint8))
    small = warp(photo, fit_matrix((240, 240), (60, 60)), 60, 60)[0]
    assert np.ptp(small[2:-2, 2:-2]) < 8 and abs(int(small[30, 30, 0]) - 64) < 8


def test_fit_matrix_of_a_photo_with_the_inputs_proportions_is_its_resize(image, mask):
    moved = warped(image, mask, fit_matrix((60, 40), (120, 80)), 120, 80)
    assert np.abs(moved[0].astype(int) - resize(image, 120, 80)).mean() < 1
    assert (moved[1] != mask_of(resize(mask * np.uint8(255), 120, 80))).mean() < 0.002


@pytest.mark.parametrize("photo", [(60, 40), (40, 60), (50, 50), (90, 10)])
@pytest.mark.parametrize("network_input", [(64, 64), (96, 32), (32, 96)])
def test_fit_shows_the_whole_photo_or_fills_the_network_input(photo, network_input):
    """One side fits exactly, the stretch is bounded, the centre stays."""
    for zoom, extreme in ((0.0, max), (1.0, min)):
        matrix = fit_matrix(photo, network_input, zoom)
        fractions = (
            matrix[1, 1] * photo[0] / network_input[0],
            matrix[0, 0] * photo[1] / network_input[1],
        )
        assert extreme(fractions) == pytest.approx(1)
        assert abs(np.log(matrix[0, 0] / matrix[1, 1])) <= 0.15 + 1e-9
        centre = matrix @ [photo[1] / 2, photo[0] / 2, 1]
        assert centre[:2] == pytest.approx([network_input[1] / 2, network_input[0] / 2])


def test_inside_of_is_where_a_photo_lands(image):
    matrix = rotation_matrix(64, 64, 20, 0.8) @ fit_matrix((60, 40), (64, 64))
    _, full = warped(image, np.ones((60, 40), np.uint8), matrix, 64, 64)
    inside = inside_of((60, 40), matrix, (64, 64))
    assert inside.sum() > 1000
    # they may differ on the frame itself
    assert (full != inside).sum() < 100
    assert not ((full != inside) & (cv2.erode(full, np.ones((3, 3))) == 1)).any()
