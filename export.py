"""Export a checkpoint so that other runtimes give the same answer, and prove it on photos.

python export.py                                            # weights/portraitnet.onnx and more
python export.py --model_path lite --formats int8 --data_root EG1800/ Picsart/ People/
python export.py --model_path lite --formats tflite_fp16 coreml --shape 256x192     # for phones
"""

import errno
import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

with warnings.catch_warnings():  # Paddle asks all who import it to install a compiler's cache
    warnings.simplefilter("ignore")
    import paddle

from backends import MODELS, choose, load, runner
from dataset import PortraitDataset
from files import check_writable, whole_file, write_json
from flags import MISTAKES, command, input_shape, make_parser, sentence, whole
from images import read_image
from metrics import score
from models.weights import load_model
from predictor import MODEL_PATH, Predictor
from tasks import find_photos
from transforms import MEAN, SCALE, SIZE
from transforms.geometry import resize, view_shape

ROOT = Path(__file__).parent
# On which every export must agree with the checkpoint: named, so that nothing else in their folder
# takes part.
PROOF = [ROOT / "examples" / name for name in ("portrait.jpg", "astronaut.png")]
INT8_LOSS = 0.003  # of mIoU on the validation list, at most
CALIBRATION = 128  # training photos
# Height and width of the photos in whose views an export is checked: at size 224 these are 224x224,
# 256x192 and 160x288.
PROPORTIONS = (1, 1), (4, 3), (9, 16)
BATCH = 16  # views the network sees at once while checking
# Largest difference of a probability by rounding, for |logit| < 9 and the sigmoid's slope of 1/4.
# float32: 10,622 products are summed on the way through the 84 convolutions, each sum rounded by
# 2**-24: 2**-24 * sqrt(10622) * 9 / 4 = 1.4e-5 in one of two answers, and 5 standard deviations of
# their difference for the largest of 300,000 pixels.
FLOAT32_LIMIT = 1e-4
# float16: the weights of 25 layers are rounded by 2**-11 / sqrt(3) = 2.8e-4 of their value:
# 2.8e-4 * sqrt(25) * 9 / 4 = 3.2e-3, less what averages out among a layer's weights.
FLOAT16_LIMIT = 4e-3
# float16 throughout: weights and results of all 84 layers are rounded so:
# 2.8e-4 * sqrt(2 * 84) * 9 / 4 = 8e-3, and 5 standard deviations of that.
FLOAT16_THROUGHOUT_LIMIT = 4e-2
LICENSE = "Apache-2.0"


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


def write_tflite(path, model, metadata, args):
    from models.tflite_graph import tflite_model

    path.write_bytes(tflite_model(model, metadata, args.shape))


def write_tflite_fp16(path, model, metadata, args):
    from models.tflite_graph import tflite_model

    path.write_bytes(tflite_model(model, metadata, args.shape, half=True))


def write_coreml(path, model, metadata, args):
    from models.coreml_graph import coreml_package

    path.write_bytes(coreml_package(model, metadata, args.shape))


def write_coreml_fp16(path, model, metadata, args):
    from models.coreml_graph import coreml_package

    path.write_bytes(coreml_package(model, metadata, args.shape, half=True))


def write_inference(path, model, metadata, args):
    from models.inference_graph import fold_batchnorm

    # Paddle tells of no full disk and leaves a damaged file.
    needed = 2 * args.model_path.stat().st_size
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, f"No space for {needed:,} bytes", str(path.parent))
    network = fold_batchnorm(model)
    network.forward = network.probability  # what Paddle records
    batch = paddle.static.InputSpec([None, 3, None, None], "float32", "batch")
    paddle.jit.save(network, str(path.with_suffix("")), input_spec=[batch])


class Format(NamedTuple):
    """How a checkpoint is exported.

    Attributes:
        files: what is added to the checkpoint's name; the backend loads the first.
        backend: name in `backends.BACKENDS` of what checks it, or COREML.
        write: function of (path of the first, PortraitNet, metadata, args).
        limit: largest difference of a probability; None where the mIoU is compared instead.
    """

    files: tuple
    backend: str
    write: Callable
    limit: float | None


INFERENCE_FILES = "_inference.pdiparams", "_inference.json"
COREML = "coreml"  # only Apple's systems run it: its operations are carried out by Paddle
FORMATS = {
    "onnx": Format((".onnx",), "onnx", write_onnx, FLOAT32_LIMIT),
    "fp16": Format(("_fp16.onnx",), "onnx", write_fp16, FLOAT16_LIMIT),
    "int8": Format(("_int8.onnx",), "onnx", write_int8, None),
    "inference": Format(INFERENCE_FILES, "inference", write_inference, FLOAT32_LIMIT),
    "tflite": Format((".tflite",), "litert", write_tflite, FLOAT32_LIMIT),
    "tflite_fp16": Format(("_fp16.tflite",), "litert", write_tflite_fp16, FLOAT16_LIMIT),
    "coreml": Format((".mlpackage.zip",), COREML, write_coreml, FLOAT32_LIMIT),
    "coreml_fp16": Format(
        ("_fp16.mlpackage.zip",), COREML, write_coreml_fp16, FLOAT16_THROUGHOUT_LIMIT
    ),
}
SHAPED = "tflite", "tflite_fp16", "coreml", "coreml_fp16"  # whose files have an input shape


def parse_args(argv=None):
    parser = make_parser(
        "Export a checkpoint for other runtimes; each export must answer as the checkpoint does.",
        example="python export.py --model_path output/best.pdparams --formats onnx fp16",
    )
    add = parser.add_argument
    weights = f"weights that train.py wrote, or {' or '.join(MODELS)} for those in weights/"
    add("--model_path", type=Path, default=MODEL_PATH, help=weights)
    add("--output", type=Path, help="folder of the exports (default: that of the weights)")
    add(
        "--size",
        type=whole(32, multiple=32),
        help=f"side of the square with a view's area, pixels (default: the name's, or {SIZE})",
    )
    add(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=["onnx", "fp16", "inference"],
        help="fp16: ONNX with weights of half the size; inference: Paddle Inference; tflite: "
        "LiteRT for Android; coreml: Core ML for iOS; coreml_fp16: float16 throughout",
    )
    add(
        "--shape",
        type=input_shape,
        help=f"height x width of the network input in the file, for {', '.join(SHAPED)} alone, "
        "pixels (default: the square of --size)",
    )
    add(
        "--photos",
        nargs="+",
        type=Path,
        default=PROOF,
        help="photos or folders on which the export must agree with the checkpoint",
    )
    add(
        "--data_root",
        nargs="+",
        help="data folders (docs/data.md), for int8 alone: it is calibrated and scored on them",
    )
    args = parser.parse_args(argv)
    if str(args.model_path) in MODELS:
        args.model_path, _, named_size = choose(args.model_path, "paddle")
        args.size = args.size or named_size
    args.size = args.size or SIZE
    if "int8" in args.formats and not args.data_root:
        parser.error("int8 is calibrated and scored on photos: give --data_root")
    if args.shape and not set(args.formats) & set(SHAPED):
        parser.error(f"--shape has an effect on {', '.join(SHAPED)} alone")
    args.shape = args.shape or (args.size, args.size)
    return args


def read_views(paths, size, shape):
    """The network inputs on which an export is checked.

    Args:
        paths: of photos and of folders of photos.
        size: input resolution; each photo is resized to all PROPORTIONS.
        shape: (height, width) to which each photo is resized too.
    """
    photos, unread = find_photos(paths)
    found = [path for path, _ in photos]
    if unread:
        raise ValueError(str(unread[0]))
    if not found:
        raise ValueError(f"No photo in {', '.join(map(str, paths))}: give some with --photos.")
    shapes = {shape, *(view_shape(*proportions, size) for proportions in PROPORTIONS)}
    return [resize(read_image(path), *shape) for path in found for shape in sorted(shapes)]


def check_difference(name, run_batch, model, views):
    """The largest difference from the checkpoint; ValueError above the format's limit."""
    exported, checkpoint = Predictor.of(run_batch), Predictor.of(runner(model))
    groups = [views[i : i + BATCH] for i in range(0, len(views), BATCH)]
    difference = max(
        float(np.abs(one - other).max())
        for group in groups
        for one, other in zip(exported.run(group), checkpoint.run(group))
    )
    if not difference <= FORMATS[name].limit:
        raise ValueError(
            f"The {name} export differs from the checkpoint by {difference:.1e} on "
            f"{len(views)} views, over {FORMATS[name].limit:g}: it was not written."
        )
    return {"largest_difference": difference, "views": len(views)}


def check_miou(run_batch, model, args):
    """mIoU (metrics.PROTOCOLS' miou_raw) of both; ValueError where int8 loses INT8_LOSS or more."""
    val = PortraitDataset(args.data_root, "val")
    predictors = (Predictor.of(run, args.size) for run in (runner(model), run_batch))
    before, after = (score(each.probabilities, val).summary()["miou_raw"] for each in predictors)
    if before - after >= INT8_LOSS:
        raise ValueError(
            f"int8 has an mIoU of {after:.4f} on {len(val)} validation photos where the checkpoint "
            f"has {before:.4f}: it loses {INT8_LOSS:g} or more, so it was not written."
        )
    return {"miou_checkpoint": before, "miou_int8": after, "photos": len(val)}


def describe(args):
    """What a user of an exported file must know, and where it comes from."""
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "name": "PortraitNet",
        "license": LICENSE,
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


def exported_paths(name, args):
    """Paths of a format's files; a shape other than the square of --size is part of their name."""
    stem = args.model_path.stem
    if name in SHAPED and args.shape != (args.size, args.size):
        stem = f"{stem}_{args.shape[0]}x{args.shape[1]}"
    return [args.output / f"{stem}{file}" for file in FORMATS[name].files]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(name, model, metadata, views, args):
    """Write one format under hidden names, check it, and only then give it its own.

    Returns:
        {file: what was measured and its SHA-256}.
    """
    chosen, files = FORMATS[name], {}
    with ExitStack() as stack:
        paths = exported_paths(name, args)
        hidden = [stack.enter_context(whole_file(path)) for path in paths]
        chosen.write(hidden[0], model, metadata, args)
        run_batch, seen = load_export(hidden[0], chosen.backend), views
        if chosen.backend == COREML:  # which has one shape alone
            seen = [view for view in views if view.shape[:2] == args.shape]
        if chosen.limit is None:
            measured = check_miou(run_batch, model, args)
        else:
            measured = check_difference(name, run_batch, model, seen)
        for path, file in zip(paths, hidden):
            facts = {"bytes": file.stat().st_size, "sha256": sha256(file)}
            files[path.name] = measured | facts
    told = ", ".join(f"{key} {value:.4g}" for key, value in measured.items())
    for file, facts in files.items():
        print(f"saved {args.output / file}: {facts['bytes'] / 1e6:.2f} MB, {told}")
    return files


def load_export(path, backend):
    """A written file as a function of batch -> probability."""
    if backend == COREML:
        from models.coreml_graph import evaluator

        return evaluator(path)
    return load(path, backend).run_batch


def write_metadata(path, metadata, files):
    """JSON beside the exports; files of earlier runs from the same weights and size stay listed."""
    try:
        old = json.loads(path.read_text())
    except (OSError, ValueError):
        old = {}
    same = all(old.get(key) == metadata[key] for key in ("size", "weights_sha256"))
    listed = (old.get("files", {}) if same else {}) | files
    write_json(path, metadata | {"files": listed})


@command("export.py")
def main(argv=None):
    args = parse_args(argv)
    args.output = args.output or args.model_path.parent
    for name in args.formats:  # before the work for them
        for path in exported_paths(name, args):
            check_writable(path, keep=[args.model_path, *args.photos])
    views = read_views(args.photos, args.size, args.shape)
    model = load_model(args.model_path)
    metadata = describe(args)
    args.output.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in args.formats:
        try:
            files = export(name, model, metadata, views, args)
            write_metadata(args.output / f"{args.model_path.stem}.json", metadata, files)
        except MISTAKES as error:
            print(f"export.py: {sentence(error, name)}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
