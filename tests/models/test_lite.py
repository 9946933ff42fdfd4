"""PortraitNetLite: its size, its shapes, and its exports."""

import numpy as np
import paddle
import pytest
from conftest import lively, make_batch

import export
from models import PortraitNetLite, count_macs, count_parameters
from models.weights import load_model, save_atomically
from portraitnet.backends import BACKENDS, load
from training.checkpoints import open_predictor, runner


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with random weights, and its exports for every runtime."""
    folder = tmp_path_factory.mktemp("lite")
    paddle.seed(0)
    path = folder / "net.pdparams"
    model = lively(PortraitNetLite())
    model.mask_head.conv.weight.set_value(0.1 * model.mask_head.conv.weight)  # |logit| < 9
    save_atomically(model.state_dict(), path)
    formats = ["onnx", "tflite", "coreml", "inference"]
    shape = ["--shape", "96x64"]
    assert export.main(["--model_path", f"{path}", "--formats", *formats, *shape]) == 0
    return folder


def test_size():
    model = PortraitNetLite()
    # stem 448; blocks 89,680; context 8,448; decoder 7,760; heads 2 * (16 * 8 + 8) = 272
    assert count_parameters(model) == 106_608
    assert count_macs(model) == 42_636_160


@pytest.mark.parametrize("height, width", [(32, 32), (96, 64)])
def test_both_heads_have_the_size_of_the_input(height, width):
    logits = PortraitNetLite()(paddle.zeros([2, 3, height, width]))
    assert [each.shape for each in logits] == [[2, 2, height, width]] * 2


def test_probability_is_the_softmax_of_channel_one():
    model = lively(PortraitNetLite())
    batch = paddle.to_tensor(make_batch(64, 32))
    with paddle.no_grad():
        softmax = paddle.nn.functional.softmax(model.mask_logits(batch), axis=1)[:, 1]
        assert (model.probability(batch) - softmax).abs().max().item() < 1e-6


def test_a_checkpoint_tells_its_network(folder):
    assert isinstance(load_model(folder / "net.pdparams"), PortraitNetLite)


@pytest.mark.parametrize("shape", [(96, 64), (32, 32), (64, 160)])
@pytest.mark.parametrize(
    "name, backend",
    [
        ("net.onnx", "onnx"),
        ("net.onnx", "openvino"),
        ("net_96x64.tflite", "litert"),
        ("net_inference.pdiparams", "inference"),
    ],
)
def test_every_runtime_gives_the_checkpoints_answer(folder, name, backend, shape):
    pytest.importorskip(BACKENDS[backend].package)
    batch = make_batch(*shape)
    expected = runner(load_model(folder / "net.pdparams"))(batch)
    assert np.ptp(expected) > 0.1, "a flat answer proves nothing"
    assert np.abs(load(folder / name, backend).run_batch(batch) - expected).max() < 1e-4


def test_core_ml_gives_the_checkpoints_answer(folder):
    pytest.importorskip("coremltools")
    from models.coreml_graph import evaluator

    batch = make_batch(96, 64)
    expected = runner(load_model(folder / "net.pdparams"))(batch)
    (path,) = folder.glob("*.zip")
    assert np.abs(evaluator(path)(batch) - expected).max() < 1e-4


def test_a_checkpoint_runs_at_the_size_that_the_network_is_made_for(folder):
    assert open_predictor(folder / "net.pdparams").size == PortraitNetLite.size == 256
    assert open_predictor(folder / "net.onnx").size == 256, "export.py writes it into the file"
    assert open_predictor(folder / "net.pdparams", size=64).size == 64
