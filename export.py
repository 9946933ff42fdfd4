"""Export a checkpoint for other runtimes and check that every export gives the same answers.

python export.py                                            # weights/portraitnet.onnx and more
python export.py --formats int8 --data_root EG1800/ Picsart/ People/
python export.py --model_path lite --formats tflite coreml_fp16 --shape 256x192     # for phones
"""

import argparse
import errno
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.portraits import PortraitDataset
from metrics import score
from portraitnet.backends import MODELS, NAMES, RunBatch, choose, import_paddle, load
from portraitnet.cli import (
    MISTAKES,
    command,
    height_by_width,
    int_range,
    make_parser,
    sentence,
)
from portraitnet.files import add_sha256, check_writable, whole_file, write_json
from portraitnet.geometry import input_shape, resize
from portraitnet.images import Image, read_image
from portraitnet.jobs import find_photos
from portraitnet.predictor import MEAN, SCALE, Predictor
from training.checkpoints import MODEL_PATH, runner

if TYPE_CHECKING:
    from models import PortraitNet

ROOT = Path(__file__).parent
# Photos on which every export must agree with the checkpoint. They are named one by one, so that
# other files of that folder have no effect.
PROOF = [ROOT / "examples" / name for name in ("portrait.jpg", "astronaut.png")]
INT8_LOSS = 0.003  # mIoU on the validation list; int8 must lose less
CALIBRATION = 128  # training photos
# Proportions (height, width) of the network inputs on which an export is checked. At size 224 the
# inputs are 224x224, 256x192 and 160x288.
PROPORTIONS = (1, 1), (4, 3), (9, 16)
BATCH = 16  # network inputs in a batch of the check
# Limits of a probability's difference, from rounding; |logit| < 9, the sigmoid's slope is <= 1/4.
# float32: on the way through the 84 convolutions 10,622 products are summed. Each sum is rounded by
# 2**-24, so one answer is off by 2**-24 * sqrt(10622) * 9 / 4 = 1.4e-5. The limit is 5 standard
# deviations of two answers' difference, for the largest of 300,000 pixels.
FLOAT32_LIMIT = 1e-4
# float16 weights: those of 25 layers are rounded by 2**-11 / sqrt(3) = 2.8e-4 of their value:
# 2.8e-4 * sqrt(25) * 9 / 4 = 3.2e-3, less what averages out among a layer's weights.
FLOAT16_LIMIT = 4e-3
# float16 throughout: weights and results of all 84 layers are rounded so. The limit is 5 standard
# deviations of 2.8e-4 * sqrt(2 * 84) * 9 / 4 = 8e-3.
FLOAT16_THROUGHOUT_LIMIT = 4e-2
LICENSE = "Apache-2.0"


class Checkpoint(NamedTuple):
    """What is exported.

    Attributes:
        path: the .pdparams file.
        model: the network, in evaluation mode.
        size: input resolution, see `Predictor`.
        shape: (height, width) of the network input in the files of SHAPED, pixels.
        metadata: see `describe`.
    """

    path: Path
    model: "PortraitNet"
    size: int
    shape: tuple[int, int]
    metadata: dict


def write_onnx(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`."""
    from models import onnx_graph

    proto = onnx_graph.onnx_model(checkpoint.model, checkpoint.metadata)
    onnx_graph.onnx.save(proto, path)


def write_fp16(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`."""
    from models import onnx_graph

    proto = onnx_graph.onnx_model(checkpoint.model, checkpoint.metadata)
    onnx_graph.onnx.save(onnx_graph.halve(proto), path)


def write_int8(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`; the training photos of `data_root` calibrate the activations."""
    from models import onnx_graph

    predictor = Predictor.of(runner(checkpoint.model), checkpoint.size)
    train = PortraitDataset(data_root, "train")
    chosen = np.linspace(0, len(train) - 1, min(CALIBRATION, len(train))).astype(int)
    inputs = [predictor.prepare(train.photo(i)[0]) for i in chosen]
    proto = onnx_graph.onnx_model(checkpoint.model, checkpoint.metadata)
    onnx_graph.onnx.save(onnx_graph.quantize(proto, inputs), path)


def write_tflite(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`."""
    from models.tflite_graph import tflite_model

    path.write_bytes(tflite_model(checkpoint.model, checkpoint.metadata, checkpoint.shape))


def write_tflite_fp16(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`."""
    from models.tflite_graph import tflite_model

    path.write_bytes(
        tflite_model(checkpoint.model, checkpoint.metadata, checkpoint.shape, half=True)
    )


def write_coreml(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`."""
    from models.coreml_graph import coreml_package

    path.write_bytes(coreml_package(checkpoint.model, checkpoint.metadata, checkpoint.shape))


def write_coreml_fp16(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`."""
    from models.coreml_graph import coreml_package

    path.write_bytes(
        coreml_package(checkpoint.model, checkpoint.metadata, checkpoint.shape, half=True)
    )


def write_inference(path: Path, checkpoint: Checkpoint, data_root: Sequence[str] | None) -> None:
    """See `Format`."""
    paddle = import_paddle()
    from models.inference_graph import fold_batchnorm

    # On a full disk Paddle reports no error and leaves a damaged file.
    needed = 2 * checkpoint.path.stat().st_size
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, f"No space for {needed:,} bytes", str(path.parent))
    network = fold_batchnorm(checkpoint.model)
    network.forward = network.probability  # the function that Paddle records
    batch = paddle.static.InputSpec([None, 3, None, None], "float32", "batch")
    paddle.jit.save(network, str(path.with_suffix("")), input_spec=[batch])


class Format(NamedTuple):
    """How a checkpoint is exported.

    Attributes:
        endings: what the files' names add to the checkpoint's stem; the backend loads the first.
        backend: runtime of the check: a name in `backends.BACKENDS`, or COREML.
        write: function of (path of the first file, Checkpoint, data folders or None).
        limit: largest allowed difference of a probability; None if the mIoU is compared instead.
    """

    endings: tuple[str, ...]
    backend: str
    write: Callable[[Path, Checkpoint, Sequence[str] | None], None]
    limit: float | None


INFERENCE_ENDINGS = "_inference.pdiparams", "_inference.json"
COREML = "coreml"  # runs on Apple's systems alone; the check computes its operations with Paddle
FORMATS = {
    "onnx": Format((".onnx",), "onnx", write_onnx, FLOAT32_LIMIT),
    "fp16": Format(("_fp16.onnx",), "onnx", write_fp16, FLOAT16_LIMIT),
    "int8": Format(("_int8.onnx",), "onnx", write_int8, None),
    "inference": Format(INFERENCE_ENDINGS, "inference", write_inference, FLOAT32_LIMIT),
    "tflite": Format((".tflite",), "litert", write_tflite, FLOAT32_LIMIT),
    "tflite_fp16": Format(("_fp16.tflite",), "litert", write_tflite_fp16, FLOAT16_LIMIT),
    "coreml": Format((".mlpackage.zip",), COREML, write_coreml, FLOAT32_LIMIT),
    "coreml_fp16": Format(
        ("_fp16.mlpackage.zip",), COREML, write_coreml_fp16, FLOAT16_THROUGHOUT_LIMIT
    ),
}
SHAPED = "tflite", "tflite_fp16", "coreml", "coreml_fp16"  # formats with an input shape in the file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Export a checkpoint for other runtimes. An export is written only if it gives the "
        "checkpoint's answers.",
        example="python export.py --model_path output/best.pdparams --formats onnx fp16",
    )
    add = parser.add_argument
    model_path = f"checkpoint of train.py, or {NAMES} for a bundled one"
    add("--model_path", type=Path, default=MODEL_PATH, help=model_path)
    add("--output", type=Path, help="folder of the exports (default: the checkpoint's folder)")
    size = "input resolution: the input's area is about SIZE x SIZE pixels"
    size += " (default: 224, or 256 for lite)"
    add("--size", type=int_range(32, multiple=32), help=size)
    add(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=["onnx", "fp16", "inference"],
        help="formats to write; fp16: ONNX with float16 weights, inference: Paddle Inference, "
        "tflite: LiteRT for Android, coreml: Core ML for iOS, coreml_fp16: float16 throughout",
    )
    add(
        "--shape",
        type=height_by_width,
        help="height x width of the network input in the file, pixels, for "
        f"{', '.join(SHAPED)} alone (default: the square of --size)",
    )
    add(
        "--photos",
        nargs="+",
        type=Path,
        default=PROOF,
        help="photos or folders on which the exports must agree with the checkpoint",
    )
    add(
        "--data_root",
        nargs="+",
        help="data folders (docs/data.md) for calibration and scores of int8",
    )
    args = parser.parse_args(argv)
    if str(args.model_path) in MODELS:
        args.model_path = choose(args.model_path, "paddle").path
    if "int8" in args.formats and not args.data_root:
        parser.error("int8 is calibrated and scored on photos: give --data_root")
    if args.shape and not set(args.formats) & set(SHAPED):
        parser.error(f"--shape has an effect on {', '.join(SHAPED)} alone")
    return args


def open_checkpoint(args: argparse.Namespace) -> Checkpoint:
    """The checkpoint of the flags, with the network's own size where they name none.

    Raises:
        FileNotFoundError, ValueError: see `models.weights.load_model`.
    """
    import_paddle()
    from models.weights import load_model

    model = load_model(args.model_path)
    size = args.size or model.size
    metadata = describe(args.model_path, size)
    return Checkpoint(args.model_path, model, size, args.shape or (size, size), metadata)


def read_inputs(paths: Iterable[Path], size: int, shape: tuple[int, int]) -> list[Image]:
    """Each photo's network inputs in all PROPORTIONS and in one more shape.

    Args:
        paths: photos and folders of photos.
        size: input resolution, see `Predictor`.
        shape: (height, width), pixels.

    Returns:
        list of (h, w, 3) uint8 BGR.

    Raises:
        FileNotFoundError, ValueError: see `read_image`; a folder cannot be read or has no photo.
    """
    photos, unread = find_photos(paths)
    if unread:
        raise ValueError(str(unread[0]))
    if not photos:
        raise ValueError(f"No photo in {', '.join(map(str, paths))}: give some with --photos.")
    shapes = {shape, *(input_shape(*proportions, size) for proportions in PROPORTIONS)}
    return [resize(read_image(path), *each) for path, _ in photos for each in sorted(shapes)]


def check_difference(
    name: str, run_batch: RunBatch, model: "PortraitNet", inputs: Sequence[Image]
) -> dict[str, float]:
    """Compare an export with the checkpoint on network inputs.

    Args:
        name: name in FORMATS.
        run_batch: the export.
        model: the checkpoint's network.
        inputs: list of (h, w, 3) uint8 BGR.

    Returns:
        {"largest_difference": of a probability, "inputs": number of network inputs}.

    Raises:
        ValueError: the difference exceeds the format's limit.
    """
    exported, checkpoint = Predictor.of(run_batch), Predictor.of(runner(model))
    groups = [inputs[i : i + BATCH] for i in range(0, len(inputs), BATCH)]
    difference = max(
        float(np.abs(one - other).max())
        for group in groups
        for one, other in zip(exported.run(group), checkpoint.run(group))
    )
    if not difference <= FORMATS[name].limit:
        raise ValueError(
            f"The {name} export differs from the checkpoint by {difference:.1e} on "
            f"{len(inputs)} network inputs, over {FORMATS[name].limit:g}: it was not written."
        )
    return {"largest_difference": difference, "inputs": len(inputs)}


def check_miou(
    run_batch: RunBatch, model: "PortraitNet", size: int, data_root: Sequence[str]
) -> dict[str, float]:
    """Compare the mIoU (`miou_raw` of metrics.PROTOCOLS) of an INT8 export and the checkpoint.

    Args:
        run_batch: the export.
        model: the checkpoint's network.
        size: input resolution, see `Predictor`.
        data_root: data folders with validation photos.

    Returns:
        {"miou_checkpoint": 0..1, "miou_int8": 0..1, "photos": number of photos}.

    Raises:
        ValueError: the export loses INT8_LOSS or more.
    """
    val = PortraitDataset(data_root, "val")
    predictors = (Predictor.of(run, size) for run in (runner(model), run_batch))
    before, after = (score(each.probabilities, val).summary()["miou_raw"] for each in predictors)
    if before - after >= INT8_LOSS:
        raise ValueError(
            f"int8 has an mIoU of {after:.4f} on {len(val)} validation photos where the checkpoint "
            f"has {before:.4f}: it loses {INT8_LOSS:g} or more, so it was not written."
        )
    return {"miou_checkpoint": before, "miou_int8": after, "photos": len(val)}


def describe(path: Path, size: int) -> dict:
    """The metadata of exports: pre-processing, and the checkpoint they come from.

    Args:
        path: the checkpoint.
        size: input resolution, see `Predictor`.
    """
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "name": "PortraitNet",
        "license": LICENSE,
        "size": size,
        "mean": list(MEAN),
        "scale": SCALE,
        "channel_order": "BGR",
        "input": "batch",
        "output": "probability",
        "weights": path.name,
        "weights_sha256": sha256(path),
        "revision": git.stdout.strip() or "unknown",
    }


def export_paths(
    name: str, output: Path, stem: str, size: int, shape: tuple[int, int]
) -> list[Path]:
    """Paths of a format's files.

    Args:
        name: name in FORMATS.
        output: folder of the files.
        stem: the checkpoint's.
        size: input resolution, see `Predictor`.
        shape: (height, width); part of the names in SHAPED unless it is the square of `size`.
    """
    if name in SHAPED and shape != (size, size):
        stem = f"{stem}_{shape[0]}x{shape[1]}"
    return [output / f"{stem}{ending}" for ending in FORMATS[name].endings]


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(
    name: str,
    checkpoint: Checkpoint,
    output: Path,
    inputs: Sequence[Image],
    data_root: Sequence[str] | None = None,
) -> dict[str, dict]:
    """Write one format under temporary names, check it, then rename it.

    Args:
        name: name in FORMATS.
        checkpoint: what is exported.
        output: folder of the files.
        inputs: see `check_difference`.
        data_root: data folders; only int8 needs them.

    Returns:
        {file: measurements, bytes and SHA-256}.

    Raises:
        ValueError: the export's answers differ too much.
        OSError, ImportError: a file cannot be written, or a package is missing.
    """
    chosen, files = FORMATS[name], {}
    with ExitStack() as stack:
        stem, size, shape = checkpoint.path.stem, checkpoint.size, checkpoint.shape
        paths = export_paths(name, output, stem, size, shape)
        hidden = [stack.enter_context(whole_file(path)) for path in paths]
        chosen.write(hidden[0], checkpoint, data_root)
        run_batch = load_export(hidden[0], chosen.backend)
        if chosen.backend == COREML:  # a package runs its one shape
            inputs = [each for each in inputs if each.shape[:2] == shape]
        if chosen.limit is None:
            measured = check_miou(run_batch, checkpoint.model, checkpoint.size, data_root)
        else:
            measured = check_difference(name, run_batch, checkpoint.model, inputs)
        for path, file in zip(paths, hidden):
            facts = {"bytes": file.stat().st_size, "sha256": sha256(file)}
            files[path.name] = measured | facts
    message = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
    for file, facts in files.items():
        print(f"saved {output / file}: {facts['bytes'] / 1e6:.2f} MB, {message}")
    return files


def load_export(path: Path, backend: str) -> RunBatch:
    """An exported file as a function of batch -> probability; `backend` as in `Format`."""
    if backend == COREML:
        from models.coreml_graph import evaluator

        return evaluator(path)
    return load(path, backend).run_batch


def write_metadata(path: Path, metadata: dict, files: dict[str, dict]) -> None:
    """Write the JSON file beside the exports.

    Files of earlier runs stay listed if weights and size are the same.
    """
    try:
        old = json.loads(path.read_text())
    except (OSError, ValueError):
        old = {}
    same = all(old.get(key) == metadata[key] for key in ("size", "weights_sha256"))
    listed = (old.get("files", {}) if same else {}) | files
    write_json(path, metadata | {"files": listed})


@command("export.py")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    output, stem = args.output or args.model_path.parent, args.model_path.stem
    checkpoint = open_checkpoint(args)
    for name in args.formats:  # before the work
        for path in export_paths(name, output, stem, checkpoint.size, checkpoint.shape):
            check_writable(path, keep=[args.model_path, *args.photos])
    inputs = read_inputs(args.photos, checkpoint.size, checkpoint.shape)
    output.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in args.formats:
        try:
            files = export(name, checkpoint, output, inputs, args.data_root)
            write_metadata(output / f"{stem}.json", checkpoint.metadata, files)
            # A folder with checksums, such as weights/, lists every file that may be loaded.
            add_sha256([output / name for name in (*files, f"{stem}.json")])
        except MISTAKES as error:
            print(f"export.py: {sentence(error, name)}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
