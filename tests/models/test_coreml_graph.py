"""The Core ML package: what it says, carried out by Paddle, is the checkpoint's answer."""

import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
from conftest import draw_portrait, save_random_weights

pytest.importorskip("coremltools")

import export  # noqa: E402
from models.coreml_graph import OPERATIONS, PACKAGE, coremltools, evaluator  # noqa: E402
from models.weights import load_model  # noqa: E402
from portraitnet.geometry import resize  # noqa: E402
from portraitnet.predictor import MEAN, SCALE, to_batch  # noqa: E402
from training.checkpoints import runner  # noqa: E402

SHAPE = 64, 96
FILES = "net_64x96.mlpackage.zip", "net_64x96_fp16.mlpackage.zip"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The bundled weights and their Core ML exports."""
    folder = tmp_path_factory.mktemp("coreml")
    shutil.copy(export.MODEL_PATH, folder / "net.pdparams")
    assert run(folder, "--formats", "coreml", "coreml_fp16") == 0
    return folder


def run(folder, *flags):
    paths = ["--model_path", f"{folder / 'net.pdparams'}"]
    return export.main([*paths, "--shape", f"{SHAPE[0]}x{SHAPE[1]}", *flags])


def read(path):
    with zipfile.ZipFile(path) as archive:
        model = archive.read(f"{PACKAGE}/Data/com.apple.CoreML/model.mlmodel")
        assert {"Manifest.json", "model.mlmodel", "weight.bin"} == {
            name.rsplit("/", 1)[1] for name in archive.namelist()
        }
    return coremltools.proto.Model_pb2.Model.FromString(model)


def make_batch(count):
    images = [draw_portrait(np.random.default_rng(seed))[0] for seed in range(count)]
    return to_batch([resize(image, *SHAPE) for image in images])


@pytest.mark.parametrize(
    "name, limit", zip(FILES, (export.FLOAT32_LIMIT, export.FLOAT16_THROUGHOUT_LIMIT))
)
def test_the_package_computes_the_checkpoints_answer(folder, name, limit):
    batch = make_batch(2)
    expected = runner(load_model(folder / "net.pdparams"))(batch)
    assert np.ptp(expected) > 0.05, "a flat answer proves nothing"
    difference = np.abs(evaluator(folder / name)(batch) - expected)
    assert 0 < difference.max() < limit


def test_another_width_exports(tmp_path):
    save_random_weights(tmp_path / "net.pdparams", seed=1)
    assert run(tmp_path, "--formats", "coreml") == 0


def test_float16_rounds_every_result(folder):
    """What the neural engine computes in is coarser than float32, and the check sees that."""
    batch = make_batch(1)
    exact, coarse = (evaluator(folder / name)(batch) for name in FILES)
    assert np.abs(exact - coarse).max() > 1e-4


def test_only_operations_of_ios_15_are_used(folder):
    spec = read(folder / FILES[0])
    assert spec.specificationVersion == 6, "iOS 15"
    block = spec.mlProgram.functions["main"].block_specializations["CoreML5"]
    kinds = {operation.type for operation in block.operations}
    lite = {"reduce_mean", "sigmoid_hard", "upsample_bilinear"}  # of PortraitNetLite alone
    assert kinds - {"const"} == set(OPERATIONS) - lite - {"cast"}, "float32 casts nothing"


def test_core_ml_normalises_the_image_itself(folder):
    spec = read(folder / FILES[0])
    image, answer = spec.description.input[0], spec.description.output[0]
    kind = image.type.imageType
    assert image.name == "image" and (kind.height, kind.width) == SHAPE
    assert kind.colorSpace == coremltools.proto.FeatureTypes_pb2.ImageFeatureType.BGR
    assert answer.name == "probability" and list(answer.type.multiArrayType.shape) == [1, *SHAPE]


def test_the_package_says_what_it_is(folder):
    spec = read(folder / FILES[0])
    metadata = dict(spec.description.metadata.userDefined)
    beside = json.loads((folder / "net.json").read_text())
    assert spec.description.metadata.license == metadata["license"] == "Apache-2.0"
    assert tuple(json.loads(metadata["mean"])) == MEAN and float(metadata["scale"]) == SCALE
    assert metadata["channel_order"] == "BGR" and json.loads(metadata["shape"]) == list(SHAPE)
    assert metadata["weights_sha256"] == beside["weights_sha256"]
    assert set(beside["files"]) == set(FILES)


def test_a_changed_weight_is_noticed(folder, tmp_path):
    """The check reads the file, not what was meant to be written."""
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(folder / FILES[0]) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            data = bytearray(source.read(name))
            if name.endswith("weight.bin"):
                data[128:132] = np.float32(1).tobytes()  # the first, after two headers of 64 bytes
            target.writestr(name, bytes(data))
    batch = make_batch(1)
    assert np.abs(evaluator(changed)(batch) - evaluator(folder / FILES[0])(batch)).max() > 1e-4


def test_an_export_that_differs_is_not_written(folder, tmp_path, monkeypatch, capsys):
    strict = export.FORMATS["coreml"]._replace(limit=1e-12)
    monkeypatch.setitem(export.FORMATS, "coreml", strict)
    assert run(folder, "--formats", "coreml", "--output", str(tmp_path)) == 1
    assert "The coreml export differs from the checkpoint by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_shape_is_refused(folder):
    with pytest.raises(ValueError, match=r"is \[1, 3, 32, 32\], not \[1, 3, 64, 96\]"):
        evaluator(folder / FILES[0])(np.zeros((1, 3, 32, 32), np.float32))


def test_a_missing_package_is_named(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "models.coreml_graph")
    monkeypatch.setitem(sys.modules, "coremltools", None)
    assert run(folder, "--formats", "coreml", "--output", str(tmp_path)) == 1
    assert "coreml needs coremltools: run `pip install" in capsys.readouterr().err
