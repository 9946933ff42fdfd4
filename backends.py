"""What runs the network: a model file in, a function from batch to probability out.

| backend | model file | needs |
|---|---|---|
| paddle | .pdparams, what train.py writes | paddlepaddle |
| inference | .pdiparams beside its .json, of export.py | paddlepaddle |
| onnx | .onnx, of export.py | onnxruntime |
| openvino | .onnx, of export.py | openvino |

Nothing here imports one of them before it runs.
"""

import importlib.util
import warnings
from pathlib import Path

import numpy as np

from transforms import SIZE

WEIGHTS = Path(__file__).parent / "weights"
AUTO = "auto"


def choose(model_path=None, backend=AUTO):
    """Settle which file is run by which backend.

    Args:
        model_path: model file; None for the one in weights/ that the backend runs.
        backend: name in BACKENDS, or "auto": the fastest one that is installed and runs the file.

    Returns:
        (path, name of the backend).

    Raises:
        ValueError: unknown backend or format, or the backend does not run such a file.
    """
    if backend not in (AUTO, *BACKENDS):
        names = ", ".join([AUTO, *BACKENDS])
        raise ValueError(f"There is no backend {backend}: choose one of {names}.")
    names = [backend] if backend != AUTO else list(BACKENDS)
    installed = [name for name in names if is_installed(name)] or names
    if model_path is None:
        paths = {name: WEIGHTS / BACKENDS[name][0] for name in installed}
        name = next((name for name in installed if paths[name].exists()), installed[0])
        return paths[name], name

    model_path = Path(model_path)
    suffixes = {name: Path(file).suffix for name, (file, _, _) in BACKENDS.items()}
    able = [name for name in BACKENDS if suffixes[name] == model_path.suffix]
    if not able:
        known = ", ".join(sorted(set(suffixes.values())))
        raise ValueError(f"{model_path} is of no known model format: give a file in {known}.")
    if backend == AUTO:
        return model_path, next((name for name in able if name in installed), able[-1])
    if backend not in able:
        raise ValueError(
            f"The backend {backend} does not run {model_path}: give a {suffixes[backend]} file or "
            f"choose the backend {' or '.join(able)}."
        )
    return model_path, backend


def is_installed(backend):
    """Whether the package that a backend needs can be found; it is not imported."""
    return importlib.util.find_spec(BACKENDS[backend][1]) is not None


def load(model_path, backend, size=None, threads=None):
    """Load a model.

    Args:
        model_path, backend: as `choose` returns them.
        size: side S of the square input, pixels; None for the file's own, SIZE for a .pdparams.
        threads: that the network may use, None for the runtime's choice.

    Returns:
        function of batch (N, 3, S, S) float32 -> probability (N, S, S) float32, and S.

    Raises:
        FileNotFoundError, ValueError: no such file; damaged; not of this network; of another size.
        ImportError: the backend's package is not installed.
    """
    _, package, loader = BACKENDS[backend]
    if not Path(model_path).is_file():
        raise FileNotFoundError(
            f"There is no model file {model_path}: check the path, or make one with train.py "
            "or export.py."
        )
    if not is_installed(backend):
        name = {"paddle": "paddlepaddle"}.get(package, package)
        raise ImportError(f"The backend {backend} needs {package}: run `pip install {name}`.")
    return loader(Path(model_path), size, threads)


def person_probability(logits):
    """(N, 2, H, W) float32 logits -> (N, H, W) float32: softmax over two classes, channel 1."""
    return 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -80, 80)))


def runner(model):
    """A PortraitNet in evaluation mode as a backend: function of batch -> probability."""
    paddle = import_paddle()

    def run_batch(batch):
        with paddle.no_grad():
            return person_probability(model.mask_logits(paddle.to_tensor(batch)).numpy())

    return run_batch


def load_paddle(model_path, size, threads):
    """See `load`."""
    paddle = import_paddle()
    from models.weights import load_model

    model = load_model(model_path)
    if threads is not None:
        paddle.base.core.set_num_threads(threads)

    return runner(model), size or SIZE


def load_inference(model_path, size, threads):
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
    square = predictor.get_input_handle(predictor.get_input_names()[0])
    answer = predictor.get_output_handle(predictor.get_output_names()[0])

    def run_batch(batch):
        square.copy_from_cpu(np.ascontiguousarray(batch))
        predictor.run()
        return answer.copy_to_cpu()

    return run_batch, size or SIZE


def import_paddle():
    """Paddle tells everyone who imports it to install a C++ compiler's cache; not here."""
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle

    return paddle


def load_onnx(model_path, size, threads):
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
    square = session.get_inputs()[0]
    check_interface(model_path, square.name, square.shape, session.get_outputs()[0].name, size)

    def run_batch(batch):
        return session.run(None, {square.name: batch})[0]

    return run_batch, square.shape[2]


def load_openvino(model_path, size, threads):
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
        square, answer = model.inputs[0], model.outputs[0]
        shape = [d.get_length() if d.is_static else None for d in square.partial_shape]
        check_interface(model_path, square.any_name, shape, answer.any_name, size)
        # One photo at a time: a network compiled for a free batch size is a tenth slower.
        model.reshape([1, *shape[1:]])
        request = core.compile_model(model, "CPU", options).create_infer_request()
    except RuntimeError as error:
        raise damaged(model_path, error) from None

    def run_batch(batch):
        probability = np.empty((len(batch), *shape[2:]), np.float32)
        for i in range(len(batch)):
            probability[i] = request.infer({0: batch[i : i + 1]}, share_inputs=True)[0]
        return probability

    return run_batch, shape[2]


def check_interface(model_path, square, shape, answer, size):
    """Raise ValueError unless an ONNX file has the names and shapes that export.py gives."""
    if (square, answer) != ("batch", "probability") or len(shape) != 4:
        raise ValueError(
            f"{model_path} takes {square} and gives {answer}, not batch and probability: "
            "give a file that export.py wrote."
        )
    if size not in (None, shape[2]):
        raise ValueError(
            f"{model_path} takes squares of {shape[2]} pixels, not {size}: "
            f"export it again with --size {size}."
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
    "inference": ("portraitnet_inference.pdiparams", "paddle", load_inference),
    "paddle": ("portraitnet.pdparams", "paddle", load_paddle),
}
