import cv2
import numpy as np
import pytest
from conftest import draw_portrait

from portraitnet import effects, images

MODES = {
    "overlay": effects.overlay,
    "cut_out": effects.cut_out,
    "replace": lambda image, p: effects.replace(image, p, (64, 177, 0)),
    "blur": effects.blur,
    "grey": effects.grey,
}
PERSON, WALL = (40, 60, 200), (60, 200, 40)


def soft_disc(height=120, width=160, radius=40, softness=3):
    """A person of colour PERSON before a wall of colour WALL, mixed at the rim: image and alpha."""
    disc = cv2.circle(
        np.zeros((height, width), np.float32), (width // 2, height // 2), radius, 1, -1
    )
    alpha = cv2.GaussianBlur(disc, (0, 0), softness)
    mixed = alpha[:, :, None] * PERSON + (1 - alpha[:, :, None]) * WALL
    return np.rint(mixed).astype(np.uint8), alpha


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (97, 64), (30, 1500)])
def test_every_mode_keeps_the_size_and_its_inputs(mode, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), np.uint8)
    probability = rng.random(shape, np.float32)
    before = image.copy(), probability.copy()
    result = MODES[mode](image, probability)
    assert result.dtype == np.uint8
    assert result.shape == (*shape, 4 if mode == "cut_out" else 3)
    assert np.array_equal(image, before[0]) and np.array_equal(probability, before[1])


@pytest.mark.parametrize("mode", ["cut_out", "replace", "blur", "grey"])
def test_a_sure_person_keeps_every_pixel(mode):
    image, _ = draw_portrait(np.random.default_rng(0))
    result = MODES[mode](image, np.ones(image.shape[:2], np.float32))
    assert np.array_equal(result[:, :, :3], image)


@pytest.mark.parametrize("mode", ["overlay", "grey", "blur"])
def test_nobody_in_a_grey_flat_photo_changes_nothing(mode):
    image = np.full((50, 60, 3), 90, np.uint8)
    assert np.array_equal(MODES[mode](image, np.zeros((50, 60), np.float32)), image)


def test_matte_cuts_the_unsure_ends_off():
    values = np.array([[0, effects.CLEAR, 0.5, effects.SOLID, 1]], np.float32)
    assert effects.matte(values)[0] == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


def test_mask_of_counts_more_than_one_half():
    assert effects.mask_of(np.array([[0.2, 0.5, 0.51]], np.float32)).tolist() == [[0, 0, 1]]


def test_overlay_tints_by_hand():
    image = np.full((40, 40, 3), 100, np.uint8)
    probability = np.zeros((40, 40), np.float32)
    probability[:20] = 1
    tinted = effects.overlay(image, probability, color=(200, 0, 100), strength=0.25)
    assert tinted[5, 5].tolist() == [125, 75, 100]
    assert tinted[35, 5].tolist() == [100, 100, 100]
    assert tinted[19, 5].tolist() == [200, 0, 100], "no outline where person meets background"
    assert tinted[0, 5].tolist() == [125, 75, 100], "an outline where the frame cuts the person"


def test_an_outline_is_as_wide_as_the_photo_is_large():
    probability = np.zeros((1200, 9), np.float32)
    probability[600:] = 1
    image = np.zeros((1200, 9, 3), np.uint8)
    tinted = effects.overlay(image, probability, color=(0, 0, 200), strength=0.25)[:, 4, 2]
    rows = np.flatnonzero((tinted != 0) & (tinted != 50))
    assert len(rows) == 3  # what 1200 / 300 = 4 rows enclose
    assert rows[0] < 600 < rows[-1]


def test_overlay_takes_what_the_training_log_gives():
    image = np.zeros((32, 32, 3), np.uint8)
    assert effects.overlay(image, np.ones((32, 32), np.float64)).shape == image.shape


def test_person_colors_undo_the_mixture():
    image, alpha = soft_disc()
    colors = effects.person_colors(image, alpha)
    rim = (alpha > 0.1) & (alpha < 0.9)
    before = np.abs(image[rim].astype(int) - PERSON).mean()
    after = np.abs(colors[rim].astype(int) - PERSON).mean()
    assert before > 30
    assert after < 0.1 * before


def test_person_colors_leave_pure_pixels_alone():
    image, alpha = soft_disc()
    pure = (alpha == 0) | (alpha == 1)
    assert np.array_equal(effects.person_colors(image, alpha)[pure], image[pure])


def test_a_black_person_stays_black():
    _, alpha = soft_disc()
    image = np.rint((1 - alpha[:, :, None]) * WALL).astype(np.uint8)
    rim = (alpha > 0.1) & (alpha < 0.9)
    assert effects.person_colors(image, alpha)[rim].min() == 0


def test_colors_do_not_depend_on_the_side_they_come_from():
    image, alpha = soft_disc(softness=6)
    image = np.clip(image + np.random.default_rng(0).normal(0, 20, image.shape), 0, 255)
    image, colors = image.astype(np.uint8), []
    for flip in (slice(None), slice(None, None, -1)):
        for axes in ((flip, slice(None)), (slice(None), flip)):
            found = effects.person_colors(np.ascontiguousarray(image[axes]), alpha[axes].copy())
            colors.append(found[axes].astype(int))
    assert max(np.abs(each - colors[0]).max() for each in colors) <= 1  # rounding


def test_replace_leaves_no_halo_of_the_old_wall():
    image, alpha = soft_disc()
    # `matte` undone, so that its answer is the true alpha.
    probability = effects.CLEAR + alpha * np.float32(effects.SOLID - effects.CLEAR)
    new_wall = (255, 0, 255)
    true = alpha[:, :, None] * PERSON + (1 - alpha[:, :, None]) * new_wall
    assert np.abs(effects.replace(image, probability, new_wall) - true).max() < 12


def test_cut_out_keeps_nothing_of_the_background():
    image, alpha = soft_disc()
    result = effects.cut_out(image, alpha)
    assert result[0, 0].tolist() == [0, 0, 0, 0]
    assert result[60, 80].tolist() == [*PERSON, 255]
    assert not result[result[:, :, 3] == 0].any()


def test_the_person_does_not_bleed_into_the_blur():
    image = np.full((200, 200, 3), WALL, np.uint8)
    probability = np.zeros((200, 200), np.float32)
    image[60:140, 60:140], probability[60:140, 60:140] = PERSON, 1
    result = effects.blur(image, probability, strength=0.05).astype(int)
    background = probability == 0
    assert np.abs(result[background] - WALL).max() <= 3
    assert np.abs(cv2.GaussianBlur(image, (0, 0), 10).astype(int)[background] - WALL).max() > 60
    assert np.array_equal(result[~background], image[~background])


def test_blur_flattens_the_background_and_zero_changes_nothing():
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, ::2] = 200
    nobody = np.zeros((100, 100), np.float32)
    assert effects.blur(stripes, nobody, 0.05).std() < 5
    assert np.array_equal(effects.blur(stripes, nobody, 0), stripes)


def test_blur_of_a_background_is_gaussian_whatever_its_width():
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, 200:] = 200
    for strength in (0.01, 0.05):
        result = effects.blur(image, np.zeros((400, 400), np.float32), strength)
        expected = cv2.GaussianBlur(image, (0, 0), 400 * strength)
        assert np.abs(result.astype(int) - expected).max() < 6


def test_grey_takes_the_colors_of_the_background_alone():
    image, alpha = soft_disc()
    result = effects.grey(image, alpha)
    assert len(set(result[0, 0].tolist())) == 1
    assert result[60, 80].tolist() == list(PERSON)


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (31, 31), (300, 200)])
def test_fill_covers_and_keeps_the_center(shape):
    background = np.zeros((60, 60, 3), np.uint8)
    background[28:32, 28:32] = 255
    filled = effects.fill(background, *shape)
    assert filled.shape == (*shape, 3)
    assert filled[shape[0] // 2, shape[1] // 2].min() > 200


def test_fill_does_not_stretch():
    disc = cv2.circle(np.zeros((100, 100, 3), np.uint8), (50, 50), 20, (255, 255, 255), -1)
    filled = effects.fill(disc, 100, 300)[:, :, 0] > 127
    rows, columns = np.flatnonzero(filled.any(1)), np.flatnonzero(filled.any(0))
    assert np.ptp(columns) == pytest.approx(120, abs=3) and np.ptp(rows) == 99


def test_a_cut_out_that_is_fed_back_comes_out_as_it_was():
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (40, 40, 3), np.uint8)
    alpha = np.zeros((40, 40), np.uint8)
    alpha[10:30, 10:30] = 255
    alpha[9, 10:30] = 90
    probability = np.where(alpha > 0, 0.99, 0.01).astype(np.float32)
    image = images.over_white(colors, alpha)
    result = effects.cut_out(image, probability, layers=effects.Layers(colors, alpha))
    assert np.array_equal(result[:, :, 3], alpha)
    assert np.array_equal(result[alpha > 0][:, :3], colors[alpha > 0])


def test_a_round_picture_loses_its_wall_and_gets_no_rim():
    rows, columns = np.indices((80, 80)) - 39.5
    radius = np.hypot(rows, columns)
    alpha = np.clip((36 - radius) * 255, 0, 255).astype(np.uint8)
    person = columns > 0
    colors = np.where(person[:, :, None], (40, 60, 200), (150, 90, 20)).astype(np.uint8)
    probability = np.where(person & (alpha > 0), 0.99, 0.01).astype(np.float32)
    layers = effects.Layers(colors, alpha)
    result = effects.cut_out(images.over_white(colors, alpha), probability, layers=layers)
    assert (result[:, :, 3] <= alpha).all()
    assert not result[:, :36, 3].any()
    rim = (alpha > 0) & (alpha < 255) & (columns > 8)
    assert np.array_equal(result[rim][:, :3], colors[rim]) and result[rim][:, 3].max() > 100


def test_beside_a_transparent_pixel_the_colors_are_the_files():
    image = np.random.default_rng(0).integers(100, 200, (40, 40, 3), np.uint8)
    black, given = np.zeros_like(image), np.full((40, 40), 255, np.uint8)
    given[20, 20] = 0
    half = np.full((40, 40), 0.5, np.float32)
    layers = effects.Layers(black, given)
    colors, alpha = effects.person_layers(image, None, layers=layers, alpha=half)
    own = ~colors.any(axis=2)
    assert own[19:22, 19:22].all() and own.sum() == 9
    assert alpha[20, 20] == 0 and alpha.sum() == 0.5 * (40**2 - 1)


def test_a_sheets_last_row_is_filled_with_white():
    sheet = effects.contact_sheet([("one", np.zeros((30, 40, 3), np.uint8))], columns=2)
    height, width = sheet.shape[:2]
    assert (
        width % 2 == 0
        and (sheet[:, width // 2 :] == 255).all()
        and not sheet[height // 2, 20].any()
    )
