import hashlib
import json

import cv2
import numpy as np
import paddle
import pytest
from conftest import draw_data_root, draw_portrait, lively

from models import PortraitNet
from models.weights import load_model, save_atomically
from portraitnet.backends import load
from portraitnet.geometry import resize
from portraitnet.predictor import MEAN, SCALE, to_batch
from training.checkpoints import runner

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import export  # noqa: E402
from models.inference_graph import fold_batchnorm, fold_softmax  # noqa: E402

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, three drawn photos, and all that export.py makes of them."""
    folder = tmp_path_factory.mktemp("export")
    paddle.seed(0)
    save_atomically(lively(PortraitNet(width=0.25)).state_dict(), folder / "net.pdparams")
    (folder / "photos").mkdir()
    for seed in range(3):
        image, _ = draw_portrait(np.random.default_rng(seed), 90, 70 + 20 * seed)
        cv2.imwrite(str(folder / "photos" / f"{seed}.png"), image)
    assert run(folder) == 0
    return folder


def run(folder, *flags):
    paths = ["--model_path", f"{folder / 'net.pdparams'}", "--photos", f"{folder / 'photos'}"]
    return export.main([*paths, "--size", f"{SIZE}", *flags])


def inputs(count=3, shape=(SIZE, SIZE)):
    return [resize(draw_portrait(np.random.default_rng(s))[0], *shape) for s in range(count)]


def difference(folder, name, backend, count=3, shape=(SIZE, SIZE)):
    batch = to_batch(inputs(count, shape))
    expected = runner(load_model(folder / "net.pdparams"))(batch)
    assert np.ptp(expected) > 0.1, "a flat answer proves nothing"
    return np.abs(load(folder / name, backend).run_batch(batch) - expected)


def test_folded_batchnorm_gives_the_same_logits():
    model = lively(PortraitNet(width=0.25), seed=1)
    batch = paddle.to_tensor(to_batch(inputs()))
    expected, logits = model.mask_logits(batch), fold_batchnorm(model).mask_logits(batch)
    assert (logits - expected).abs().max().item() < 1e-4 * expected.abs().max().item()


def test_folded_softmax_is_a_difference_of_two_classes():
    head = paddle.nn.Conv2D(3, 2, 3, bias_attr=False)
    head.weight.set_value(np.arange(2 * 3 * 9, dtype=np.float32).reshape(2, 3, 3, 3))
    weight, bias = fold_softmax(head)
    assert (weight == 27).all() and bias is None
    with pytest.raises(ValueError, match="3 classes: only background and person"):
        fold_softmax(paddle.nn.Conv2D(8, 3, 3))


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("shape", [(64, 64), (32, 32), (96, 64), (64, 160)])
def test_the_onnx_file_gives_the_checkpoints_answer_at_any_batch_and_shape(folder, count, shape):
    assert difference(folder, "net.onnx", "onnx", count, shape).max() < 1e-4


def test_the_frame_too_is_right(folder):
    """The joint kernel of upsampling and head is wrong on the frame: 1e-2 off."""
    wrong = difference(folder, "net.onnx", "onnx", shape=(96, 64))
    for line in (wrong[:, 0], wrong[:, -1], wrong[:, :, 0], wrong[:, :, -1]):
        assert line.max() < 1e-4


def test_half_the_weights_file(folder):
    assert difference(folder, "net_fp16.onnx", "onnx").max() < 1e-3
    whole, half = ((folder / name).stat().st_size for name in ("net.onnx", "net_fp16.onnx"))
    assert half < whole


def test_paddle_inference_gives_the_checkpoints_answer(folder):
    for count, shape in ((1, (64, 64)), (3, (96, 64)), (2, (32, 128))):
        wrong = difference(folder, "net_inference.pdiparams", "inference", count, shape)
        assert wrong.max() < 1e-4


def test_metadata_stands_in_the_file_and_beside_it(folder):
    beside = json.loads((folder / "net.json").read_text())
    model = onnx.load(folder / "net.onnx")
    inside = {entry.key: entry.value for entry in model.metadata_props}
    digest = hashlib.sha256((folder / "net.pdparams").read_bytes()).hexdigest()
    assert beside["weights_sha256"] == inside["weights_sha256"] == digest
    assert beside["size"] == int(inside["size"]) == SIZE
    assert tuple(beside["mean"]) == tuple(json.loads(inside["mean"])) == MEAN
    assert beside["scale"] == float(inside["scale"]) == SCALE
    assert beside["channel_order"] == inside["channel_order"] == "BGR"
    assert inside["revision"]
    for name, facts in beside["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == facts["sha256"]
    assert set(beside["files"]) == {
        "net.onnx",
        "net_fp16.onnx",
        "net_inference.json",
        "net_inference.pdiparams",
    }


def test_batchnorm_and_the_edge_head_are_gone(folder):
    model = onnx.load(folder / "net.onnx")
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"BatchNormalization", "Softmax"}
    assert not any("edge" in node.name for node in model.graph.node)


def test_an_export_that_differs_is_not_written_and_the_others_are(
    folder, tmp_path, monkeypatch, capsys
):
    strict = export.FORMATS["onnx"]._replace(limit=1e-12)
    monkeypatch.setitem(export.FORMATS, "onnx", strict)
    assert run(folder, "--output", str(tmp_path), "--formats", "onnx", "fp16") == 1
    message = capsys.readouterr().err
    assert (
        "The onnx export differs from the checkpoint by" in message and "was not written" in message
    )
    assert {path.name for path in tmp_path.iterdir()} == {"net_fp16.onnx", "net.json"}
    assert set(json.loads((tmp_path / "net.json").read_text())["files"]) == {"net_fp16.onnx"}


def test_a_missing_package_stops_its_formats_alone(folder, tmp_path, monkeypatch, capsys):
    broken = export.FORMATS["fp16"]._replace(write=lambda *_: __import__("no_such_package"))
    monkeypatch.setitem(export.FORMATS, "fp16", broken)
    assert run(folder, "--output", str(tmp_path), "--formats", "fp16") == 1
    message = "fp16 needs no_such_package: run `pip install -r requirements-dev.txt`."
    assert message in capsys.readouterr().err


def test_only_named_photos_are_proof():
    assert all(path.is_file() for path in export.parse_args([]).photos)


def run_unoptimized(path, batch):
    """The answer of an ONNX file whose nodes are run one by one, as they are written."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"batch": batch})[0]


def test_int8_is_calibrated_and_scored(folder, tmp_path, monkeypatch):
    root = draw_data_root(tmp_path / "data")
    monkeypatch.setattr(export, "INT8_LOSS", 0.03)  # a random network's masks hang on a hair
    flags = ["--formats", "int8", "--data_root", str(root), "--output", str(tmp_path)]
    assert run(folder, *flags) == 0
    model = onnx.load(tmp_path / "net_int8.onnx")
    weights = {w.name: w for w in model.graph.initializer}
    per_channel = weights["stage3.0.expand.weight_scale"]
    assert list(per_channel.dims) == [6 * 8], "one scale for each output channel"
    assert {entry.key for entry in model.metadata_props} >= {"weights_sha256", "scale"}
    measured = json.loads((tmp_path / "net.json").read_text())["files"]["net_int8.onnx"]
    assert measured["miou_checkpoint"] - measured["miou_int8"] < export.INT8_LOSS
    integers = weights["stage3.0.expand.weight_quantized"]
    assert np.abs(onnx.numpy_helper.to_array(integers).astype(int)).max() <= 64, "7 bits"
    # Integer arithmetic gives what the same graph gives in float32 arithmetic, node by node, but
    # for sums on the brink between two of 255 levels: on any processor, if nothing saturates.
    for shape in ((64, 64), (96, 64)):
        batch = to_batch(inputs(3, shape))
        simulated = run_unoptimized(tmp_path / "net_int8.onnx", batch)
        answer = load(tmp_path / "net_int8.onnx", "onnx").run_batch(batch)
        assert np.ptp(simulated) > 0.1 and np.abs(answer - simulated).mean() < 2 / 255


def test_int8_that_loses_too_much_is_not_written(folder, tmp_path, monkeypatch, capsys):
    root = draw_data_root(tmp_path / "data", val=2)
    monkeypatch.setattr(export, "INT8_LOSS", -1)
    output = tmp_path / "out"
    flags = ["--formats", "int8", "--data_root", str(root), "--output", str(output)]
    assert run(folder, *flags) == 1
    assert "it loses -1 or more" in capsys.readouterr().err
    assert not list(output.iterdir())


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--size", "31"], "must be a multiple of 32, not '31'"),
        (["--formats", "int8"], "give --data_root"),
    ],
)
def test_wrong_usage(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        export.parse_args(flags)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_no_photo_is_said(folder, tmp_path, capsys):
    assert run(folder, "--photos", str(tmp_path)) == 1
    assert f"No photo in {tmp_path}" in capsys.readouterr().err


@pytest.mark.skipif(
    not (export.MODEL_PATH.exists() and export.MODEL_PATH.with_suffix(".onnx").exists()),
    reason="no weights in weights/",
)
def test_the_onnx_file_in_weights_is_of_the_weights_beside_it():
    model = onnx.load(export.MODEL_PATH.with_suffix(".onnx"))
    inside = {entry.key: entry.value for entry in model.metadata_props}
    digest = hashlib.sha256(export.MODEL_PATH.read_bytes()).hexdigest()
    assert inside["weights_sha256"] == digest, "run python export.py again"


def test_two_classes_only(folder, tmp_path, capsys):
    save_atomically(PortraitNet(n_class=3, width=0.25).state_dict(), tmp_path / "net.pdparams")
    flags = ["--model_path", str(tmp_path / "net.pdparams"), "--output", str(tmp_path / "out")]
    assert run(folder, *flags) == 1
    assert "1 misshapen (mask_head.weight [3, 8, 3, 3], not [2, " in capsys.readouterr().err


@pytest.mark.parametrize("name, stem, size", [("full", "", 224), ("lite", "_lite", 256)])
def test_a_name_is_the_weights_in_weights_at_the_networks_size(name, stem, size):
    flags = ["--model_path", name]
    checkpoint = export.open_checkpoint(export.parse_args(flags))
    assert checkpoint.path == export.MODEL_PATH.with_stem(f"portraitnet{stem}")
    assert (checkpoint.size, checkpoint.shape) == (size, (size, size))
    assert checkpoint.metadata["size"] == size
    checkpoint = export.open_checkpoint(export.parse_args([*flags, "--size", "192"]))
    assert (checkpoint.size, checkpoint.shape) == (192, (192, 192))


def test_an_export_joins_the_checksums_of_its_folder(folder, tmp_path):
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.onnx\n")
    for _ in range(2):
        assert run(folder, "--formats", "onnx", "--output", str(tmp_path)) == 0
    lines = [line.split() for line in (tmp_path / "SHA256SUMS").read_text().splitlines()]
    assert [name for _, name in lines] == ["net.json", "net.onnx", "other.onnx"]
    digest = hashlib.sha256((tmp_path / "net.onnx").read_bytes()).hexdigest()
    assert [digest, "net.onnx"] in lines
    load(tmp_path / "net.onnx", "onnx")
