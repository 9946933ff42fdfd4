import cv2
import numpy as np
import pytest

import portraitnet.matting as module
from portraitnet.matting import (
    carry,
    closed_form,
    laplacian,
    matting,
    sure_regions,
    without_strays,
)
from portraitnet.postprocess import color_fit

HEIGHT, WIDTH = 120, 90


@pytest.fixture
def portrait():
    """A reddish disc before bluish noise: image, alpha and a network's blurred answer."""
    rng = np.random.default_rng(0)
    alpha = np.zeros((4 * HEIGHT, 4 * WIDTH), np.float32)
    cv2.circle(alpha, (2 * WIDTH, 3 * HEIGHT), 160, 1, -1)
    alpha = cv2.resize(alpha, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    person, background = np.array((40, 50, 200.0)), np.array((200, 120, 60.0))
    image = alpha[:, :, None] * person + (1 - alpha[:, :, None]) * background
    image += rng.normal(0, 2, image.shape)
    probability = cv2.GaussianBlur(alpha, (0, 0), 3)
    return np.clip(image, 0, 255).astype(np.uint8), alpha, probability


def dense_laplacian(image, epsilon):
    """Levin's equation 12, written out: the sum over windows of 3x3 pixels."""
    height, width = image.shape[:2]
    colors = (image / 255).reshape(-1, 3)
    total = np.zeros((height * width,) * 2)
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            near = [(row + y) * width + column + x for y in (-1, 0, 1) for x in (-1, 0, 1)]
            centered = colors[near] - colors[near].mean(0)
            covariance = centered.T @ centered / 9 + epsilon / 9 * np.eye(3)
            pull = centered @ np.linalg.inv(covariance) @ centered.T
            total[np.ix_(near, near)] += np.eye(9) - (1 + pull) / 9
    return total


def test_rows_are_those_of_levins_equation():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (6, 7, 3), np.uint8)
    unknown = np.zeros((6, 7), bool)
    unknown[0:4, 2:6] = True  # it touches the photo's frame
    coefficients, neighbours, pixels = laplacian(image, unknown, 1e-3)
    rows = np.zeros((unknown.sum(), unknown.size))
    for value, place in zip(coefficients, neighbours):
        rows[np.arange(len(rows)), pixels[place]] += value
    expected = dense_laplacian(image, 1e-3)[unknown.ravel()]
    # float32 sums of up to 9 windows of terms up to 1
    assert np.abs(rows - expected).max() < 1e-4


@pytest.mark.parametrize("height", [6, 3])
def test_closed_form_solves_the_system(height):
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (height, 7, 3), np.uint8)
    alpha = np.zeros((height, 7), np.float32)
    alpha[:, :3] = 1
    unknown = np.zeros((height, 7), bool)
    unknown[:, 2:5] = True
    solved = closed_form(image, alpha, unknown, epsilon=1e-2, tolerance=0)
    dense, inside = dense_laplacian(image, 1e-2), unknown.ravel()
    known = -dense[np.ix_(inside, ~inside)] @ alpha.ravel()[~inside]
    exact = np.linalg.solve(dense[np.ix_(inside, inside)], known)
    assert np.abs(solved[unknown] - exact.clip(0, 1)).max() < 1e-3
    assert (solved[~unknown] == alpha[~unknown]).all()


def test_what_is_solved_stays():
    image = np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)
    unknown = np.zeros((8, 8), bool)
    unknown[2:6, 2:6] = True
    assert not closed_form(image, np.zeros((8, 8), np.float32), unknown).any()


def test_the_unknown_band_is_as_wide_on_every_side():
    probability = np.zeros((100, 100), np.float32)
    probability[30:70, 20:80] = 1
    person, background = sure_regions(probability)
    assert person[31:69, 21:79].all() and person.sum() == 38 * 58  # 0.75 % of 100 pixels
    assert not background[29:71, 20:80].any() and not background[30:70, 19:81].any()
    assert background.sum() == 100**2 - 42 * 60 - 40 * 2  # 1 %, round


def test_nothing_unknown_changes_nothing():
    image, alpha = np.zeros((5, 5, 3), np.uint8), np.eye(5, dtype=np.float32)
    assert (closed_form(image, alpha, np.zeros((5, 5), bool)) == alpha).all()


def test_matting_is_far_closer_than_the_blurred_answer(portrait):
    image, alpha, probability = portrait
    found = matting(image, probability)
    assert found.dtype == np.float32 and found.shape == alpha.shape
    assert found.min() >= 0 and found.max() <= 1
    assert np.abs(found - alpha).mean() < 0.3 * np.abs(probability - alpha).mean()
    person, background = sure_regions(probability)
    assert (found[person] == 1).all() and (found[background] == 0).all()
    mixed = [((each > 0.2) & (each < 0.8)).sum() for each in (found, alpha)]
    assert mixed[0] > 0.5 * mixed[1] > 20, "the rim is solved, not cut"


@pytest.mark.parametrize("value", [0, 1])
def test_nobody_and_all_person_stay(value):
    image = np.random.default_rng(4).integers(0, 256, (40, 30, 3), np.uint8)
    assert (matting(image, np.full((40, 30), value, np.float32)) == value).all()


def test_large_photos_keep_their_size_and_their_person(portrait, monkeypatch):
    monkeypatch.setattr(module, "WORK_SIDE", 60)
    image, alpha, probability = portrait
    found = matting(image, probability)
    assert found.shape == alpha.shape
    assert np.abs(found - alpha).mean() < np.abs(probability - alpha).mean()
    assert cv2.connectedComponents((found > 0.5).astype(np.uint8))[0] == 2


def test_alpha_is_carried_to_the_photo_in_tiles_as_in_one_piece(monkeypatch):
    monkeypatch.setattr(module, "TILE", 32)
    rng = np.random.default_rng(5)
    work, image = (rng.integers(0, 256, (*s, 3), np.uint8) for s in ((22, 33), (66, 132)))
    alpha = rng.uniform(0, 1, (22, 33)).astype(np.float32)
    fit = cv2.merge(color_fit(work / np.float32(255), alpha, radius=1, epsilon=1e-4))
    value = (cv2.resize(fit, (132, 66))[:, :, :3] * (image / 255)).sum(2)
    value += cv2.resize(fit, (132, 66))[:, :, 3]
    around = np.ones((3, 3), np.uint8)
    low, high = (cv2.resize(of(alpha, around), (132, 66)) for of in (cv2.erode, cv2.dilate))
    found = carry(alpha, work, image)
    # cv2.warpAffine places a pixel to 1/32 of a pixel.
    assert np.abs(found - np.clip(value, low, high)).mean() < 0.01
    assert (carry(alpha, work, work) == alpha).all()


def test_strays_go_and_denied_holes_close():
    alpha = np.zeros((9, 20), np.float32)
    alpha[:, :10] = 1
    alpha[4, 15] = 0.9  # connected to nothing
    alpha[4, 4] = 0  # a hole where the network saw the person
    alpha[3, 4] = 0.6  # its rim
    alpha[7, 4] = 0  # another, where it did not
    alpha[1:3, 6:8] = 0.6  # half transparent, as among hair
    person = np.zeros(alpha.shape, bool)
    person[:3, :3] = True
    probability = np.full(alpha.shape, 0.9, np.float32)
    probability[7, 4] = 0.2
    probability[:, 10:] = 0.1
    found = without_strays(alpha, person, probability)
    assert found[4, 15] == 0 and found[4, 4] == found[3, 4] == 1 and found[7, 4] == 0
    assert found[0, 0] == 1 and (found[1:3, 6:8] == np.float32(0.6)).all()
    alpha[0, 5] = 0.7
    assert without_strays(alpha, person, probability)[0, 5] == np.float32(0.7)


def test_a_wide_half_transparent_part_gets_another_opacity_and_a_strand_keeps_its_own():
    alpha = np.zeros((400, 400), np.float32)
    alpha[100:, 100:300] = 1
    alpha[150:200, 200:300] = 0.5  # 50 pixels high: HAZE is 6
    alpha[40:100, 195:200] = 0.5
    solid = (alpha > 0.4).astype(np.float32)
    found = alpha + module.haze(alpha) * (solid - alpha)
    assert np.allclose(found[160:190, 210:290], 1, atol=1e-6)
    assert (found[40:100] == alpha[40:100]).all() and (found[:, :190] == alpha[:, :190]).all()
