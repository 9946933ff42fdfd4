import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_portrait, make_batch, save_random_weights

from portraitnet import backends
from portraitnet.backends import (
    BACKENDS,
    Backend,
    check_size,
    choose,
    is_installed,
    load,
    mean_answer,
)
from portraitnet.files import add_sha256
from training.checkpoints import open_predictor

ROOT = Path(__file__).parents[2]
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
    pytest.importorskip(BACKENDS[backend].package)
    shapes = (96, 96), (128, 96), (90, 160), (96, 97)
    images = [draw_portrait(np.random.default_rng(0), *shape)[0] for shape in shapes]
    expected = open_predictor(folder / "portraitnet.pdparams", size=SIZE).probabilities(images)
    predictor = open_predictor(
        folder / f"portraitnet{BACKENDS[backend].ending}", backend, size=SIZE, threads=1
    )
    assert predictor.backend == backend and predictor.size == SIZE
    answers = [predictor.probability(images[0]), *predictor.probabilities(images)]
    for answer, right in zip(answers, [expected[0], *expected]):
        assert answer.shape == right.shape
        assert np.abs(answer - right).max() < 1e-4
    assert np.ptp(expected[0]) > 0.05, "a flat answer proves nothing"


@pytest.mark.parametrize("backend", ["onnx", "openvino", "litert"])
def test_the_size_is_the_files_unless_another_is_wanted(folder, backend):
    pytest.importorskip(BACKENDS[backend].package)
    for wanted, size in ((None, SIZE), (64, 64)):
        network = load(
            folder / f"portraitnet{BACKENDS[backend].ending}", backend, size=wanted, threads=1
        )
        assert network.size == size


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_file_with_fixed_sides_is_refused(folder, tmp_path, backend):
    pytest.importorskip(BACKENDS[backend].package)
    onnx = pytest.importorskip("onnx")
    model = onnx.load(folder / "portraitnet.onnx")
    for value in (*model.graph.input, *model.graph.output):
        for side in value.type.tensor_type.shape.dim[-2:]:
            side.dim_value = SIZE
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(
        ValueError, match="inputs of one shape alone.*: export its checkpoint again"
    ):
        load(tmp_path / "fixed.onnx", backend, threads=1)


@pytest.mark.parametrize("backend", ["onnx", "openvino", "inference", "litert"])
@pytest.mark.parametrize("part", [0, 0.01, 0.5])
def test_a_damaged_file_is_one_sentence(folder, tmp_path, backend, part):
    pytest.importorskip(BACKENDS[backend].package)
    name = f"portraitnet{BACKENDS[backend].ending}"
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
    pytest.importorskip(BACKENDS[backend].package)
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
    monkeypatch.setitem(BACKENDS, "onnx", Backend(".onnx", "not_installed", None))
    assert not is_installed("onnx")
    with pytest.raises(ImportError, match="needs not_installed: run `pip install not_installed`"):
        load(folder / "portraitnet.onnx", "onnx")


def installed(monkeypatch, *names):
    monkeypatch.setattr(backends, "is_installed", lambda name: name in names)


def test_auto_takes_the_fastest_that_is_installed(monkeypatch):
    installed(monkeypatch, "paddle", "inference", "onnx", "openvino")
    assert choose("a/b.onnx") == (Path("a/b.onnx"), "openvino")
    assert choose("a/b.onnx", photos=1)[1] == "onnx", "it starts fastest"
    assert choose("a/b.pdparams")[1] == "paddle"
    assert choose("a/b.pdiparams")[1] == "inference"
    installed(monkeypatch, "onnx")
    assert choose("b.onnx")[1] == "onnx"
    assert choose("b.pdparams")[1] == "paddle", "nothing else runs it: load says what is missing"


def test_without_a_file_it_is_the_one_in_weights(folder, monkeypatch):
    monkeypatch.setattr(backends, "WEIGHTS", folder)
    installed(monkeypatch, "paddle", "inference", "onnx")
    assert choose() == (folder / "portraitnet.onnx", "onnx")
    assert choose(backend="paddle") == (folder / "portraitnet.pdparams", "paddle")
    installed(monkeypatch, "onnx")
    assert choose() == (folder / "portraitnet.onnx", "onnx")
    installed(monkeypatch, "paddle")
    assert choose() == (folder / "portraitnet.pdparams", "paddle")


def test_a_name_is_its_file_in_weights(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "WEIGHTS", folder)
    monkeypatch.chdir(tmp_path)
    Path("lite").touch()
    installed(monkeypatch, "paddle", "inference", "onnx")
    assert choose("full") == choose() == (folder / "portraitnet.onnx", "onnx")
    lite = folder / "portraitnet_lite.onnx", "onnx"
    assert choose("lite") == lite, "the name counts, not the file beside us"
    assert choose(Path("lite"), "paddle") == (folder / "portraitnet_lite.pdparams", "paddle")
    other = tmp_path / "portraitnet_lite_inference.pdiparams"
    other.touch()
    monkeypatch.setattr(backends, "WEIGHTS", tmp_path)
    assert choose("lite") == (other, "inference"), "there is no ONNX file"
    with pytest.raises(ValueError, match=r"lite has no file .* paddle, .*: choose inference, or"):
        choose("lite", "paddle")
    with pytest.raises(ValueError, match="light is neither .*: give full, lite or large, or a"):
        choose("light")


def test_the_mean_of_several_answers_is_that_of_their_logits():
    sure, doubtful = np.full((4, 4), 0.9, np.float32), np.full((4, 4), 0.5, np.float32)
    assert np.allclose(mean_answer([sure, doubtful]), 0.75, atol=1e-6)  # odds 9 and 1: 3
    assert np.allclose(mean_answer([sure, doubtful], [1, 2]), 9 ** (1 / 3) / (1 + 9 ** (1 / 3)))
    assert mean_answer([sure]) is sure and mean_answer([sure, doubtful]).dtype == np.float32


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_large_answers_together_with_full_and_lite(backend):
    pytest.importorskip(BACKENDS[backend].package)
    path, folder = choose("large", "onnx").path, choose("full", "onnx").path.parent
    batch = make_batch(64, 96)
    full, lite = (load(choose(name, "onnx").path, backend) for name in ("full", "lite"))
    alone, large = BACKENDS[backend].load(path, None), load(path, backend)
    answers = [network.run_batch(batch) for network in (alone, full, lite)]
    found = large.run_batch(batch)
    expected = mean_answer(answers, [1, 2, 1])
    assert np.abs(found - expected).max() < 1e-6 < np.abs(found - answers[0]).max()
    assert large.size == alone.size == 256 and path.stat().st_size < 13e6 and path.parent == folder


def test_a_file_named_as_large_elsewhere_answers_alone(folder, tmp_path, monkeypatch):
    path = shutil.copy(folder / "portraitnet.onnx", tmp_path / "portraitnet_large.onnx")
    batch = make_batch(64, 96)
    expected = load(folder / "portraitnet.onnx", "onnx").run_batch(batch)
    assert np.array_equal(load(path, "onnx").run_batch(batch), expected)
    monkeypatch.setattr(backends, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model file .*/portraitnet\.onnx: check"):
        load(path, "onnx")


def test_a_file_the_backend_does_not_run_is_refused():
    with pytest.raises(ValueError, match="paddle does not run b.onnx: .*openvino or onnx"):
        choose("b.onnx", "paddle")
    with pytest.raises(ValueError, match="no backend tpu: choose one of auto, openvino"):
        choose("b.onnx", "tpu")
    with pytest.raises(ValueError, match="b.xyz is neither .* known format: .*onnx"):
        choose("b.xyz")


@pytest.mark.parametrize("backend", ["onnx", "openvino", "litert"])
def test_paddle_is_not_imported_for_another_backend(folder, tmp_path, backend):
    pytest.importorskip(BACKENDS[backend].package)
    name = f"portraitnet{BACKENDS[backend].ending}"
    code = (
        "import sys, predict; "
        f"status = predict.main(['{ROOT}/examples', '--model_path', "
        f"'{folder}/{name}', '--backend', '{backend}', '--output', '{tmp_path}']); "
        "sys.exit(status or 'paddle' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{name} with {backend}" in done.stdout


def test_openvino_takes_a_number_of_threads(monkeypatch):
    openvino = pytest.importorskip("openvino")
    given, compile_model = [], openvino.Core.compile_model

    def record(core, model, device, options):
        given.append(options.get("INFERENCE_NUM_THREADS"))
        return compile_model(core, model, device, options)

    monkeypatch.setattr(openvino.Core, "compile_model", record)
    for threads in (None, 1):
        network = load(ROOT / "weights" / "portraitnet.onnx", "openvino", threads=threads)
        network.run_batch(np.zeros((1, 3, 64, 64), np.float32))
    assert given == [None, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_get_the_masks_of_their_own_photos(folder, backend):
    """8 threads, 40 photos of several shapes: each gives what one thread gives."""
    pytest.importorskip(BACKENDS[backend].package)
    path = folder / f"portraitnet{BACKENDS[backend].ending}"
    predictor = open_predictor(path, backend, size=SIZE, threads=1)
    shapes = (96, 96), (128, 96), (90, 160)
    photos = [draw_portrait(np.random.default_rng(i), *shapes[i % 3])[0] for i in range(40)]
    expected = [predictor.probability(photo) for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(predictor.probability, photos))
    wrong = [i for i in range(40) if np.abs(answers[i] - expected[i]).max() > 1e-5]
    assert not wrong
    assert max(np.abs(expected[0] - other).max() for other in expected[3::3]) > 0.01


def onnx_file(path, value=0.5, outputs=("probability",), size=None):
    """An ONNX network that answers one value everywhere."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    batch = helper.make_tensor_value_info("batch", TensorProto.FLOAT, ["n", 3, "h", "w"])
    answers = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", "h", "w"]) for n in outputs
    ]
    nodes = [
        helper.make_node("ReduceMean", ["batch", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        *(helper.make_node("Add", ["nothing", "value"], [name]) for name in outputs),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
        helper.make_tensor("value", TensorProto.FLOAT, [], [value]),
    ]
    graph = helper.make_graph(nodes, "g", [batch], answers, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if size is not None:
        helper.set_model_props(model, {"size": size})
    onnx.save(model, path)
    return path


def litert_file(path, value=0.5, names=("batch", "probability"), metadata=None, stride=1):
    """A LiteRT network that answers one value everywhere."""
    pytest.importorskip("ai_edge_litert")
    from models.tflite_graph import TFLiteGraph, tflite_file

    graph = TFLiteGraph()
    batch = graph.tensor([1, 64, 64, 3], names[0])
    weight, bias = np.zeros((1, 3, 1, 1)), np.array([value])
    answer = graph.convolution(batch, weight, bias, names[1], stride)
    path.write_bytes(tflite_file(graph, batch, answer, metadata or {}))
    return path


def model_file(folder, backend, value=0.5, size=None):
    """A network of a backend that answers one value everywhere."""
    if backend == "litert":
        metadata = {} if size is None else {"size": size}
        return litert_file(folder / "net.tflite", value, metadata=metadata)
    return onnx_file(folder / "net.onnx", value, size=size)


def test_an_input_size_has_up_to_four_digits():
    assert [check_size("a.onnx", text) for text in ("32", "1024", 224)] == [32, 1024, 224]


@pytest.mark.parametrize("backend", ["onnx", "openvino", "litert"])
@pytest.mark.parametrize("size", ["100000", "-32", "0", "33", "ten", "", "1e3", "9" * 99])
def test_an_absurd_input_size_in_a_file_is_refused(tmp_path, backend, size):
    pytest.importorskip(BACKENDS[backend].package)
    path = model_file(tmp_path, backend, size=size)
    with pytest.raises(ValueError, match="not a multiple of 32 up to 1024"):
        load(path, backend)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_two_outputs_are_refused(tmp_path, backend):
    pytest.importorskip(BACKENDS[backend].package)
    path = onnx_file(tmp_path / "net.onnx", outputs=("probability", "more"))
    with pytest.raises(ValueError, match="gives probability, more, not batch and probability"):
        load(path, backend)


@pytest.mark.parametrize("backend", ["onnx", "openvino", "litert"])
@pytest.mark.parametrize("value", [-0.5, 1.5, 1e9])
def test_answers_that_are_no_probabilities_are_refused(tmp_path, backend, value):
    pytest.importorskip(BACKENDS[backend].package)
    photo = draw_portrait(np.random.default_rng(0))[0]
    predictor = open_predictor(model_file(tmp_path, backend, value), backend)
    with pytest.raises(ValueError, match="not from 0 to 1"):
        predictor.probability(photo)
    right = open_predictor(model_file(tmp_path, backend, 0.25), backend, refine=False)
    assert right.probability(photo) == pytest.approx(0.25)


def test_a_litert_file_of_other_names_is_refused(tmp_path):
    path = litert_file(tmp_path / "other.tflite", names=("x", "y"))
    with pytest.raises(ValueError, match="takes x and gives y, not batch and probability"):
        load(path, "litert")


def test_a_litert_answer_of_another_shape_is_refused(tmp_path):
    path = litert_file(tmp_path / "half.tflite", stride=2)
    photo = draw_portrait(np.random.default_rng(0), 96, 96)[0]
    with pytest.raises(ValueError, match=r"answers with \(1, 33, 33\) numbers for \(1, 64, 64\)"):
        open_predictor(path, "litert", size=64).probability(photo)


@pytest.mark.parametrize("metadata", ["{", "[" * 100_000, "\xff"])
def test_damaged_metadata_of_a_litert_file_is_one_sentence(tmp_path, monkeypatch, metadata):
    monkeypatch.setattr(json, "dumps", lambda value: metadata)
    path = litert_file(tmp_path / "net.tflite")
    with pytest.raises(ValueError, match="net.tflite is damaged or no model"):
        load(path, "litert")


def test_a_litert_file_may_be_replaced_while_it_is_used(tmp_path):
    """Threads that come later run the file that was loaded."""
    path = litert_file(tmp_path / "net.tflite", 0.25)
    run_batch = load(path, "litert").run_batch
    litert_file(path, 0.75)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(run_batch, np.zeros((2, 3, 32, 96), np.float32)).result()
    assert answer.shape == (2, 32, 96) and (answer == 0.25).all()


def test_a_file_that_the_sums_do_not_list_is_refused(folder, tmp_path):
    shutil.copy(folder / "portraitnet.onnx", tmp_path / "portraitnet.onnx")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  other.onnx\n")
    with pytest.raises(ValueError, match="does not list portraitnet.onnx"):
        load(tmp_path / "portraitnet.onnx", "onnx")
    add_sha256([tmp_path / "portraitnet.onnx"])
    load(tmp_path / "portraitnet.onnx", "onnx")
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == 2


def test_onnx_runtime_reports_to_nobody(tmp_path):
    """From version 1.29 on it writes an identifier of the machine and uploads events."""
    pytest.importorskip("onnxruntime")
    script = "import os; from portraitnet import Predictor; Predictor(backend='onnx')"
    script += "; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    home = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    run = [sys.executable, "-c", script]
    subprocess.run(run, cwd=ROOT, env={**env, **home, "PYTHONPATH": str(ROOT)}, check=True)
    assert not list(tmp_path.iterdir())
