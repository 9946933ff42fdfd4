"""Size of every export of both networks, and its largest difference from the checkpoint.

    python -m benchmarks.export_parity

ncnn and MNN convert the ONNX file. Each has a row if its packages are installed:

    pip install MNN ncnn && pip install --no-deps pnnx     # pnnx's converter works without PyTorch
"""

import importlib.util
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import export
from benchmarks.table import heading, row
from portraitnet.backends import RunBatch
from portraitnet.cli import make_parser
from portraitnet.predictor import to_batch
from training.checkpoints import open_predictor

# The commands of docs/mobile.md, run in the folder of the ONNX file.
PNNX = "pnnx portraitnet.onnx 'inputshape=[1,3,{height},{width}]' fp16=0"
MNN = (
    "python -c 'import _tools, sys; _tools.mnnconvert(sys.argv)' -f ONNX "
    "--modelFile portraitnet.onnx --MNNModel portraitnet.mnn --bizCode portraitnet"
)
PACKAGES = {"ncnn": ("ncnn", "pnnx"), "MNN": ("MNN", "_tools")}
FORMATS = [name for name, chosen in export.FORMATS.items() if chosen.limit is not None]


def parse_args(argv=None):
    parser = make_parser(
        "Measure the size of every export and its largest difference from the checkpoint.",
        example="python -m benchmarks.export_parity --models lite",
    )
    both = ["full", "lite"]
    parser.add_argument("--models", nargs="+", default=both, help="names or checkpoints")
    return parser.parse_args(argv)


def is_installed(runtime: str) -> bool:
    """Whether the packages of a runtime in PACKAGES are installed."""
    return all(importlib.util.find_spec(package) for package in PACKAGES[runtime])


def run_command(command: str, folder: Path) -> None:
    """Run a command of docs/mobile.md.

    Raises:
        RuntimeError: the command failed; with its last lines.
    """
    words = shlex.split(command)
    if words[0] == "pnnx":  # the package's own script would import PyTorch
        words[0] = str(Path(importlib.util.find_spec("pnnx").origin).with_name("pnnx"))
        Path(words[0]).chmod(0o755)
    elif words[0] == "python":
        words[0] = sys.executable
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} failed: {(done.stdout + done.stderr)[-500:]}")


def load_ncnn(onnx_path: Path, height: int, width: int) -> RunBatch:
    """Convert an ONNX file, portraitnet.onnx, for one input shape in pixels and load the result."""
    import ncnn

    run_command(PNNX.format(height=height, width=width), onnx_path.parent)
    net = ncnn.Net()
    net.load_param(str(onnx_path.with_suffix(".ncnn.param")))
    net.load_model(str(onnx_path.with_suffix(".ncnn.bin")))

    def run_photo(photo):
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(photo)))
        return np.array(extractor.extract("out0")[1]).reshape(photo.shape[1:])

    return lambda batch: np.stack([run_photo(photo) for photo in batch])


def load_mnn(onnx_path: Path) -> RunBatch:
    """Convert an ONNX file, portraitnet.onnx, and load the result."""
    from MNN import expr, nn

    run_command(MNN, onnx_path.parent)
    module = nn.load_module_from_file(
        str(onnx_path.with_suffix(".mnn")), ["batch"], ["probability"]
    )

    def run_batch(batch):
        given = expr.const(np.ascontiguousarray(batch), list(batch.shape), expr.NCHW)
        answer = module.forward([expr.convert(given, expr.NC4HW4)])
        answer = answer[0] if isinstance(answer, (list, tuple)) else answer
        return np.array(answer.read()).reshape(len(batch), *batch.shape[2:])

    return run_batch


def export_rows(model: str, folder: Path) -> list[list[str]]:
    """Rows of the table: one for each format of export.py."""
    flags = ["--model_path", model, "--output", str(folder), "--formats", *FORMATS]
    if export.main(flags):
        raise RuntimeError(f"export.py failed for {model}: see above.")
    stem = export.parse_args(flags).model_path.stem
    files = json.loads((folder / f"{stem}.json").read_text())["files"]
    return [
        [model, f"`{name}`", f"{facts['bytes'] / 1e6:.2f}", f"{facts['largest_difference']:.1e}"]
        for name, facts in files.items()
        if not name.endswith(".json")  # beside the weights of Paddle Inference
    ]


def converted_rows(model: str, folder: Path) -> list[list[str]]:
    """Rows of the table: one for each installed converter of the ONNX file."""
    args = export.parse_args(["--model_path", model])
    source = folder / args.model_path.with_suffix(".onnx").name
    path = folder / "converted" / "portraitnet.onnx"
    path.parent.mkdir()
    path.write_bytes(source.read_bytes())
    size, shape = export.open_checkpoint(args)[2:4]
    inputs = export.read_inputs(args.photos, size, shape)
    batch = to_batch([each for each in inputs if each.shape[:2] == shape])
    expected = open_predictor(args.model_path).run_batch(batch)
    rows = []
    for runtime in filter(is_installed, PACKAGES):
        run = load_ncnn(path, *shape) if runtime == "ncnn" else load_mnn(path)
        difference = np.abs(run(batch) - expected).max()
        name = {"ncnn": "portraitnet.ncnn.bin", "MNN": "portraitnet.mnn"}[runtime]
        megabytes = path.with_name(name).stat().st_size / 1e6
        rows.append([model, f"`{name}`", f"{megabytes:.2f}", f"{difference:.1e}"])
    return rows


def main(argv=None):
    args = parse_args(argv)
    rows = []
    for model in args.models:
        with tempfile.TemporaryDirectory() as folder:
            rows += export_rows(model, Path(folder)) + converted_rows(model, Path(folder))
    print(heading(["network", "file", "MB", "largest difference"]))
    for values in rows:
        print(row(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
