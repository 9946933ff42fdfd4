"""The LiteRT file: what a phone runs gives the checkpoint's answer."""

import json
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from conftest import draw_portrait, save_random_weights

pytest.importorskip("ai_edge_litert")

from ai_edge_litert import schema_py_generated as schema  # noqa: E402
from ai_edge_litert.interpreter import Interpreter  # noqa: E402

import export  # noqa: E402
from models import PortraitNet  # noqa: E402
from models.tflite_graph import SIGNATURE, TFLiteGraph, tflite_file, tflite_model  # noqa: E402
from models.weights import load_model  # noqa: E402
from portraitnet.backends import litert_metadata, load  # noqa: E402
from portraitnet.geometry import resize  # noqa: E402
from portraitnet.images import read_image  # noqa: E402
from portraitnet.predictor import MEAN, SCALE, to_batch  # noqa: E402
from training.checkpoints import runner  # noqa: E402

SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random checkpoint and its LiteRT exports."""
    folder = tmp_path_factory.mktemp("tflite")
    save_random_weights(folder / "net.pdparams", seed=1)
    assert run(folder, "--formats", "tflite", "tflite_fp16") == 0
    return folder


def run(folder, *flags):
    return export.main(["--model_path", f"{folder / 'net.pdparams'}", "--size", f"{SIZE}", *flags])


def make_batch(count, height, width):
    images = [draw_portrait(np.random.default_rng(seed))[0] for seed in range(count)]
    return to_batch([resize(image, height, width) for image in images])


def difference(folder, name, count, height, width):
    batch = make_batch(count, height, width)
    expected = runner(load_model(folder / "net.pdparams"))(batch)
    assert np.ptp(expected) > 0.05, "a flat answer proves nothing"
    return np.abs(load(folder / name, "litert").run_batch(batch) - expected)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shape", [(96, 96), (32, 32), (128, 96), (64, 160)])
def test_the_file_gives_the_checkpoints_answer_at_any_batch_and_shape(folder, count, shape):
    assert difference(folder, "net.tflite", count, *shape).max() < export.FLOAT32_LIMIT


def test_the_frame_too_is_right(folder):
    """The joint kernel of upsampling and head is wrong on the frame."""
    wrong = difference(folder, "net.tflite", 3, 128, 96)
    for line in (wrong[:, 0], wrong[:, -1], wrong[:, :, 0], wrong[:, :, -1]):
        assert line.max() < export.FLOAT32_LIMIT


@pytest.mark.parametrize("width", [0.5, 1, 1.4])
def test_any_width_exports(width, tmp_path):
    paddle.seed(0)
    model = PortraitNet(width=width)
    model.eval()
    (tmp_path / "net.tflite").write_bytes(tflite_model(model, {}, (64, 32)))
    batch = make_batch(1, 64, 32)
    answer = load(tmp_path / "net.tflite", "litert").run_batch(batch)
    assert np.abs(answer - runner(model)(batch)).max() < export.FLOAT32_LIMIT


def test_float16_halves_the_large_weights_alone(folder, tmp_path):
    paddle.seed(0)
    model = PortraitNet()
    model.eval()
    whole, half = (tflite_model(model, {}, (64, 64), half) for half in (False, True))
    assert len(half) < 0.56 * len(whole)
    stored = read(half).subgraphs[0].tensors
    large = [t for t in stored if t.type == schema.TensorType.FLOAT16]
    assert len(large) == 25 and all(np.prod(t.shape) >= 10_000 for t in large)
    (tmp_path / "half.tflite").write_bytes(half)
    batch = make_batch(2, 64, 64)
    answer = load(tmp_path / "half.tflite", "litert").run_batch(batch)
    assert 0 < np.abs(answer - runner(model)(batch)).max() < export.FLOAT16_LIMIT


@pytest.mark.skipif(not export.MODEL_PATH.exists(), reason="no weights in weights/")
@pytest.mark.parametrize(
    "half, limit", [(False, export.FLOAT32_LIMIT), (True, export.FLOAT16_LIMIT)]
)
def test_trained_weights_keep_their_answer(tmp_path, half, limit):
    model = load_model(export.MODEL_PATH)
    (tmp_path / "net.tflite").write_bytes(tflite_model(model, {}, (224, 224), half))
    images = [read_image(path) for path in export.PROOF]
    for shape in ((224, 224), (256, 192)):
        batch = to_batch([resize(image, *shape) for image in images])
        answer = load(tmp_path / "net.tflite", "litert").run_batch(batch)
        assert np.abs(answer - runner(model)(batch)).max() < limit


def read(file):
    return schema.ModelT.InitFromPackedBuf(file, 0)


def run_graph(operation, x):
    """One operation of a TFLiteGraph on (1, H, W, C) float32."""
    graph = TFLiteGraph()
    given = graph.tensor(x.shape, "given")
    answer = operation(graph, given)
    interpreter = Interpreter(model_content=tflite_file(graph, given, answer, {}))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert list(result.shape) == graph.shape(answer), "what the file says of its shape"
    return result


def test_upsampling_is_the_transposed_convolution():
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (1, 3, 2, 2)).astype(np.float32)
    weight = rng.integers(-4, 5, (2, 3, 4, 4)).astype(np.float32)
    planes = paddle.to_tensor(x.transpose(0, 3, 1, 2))
    expected = F.conv2d_transpose(planes, paddle.to_tensor(weight), stride=2, padding=1)
    answer = run_graph(lambda graph, given: graph.upsampling(given, weight, "up"), x)
    assert (answer == expected.numpy().transpose(0, 2, 3, 1)).all(), (
        "whole numbers have no rounding"
    )


def test_a_stride_of_two_pads_the_first_line():
    """Nine ones at (0, 0) see the four pixels of the 4x4 image's corner, padded above and left."""
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    ones = np.ones((1, 1, 3, 3), np.float32)
    answer = run_graph(lambda graph, given: graph.convolution(given, ones, None, "c", 2), x)
    assert answer[0, :, :, 0].tolist() == [
        [0 + 1 + 4 + 5, 1 + 2 + 3 + 5 + 6 + 7],
        [4 + 5 + 8 + 9 + 12 + 13, 90],
    ]


def metadata_of(path):
    return litert_metadata(path, path.read_bytes())


def test_the_file_says_what_it_is(folder):
    metadata = metadata_of(folder / "net.tflite")
    beside = json.loads((folder / "net.json").read_text())
    assert metadata["name"] == "PortraitNet" and metadata["license"] == "Apache-2.0"
    assert tuple(metadata["mean"]) == MEAN and metadata["scale"] == SCALE
    assert metadata["channel_order"] == "BGR" and metadata["layout"] == "NHWC"
    assert metadata["shape"] == [SIZE, SIZE] and metadata["size"] == SIZE
    assert metadata["weights_sha256"] == beside["weights_sha256"]
    assert {"net.tflite", "net_fp16.tflite"} == set(beside["files"])


def test_input_and_output_have_names(folder):
    network = Interpreter(str(folder / "net.tflite")).get_signature_runner(SIGNATURE)
    batch = make_batch(1, SIZE, SIZE)
    answer = network(batch=batch.transpose(0, 2, 3, 1))["probability"]
    assert answer.shape == (1, SIZE, SIZE, 1)
    expected = runner(load_model(folder / "net.pdparams"))(batch)
    assert np.abs(answer[..., 0] - expected).max() < export.FLOAT32_LIMIT


def test_weights_are_aligned(folder):
    """Runtimes read them where they lie in the mapped file."""
    data = (folder / "net_fp16.tflite").read_bytes()
    file = schema.Model.GetRootAs(data)
    assert data[4:8] == b"TFL3"
    for i in range(file.BuffersLength()):
        buffer = file.Buffers(i)
        if not buffer.DataIsNone():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0


def test_another_shape_stands_in_the_files_name(folder, tmp_path):
    flags = "--formats", "tflite", "--shape", "64x96", "--output", str(tmp_path)
    assert run(folder, *flags) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"net_64x96.tflite", "net.json"}
    interpreter = Interpreter(str(tmp_path / "net_64x96.tflite"))
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 64, 96, 3]
    assert metadata_of(tmp_path / "net_64x96.tflite")["shape"] == [64, 96]


def test_an_export_that_differs_is_not_written(folder, tmp_path, monkeypatch, capsys):
    strict = export.FORMATS["tflite"]._replace(limit=1e-12)
    monkeypatch.setitem(export.FORMATS, "tflite", strict)
    assert run(folder, "--formats", "tflite", "--output", str(tmp_path)) == 1
    assert "The tflite export differs from the checkpoint by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "models.tflite_graph")
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert run(folder, "--formats", "tflite", "--output", str(tmp_path)) == 1
    assert "tflite needs ai_edge_litert: run `pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--formats", "tflite", "--shape", "200x224"], "such as 256x192, not '200x224'"),
        (["--formats", "tflite", "--shape", "224"], "such as 256x192, not '224'"),
        (["--formats", "onnx", "--shape", "256x192"], "--shape has an effect on tflite"),
    ],
)
def test_wrong_usage(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        export.parse_args(flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
