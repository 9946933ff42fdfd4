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
import os
import struct
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from portraitnet.files import check_sha256
from portraitnet.geometry import GRID, SIZE

# Beside this file in an installed package, beside the package in a clone.
WEIGHTS = next(
    folder
    for folder in (Path(__file__).parent / "weights", Path(__file__).parent.parent / "weights")
    if folder.is_dir()
)
# ONNX Runtime from 1.29 on reports to its makers unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
AUTO = "auto"
MODELS = {  # name -> stem of its files in WEIGHTS
    "full": "portraitnet",
    "lite": "portraitnet_lite",
    "large": "portraitnet_large",
}
# stem of a bundled file -> stems of those whose answers are averaged with its own, and how often
# each counts: one network is often right where another one is wrong
TOGETHER = {"portraitnet_large": {"portraitnet": 2, "portraitnet_lite": 1}}
DEFAULT = "full"
NAMES = f"{', '.join(list(MODELS)[:-1])} or {list(MODELS)[-1]}"  # for sentences
MODEL_HELP = f"{', '.join(MODELS)}, or what train.py or export.py wrote"
# Inputs of one size have some forty shapes, photos and videos few of them. Each costs OpenVINO
# 0.2 s and 28 MB; one network for all shapes would take a fifth more time, in INT8 three quarters.
SHAPES_KEPT = 16
MANY = 300  # photos from which OpenVINO's faster network makes up for its slower start
MAX_SIZE = 1024  # of an input, pixels: a larger one would take minutes
# Packages whose name for pip is not the module's.
PACKAGE_NAMES = {"paddle": "paddlepaddle", "ai_edge_litert": "ai-edge-litert"}
# Batch (N, 3, h, w) float32 -> probability (N, h, w) float32; any number of threads may call it.
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
    """

    path: Path
    backend: str


def choose(
    model_path: str | Path | None = None, backend: str = AUTO, photos: int | None = None
) -> Choice:
    """Settle which file is run by which backend.

    "auto" takes ONNX Runtime for fewer than MANY photos, because it starts fastest, and OpenVINO
    for more, because it runs fastest; of these the ones that are installed, then Paddle.

    Args:
        model_path: model file, or a name in MODELS, for the file in weights/ that the backend runs;
            None for DEFAULT.
        backend: name in BACKENDS, or "auto".
        photos: number of photos to be run; None for many, such as a video's frames.

    Raises:
        ValueError: unknown backend, name or format, or the backend does not run such a file, or
            has none of that name.
    """
    if backend not in (AUTO, *BACKENDS):
        names = ", ".join([AUTO, *BACKENDS])
        raise ValueError(f"There is no backend {backend}: choose one of {names}.")
    names = list(BACKENDS)
    if photos is not None and photos < MANY:  # a stable sort: the others keep their order
        names.sort(key=lambda name: name != "onnx")
    names = [backend] if backend != AUTO else names
    installed = [name for name in names if is_installed(name)] or names
    if str(model_path or DEFAULT) in MODELS:
        stem = MODELS[str(model_path or DEFAULT)]
        paths = {name: WEIGHTS / (stem + BACKENDS[name].ending) for name in BACKENDS}
        name = next((name for name in installed if paths[name].exists()), installed[0])
        others = [name for name in BACKENDS if paths[name].exists()]
        if backend != AUTO and others and name not in others:
            raise ValueError(
                f"{model_path or DEFAULT} has no file for the backend {backend}, {paths[name]}: "
                f"choose {' or '.join(others)}, or make the file with export.py."
            )
        return Choice(paths[name], name)

    model_path = Path(model_path)
    suffixes = {name: Path(f"model{backend.ending}").suffix for name, backend in BACKENDS.items()}
    able = [
        name
        for name in (names if backend == AUTO else BACKENDS)
        if suffixes[name] == model_path.suffix
    ]
    if not able:
        known = ", ".join(sorted(set(suffixes.values())))
        raise ValueError(
            f"{model_path} is neither a network's name nor of a known format: give "
            f"{NAMES}, or a file in {known}."
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
    return importlib.util.find_spec(BACKENDS[backend].package) is not None


def load(
    model_path: str | Path, backend: str, size: int | None = None, threads: int | None = None
) -> Network:
    """Load a model, and those that answer together with it (TOGETHER).

    Args:
        model_path, backend: a Choice's path and backend.
        size: see `Network`; None for the file's own, SIZE for one that does not tell.
        threads: that the network may use, None for the runtime's choice.

    Raises:
        OSError, ValueError: no such file; not to be read; damaged; not of this network.
        ImportError: the backend's package is not installed.
    """
    model_path, ending, others = Path(model_path), BACKENDS[backend].ending, {}
    if model_path.resolve().parent == WEIGHTS.resolve():
        others = TOGETHER.get(model_path.name.removesuffix(ending), {})
    paths = [model_path, *(WEIGHTS / (stem + ending) for stem in others)]
    for path in paths:
        check_model_file(path, backend)
    networks = [BACKENDS[backend].load(path, threads) for path in paths]

    def run_batch(batch):
        return mean_answer([each.run_batch(batch) for each in networks], [1, *others.values()])

    return Network(run_batch, size or networks[0].size)


def mean_answer(
    answers: Sequence[NDArray[np.float32]], counts: Sequence[int] = ()
) -> NDArray[np.float32]:
    """The mean of several networks' answers, as logits.

    Args:
        answers: float32 arrays of one shape, 0..1.
        counts: how often each answer counts; once if there are none.
    """
    if len(answers) == 1:
        return answers[0]
    sure = np.clip(answers, 1e-4, 1 - 1e-4)
    weights = np.array(counts or [1] * len(answers), np.float32)
    mean = np.tensordot(weights / weights.sum(), np.log(sure / (1 - sure)), 1)
    return 1 / (1 + np.exp(-mean))


def check_model_file(model_path: str | Path, backend: str) -> None:
    """Check that a model file is there and intact and its backend is installed; see `load`."""
    package = BACKENDS[backend].package
    if not Path(model_path).is_file():
        raise FileNotFoundError(
            f"There is no model file {model_path}: check the path, or make one with train.py "
            "or export.py."
        )
    if not is_installed(backend):
        name = PACKAGE_NAMES.get(package, package)
        raise ImportError(f"The backend {backend} needs {package}: run `pip install {name}`.")
    check_sha256(Path(model_path))


class PerThread(threading.local):
    """What each thread has of its own: `value`, which `make` gives when the thread asks first."""

    def __init__(self, make: Callable):
        self.value = make()


def import_paddle() -> ModuleType:
    """Paddle, without its advice to install ccache; the only place that silences it."""
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle

    return paddle


def load_checkpoint(model_path, threads):
    """A checkpoint is no model file: PortraitNet's Python code must build the network first."""
    raise ValueError(
        f"{model_path} is a checkpoint, which only the scripts of the repository run: "
        "use `python predict.py` there, or export it to ONNX with `python export.py`."
    )


def load_inference(model_path, threads):
    """See `load`."""
    import_paddle()
    from paddle import inference

    program = model_path.with_suffix(".json")
    if not program.is_file():
        raise FileNotFoundError(f"{model_path} needs {program.name} beside it: copy both files.")
    config = inference.Config(str(program), str(model_path))
    config.disable_glog_info()
    # oneDNN in Paddle 3.3 cannot read the scale of a bilinear upsampling, which `lite` has.
    if "bilinear_interp" in program.read_text():
        config.disable_onednn()
    else:
        config.enable_onednn()
    if threads is not None:
        config.set_cpu_math_library_num_threads(threads)
    try:
        predictor = inference.create_predictor(config)
    except (RuntimeError, ValueError, OSError) as error:
        raise damaged(model_path, error) from None
    threads_own = PerThread(predictor.clone)  # a predictor of Paddle serves one thread

    def run_batch(batch):
        own = threads_own.value
        own.get_input_handle(own.get_input_names()[0]).copy_from_cpu(np.ascontiguousarray(batch))
        own.run()
        return own.get_output_handle(own.get_output_names()[0]).copy_to_cpu()

    return Network(run_batch, SIZE)


def load_onnx(model_path, threads):
    """See `load`."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # the exceptions say it all
    # Threads that wait would spin: twice the CPU time where the cores have other work too, such as
    # reading and writing photos, and no gain where they are free.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # ONNX Runtime has an exception of its own for every mistake, without a common base.
    failures = tuple(
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, Exception)
    )
    try:
        session = onnxruntime.InferenceSession(
            str(model_path), options, providers=["CPUExecutionProvider"]
        )
    except (*failures, RuntimeError) as error:
        raise damaged(model_path, error) from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = inputs[0].shape if inputs else []
    fixed = isinstance(shape[2], int) if len(shape) == 4 else None
    check_interface(model_path, [i.name for i in inputs], fixed, [o.name for o in outputs])
    size = check_size(model_path, session.get_modelmeta().custom_metadata_map.get("size", SIZE))

    def run_batch(batch):
        try:
            return session.run(None, {"batch": batch})[0]
        except (*failures, RuntimeError) as error:
            raise damaged(model_path, error) from None

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
    shape = model.inputs[0].partial_shape if model.inputs else []
    fixed = shape[2].is_static if len(shape) == 4 else None
    names = [
        [each.any_name for each in ports if each.names] for ports in (model.inputs, model.outputs)
    ]
    check_interface(model_path, names[0], fixed, names[1])
    metadata = ["framework", "size"]  # where OpenVINO keeps the metadata of an ONNX file
    size = model.get_rt_info(metadata).value if model.has_rt_info(metadata) else SIZE
    size = check_size(model_path, size)
    compiling, requests = threading.Lock(), PerThread(dict)

    @lru_cache(SHAPES_KEPT)
    def compiled(height, width):
        # One photo at a time: a network compiled for a free batch size is a tenth slower.
        model.reshape([1, 3, height, width])
        return core.compile_model(model, "CPU", options)

    def request(height, width):
        """This thread's own request: one that threads share mixes up their photos."""
        own = requests.value
        with compiling:
            network = compiled(height, width)
        if own.get((height, width), (None,))[0] is not network:
            if len(own) >= SHAPES_KEPT:
                own.clear()
            own[height, width] = network, network.create_infer_request()
        return own[height, width][1]

    def run_batch(batch):
        probability = np.empty((len(batch), *batch.shape[2:]), np.float32)
        try:
            infer = request(*batch.shape[2:]).infer
            for i in range(len(batch)):
                probability[i] = infer({0: batch[i : i + 1]}, share_inputs=True)[0]
        except RuntimeError as error:
            raise damaged(model_path, error) from None
        return probability

    return Network(run_batch, size)


def load_litert(model_path, threads):
    """See `load`."""
    content = model_path.read_bytes()  # all interpreters run one file, even if it is replaced
    # An interpreter keeps one input and one output.
    threads_own = PerThread(lambda: litert_interpreter(model_path, content, threads))
    interpreter = threads_own.value
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    # Any side of an input with four axes can be resized.
    fixed = False if [len(each["shape"]) for each in inputs + outputs] == [4, 4] else None
    names = [[each["name"] for each in tensors] for tensors in (inputs, outputs)]
    check_interface(model_path, names[0], fixed, names[1])
    metadata = litert_metadata(model_path, content)
    size = check_size(model_path, metadata.get("size", SIZE))
    given, answer = inputs[0]["index"], outputs[0]["index"]

    def run_batch(batch):
        own, answers = threads_own.value, []
        # One photo at a time: a batch costs memory and is no faster. A new shape costs 1.5 ms.
        shape = [1, *batch.shape[2:], 3]
        try:
            if shape != own.get_input_details()[0]["shape"].tolist():
                own.resize_tensor_input(given, shape)
                own.allocate_tensors()
            for photo in batch.transpose(0, 2, 3, 1):
                own.set_tensor(given, photo[None])
                own.invoke()
                answers.append(own.get_tensor(answer)[..., 0])
        except (ValueError, RuntimeError) as error:
            # The memory of this one may not fit its shapes.
            threads_own.value = litert_interpreter(model_path, content, threads)
            raise damaged(model_path, error) from None
        return np.concatenate(answers)

    return Network(run_batch, size)


def litert_interpreter(model_path: str | Path, content: bytes, threads: int | None):
    """A LiteRT interpreter with its memory allocated; of any .tflite file.

    Args:
        model_path: for the message alone.
        content: of the file.
        threads: see `load`.

    Raises:
        ImportError: ai-edge-litert is not installed.
        ValueError: the file is damaged or no model.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise damaged(model_path, error) from None
    return interpreter


def litert_metadata(model_path: str | Path, content: bytes) -> dict:
    """The metadata that export.py writes into a .tflite file; {} for files of other makers.

    Args:
        model_path: for the message alone.
        content: of the file, which an interpreter has taken.

    Raises:
        ValueError: the metadata is damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    entries = [model.Metadata(i) for i in range(model.MetadataLength())]
    for entry in entries:
        if entry.Name() == b"portraitnet":
            try:
                metadata = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
            except (AttributeError, RecursionError, ValueError, struct.error) as error:
                raise damaged(model_path, error) from None
            return metadata if isinstance(metadata, dict) else {}
    return {}


def check_interface(model_path, inputs, fixed, outputs):
    """Raise ValueError unless an exported file is as export.py writes it.

    Args:
        inputs, outputs: lists of names.
        fixed: whether the input has sides of a fixed length; None where it has no sides.
    """
    if (inputs, outputs) != (["batch"], ["probability"]) or fixed is None:
        raise ValueError(
            f"{model_path} takes {', '.join(inputs) or 'nothing'} and gives "
            f"{', '.join(outputs) or 'nothing'}, not batch and probability: "
            "give a file that export.py wrote."
        )
    if fixed:
        raise ValueError(
            f"{model_path} takes inputs of one shape alone, as exports from before 2026-11-24 "
            "did: export its checkpoint again."
        )


def check_size(model_path, value):
    """The input size that a file's metadata names; ValueError for anything but a sensible one."""
    text = str(value).strip()
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not (GRID <= size <= MAX_SIZE and size % GRID == 0):
        raise ValueError(
            f"{model_path} names an input size of {text[:40]!r}, not a multiple of {GRID} up to "
            f"{MAX_SIZE}: export its checkpoint again."
        )
    return size


def damaged(model_path, error):
    """ValueError for a file that a runtime does not take, in one line."""
    reason = str(error).strip().splitlines()[-1].strip()[:120] if str(error).strip() else ""
    return ValueError(
        f"{model_path} is damaged or no model ({type(error).__name__}: {reason}): "
        "copy it again or run export.py."
    )


class Backend(NamedTuple):
    """How a runtime is used.

    Attributes:
        ending: of the names of the files that it runs.
        package: that it needs.
        load: function of model_path and threads -> Network; see `load`.
    """

    ending: str
    package: str
    load: Callable[[Path, int | None], Network]


# The fastest first, once started (benchmarks/infer_speed.py).
BACKENDS = {
    "openvino": Backend(".onnx", "openvino", load_openvino),
    "onnx": Backend(".onnx", "onnxruntime", load_onnx),
    "litert": Backend(".tflite", "ai_edge_litert", load_litert),
    "inference": Backend("_inference.pdiparams", "paddle", load_inference),
    "paddle": Backend(".pdparams", "paddle", load_checkpoint),
}
