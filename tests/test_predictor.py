import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from conftest import draw_portrait

from backends import runner
from effects import drop_doubtful
from images import read_image
from models.weights import load_model
from predictor import (
    MODEL_PATH,
    Predictor,
    guided_upsample,
    without_specks,
    without_spikes,
)
from transforms import to_batch
from transforms.geometry import resize, view_shape

ROOT = Path(__file__).parent.parent


def portrait(height=150, width=110, seed=0):
    return draw_portrait(np.random.default_rng(seed), height, width)


def test_without_refinement_it_is_the_network_between_two_resizes(model_path):
    image, _ = portrait(150, 100)
    view = resize(image, 96, 64)
    with paddle.no_grad():
        logits = load_model(model_path).mask_logits(paddle.to_tensor(to_batch([view]))).numpy()
    background, person = logits[0].astype(np.float64)
    expected = cv2.resize(0.5 + np.tanh((person - background) / 2) / 2, (100, 150))
    probability = Predictor(model_path, refine=False, size=78).probability(image)
    assert probability.dtype == np.float32
    assert np.abs(probability - expected).max() < 1e-5


def test_refinement_is_the_default(model_path):
    image, _ = portrait()
    predictor = Predictor(model_path, size=64)
    answer = np.zeros(predictor.prepare(image).shape[:2], np.float32)
    answer[30:, 10:40] = 0.95
    answer[:6, :6] = 0.7  # nobody
    expected = guided_upsample(drop_doubtful(answer), image)
    assert np.array_equal(predictor.restore(answer, image), expected)
    assert expected.max() > 0.9 and expected[:20, :20].max() < 1e-4


@pytest.mark.parametrize("refine", [True, False])
def test_a_batch_of_several_sizes_equals_one_by_one(model_path, refine):
    images = [portrait(*shape)[0] for shape in ((150, 110), (64, 200), (30, 30), (150, 111))]
    predictor = Predictor(model_path, refine=refine, size=96)
    shapes = [predictor.prepare(image).shape for image in images]
    assert len(set(shapes)) == 3 and shapes[0] == shapes[3]
    for image, together in zip(images, predictor.probabilities(images)):
        assert together.shape == image.shape[:2]
        assert np.abs(together - predictor.probability(image)).max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_and_thin_photos(model_path, shape):
    image = np.full((*shape, 3), 77, np.uint8)
    probability = Predictor(model_path, size=64).probability(image)
    assert probability.shape == shape and 0 <= probability.min() <= probability.max() <= 1


@pytest.mark.parametrize("value", [0, 0.3, 0.5, 1])
def test_a_flat_answer_stays_flat_and_gets_surer(value):
    image, _ = portrait()
    refined = guided_upsample(np.full((64, 32), value, np.float32), image)
    odds = value**2, (1 - value) ** 2
    assert refined == pytest.approx(odds[0] / sum(odds), abs=1e-4)


def test_texture_leaves_no_print_away_from_the_boundary():
    """A chessboard of random colours behind person and wall alike, and a boundary 30 px wide."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (48, 64, 3), np.uint8), (640, 480), interpolation=0)
    answer = np.zeros((48, 64), np.float32)
    answer[:, 32:] = 1
    answer = cv2.blur(answer, (3, 3))
    plain = guided_upsample(answer, np.full_like(image, 90))
    printed = np.abs(guided_upsample(answer, image) - plain).max(0)
    assert printed[320:328].max() > 0.1, "a test of nothing"
    assert printed[:290].max() < 0.01 and printed[350:].max() < 0.01


def test_refinement_stays_between_0_and_1():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 300, 3), np.uint8)
    probability = (rng.random((32, 64)) > 0.5).astype(np.float32)
    refined = guided_upsample(probability, image)
    assert refined.min() >= 0 and refined.max() <= 1


def test_refinement_moves_the_mask_to_the_edge_of_the_photo():
    """A mask a few pixels off, and coarse, is drawn to where the photo changes."""
    image, mask = portrait(640, 480, seed=3)
    coarse = resize(np.roll(mask, (5, 5), (0, 1)) * np.uint8(255), 64, 48) / np.float32(255)

    def wrong(probability):
        return ((probability > 0.5) != mask).mean()

    bilinear = wrong(cv2.resize(coarse, (480, 640)))
    assert wrong(guided_upsample(coarse, image)) < 0.6 * bilinear


def test_a_network_in_memory_gives_what_its_file_does(model_path):
    image, _ = portrait()
    live = Predictor.of(runner(load_model(model_path)), size=96)
    assert np.array_equal(
        live.probability(image), Predictor(model_path, size=96).probability(image)
    )


@pytest.mark.parametrize("shape", [(600, 800), (800, 600), (720, 1280), (300, 300), (5, 400)])
def test_a_view_fills_its_rectangle_with_the_whole_photo(shape):
    """Red left and top: a colour at each corner says that nothing is cut off, padded or turned."""
    image = np.zeros((*shape, 3), np.uint8)
    image[:, : shape[1] // 2, 2] = 255
    image[: shape[0] // 2, :, 1] = 255
    view = Predictor.of(None).prepare(image)
    assert view.shape == (*view_shape(*shape, 224), 3) and view.dtype == np.uint8
    assert [view[y, x].tolist() for y in (0, -1) for x in (0, -1)] == [
        [0, 255, 255],
        [0, 255, 0],
        [0, 0, 255],
        [0, 0, 0],
    ]


def test_missing_weights_and_unknown_formats_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pdparams"):
        Predictor(tmp_path / "none.pdparams")
    with pytest.raises(ValueError, match="model.xyz is neither a network's name .*pdparams"):
        Predictor(tmp_path / "model.xyz")


def test_paddle_is_imported_only_to_run_it():
    code = "import sys, predictor, effects; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.skipif(not MODEL_PATH.exists(), reason="no trained weights in weights/")
def test_the_astronaut_is_found():
    image = read_image(ROOT / "examples" / "astronaut.png")
    mask = Predictor().probability(image) > 0.5
    assert 0.2 < mask.mean() < 0.6
    assert mask[100, 220], "her face"
    assert not mask[:40, :100].any(), "the flag in the corner"
    areas = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    # The helmet beside her is hers to hold: a reflection of 144 pixels on it may count.
    assert areas.max() > 0.998 * areas.sum(), "one person in one piece, but for specks"


def test_specks_that_the_network_did_not_see_go():
    coarse = np.full((50, 50), 0.1, np.float32)
    coarse[10:, :] = 0.9
    refined = coarse.copy()
    refined[3, 3] = refined[30, 30] = 0.6  # a speck outside; inside no change of side
    refined[40, 40] = 0.2  # a hole
    found = without_specks(refined.copy(), coarse) > 0.5
    assert not found[3, 3] and found[30, 30] and found[40, 40]
    assert (found == (coarse > 0.5)).all()
    coarse[3, 3], coarse[40, 40] = 0.9, 0.1  # now the network saw both
    found = without_specks(refined.copy(), coarse) > 0.5
    assert found[3, 3] and not found[40, 40]


def test_spikes_fall_to_the_coarse_answer():
    coarse = np.full((80, 80), 0.2, np.float32)
    coarse[:, 40:] = 0.9
    refined = coarse.copy()
    refined[20, 20:40] = 0.8  # one pixel high, from the person into the background
    found = without_spikes(refined, coarse)
    assert (found[:, :39] == coarse[:, :39]).all()  # the disc itself reaches a pixel out
    refined[30:60, 20:40] = 0.8  # a region this thick stays
    assert (without_spikes(refined, coarse)[35:55, 22:40] == refined[35:55, 22:40]).all()
