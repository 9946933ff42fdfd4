"""What runs the network: a model file in, a function from batch to probability out.

A batch has any number of photos and any sides that are multiples of 32.

| backend | model file | needs |
|---|---|---|
| paddle | .pdparams, what train.py writes | paddlepaddle |
| inference | .pdiparams beside its .json, of export.py | paddlepaddle |
| onnx | .onnx, of export.py | onnxruntime |
| openvino | .onnx, of export.py | openvino |
| litert | .tflite, of export.py: what a phone runs | ai-edge-litert |

Nothing here imports one of them before it runs.
"""

import importlib.util
import json
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from files import check_sha256
from transforms import SIZE

WEIGHTS = Path(__file__).parent / "weights"
AUTO = "auto"
LITE_SIZE = 160  # pixels; see `Network`
# Name -> name of its files in weights/, how that of the ONNX file ends, size of its views
# (`Network`; None for the file's own). "lite" was trained for views of half the pixels and runs in
# INT8: less time than MediaPipe takes.
MODELS = {
    "full": ("portraitnet", ".onnx", None),
    "lite": ("portraitnet_lite", "_int8.onnx", LITE_SIZE),
}
DEFAULT = "full"
MODEL_HELP = f"{', '.join(MODELS)}, or what train.py or export.py wrote"
# Views of one size have some forty shapes, photos and films few of them. Each costs OpenVINO 0.2 s
# and 28 MB; one network for all shapes would take a fifth more time, INT8 three quarters more.
SHAPES_KEPT = 16
PACKAGE_NAMES = {
    "paddle": "paddlepaddle",
    "ai_edge_litert": "ai-edge-litert",
}  # where not its module's
# Batch (N, 3, h, w) float32 -> probability (N, h, w) float32.
RunBatch = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Network(NamedTuple):
    """What `load` returns.

    Attributes:
        run_batch: function of batch (N, 3, h, w) float32 -> probability (N, h, w) float32.
        size: side of the square with a batch's area, pixels, for which the network was made.
    """

    run_batch: RunBatch
    size: int


class Choice(NamedTuple):
    """What `choose` returns.

    Attributes:
        path: of the model file.
        backend: name in BACKENDS.
        size: see `Network`; None for the file's own.
    """

    path: Path
    backend: str
    size: int | None = None


def choose(model_path: str | Path | None = None, backend: str = AUTO) -> Choice:
    """Settle which file is run by which backend.

    Args:
        model_path: model file, or a name in MODELS: the file in weights/ that the backend runs, in
            views of that size; None for DEFAULT.
        backend: name in BACKENDS, or "auto": the fastest one that is installed and runs the file.

    Raises:
        ValueError: unknown backend, name or format, or the backend does not run such a file.
    """
    if backend not in (AUTO, *BACKENDS):
        names = ", ".join([AUTO, *BACKENDS])
        raise ValueError(f"There is no backend {backend}: choose one of {names}.")
    names = [backend] if backend != AUTO else list(BACKENDS)
    installed = [name for name in names if is_installed(name)] or names
    if str(model_path or DEFAULT) in MODELS:
        stem, ending, size = MODELS[str(model_path or DEFAULT)]
        files = {name: BACKENDS[name][0].replace(".onnx", ending) for name in installed}
        paths = {name: WEIGHTS / file.replace("portraitnet", stem) for name, file in files.items()}
        name = next((name for name in installed if paths[name].exists()), installed[0])
        return Choice(paths[name], name, size)

    model_path = Path(model_path)
    suffixes = {name: Path(file).suffix for name, (file, _, _) in BACKENDS.items()}
    able = [name for name in BACKENDS if suffixes[name] == model_path.suffix]
    if not able:
        known = ", ".join(sorted(set(suffixes.values())))
        raise ValueError(
            f"{model_path} is neither a network's name nor of a known format: give "
            f"{' or '.join(MODELS)}, or a file in {known}."
        )
    if backend == AUTO:
        return Choice(model_path, next((name for name in able if name in installed), able[-1]))
    if backend not in able:
        raise ValueError(
            f"The backend {backend} does not run {model_path}: give a {suffixes[backend]} file or "
            f"choose the backend {' or '.join(able)}."
        )
    return Choice(model_path, backend)


def is_installed(backend: str) -> bool:
    """Whether the package that a backend needs can be found; it is not imported."""
    return importlib.util.find_spec(BACKENDS[backend][1]) is not None


def load(
    model_path: str | Path, backend: str, size: int | None = None, threads: int | None = None
) -> Network:
    """Load a model.

    Args:
        model_path, backend: a Choice's path and backend.
        size: see `Network`; None for the file's own, SIZE for one that does not tell.
        threads: that the network may use, None for the runtime's choice.

    Raises:
        OSError, ValueError: no such file; not to be read; damaged; not of this network.
        ImportError: the backend's package is not installed.
    """
    _, package, loader = BACKENDS[backend]
    if not Path(model_path).is_file():
        raise FileNotFoundError(
            f"There is no model file {model_path}: check the path, or make one with train.py "
            "or export.py."
        )
    if not is_installed(backend):
        name = PACKAGE_NAMES.get(package, package)
        raise ImportError(f"The backend {backend} needs {package}: run `pip install {name}`.")
    check_sha256(Path(model_path))
    network = loader(Path(model_path), threads)
    return network._replace(size=size or network.size)


def runner(model) -> RunBatch:
    """A PortraitNet in evaluation mode as a backend: function of batch -> probability."""
    paddle = import_paddle()

    def run_batch(batch):
        with paddle.no_grad():
            return model.probability(paddle.to_tensor(batch)).numpy()

    return run_batch


def load_paddle(model_path, threads):
    """See `load`."""
    paddle = import_paddle()
    from models.weights import load_model

    model = load_model(model_path)
    if threads is not None:
        paddle.base.core.set_num_threads(threads)

    return Network(runner(model), SIZE)


def load_inference(model_path, threads):
    """See `load`."""
    import_paddle()
    from paddle import inference

    program = model_path.with_suffix(".json")
    if not program.is_file():
        raise FileNotFoundError(f"{model_path} needs {program.name} beside it: copy both files.")
    config = inference.Config(str(program), str(model_path))
    config.disable_glog_info()
    config.enable_onednn()
    if threads is not None:
        config.set_cpu_math_library_num_threads(threads)
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError) as error:
        raise damaged(model_path, error) from None
    given = predictor.get_input_handle(predictor.get_input_names()[0])
    answer = predictor.get_output_handle(predictor.get_output_names()[0])

    def run_batch(batch):
        given.copy_from_cpu(np.ascontiguousarray(batch))
        predictor.run()
        return answer.copy_to_cpu()

    return Network(run_batch, SIZE)


def import_paddle():
    """Paddle tells everyone who imports it to install a C++ compiler's cache; not here."""
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle

    return paddle


def load_onnx(model_path, threads):
    """See `load`."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    failures = errors.InvalidProtobuf, errors.InvalidGraph, errors.InvalidArgument, errors.Fail
    try:
        session = onnxruntime.InferenceSession(
            str(model_path), options, providers=["CPUExecutionProvider"]
        )
    except failures as error:
        raise damaged(model_path, error) from None
    given = session.get_inputs()[0]
    fixed = isinstance(given.shape[2], int) if len(given.shape) == 4 else None
    check_interface(model_path, given.name, fixed, session.get_outputs()[0].name)
    size = int(session.get_modelmeta().custom_metadata_map.get("size", SIZE))

    def run_batch(batch):
        return session.run(None, {given.name: batch})[0]

    return Network(run_batch, size)


def load_openvino(model_path, threads):
    """See `load`."""
    import openvino

    options = {
        # Many CPUs would compute in bfloat16 unasked: off by 1e-2.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        model = core.read_model(model_path)
    except RuntimeError as error:
        raise damaged(model_path, error) from None
    given, answer = model.inputs[0], model.outputs[0]
    shape = given.partial_shape
    fixed = shape[2].is_static if len(shape) == 4 else None
    check_interface(model_path, given.any_name, fixed, answer.any_name)
    told = ["framework", "size"]  # where OpenVINO keeps the metadata of an ONNX file
    size = model.get_rt_info(told).astype(int) if model.has_rt_info(told) else SIZE

    @lru_cache(SHAPES_KEPT)
    def request(height, width):
        # One photo at a time: a network compiled for a free batch size is a tenth slower.
        model.reshape([1, 3, height, width])
        return core.compile_model(model, "CPU", options).create_infer_request()

    def run_batch(batch):
        infer = request(*batch.shape[2:]).infer
        probability = np.empty((len(batch), *batch.shape[2:]), np.float32)
        for i in range(len(batch)):
            probability[i] = infer({0: batch[i : i + 1]}, share_inputs=True)[0]
        return probability

    return Network(run_batch, size)


def load_litert(model_path, threads):
    """See `load`."""
    interpreter = litert_interpreter(model_path, threads)
    given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    check_interface(model_path, given["name"], False, answer["name"])
    size = litert_metadata(model_path).get("size", SIZE)
    turn = threading.Lock()  # an interpreter keeps one input and one output

    def run_batch(batch):
        # One photo at a time: a batch costs memory and is no faster. A new shape costs 1.5 ms.
        with turn:
            shape = [1, *batch.shape[2:], 3]
            if shape != interpreter.get_input_details()[0]["shape"].tolist():
                interpreter.resize_tensor_input(given["index"], shape)
                interpreter.allocate_tensors()
            probability = np.empty((len(batch), *batch.shape[2:]), np.float32)
            for i, pixels in enumerate(batch.transpose(0, 2, 3, 1)):
                interpreter.set_tensor(given["index"], pixels[None])
                interpreter.invoke()
                probability[i] = interpreter.get_tensor(answer["index"])[0, :, :, 0]
        return probability

    return Network(run_batch, size)


def litert_interpreter(model_path: str | Path, threads: int | None):
    """A LiteRT interpreter with its memory allocated, for anybody's .tflite file.

    Raises:
        ImportError: ai-edge-litert is not installed.
        ValueError: the file is damaged or no model.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(str(model_path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise damaged(model_path, error) from None
    return interpreter


def litert_metadata(model_path: str | Path) -> dict:
    """What export.py noted in a .tflite file; {} for other makers' files."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(Path(model_path).read_bytes())
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == b"portraitnet":
            return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    return {}


def check_interface(model_path, given, fixed, answer):
    """Raise ValueError unless an exported file is as export.py writes it.

    Args:
        given, answer: names of its input and output.
        fixed: whether its input has sides of a fixed length; None where it has no sides.
    """
    if (given, answer) != ("batch", "probability") or fixed is None:
        raise ValueError(
            f"{model_path} takes {given} and gives {answer}, not batch and probability: "
            "give a file that export.py wrote."
        )
    if fixed:
        raise ValueError(
            f"{model_path} takes views of one shape alone, as exports of before 2026-11-24 did: "
            "export its checkpoint again."
        )


def damaged(model_path, error):
    """ValueError for a file that a runtime does not take, in one line."""
    reason = str(error).strip().splitlines()[-1].strip()[:120] if str(error).strip() else ""
    return ValueError(
        f"{model_path} is damaged or no model ({type(error).__name__}: {reason}): "
        "copy it again or run export.py."
    )


# Name -> its file in weights/, package, loader; the fastest first (benchmarks/infer_speed.py).
BACKENDS = {
    "openvino": ("portraitnet.onnx", "openvino", load_openvino),
    "onnx": ("portraitnet.onnx", "onnxruntime", load_onnx),
    "litert": ("portraitnet.tflite", "ai_edge_litert", load_litert),
    "inference": ("portraitnet_inference.pdiparams", "paddle", load_inference),
    "paddle": ("portraitnet.pdparams", "paddle", load_paddle),
}
