import inspect

import cv2
import numpy as np
import pytest

import transforms
from portraitnet.geometry import input_shape, letterbox, letterbox_mask, resize
from portraitnet.images import mask_of
from portraitnet.predictor import to_batch
from transforms import color, compose, geometry
from transforms.__main__ import main
from transforms.edge import edge_of
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
COLOR_CLASSES = [cls for name, cls in inspect.getmembers(color) if name.startswith("Random")]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def image(rng):
    clouds = cv2.GaussianBlur(rng.normal(size=(60, 40, 3)), (0, 0), 1.5)
    return cv2.normalize(clouds, None, 10, 245, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture
def mask():
    mask = np.zeros((60, 40), np.uint8)
    cv2.circle(mask, (15, 25), 10, 1, -1)
    return mask


def portrait(mask):
    """An image whose pixels say what the mask must be."""
    return np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2)


# geometry


def test_flip_twice_is_the_identity(image, mask):
    flipped = flip(image, mask)
    assert np.array_equal(flipped[0][:, 0], image[:, -1])
    assert np.array_equal(flipped[1][:, 0], mask[:, -1])
    assert all(map(np.array_equal, flip(*flipped), (image, mask)))


def test_rotate_by_right_angles_moves_whole_pixels(image, mask):
    assert all(map(np.array_equal, rotate(image, mask, 0), (image, mask)))
    turned, turned_mask = rotate(image, mask, 180)
    assert np.array_equal(turned, image[::-1, ::-1])
    assert np.array_equal(turned_mask, mask[::-1, ::-1])
    square, square_mask = image[:40], mask[:40]
    turned, turned_mask = rotate(square, square_mask, 90)  # counter-clockwise, as np.rot90
    assert np.array_equal(turned, np.rot90(square))
    assert np.array_equal(turned_mask, np.rot90(square_mask))


def test_translate_and_its_borders(image, mask):
    moved, moved_mask = translate(image, np.ones_like(mask), 3, -5)
    assert np.array_equal(moved[:-5, 3:], image[5:, :-3])
    assert (moved[-5:] == 128).all() and (moved[:, :3] == 128).all()
    assert moved_mask[:-5, 3:].all()
    assert not moved_mask[-5:].any() and not moved_mask[:, :3].any()


def warped(image, mask, matrix, height, width):
    moved, share = warp(stack(image, mask), matrix, height, width)
    return moved, mask_of(share)


def test_a_soft_mask_stays_soft_and_an_empty_range_is_an_error(image):
    bgra = cv2.merge([image, np.full(image.shape[:2], 100, np.uint8)])
    share = warp(bgra, rotation_matrix(60, 40, 20), 60, 40)[1]
    assert share[30, 20] == 100 and mask_of(share).max() == 0
    for scale in ((0, 0), (-1, 1), (2, 1)):
        with pytest.raises(ValueError, match="no range: give the least above 0"):
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
    moved, share = warp(stack(portrait(mask), mask), matrix, 64, 64)
    moved_mask = mask_of(share)
    inside = cv2.erode(inside_of((60, 40), matrix, (64, 64)), np.ones((3, 3)))
    assert np.array_equal((moved[:, :, 0] > 127)[inside == 1], moved_mask[inside == 1] == 1)
    assert set(np.unique(moved_mask)) <= {0, 1}


@pytest.mark.parametrize("cls", GEOMETRY_CLASSES)
def test_geometry_prob_is_the_probability_of_applying(cls, image, mask, rng):
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


def test_one_joined_warp_is_its_parts_in_turn(image, mask):
    parts = flip(*translate(image, mask, 4, -6))
    joined = flip_matrix(40) @ translation_matrix(4, -6)
    assert all(map(np.array_equal, warped(image, mask, joined, 60, 40), parts))


def test_warp_does_not_skip_pixels_when_it_shrinks():
    stripes = np.zeros((240, 240, 3), np.uint8)
    stripes[:, ::4] = 255
    photo = stack(stripes, np.ones((240, 240), np.uint8))
    small = warp(photo, fit_matrix((240, 240), (60, 60)), 60, 60)[0]
    assert np.ptp(small[2:-2, 2:-2]) < 8 and abs(int(small[30, 30, 0]) - 64) < 8


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


def test_fit_matrix_of_a_photo_with_the_views_proportions_is_its_resize(image, mask):
    moved = warped(image, mask, fit_matrix((60, 40), (120, 80)), 120, 80)
    assert np.abs(moved[0].astype(int) - resize(image, 120, 80)).mean() < 1
    assert (moved[1] != mask_of(resize(mask * np.uint8(255), 120, 80))).mean() < 0.002


@pytest.mark.parametrize("photo", [(60, 40), (40, 60), (50, 50), (90, 10)])
@pytest.mark.parametrize("network_input", [(64, 64), (96, 32), (32, 96)])
def test_fit_shows_the_whole_photo_or_fills_the_view(photo, network_input):
    """Hand-made laws: one side fits exactly, the stretch is bounded, the centre stays."""
    for zoom, extreme in ((0.0, max), (1.0, min)):
        matrix = fit_matrix(photo, network_input, zoom)
        shares = (
            matrix[1, 1] * photo[0] / network_input[0],
            matrix[0, 0] * photo[1] / network_input[1],
        )
        assert extreme(shares) == pytest.approx(1)
        assert abs(np.log(matrix[0, 0] / matrix[1, 1])) <= 0.15 + 1e-9
        centre = matrix @ [photo[1] / 2, photo[0] / 2, 1]
        assert centre[:2] == pytest.approx([network_input[1] / 2, network_input[0] / 2])


@pytest.mark.parametrize("size", [128, 160, 224])
def test_a_view_has_the_squares_area_and_the_photos_proportions(size):
    assert input_shape(100, 100, size) == (size, size)
    for height, width in ((4, 3), (3, 2), (16, 9), (2, 1), (480, 640), (1080, 1920), (5, 4)):
        h, w = input_shape(height, width, size)
        assert h % 32 == 0 and w % 32 == 0
        assert 0.7 <= h * w / size**2 <= 1.5
        assert abs(np.log(h / w) - np.log(height / width)) < 0.2
        assert input_shape(width, height, size) == (w, h)
    assert input_shape(4, 3, 224) == (256, 192) and input_shape(720, 1280, 224) == (160, 288)


def test_inside_of_is_where_a_photo_lands(image):
    matrix = rotation_matrix(64, 64, 20, 0.8) @ fit_matrix((60, 40), (64, 64))
    _, full = warped(image, np.ones((60, 40), np.uint8), matrix, 64, 64)
    inside = inside_of((60, 40), matrix, (64, 64))
    assert inside.sum() > 1000
    # they may differ on the frame itself
    assert (full != inside).sum() < 100
    assert not ((full != inside) & (cv2.erode(full, np.ones((3, 3))) == 1)).any()


# colour


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
def test_color_prob_is_the_probability_of_applying(cls, image, rng):
    before = image.copy()
    assert all(np.array_equal(cls(prob=0)(image, rng), image) for _ in range(10))
    changed = [not np.array_equal(cls(prob=1)(image, rng), before) for _ in range(10)]
    assert sum(changed) >= 8  # a strength near 1 may round to nothing
    assert np.array_equal(image, before)


def test_random_blur_draws_odd_kernels_only(image, rng):
    results = {transforms.RandomBlur(prob=1)(image, rng).tobytes() for _ in range(30)}
    assert results == {color.blur(image, kernel).tobytes() for kernel in (3, 5)}


def test_degrade_depends_on_its_generator_alone(image):
    np.random.seed(0)
    first = transforms.degrade(image, np.random.default_rng(5))
    np.random.seed(1)
    assert np.array_equal(first, transforms.degrade(image, np.random.default_rng(5)))
    others = [transforms.degrade(image, np.random.default_rng(i)) for i in range(8)]
    assert sum(not np.array_equal(first, other) for other in others) >= 7


def test_degrade_keeps_the_bars_of_a_letterbox(image, rng):
    square, (top, left, height, width) = letterbox(image, 64)
    inside = np.zeros((64, 64), np.uint8)
    inside[top : top + height, left : left + width] = 1
    changed = 0
    for _ in range(10):
        photometric = transforms.degrade(square, rng, inside)
        assert (photometric[inside == 0] == 128).all()
        changed += not np.array_equal(photometric, square)
    assert changed >= 8


def test_light_by_hand():
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


# who is in the picture


def person(height, width, top, left, bottom, right, value=200):
    """A BGRA picture of one flat person on black."""
    bgra = np.zeros((height, width, 4), np.uint8)
    bgra[top:bottom, left:right] = (value, value, value, 255)
    return bgra


def test_a_smaller_person_keeps_the_sides_where_the_frame_cuts():
    green = np.zeros((80, 80, 4), np.uint8)
    green[:, :, 1] = 200
    cut_below = person(80, 60, 30, 20, 80, 40)
    sizes = []
    for seed in range(20):
        alpha = compose.swap_background(cut_below, green, np.random.default_rng(seed), 0.3)[:, :, 3]
        assert alpha[-1].any() and not alpha[0].any()  # legs leave the photo below, as before
        sizes.append(np.count_nonzero(alpha > 127) / np.count_nonzero(cut_below[:, :, 3]))
    assert min(sizes) < 0.3 and max(sizes) > 0.7  # an area: 0.3 of the size is 0.09 of it
    across = person(80, 60, 30, 0, 80, 60)  # cut left and right: neither size nor place may change
    for seed in range(5):
        swapped = compose.swap_background(across, green, np.random.default_rng(seed), 0.3)
        assert np.array_equal(swapped[:, :, 3], across[:, :, 3])


def test_a_thing_hides_a_part_of_the_person_and_leaves_the_mask():
    bgra, red = person(80, 80, 20, 20, 80, 60), np.zeros((50, 50, 4), np.uint8)
    red[:, :, 2] = 255
    for seed in range(10):
        covered = compose.occlude(bgra, red, np.random.default_rng(seed))
        assert np.array_equal(covered[:, :, 3], bgra[:, :, 3])
        changed = (covered[:, :, :3] != bgra[:, :, :3]).any(axis=2)
        assert 0 < changed.sum() <= 0.3 * np.count_nonzero(bgra[:, :, 3])
    nobody = np.zeros((8, 8, 4), np.uint8)
    assert np.array_equal(compose.occlude(nobody, red, np.random.default_rng(0)), nobody)


# tensor


def test_to_batch_by_hand():
    images = [np.full((2, 3, 3), (0, 128, 255), np.uint8), np.zeros((2, 3, 3), np.uint8)]
    batch = to_batch(images)
    assert batch.shape == (2, 3, 2, 3) and batch.dtype == np.float32
    assert batch[0, :, 1, 2] == pytest.approx([-1.76698, 0.19074, 2.23244], abs=1e-5)
    assert batch[1, :, 0, 0] == pytest.approx([-1.76698, -1.98526, -2.10256], abs=1e-5)
    assert np.array_equal(to_batch(np.stack(images)), batch)


@pytest.mark.parametrize(("size", "width"), [(224, 4), (448, 8), (128, 2)])
def test_edge_is_a_band_on_the_contour_and_not_on_the_frame(size, width):
    mask = np.zeros((size, size), np.uint8)
    mask[:, size // 2 :] = 1  # a body cut by three sides of the frame
    edge = edge_of(mask)
    columns = np.flatnonzero(edge.any(axis=0))
    assert columns.tolist() == list(range(size // 2 - width // 2, size // 2 + width // 2))
    assert edge[:, columns].all()


def test_edge_of_nothing_and_of_everything_is_empty():
    assert not edge_of(np.zeros((224, 224), np.uint8)).any()
    assert not edge_of(np.ones((224, 224), np.uint8)).any()


def test_edge_leaves_out_the_frame_of_a_letterboxed_photo():
    photo_mask = np.zeros((100, 60), np.uint8)
    photo_mask[40:] = 1  # cut by the left, lower and right frame
    for matrix in (np.eye(3), rotation_matrix(224, 224, 30, 0.7)):
        matrix = matrix @ fit_matrix((100, 60), (224, 224))
        _, mask = warped(np.zeros((100, 60, 3), np.uint8), photo_mask, matrix, 224, 224)
        edge = edge_of(mask, inside_of((100, 60), matrix, (224, 224)))
        back, _ = warp(
            stack(np.repeat(edge[:, :, None], 3, axis=2) * np.uint8(255), edge),
            np.linalg.inv(matrix),
            100,
            60,
        )
        rows = np.flatnonzero((back[:, 20:40, 0] > 127).any(axis=1))
        assert rows.min() >= 37 and rows.max() <= 42  # the top of the body alone
        assert edge.sum() > 0.8 * 4 * 60 * np.sqrt(np.linalg.det(matrix[:2, :2]))


# the contact sheet


def test_contact_sheet(tmp_path, image, mask, capsys):
    photo, mask_path = tmp_path / "photo.png", tmp_path / "mask.png"
    cv2.imwrite(str(photo), image)
    cv2.imwrite(str(mask_path), mask * 255)
    assert main([str(photo), "--mask", str(mask_path)]) == 0
    written = tmp_path / "photo_transforms.png"
    assert capsys.readouterr().out == f"{written}\n"
    assert min(cv2.imread(str(written)).shape[:2]) > 4 * 224
    before = photo.read_bytes()
    assert main([str(photo), "--output", str(photo)]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert main([str(tmp_path / "none.png")]) == 1
    assert "There is no file" in capsys.readouterr().err


def test_every_class_is_exported():
    names = [name for name in (*vars(color), *vars(geometry)) if name.startswith("Random")]
    assert len(names) == 12 and {*names} <= {*transforms.__all__}
