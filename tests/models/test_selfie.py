"""The conversion of MediaPipe's selfie model; its own file is not needed."""

import numpy as np
import paddle
import pytest
from conftest import lively

from models import PortraitNetLite, selfie
from models.weights import load_model
from portraitnet.predictor import MEAN, to_batch

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")


def mediapipes(model):
    """The convolutions of MediaPipe's file that stand for a PortraitNetLite's own."""
    *convolutions, head, _ = [m for m in model.sublayers() if isinstance(m, paddle.nn.Conv2D)]
    found = [(c.weight.numpy(), c.bias.numpy()) for c in convolutions]
    weight, bias = head.weight.numpy()[..., 0, 0], head.bias.numpy()
    assert (bias[4:] == bias[4]).all(), "MediaPipe has one bias for the four pixels"
    kernel = (weight[4:] - weight[:4]).reshape(1, 2, 2, -1)
    return [*found, (kernel, bias[4:5] - bias[:1])]


@pytest.fixture
def theirs():
    """A PortraitNetLite with lively weights for pixels as MediaPipe takes them, RGB in 0..1."""
    paddle.seed(0)
    model = lively(PortraitNetLite())
    head = model.mask_head.conv
    head.bias.set_value(paddle.repeat_interleave(paddle.to_tensor([-0.3, 0.3]), 4))
    model.eval()
    return model


def test_the_converted_network_gives_the_answers_of_the_file(theirs, monkeypatch):
    monkeypatch.setattr(selfie, "read_convolutions", lambda path: mediapipes(theirs))
    ours = selfie.convert("selfie.tflite")
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    mean = np.array(MEAN, np.float32)[::-1] / 255
    # Padding is the mean colour for ours and black for theirs: theirs gets the difference from the
    # mean, and what the mean adds in the first layer as a bias.
    rgb = (image[None, ..., ::-1] / np.float32(255) - mean).transpose(0, 3, 1, 2)
    with paddle.no_grad():
        found = ours.probability(paddle.to_tensor(to_batch([image]))).numpy()
        stem = theirs.stem.conv
        stem.bias.set_value(stem.bias.numpy() + np.einsum("ocij,c->o", stem.weight.numpy(), mean))
        expected = theirs.probability(paddle.to_tensor(np.ascontiguousarray(rgb))).numpy()
        edge = ours(paddle.to_tensor(to_batch([image])))[1]
    assert np.ptp(expected) > 0.1, "a flat answer proves nothing"
    assert np.abs(found - expected).max() < 1e-4
    assert (edge.numpy() == 0).all(), "random weights of this head would ruin the features"


def test_a_file_of_other_layers_is_refused(theirs, monkeypatch):
    layers = mediapipes(theirs)
    monkeypatch.setattr(selfie, "read_convolutions", lambda path: layers[1:])
    with pytest.raises(ValueError, match="other.tflite is not MediaPipe's selfie model"):
        selfie.convert("other.tflite")


def test_files_that_are_not_there_or_no_model_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no .*none.tflite: unpack npm's"):
        selfie.read_convolutions(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(ValueError, match="text.tflite is not MediaPipe's selfie model"):
        selfie.read_convolutions(tmp_path / "text.tflite")


def test_the_bundled_start_is_a_portraitnet_lite():
    assert isinstance(load_model(selfie.LITE_PERSON), PortraitNetLite)
