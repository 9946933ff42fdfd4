import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_portrait, far_person

from portraitnet.effects import matte
from portraitnet.geometry import input_shape
from portraitnet.images import read_image
from portraitnet.matting import matting
from portraitnet.postprocess import drop_doubtful, guided_upsample
from portraitnet.predictor import Predictor, to_batch
from training.checkpoints import MODEL_PATH, open_predictor

ROOT = Path(__file__).parents[2]


def portrait(height=150, width=110, seed=0):
    return draw_portrait(np.random.default_rng(seed), height, width)


def test_refinement_is_the_default(model_path):
    image, _ = portrait()
    predictor = open_predictor(model_path, size=64)
    answer = np.zeros(predictor.prepare(image).shape[:2], np.float32)
    answer[30:, 10:40] = 0.95
    answer[:6, :6] = 0.7  # too small and unsure to be a person
    expected = guided_upsample(drop_doubtful(answer), image)
    assert np.array_equal(predictor.restore(answer, image), expected)
    assert expected.max() > 0.9 and expected[:20, :20].max() < 1e-4


def test_alpha_by_each_method(model_path):
    image, _ = portrait()
    predictor = open_predictor(model_path, size=64)
    assert np.array_equal(predictor.alpha(image), matte(predictor.probability(image)))
    answer = drop_doubtful(predictor.run([predictor.prepare(image)])[0])
    enlarged = cv2.resize(answer, image.shape[1::-1])
    assert np.array_equal(predictor.alpha(image, "none"), matte(enlarged))
    with pytest.raises(ValueError, match="no matting curls: give none, fast, hair"):
        predictor.alpha(image, "curls")


@pytest.mark.parametrize("side", [96, 20])
def test_hair_is_solved_from_two_looks(side):
    """Bright is person, less surely in a larger input; small people have two looks anyway."""
    shapes = []

    def bright(batch):
        shapes.append(batch.shape[2:])
        return np.float32((batch[:, 1] > 1) * 128 / batch.shape[2])

    image = np.zeros((128, 128, 3), np.uint8)
    image[10 : 10 + side, 20 : 20 + side] = 255
    predictor = Predictor.of(bright, size=128)
    alpha = predictor.alpha(image, "hair")
    assert shapes == [(128, 128), (384, 384) if side == 96 else (224, 224)]
    first = cv2.resize(np.float32(image[:, :, 0] > 127), shapes[1][::-1])
    if side == 96:
        solid = first == 1
        # log-odds of 0.9999, where `mean_answer` ends, and of 1/3
        mean = 1 / (1 + np.exp(-(np.log(9999) - np.log(2)) / 2))
        seen = predictor.look_at_hair(image, predictor.answers([image])[0])
        assert seen[solid].mean() == pytest.approx(mean, abs=0.01)
        first = np.where(solid, mean, 0)
    enlarged = cv2.resize(drop_doubtful(np.float32(first)), image.shape[1::-1])
    assert np.abs(alpha - matting(image, enlarged)).mean() < 0.01


@pytest.mark.parametrize("refine", [True, False])
def test_a_batch_of_several_sizes_equals_one_by_one(model_path, refine):
    images = [portrait(*shape)[0] for shape in ((150, 110), (64, 200), (30, 30), (150, 111))]
    predictor = open_predictor(model_path, refine=refine, size=96)
    shapes = [predictor.prepare(image).shape for image in images]
    assert len(set(shapes)) == 3 and shapes[0] == shapes[3]
    for image, together in zip(images, predictor.probabilities(images)):
        assert together.shape == image.shape[:2]
        assert np.abs(together - predictor.probability(image)).max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_and_thin_photos(model_path, shape):
    image = np.full((*shape, 3), 77, np.uint8)
    probability = open_predictor(model_path, size=64).probability(image)
    assert probability.shape == shape and 0 <= probability.min() <= probability.max() <= 1


@pytest.mark.parametrize("shape", [(600, 800), (800, 600), (720, 1280), (300, 300), (5, 400)])
def test_the_network_input_is_the_whole_photo(shape):
    """Red left and green on top: each corner keeps its colour, so that no side is cut or padded."""
    image = np.zeros((*shape, 3), np.uint8)
    image[:, : shape[1] // 2, 2] = 255
    image[: shape[0] // 2, :, 1] = 255
    network_input = Predictor.of(None).prepare(image)
    assert network_input.shape == (*input_shape(*shape, 224), 3) and network_input.dtype == np.uint8
    assert [network_input[y, x].tolist() for y in (0, -1) for x in (0, -1)] == [
        [0, 255, 255],
        [0, 255, 0],
        [0, 0, 255],
        [0, 0, 0],
    ]


def test_paddle_is_imported_only_to_run_it():
    code = "import sys, portraitnet; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.skipif(not MODEL_PATH.exists(), reason="no trained weights in weights/")
def test_the_astronaut_is_found():
    image = read_image(ROOT / "examples" / "astronaut.png")
    mask = open_predictor().probability(image) > 0.5
    assert 0.2 < mask.mean() < 0.6
    assert mask[100, 220], "her face"
    assert not mask[:40, :100].any(), "the flag in the corner"
    areas = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    # The helmet beside her is hers to hold: a reflection of 144 pixels on it may count.
    assert areas.max() > 0.998 * areas.sum(), "one person in one piece, but for specks"


def test_to_batch_by_hand():
    images = [np.full((2, 3, 3), (0, 128, 255), np.uint8), np.zeros((2, 3, 3), np.uint8)]
    batch = to_batch(images)
    assert batch.shape == (2, 3, 2, 3) and batch.dtype == np.float32
    assert batch[0, :, 1, 2] == pytest.approx([-1.76698, 0.19074, 2.23244], abs=1e-5)
    assert batch[1, :, 0, 0] == pytest.approx([-1.76698, -1.98526, -2.10256], abs=1e-5)
    assert np.array_equal(to_batch(np.stack(images)), batch)


@pytest.mark.parametrize(("side", "closer"), [(20, True), (0, True), (38, True), (40, False)])
def test_small_people_are_looked_at_closer(side, closer):
    """Bright is person. 38 of 100 pixels are .1444 of the photo's area, 40 are .16."""
    shapes = []

    def bright(batch):
        shapes.append(batch.shape[2:])
        # The first look is surer of the left half, the second one of the right half.
        level = np.linspace(1, 0.9, batch.shape[3]) if len(shapes) == 1 else 0.95
        return np.float32((batch[:, 1] > 1) * level)

    image = np.zeros((100, 100, 3), np.uint8)
    image[30 : 30 + side, 30 : 30 + side] = 255
    predictor = Predictor.of(bright, size=320)
    (answer,) = predictor.run([predictor.prepare(image)], [image])
    assert shapes == ([(320, 320), (544, 544)] if closer else [(320, 320)])
    assert answer.shape == shapes[-1]
    if closer and side == 38:
        assert answer[200, [200, 360]] == pytest.approx([1 - 0.1 * 200 / 544, 0.95], abs=1e-3)
    shapes.clear()
    predictor.run([predictor.prepare(image)])
    Predictor.of(bright, size=320, refine=False).probability(image)
    assert shapes == [(320, 320)] * 2, "neither a camera's frame nor an unrefined photo"


@pytest.mark.skipif(not MODEL_PATH.exists(), reason="no trained weights in weights/")
def test_a_small_person_is_found():
    image, mask = far_person()
    found = {}
    for refine in (False, True):
        person = open_predictor(refine=refine).probability(image) > 0.5
        found[refine] = (person & mask).sum() / (person | mask).sum()
    assert found[True] > max(0.9, found[False] + 0.04), found
