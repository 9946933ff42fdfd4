import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_portrait, save_random_weights

import backends
from backends import BACKENDS, choose, is_installed, load
from predictor import Predictor

ROOT = Path(__file__).parent.parent
SIZE = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random checkpoint and its exports."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    import export

    folder = tmp_path_factory.mktemp("backends")
    save_random_weights(folder / "portraitnet.pdparams", seed=1)
    paths = ["--model_path", str(folder / "portraitnet.pdparams")]
    formats = ["onnx", "inference"]
    if is_installed("litert"):
        formats.append("tflite")
    assert export.main([*paths, "--size", f"{SIZE}", "--formats", *formats]) == 0
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_gives_the_same_probability(folder, backend):
    pytest.importorskip(BACKENDS[backend][1])
    shapes = (96, 96), (128, 96), (90, 160), (96, 97)
    images = [draw_portrait(np.random.default_rng(0), *shape)[0] for shape in shapes]
    expected = Predictor(folder / "portraitnet.pdparams", size=SIZE).probabilities(images)
    predictor = Predictor(folder / BACKENDS[backend][0], backend, size=SIZE, threads=1)
    assert predictor.backend == backend and predictor.size == SIZE
    answers = [predictor.probability(images[0]), *predictor.probabilities(images)]
    for answer, right in zip(answers, [expected[0], *expected]):
        assert answer.shape == right.shape
        assert np.abs(answer - right).max() < 1e-4
    assert np.ptp(expected[0]) > 0.05, "a flat answer proves nothing"


@pytest.mark.parametrize("backend", ["onnx", "openvino", "litert"])
def test_the_size_is_the_files_unless_another_is_wanted(folder, backend):
    pytest.importorskip(BACKENDS[backend][1])
    for wanted, size in ((None, SIZE), (64, 64)):
        network = load(folder / BACKENDS[backend][0], backend, size=wanted, threads=1)
        assert network.size == size


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_file_with_fixed_sides_is_refused(folder, tmp_path, backend):
    pytest.importorskip(BACKENDS[backend][1])
    onnx = pytest.importorskip("onnx")
    model = onnx.load(folder / "portraitnet.onnx")
    for value in (*model.graph.input, *model.graph.output):
        for side in value.type.tensor_type.shape.dim[-2:]:
            side.dim_value = SIZE
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(ValueError, match="views of one shape alone.*: export its checkpoint again"):
        load(tmp_path / "fixed.onnx", backend, threads=1)


@pytest.mark.parametrize("backend", ["onnx", "openvino", "inference", "litert"])
@pytest.mark.parametrize("part", [0, 0.01, 0.5])
def test_a_damaged_file_is_one_sentence(folder, tmp_path, backend, part):
    pytest.importorskip(BACKENDS[backend][1])
    name = BACKENDS[backend][0]
    whole = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(part * len(whole))])
    if backend == "inference":
        program = Path(name).with_suffix(".json")
        (tmp_path / program).write_bytes((folder / program).read_bytes())
    with pytest.raises(
        ValueError, match=f"{name} is damaged or no model .*copy it again"
    ) as caught:
        load(tmp_path / name, backend)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_foreign_model_is_refused(tmp_path, backend):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip(BACKENDS[backend][1])
    value = [onnx.helper.make_tensor_value_info(n, 1, [1, 3, 8, 8]) for n in ("x", "y")]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "other", value[:1], value[1:])
    opset = onnx.helper.make_opsetid("", 17)
    path = tmp_path / "other.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    with pytest.raises(ValueError, match="takes x and gives y, not batch and probability"):
        load(path, backend)


def test_a_missing_file_and_half_a_pair_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file .*none.onnx"):
        load(tmp_path / "none.onnx", "onnx")
    alone = tmp_path / "alone.pdiparams"
    alone.write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="needs alone.json beside it"):
        load(alone, "inference")


def test_a_backend_that_is_not_installed_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(BACKENDS, "onnx", ("portraitnet.onnx", "not_installed", None))
    assert not is_installed("onnx")
    with pytest.raises(ImportError, match="needs not_installed: run `pip install not_installed`"):
        load(folder / "portraitnet.onnx", "onnx")


def installed(monkeypatch, *names):
    monkeypatch.setattr(backends, "is_installed", lambda name: name in names)


def test_auto_takes_the_fastest_that_is_installed(monkeypatch):
    installed(monkeypatch, "paddle", "inference", "onnx", "openvino")
    assert choose("a/b.onnx") == (Path("a/b.onnx"), "openvino", None)
    assert choose("a/b.pdparams")[1] == "paddle"
    assert choose("a/b.pdiparams")[1] == "inference"
    installed(monkeypatch, "onnx")
    assert choose("b.onnx")[1] == "onnx"
    assert choose("b.pdparams")[1] == "paddle", "nothing else runs it: load says what is missing"


def test_without_a_file_it_is_the_one_in_weights(folder, monkeypatch):
    monkeypatch.setattr(backends, "WEIGHTS", folder)
    installed(monkeypatch, "paddle", "inference", "onnx")
    assert choose() == (folder / "portraitnet.onnx", "onnx", None)
    assert choose(backend="paddle") == (folder / "portraitnet.pdparams", "paddle", None)
    installed(monkeypatch, "onnx")
    assert choose() == (folder / "portraitnet.onnx", "onnx", None)
    installed(monkeypatch, "paddle")
    assert choose() == (folder / "portraitnet.pdparams", "paddle", None)


def test_a_name_is_its_file_in_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "WEIGHTS", folder)
    monkeypatch.chdir(tmp_path)
    Path("lite").touch()
    installed(monkeypatch, "paddle", "inference", "onnx")
    assert choose("full") == choose() == (folder / "portraitnet.onnx", "onnx", None)
    quick = folder / "portraitnet_lite_int8.onnx", "onnx", 160
    assert choose("lite") == quick, "the name counts, not the file beside us"
    assert choose(Path("lite"), "paddle") == (folder / "portraitnet_lite.pdparams", "paddle", 160)
    other = tmp_path / "portraitnet_lite_inference.pdiparams"
    other.touch()
    monkeypatch.setattr(backends, "WEIGHTS", tmp_path)
    assert choose("lite") == (other, "inference", 160), "there is no INT8 file"
    with pytest.raises(ValueError, match="light is neither .*: give full or lite, or a file in"):
        choose("light")


def test_the_lite_network_sees_smaller_views(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "WEIGHTS", tmp_path)
    for name in ("portraitnet.pdparams", "portraitnet_lite.pdparams"):
        shutil.copy(folder / "portraitnet.pdparams", tmp_path / name)
    image = draw_portrait(np.random.default_rng(0), 400, 300)[0]
    names = "full", "lite", folder / "portraitnet.pdparams"
    views = [Predictor(name, "paddle").prepare(image).shape[:2] for name in names]
    assert views == [(256, 192), (160, 128), (256, 192)]
    assert Predictor("lite", "paddle", size=96).prepare(image).shape[:2] == (128, 96)


def test_a_file_the_backend_does_not_run_is_refused():
    with pytest.raises(ValueError, match="paddle does not run b.onnx: .*openvino or onnx"):
        choose("b.onnx", "paddle")
    with pytest.raises(ValueError, match="no backend tpu: choose one of auto, openvino"):
        choose("b.onnx", "tpu")
    with pytest.raises(ValueError, match="b.xyz is neither .* known format: .*onnx"):
        choose("b.xyz")


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_paddle_is_not_imported_for_another_backend(folder, tmp_path, backend):
    pytest.importorskip(BACKENDS[backend][1])
    code = (
        "import sys, predict; "
        f"status = predict.main(['{ROOT}/examples', '--model_path', "
        f"'{folder}/portraitnet.onnx', '--backend', '{backend}', '--output', '{tmp_path}']); "
        "sys.exit(status or 'paddle' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"portraitnet.onnx with {backend}" in done.stdout
