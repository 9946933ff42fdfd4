import sys
import types

import cv2
import numpy as np
import pytest
from conftest import draw_data_root

import train
from data.lists import Pair
from models.weights import read_state
from training.distillation import ISNet, MediaPipeSelfie, Teacher, load_teacher

SMALL = "--width 0.25 --size 64 --epoch 1 --batch_size 4 --log_iter 1".split()


class Half:
    """A teacher that doubts everything."""

    def probabilities(self, images):
        return [np.full(image.shape[:2], 0.5, np.float32) for image in images]


@pytest.mark.parametrize("weight", [0, 0.25, 1])
def test_targets_are_the_mean_of_mask_and_answer(weight):
    masks = np.zeros((3, 8, 8), np.float32)
    masks[:2, 2:6, 2:6] = 1
    given = masks.copy()
    pairs = [Pair("mine/Images/a.jpg"), Pair("mine/../other/b.jpg"), Pair("theirs/Images/c.jpg")]
    teacher = Teacher([Half()], weight, pairs, ["mine"])
    targets = teacher(masks, np.zeros((3, 8, 8, 3), np.uint8), [1, 2, 0])
    assert targets.dtype == np.float32
    assert np.allclose(targets[0], (1 - weight) * masks[0] + weight * 0.5)
    assert (targets[1] == masks[1]).all(), "a photo of another folder was distilled"
    assert not targets[2].any(), "the teacher invented somebody"
    assert (masks == given).all()
    assert Teacher([Half()], weight, pairs, None).distilled == [True] * 3


def test_training_aims_at_what_the_teacher_says(tmp_path, model_path):
    root = draw_data_root(tmp_path / "data", train=4, val=2)
    ends = {}
    for weight in ("0", "0.5"):
        output = tmp_path / weight
        flags = ["--teacher", model_path, "--teacher_weight", weight, "--output", str(output)]
        assert train.main([*SMALL, "--data_root", str(root), *flags]) == 0
        ends[weight] = read_state(output / "model_0.pdparams")["mask_head.weight"].numpy()
    output = tmp_path / "none"
    assert train.main([*SMALL, "--data_root", str(root), "--output", str(output)]) == 0
    alone = read_state(output / "model_0.pdparams")["mask_head.weight"].numpy()
    assert (ends["0"] == alone).all()
    assert (ends["0.5"] != alone).any()


def test_a_teacher_that_is_not_there_is_one_sentence(tmp_path, capsys):
    root = draw_data_root(tmp_path / "data", train=4, val=2)
    for name in ("none.tflite", "none.onnx"):
        flags = ["--data_root", str(root), "--output", str(tmp_path / "out"), "--teacher", name]
        assert train.main([*SMALL, *flags]) == 1
        message = capsys.readouterr().err.splitlines()
        assert len(message) == 1 and name in message[0], message


def test_a_network_of_this_project_teaches_unrefined(model_path):
    assert load_teacher(model_path).refine is False


def salient_file(path, channels=3, side=64):
    """A network of IS-Net's interface that calls red salient: pixel (255 - 128) / 256 and above."""
    onnx = pytest.importorskip("onnx")
    make, number = onnx.helper, onnx.TensorProto
    constants = {"first": [0], "second": [1], "axis": [1], "steep": [100.0], "level": [0.25]}
    given = [
        make.make_tensor(name, number.FLOAT if name in ("steep", "level") else number.INT64, [1], v)
        for name, v in constants.items()
    ]
    nodes = [
        make.make_node("Slice", ["photo", "first", "second", "axis"], ["red"]),
        make.make_node("Sub", ["red", "level"], ["over"]),
        make.make_node("Mul", ["over", "steep"], ["odds"]),
        make.make_node("Sigmoid", ["odds"], ["alpha"]),
    ]
    shapes = {"photo": [1, channels, side, side], "alpha": [1, 1, side, side]}
    ends = {name: make.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()}
    graph = make.make_graph(nodes, "salient", [ends["photo"]], [ends["alpha"]], given)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 15)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


class RedOfFourPixels:
    """In place of LiteRT's interpreter: the red of a photo's four by four pixels."""

    def __init__(self, path, num_threads):
        assert num_threads == 1, "many processes label at the same time"

    def allocate_tensors(self):
        self.input = None

    def get_input_details(self):
        return [{"index": 7, "shape": np.array((1, 4, 4, 3))}]

    def get_output_details(self):
        return [{"index": 9}]

    def set_tensor(self, index, value):
        assert index == 7 and value.shape == (1, 4, 4, 3) and value.dtype == np.float32
        self.input = value

    def invoke(self):
        self.output = self.input[..., :1]

    def get_tensor(self, index):
        assert index == 9
        return self.output


def test_mediapipes_network_sees_rgb_from_0_to_1_and_answers_at_the_photos_size(
    tmp_path, monkeypatch
):
    interpreter = types.SimpleNamespace(Interpreter=RedOfFourPixels)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", interpreter)
    (tmp_path / "a.tflite").touch()
    image = np.zeros((16, 8, 3), np.uint8)
    image[8:, :, 2] = 255
    image[:8, :, 0] = 255
    (found,) = MediaPipeSelfie(tmp_path / "a.tflite").probabilities([image])
    assert found.shape == (16, 8) and found.min() == 0 and found.max() == 1
    assert (found[:6] == 0).all() and (found[10:] == 1).all()


def test_a_salient_object_has_its_size_and_place_in_the_photo(tmp_path):
    image = np.zeros((96, 48, 3), np.uint8)
    image[24:72, 12:36] = 0, 0, 255  # red in BGR
    image[:, 40:] = 255, 0, 0
    probability = ISNet(salient_file(tmp_path / "salient.onnx")).probability(image)
    assert probability.shape == (96, 48) and probability.dtype == np.float32
    truth = cv2.inRange(image, (0, 0, 255), (0, 0, 255)) > 0
    both, either = (probability > 0.5) & truth, (probability > 0.5) | truth
    assert both.sum() / either.sum() > 0.9


def test_a_salient_network_that_is_none_is_one_sentence(tmp_path, model_path):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no model")
    for path in (tmp_path / "none.onnx", damaged, salient_file(tmp_path / "grey.onnx", channels=1)):
        with pytest.raises((FileNotFoundError, ValueError), match=path.name):
            ISNet(path)
