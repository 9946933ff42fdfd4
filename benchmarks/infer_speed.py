"""Latency, throughput, start-up time and memory of every backend and of MediaPipe's selfie models.

    python -m benchmarks.infer_speed --model_path weights/portraitnet.pdparams

Every runtime has a process of its own. The processes take turns, so that other load of the machine
affects all of them. Times are those of the network alone, on noise, as median and as best run.
`--inputs 224x224 256x192 160x288` compares several input shapes (height x width). Ratios refer to
MediaPipe's 256x256 selfie model in the same runtime on one thread, or in LiteRT if it was not made
for that runtime, or to the first row without it. A second table has the arithmetic and the memory
traffic of each network:

    npm pack @mediapipe/selfie_segmentation && tar xzf mediapipe-selfie_segmentation-*.tgz
    cd package && python -m benchmarks.mediapipe_onnx selfie_segmentation.{tflite,onnx}
    python -m benchmarks.infer_speed --mediapipe package
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import heading, row
from portraitnet.backends import BACKENDS, is_installed, litert_interpreter
from portraitnet.cli import make_parser
from portraitnet.geometry import SIZE
from training.checkpoints import MODEL_PATH, load_network

EXPORTS = {  # name -> backend, ending that export.py adds to the checkpoint's stem
    "Paddle": ("paddle", ".pdparams"),
    "Paddle Inference, oneDNN": ("inference", "_inference.pdiparams"),
    "ONNX Runtime": ("onnx", ".onnx"),
    "ONNX Runtime, INT8": ("onnx", "_int8.onnx"),
    "ONNX Runtime, lite": ("onnx", "_lite.onnx"),
    "LiteRT": ("litert", ".tflite"),
    "LiteRT, float16 weights": ("litert", "_fp16.tflite"),
    "LiteRT, lite": ("litert", "_lite.tflite"),
    "OpenVINO": ("openvino", ".onnx"),
    "OpenVINO, INT8": ("openvino", "_int8.onnx"),
    "OpenVINO, lite": ("openvino", "_lite.onnx"),
}
MEDIAPIPE = "mediapipe"
PEERS = {  # name -> backend, file
    "MediaPipe selfie 256x256": (MEDIAPIPE, "selfie_segmentation.tflite"),
    "MediaPipe selfie 144x256": (MEDIAPIPE, "selfie_segmentation_landscape.tflite"),
    "ONNX Runtime, MediaPipe selfie 256x256": ("onnx", "selfie_segmentation.onnx"),
    "OpenVINO, MediaPipe selfie 256x256": ("openvino", "selfie_segmentation.onnx"),
}
UNITS = {  # backend -> the row that its ratios refer to; else the first of these
    MEDIAPIPE: "MediaPipe selfie 256x256",
    "litert": "MediaPipe selfie 256x256",
    "onnx": "ONNX Runtime, MediaPipe selfie 256x256",
    "openvino": "OpenVINO, MediaPipe selfie 256x256",
}
MIN_TURN = 0.05  # seconds that a runtime measures before the next one's turn


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Measure latency, throughput, start-up time and memory of every backend.",
        example="python -m benchmarks.infer_speed --threads 1",
    )
    add = parser.add_argument
    add(
        "--model_path",
        type=Path,
        default=MODEL_PATH,
        help="checkpoint; its exports are in the same folder",
    )
    add("--mediapipe", type=Path, help="folder of MediaPipe's selfie models, .tflite files")
    add("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to measure")
    add("--rounds", type=int, default=15, help="number of turns of each runtime")
    add("--batch_size", type=int, default=16, help="batch size of the throughput, images")
    add(
        "--inputs",
        nargs="+",
        default=[f"{SIZE}x{SIZE}"],
        help="shapes of the network input, HEIGHTxWIDTH in pixels",
    )
    add(
        "--only", nargs="+", help="words; only runtimes with one of them in their name are measured"
    )
    add("--worker", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def mediapipe_backend(path: str, threads: int) -> Callable[[int], None]:
    """A function that runs MediaPipe's network on N images, one by one, with Google's LiteRT."""
    interpreter = litert_interpreter(path, Path(path).read_bytes(), threads)
    square, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    picture = np.random.default_rng(0).random(square["shape"], np.float32)

    def run(count):
        for _ in range(count):
            interpreter.set_tensor(square["index"], picture)
            interpreter.invoke()
            interpreter.get_tensor(answer["index"])

    return run


def portraitnet_backend(
    backend: str, path: str, network_input: str, threads: int
) -> Callable[[int], NDArray[np.float32]]:
    """A function that runs PortraitNet on a batch of N network inputs of HEIGHTxWIDTH pixels."""
    run_batch = load_network(path, backend, threads=threads).run_batch
    shape = map(int, network_input.split("x"))
    picture = np.random.default_rng(0).standard_normal((1, 3, *shape), np.float32)
    batches = {}  # created on first use, because batches count as memory

    def run(count):
        if count not in batches:
            batches[count] = np.repeat(picture, count, axis=0)
        return run_batch(batches[count])

    return run


def work(backend: str, path: str, network_input: str, threads: int) -> None:
    """The process of a runtime.

    The first line on stdout is {"start": seconds until the first answer, "load": seconds for
    loading the model, "memory": peak MB after ten answers at batch size 1}. Each line on stdin is a
    batch size and starts a turn. Its answer on stdout is a list of the seconds of each run.

    Args:
        backend: name in BACKENDS, or MEDIAPIPE.
        path: model file.
        network_input: HEIGHTxWIDTH, pixels.
        threads: threads of the network.
    """
    began = time.perf_counter()
    package = BACKENDS[backend].package if backend in BACKENDS else "ai_edge_litert.interpreter"
    importlib.import_module(package)
    imported = time.perf_counter()
    if backend == MEDIAPIPE:
        run = mediapipe_backend(path, threads)
    else:
        run = portraitnet_backend(backend, path, network_input, threads)
    loaded = time.perf_counter()
    run(1)
    facts = {"start": time.perf_counter() - began, "load": loaded - imported}
    for _ in range(9):
        run(1)
    facts["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        count = int(line)
        run(count)  # warm-up of threads and caches
        seconds = []
        while sum(seconds) < MIN_TURN:
            start = time.perf_counter()
            run(count)
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


class Runtime:
    """A process that runs `work`; arguments as there.

    Attributes:
        facts: the first line of `work`.
        seconds: {batch size: list of seconds per image}.

    Raises:
        RuntimeError: the process ended without an answer.
    """

    def __init__(self, backend: str, path: Path, network_input: str, threads: int):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.infer_speed", "--worker"]
        environment = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [*command, backend, str(path), network_input, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | environment,
        )
        self.facts, self.seconds = self.answer(), {}

    def answer(self) -> dict | list:
        """The next line of the process."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.process.args)} ended without an answer: run it.")
        return json.loads(line)

    def measure(self, count: int) -> None:
        """One turn with batch size `count`."""
        print(count, file=self.process.stdin, flush=True)
        self.seconds.setdefault(count, []).extend(s / count for s in self.answer())

    def median(self, count: int) -> float:
        """Median milliseconds per image at batch size `count`."""
        return 1000 * statistics.median(self.seconds[count])

    def best(self) -> float:
        """Smallest milliseconds at batch size 1."""
        return 1000 * min(self.seconds[1])


def find_settings(
    model_path: Path, mediapipe: Path | None, inputs: Sequence[str], only: Sequence[str] | None
) -> dict[str, tuple[str, Path, str]]:
    """All runtimes that are installed and have a model file.

    Args:
        model_path, mediapipe, inputs, only: see the flags.

    Returns:
        {name: (backend, path, network input)}.
    """
    settings = {}
    for name, (backend, suffix) in EXPORTS.items():
        path = model_path.with_name(model_path.stem + suffix).resolve()
        if path.exists() and is_installed(backend):
            for network_input in inputs:
                label = f"{name} {network_input}" if len(inputs) > 1 else name
                settings[label] = backend, path, network_input
        else:
            print(f"left out: {name} (no {path.name}, or not installed)")
    for name, (backend, file) in PEERS.items():
        path = (mediapipe / file).resolve() if mediapipe else Path(file)
        if path.exists() and is_installed("litert" if backend == MEDIAPIPE else backend):
            settings[name] = backend, path, "" if backend == MEDIAPIPE else "256x256"
        else:
            print(f"left out: {name} (no {path.name}, or not installed)")
    if only:
        settings = {
            name: value
            for name, value in settings.items()
            if name in UNITS.values() or any(word in name for word in only)
        }
    return settings


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.worker:
        work(*args.worker[:3], int(args.worker[3]))
        return 0
    settings = find_settings(args.model_path, args.mediapipe, args.inputs, args.only)
    if not settings:
        print(f"No runtime has a file beside {args.model_path}: run export.py.", file=sys.stderr)
        return 1
    runtimes = {
        (name, threads): Runtime(*setting, threads)
        for threads in args.threads
        for name, setting in settings.items()
    }
    for _ in range(args.rounds):
        for runtime in runtimes.values():
            runtime.measure(1)
    for _ in range(max(1, args.rounds // 5)):
        for runtime in runtimes.values():
            runtime.measure(args.batch_size)

    names = ["runtime", "threads", "ms", "ratio", "best ms", "best ratio"]
    names += [f"images/s at {args.batch_size}", "start s", "load s", "MB of memory", "MB of file"]
    print(heading(names))
    for (name, threads), runtime in runtimes.items():
        unit = unit_of(settings[name][0], runtimes, args.threads[0])
        latency, best = runtime.median(1), runtime.best()
        rate = 1000 / runtime.median(args.batch_size)
        ratios = f"{latency / unit.median(1):.2f}", f"{best / unit.best():.2f}"
        facts, size = runtime.facts, settings[name][1].stat().st_size / 1e6
        values = name, threads, f"{latency:.2f}", ratios[0], f"{best:.2f}", ratios[1], f"{rate:.0f}"
        facts = f"{facts['start']:.2f}", f"{facts['load']:.2f}", f"{facts['memory']:.0f}"
        print(row([*values, *facts, f"{size:.2f}"]))
        runtime.process.stdin.close()
        runtime.process.wait()
    if importlib.util.find_spec("ai_edge_litert"):
        print_costs(settings)
    return 0


def unit_of(backend: str, runtimes: dict[tuple[str, int], Runtime], threads: int) -> Runtime:
    """The runtime that a backend's ratios refer to: MediaPipe's model in the same runtime."""
    names = [UNITS.get(backend), *UNITS.values()]
    found = [runtimes[name, threads] for name in names if (name, threads) in runtimes]
    return found[0] if found else next(iter(runtimes.values()))


def print_costs(settings: dict[str, tuple[str, Path, str]]) -> None:
    """Print each network's arithmetic, memory traffic and lower bound of its time on this core.

    Args:
        settings: result of `find_settings`.
    """
    flops, bandwidth = measured_peaks()
    print(
        f"\nat best: every layer reaches its own bound on this core, {flops / 1e9:.0f} GFLOP/s or "
        f"{bandwidth / 1e9:.0f} GB/s in cache"
    )
    print(heading(["network", "GMAC", "MB of activations", "MB of weights", "ms at best"]))
    seen = set()
    for _, path, network_input in settings.values():
        if path.suffix != ".tflite" or "_fp16" in path.stem:  # the same network, other numbers
            continue
        macs, activations, weights = litert_cost(path, network_input)
        moved = activations + weights
        best = np.maximum(2 * macs / flops, moved / bandwidth).sum()
        name = f"{path.stem} {network_input}".strip()
        values = [f"{values.sum() / 1e6:.1f}" for values in (activations, weights)]
        if name not in seen:
            print(row([name, f"{macs.sum() / 1e9:.3f}", *values, f"{1000 * best:.2f}"]))
        seen.add(name)


def litert_cost(path: Path, network_input: str) -> NDArray[np.float64]:
    """Cost of each operation of a .tflite file at batch size 1, in float32.

    Args:
        path: of the file.
        network_input: height x width, such as 224x224; "" for the file's own.

    Returns:
        (3, number of operations): multiply-accumulates of a convolution, else 0; bytes of the
        operation's inputs and outputs; bytes of its constants.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph, kinds = model.subgraphs[0], schema.BuiltinOperator
    shapes = dict(enumerate(tensor.shape for tensor in graph.tensors))
    if network_input:
        # XNNPACK would leave the shapes of inner tensors as they are in the file.
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
        shape = [1, *map(int, network_input.split("x")), 3]
        interpreter.resize_tensor_input(graph.inputs[0], shape)
        interpreter.allocate_tensors()
        shapes = {tensor["index"]: tensor["shape"] for tensor in interpreter.get_tensor_details()}
    made = {*graph.inputs, *(x for operator in graph.operators for x in operator.outputs)}
    costs = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = code.builtinCode
        if kind == kinds.DEQUANTIZE and operator.inputs[0] not in made:
            made.discard(operator.outputs[0])  # a weight, in float32 when the file is loaded
            continue
        parts = [x for x in (*operator.inputs, *operator.outputs) if x >= 0]
        activations = sum(4 * np.prod(shapes[x]) for x in parts if x in made)
        weights = sum(4 * np.prod(shapes[x]) for x in parts if x not in made)
        # A transposed convolution applies its kernel at each input pixel.
        places = {
            kinds.CONV_2D: operator.outputs[0],
            kinds.DEPTHWISE_CONV_2D: operator.outputs[0],
            kinds.TRANSPOSE_CONV: operator.inputs[-1],
            kinds.CUSTOM: operator.inputs[0],  # MediaPipe's transposed convolution with a bias
        }
        macs = 0
        if kind in places:
            assert kind != kinds.CUSTOM or code.customCode == b"Convolution2DTransposeBias"
            macs = np.prod(shapes[operator.inputs[1]]) * np.prod(shapes[places[kind]][1:3])
        costs.append((macs, activations, weights))
    return np.array(costs, np.float64).T


def measured_peaks(repeats: int = 200) -> tuple[float, float]:
    """Peaks of one thread, the best of `repeats` runs.

    A run takes a millisecond, because other work on the core would interrupt a longer one.

    Returns:
        FLOP/s of a matrix product, and bytes/s of a copy in cache.
    """
    code = (
        "import numpy as np, time\n"
        "def best(f):\n"
        "    times = []\n"
        f"    for _ in range({repeats}):\n"
        "        start = time.perf_counter(); f(); times.append(time.perf_counter() - start)\n"
        "    return min(times)\n"
        "a = np.ones((384, 384), np.float32); b = np.empty_like(a)\n"
        "print(2 * 384**3 / best(lambda: np.matmul(a, a, out=b)))\n"
        "half = np.ones(2**18, np.float32); copy = np.empty_like(half)\n"
        "print(2 * half.nbytes / best(lambda: np.copyto(copy, half)))\n"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return tuple(map(float, done.stdout.split()))


if __name__ == "__main__":
    sys.exit(main())
