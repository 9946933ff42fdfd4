"""Checkpoints of Paddle behind the library's Predictor."""

import cv2
import numpy as np
import paddle
import pytest
from conftest import draw_portrait

from models.weights import load_model
from portraitnet import backends
from portraitnet.geometry import resize
from portraitnet.predictor import Predictor, to_batch
from training import checkpoints
from training.checkpoints import open_predictor, runner


def portrait(height=150, width=110):
    return draw_portrait(np.random.default_rng(0), height, width)[0]


def test_without_refinement_it_is_the_network_between_two_resizes(model_path):
    image = portrait(150, 100)
    network_input = resize(image, 96, 64)
    with paddle.no_grad():
        logits = load_model(model_path).mask_logits(paddle.to_tensor(to_batch([network_input])))
    background, person = logits.numpy()[0].astype(np.float64)
    expected = cv2.resize(0.5 + np.tanh((person - background) / 2) / 2, (100, 150))
    probability = open_predictor(model_path, refine=False, size=78).probability(image)
    assert probability.dtype == np.float32
    assert np.abs(probability - expected).max() < 1e-5


def test_a_network_in_memory_gives_what_its_file_does(model_path):
    image = portrait()
    live = Predictor.of(runner(load_model(model_path)), size=96)
    assert np.array_equal(
        live.probability(image), open_predictor(model_path, size=96).probability(image)
    )


def test_missing_weights_and_unknown_formats_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.pdparams"):
        open_predictor(tmp_path / "none.pdparams")
    with pytest.raises(ValueError, match="model.xyz is neither a network's name .*pdparams"):
        open_predictor(tmp_path / "model.xyz")


def test_a_checkpoint_is_run_by_paddle_and_named(model_path):
    predictor = open_predictor(model_path, size=96, refine=False)
    assert (predictor.backend, str(predictor.model_path)) == ("paddle", model_path)
    assert (predictor.size, predictor.refine) == (96, False)


def test_the_runner_leaves_no_gradients_behind(model_path):
    model = load_model(model_path)
    batch = to_batch([resize(portrait(), 96, 64)] * 2)
    probability = runner(model)(batch)
    assert probability.shape == (2, 96, 64) and probability.dtype == np.float32
    assert np.array_equal(probability, model.probability(paddle.to_tensor(batch)).numpy())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_other_files_go_to_the_library(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(backends, "is_installed", lambda name: name == "onnx")
    network = backends.Network(None, 224)
    monkeypatch.setattr(checkpoints, "load", lambda *args: calls.append(args) or network)
    open_predictor(tmp_path / "a.onnx", threads=3)
    assert calls[0][:1] == (tmp_path / "a.onnx",) and 3 in calls[0]


def test_a_damaged_checkpoint_is_one_sentence(tmp_path):
    path = tmp_path / "best.pdparams"
    path.write_bytes(b"half a file")
    with pytest.raises(ValueError, match="best.pdparams is damaged") as error:
        open_predictor(path)
    assert "\n" not in str(error.value)
