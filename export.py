"""Export a checkpoint so that other runtimes give the same answer, and prove it on photos.

python export.py                                            # weights/portraitnet.onnx and more
python export.py --formats int8 --data_root EG1800/         # weights/portraitnet_int8.onnx
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from backends import load, runner
from dataset import PortraitDataset
from images import SUFFIXES, read_image, write_json
from metrics import batch_counts, mean_iou
from models.weights import load_model
from predictor import MODEL_PATH
from transforms import MEAN, SCALE, SIZE, letterbox, letterbox_mask, to_batch

ROOT = Path(__file__).parent
LIMITS = {"onnx": 1e-4, "inference": 1e-4, "fp16": 1e-3}  # largest difference of a probability
INT8_LOSS = 0.003  # of mIoU on the validation list, at most
CALIBRATION = 128  # training photos
FORMATS = {  # name -> what is added to the checkpoint's name, backend that checks it
    "onnx": (".onnx", "onnx"),
    "fp16": ("_fp16.onnx", "onnx"),
    "int8": ("_int8.onnx", "onnx"),
    "inference": ("_inference.pdiparams", "inference"),
}
BATCH = 16  # photos the network sees at once while checking


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description="Export a checkpoint and check that the answer stays the same.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model_path", type=Path, default=MODEL_PATH, help="weights that train.py wrote")
    add("--output", type=Path, help="folder (default: that of the weights)")
    add("--size", type=int, default=SIZE, help="side of the square input, a multiple of 32")
    add(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=["onnx", "fp16", "inference"],
        help="fp16: ONNX with weights of half the size; inference: Paddle Inference",
    )
    add(
        "--photos",
        nargs="+",
        type=Path,
        default=[ROOT / "examples"],
        help="photos or folders on which the export must agree with the checkpoint",
    )
    add("--data_root", nargs="+", help="data folders (docs/data.md), for int8 alone")
    args = parser.parse_args(argv)
    if args.size < 32 or args.size % 32:
        parser.error(f"--size must be a multiple of 32, not {args.size}")
    if "int8" in args.formats and not args.data_root:
        parser.error("int8 is calibrated and scored on photos: give --data_root")
    return args


def read_squares(paths, size):
    """Photos and folders of photos -> list of (size, size, 3) uint8 letterboxed images."""
    photos = []
    for path in paths:
        found = sorted(p for p in path.glob("*") if p.suffix.lower() in SUFFIXES)
        photos += found if path.is_dir() else [path]
    if not photos:
        raise ValueError(f"No photo in {', '.join(map(str, paths))}: give some with --photos.")
    return [letterbox(read_image(photo), size)[0] for photo in photos]


def run_all(run_batch, squares):
    """List of N (S, S, 3) uint8 -> (N, S, S) float32 probability, BATCH at a time."""
    starts = range(0, len(squares), BATCH)
    return np.concatenate([run_batch(to_batch(squares[i : i + BATCH])) for i in starts])


class MaskProbability(nn.Layer):
    """What Paddle Inference runs: (N, 3, S, S) float32 batch -> (N, S, S) float32 probability.

    Args:
        model: PortraitNet; its BatchNorm and softmax are folded as in onnx_graph.py.
    """

    def __init__(self, model):
        from onnx_graph import fold_batchnorm, fold_softmax

        super().__init__()
        self.model = fold_batchnorm(model)
        head = fold_softmax(model.mask_head.weight.numpy())
        start = paddle.ParamAttr(initializer=nn.initializer.Assign(head))
        self.head = self.create_parameter(head.shape, attr=start)

    def forward(self, batch):
        logits = F.conv2d(self.model.features(batch), self.head, padding=1)
        return F.sigmoid(logits).squeeze(1)


def write_onnx(path, model, metadata, args):
    import onnx_graph

    onnx_graph.onnx.save(onnx_graph.onnx_model(model, args.size, metadata), path)


def write_fp16(path, model, metadata, args):
    import onnx_graph

    proto = onnx_graph.onnx_model(model, args.size, metadata)
    onnx_graph.onnx.save(onnx_graph.halve(proto), path)


def write_int8(path, model, metadata, args):
    import onnx_graph

    proto = onnx_graph.onnx_model(model, args.size, metadata)
    train = PortraitDataset(args.data_root, "train")
    chosen = np.linspace(0, len(train) - 1, min(CALIBRATION, len(train))).astype(int)
    squares = [letterbox(train.photo(i)[0], args.size)[0] for i in chosen]
    onnx_graph.onnx.save(onnx_graph.quantize(proto, squares), path)


def write_inference(path, model, metadata, args):
    shape = paddle.static.InputSpec([None, 3, args.size, args.size], "float32", "batch")
    network = MaskProbability(model)
    network.eval()
    paddle.jit.save(network, str(path.with_suffix("")), input_spec=[shape])


WRITERS = {
    "onnx": write_onnx,
    "fp16": write_fp16,
    "int8": write_int8,
    "inference": write_inference,
}


def check_difference(name, run_batch, model, squares):
    """The largest difference from the checkpoint; ValueError above the format's limit."""
    expected = run_all(runner(model), squares)
    difference = float(np.abs(run_all(run_batch, squares) - expected).max())
    if not difference <= LIMITS[name]:
        raise ValueError(
            f"The {name} export differs from the checkpoint by {difference:.1e} on "
            f"{len(squares)} photos, over {LIMITS[name]:g}: nothing was written."
        )
    return {"largest_difference": difference, "photos": len(squares)}


def check_miou(run_batch, model, args):
    """mIoU (metrics.PROTOCOLS' miou_raw) of both; ValueError where int8 loses INT8_LOSS or more."""
    val = PortraitDataset(args.data_root, "val")
    photos, masks = zip(*(val.photo(i) for i in range(len(val))))
    squares = [letterbox(photo, args.size)[0] for photo in photos]
    masks = np.stack([letterbox_mask(mask, args.size) for mask in masks])
    before, after = (
        float(mean_iou(batch_counts(run_all(run, squares) > 0.5, masks).sum(0)))
        for run in (runner(model), run_batch)
    )
    if before - after >= INT8_LOSS:
        raise ValueError(
            f"int8 has an mIoU of {after:.4f} on {len(val)} validation photos where the checkpoint "
            f"has {before:.4f}: it loses {INT8_LOSS:g} or more, so nothing was written."
        )
    return {"miou_checkpoint": before, "miou_int8": after, "photos": len(val)}


def describe(args):
    """What a user of an exported file must know, and where it comes from."""
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "size": args.size,
        "mean": list(MEAN),
        "scale": SCALE,
        "channel_order": "BGR",
        "input": "batch",
        "output": "probability",
        "weights": args.model_path.name,
        "weights_sha256": sha256(args.model_path),
        "revision": git.stdout.strip() or "unknown",
    }


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(name, model, metadata, squares, args):
    """Write one format in a hidden folder, check it there, and only then move it to --output.

    Returns:
        {file: what was measured and its SHA-256}.
    """
    suffix, backend = FORMATS[name]
    with tempfile.TemporaryDirectory(dir=args.output, prefix=".export") as folder:
        path = Path(folder, args.model_path.stem + suffix)
        WRITERS[name](path, model, metadata, args)
        run_batch, _ = load(path, backend)
        if name == "int8":
            measured = check_miou(run_batch, model, args)
        else:
            measured = check_difference(name, run_batch, model, squares)
        files = {}
        for file in sorted(Path(folder).iterdir()):
            files[file.name] = measured | {"bytes": file.stat().st_size, "sha256": sha256(file)}
            os.replace(file, args.output / file.name)
    told = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
    for file, facts in files.items():
        print(f"saved {args.output / file}: {facts['bytes'] / 1e6:.2f} MB, {told}")
    return files


def write_metadata(path, metadata, files):
    """JSON beside the exports; files of earlier runs from the same weights and size stay listed."""
    try:
        old = json.loads(path.read_text())
    except (OSError, ValueError):
        old = {}
    same = all(old.get(key) == metadata[key] for key in ("size", "weights_sha256"))
    listed = (old.get("files", {}) if same else {}) | files
    write_json(path, metadata | {"files": listed})


def main(argv=None):
    args = parse_args(argv)
    args.output = args.output or args.model_path.parent
    try:
        squares = read_squares(args.photos, args.size)
        model = load_model(args.model_path)
        metadata = describe(args)
        args.output.mkdir(parents=True, exist_ok=True)
        for name in args.formats:
            files = export(name, model, metadata, squares, args)
            write_metadata(args.output / f"{args.model_path.stem}.json", metadata, files)
    except ModuleNotFoundError as error:
        told = f"this format needs {error.name}: run `pip install -r requirements-dev.txt`."
        print(f"export.py: {told}", file=sys.stderr)
        return 1
    except (OSError, ValueError, ImportError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
