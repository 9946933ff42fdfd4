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
from flags import Help, whole
from images import SUFFIXES, read_image, write_json
from metrics import confusion, mean_iou
from models.weights import load_model
from predictor import MODEL_PATH, Predictor
from transforms import MEAN, SCALE, SIZE, letterbox, letterbox_mask
from transforms.geometry import resize, view_shape

ROOT = Path(__file__).parent
LIMITS = {"onnx": 1e-4, "inference": 1e-4, "fp16": 2e-3}  # largest difference of a probability
INT8_LOSS = 0.003  # of mIoU on the validation list, at most
CALIBRATION = 128  # training photos
FORMATS = {  # name -> what is added to the checkpoint's name, backend that checks it
    "onnx": (".onnx", "onnx"),
    "fp16": ("_fp16.onnx", "onnx"),
    "int8": ("_int8.onnx", "onnx"),
    "inference": ("_inference.pdiparams", "inference"),
}
# Height and width of the photos in whose views an export is checked: at size 224 these are 224x224,
# 256x192 and 160x288.
PROPORTIONS = (1, 1), (4, 3), (9, 16)
BATCH = 16  # views the network sees at once while checking


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description="Export a checkpoint and check that the answer stays the same.",
        formatter_class=Help,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model_path", type=Path, default=MODEL_PATH, help="weights that train.py wrote")
    add("--output", type=Path, help="folder (default: that of the weights)")
    add(
        "--size",
        type=whole(32, multiple=32),
        default=SIZE,
        help="side of the square with a view's area, pixels",
    )
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
    if "int8" in args.formats and not args.data_root:
        parser.error("int8 is calibrated and scored on photos: give --data_root")
    return args


def read_views(paths, size):
    """Photos and folders of photos -> list of each photo's views in all PROPORTIONS."""
    photos = []
    for path in paths:
        found = sorted(p for p in path.glob("*") if p.suffix.lower() in SUFFIXES)
        photos += found if path.is_dir() else [path]
    if not photos:
        raise ValueError(f"No photo in {', '.join(map(str, paths))}: give some with --photos.")
    shapes = [view_shape(*proportions, size) for proportions in PROPORTIONS]
    return [resize(read_image(photo), *shape) for photo in photos for shape in shapes]


class MaskProbability(nn.Layer):
    """What Paddle Inference runs: (N, 3, h, w) float32 batch -> (N, h, w) float32 probability.

    Args:
        model: PortraitNet; its BatchNorm and softmax are folded as in models/onnx_graph.py.
    """

    def __init__(self, model):
        from models.onnx_graph import fold_batchnorm, fold_softmax

        super().__init__()
        self.model = fold_batchnorm(model)
        head = fold_softmax(model.mask_head.weight.numpy())
        start = paddle.ParamAttr(initializer=nn.initializer.Assign(head))
        self.head = self.create_parameter(head.shape, attr=start)

    def forward(self, batch):
        logits = F.conv2d(self.model.features(batch), self.head, padding=1)
        return F.sigmoid(logits).squeeze(1)


def write_onnx(path, model, metadata, args):
    from models import onnx_graph

    onnx_graph.onnx.save(onnx_graph.onnx_model(model, metadata), path)


def write_fp16(path, model, metadata, args):
    from models import onnx_graph

    onnx_graph.onnx.save(onnx_graph.halve(onnx_graph.onnx_model(model, metadata)), path)


def write_int8(path, model, metadata, args):
    from models import onnx_graph

    predictor = Predictor.of(runner(model), args.size)
    train = PortraitDataset(args.data_root, "train")
    chosen = np.linspace(0, len(train) - 1, min(CALIBRATION, len(train))).astype(int)
    views = [predictor.prepare(train.photo(i)[0]) for i in chosen]
    proto = onnx_graph.onnx_model(model, metadata)
    onnx_graph.onnx.save(onnx_graph.quantize(proto, views), path)


def write_inference(path, model, metadata, args):
    shape = paddle.static.InputSpec([None, 3, None, None], "float32", "batch")
    network = MaskProbability(model)
    network.eval()
    paddle.jit.save(network, str(path.with_suffix("")), input_spec=[shape])


WRITERS = {
    "onnx": write_onnx,
    "fp16": write_fp16,
    "int8": write_int8,
    "inference": write_inference,
}


def check_difference(name, run_batch, model, views):
    """The largest difference from the checkpoint; ValueError above the format's limit."""
    exported, checkpoint = Predictor.of(run_batch), Predictor.of(runner(model))
    groups = [views[i : i + BATCH] for i in range(0, len(views), BATCH)]
    difference = max(
        float(np.abs(one - other).max())
        for group in groups
        for one, other in zip(exported.run(group), checkpoint.run(group))
    )
    if not difference <= LIMITS[name]:
        raise ValueError(
            f"The {name} export differs from the checkpoint by {difference:.1e} on "
            f"{len(views)} views, over {LIMITS[name]:g}: nothing was written."
        )
    return {"largest_difference": difference, "views": len(views)}


def check_miou(run_batch, model, args):
    """mIoU (metrics.PROTOCOLS' miou_raw) of both; ValueError where int8 loses INT8_LOSS or more."""
    val = PortraitDataset(args.data_root, "val")
    before, after = (miou(Predictor.of(run, args.size), val) for run in (runner(model), run_batch))
    if before - after >= INT8_LOSS:
        raise ValueError(
            f"int8 has an mIoU of {after:.4f} on {len(val)} validation photos where the checkpoint "
            f"has {before:.4f}: it loses {INT8_LOSS:g} or more, so nothing was written."
        )
    return {"miou_checkpoint": before, "miou_int8": after, "photos": len(val)}


def miou(predictor, dataset):
    """See `check_miou`."""
    counts = 0
    for index in range(len(dataset)):
        image, mask = dataset.photo(index)
        square = letterbox(predictor.probability(image), SIZE, border=0)[0]
        counts = counts + confusion(square > 0.5, letterbox_mask(mask, SIZE))
    return float(mean_iou(counts))


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


def export(name, model, metadata, views, args):
    """Write one format in a hidden folder, check it there, and only then move it to --output.

    Returns:
        {file: what was measured and its SHA-256}.
    """
    suffix, backend = FORMATS[name]
    with tempfile.TemporaryDirectory(dir=args.output, prefix=".export") as folder:
        path = Path(folder, args.model_path.stem + suffix)
        WRITERS[name](path, model, metadata, args)
        run_batch = load(path, backend).run_batch
        if name == "int8":
            measured = check_miou(run_batch, model, args)
        else:
            measured = check_difference(name, run_batch, model, views)
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
        views = read_views(args.photos, args.size)
        model = load_model(args.model_path)
        metadata = describe(args)
        args.output.mkdir(parents=True, exist_ok=True)
        for name in args.formats:
            files = export(name, model, metadata, views, args)
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
