"""A trained PortraitNet made wider, as the start of another training.

    python -m models.widen --model_path weights/portraitnet.pdparams --output wide.pdparams

Each new channel copies an old one and takes a part of its outgoing weights. So the wide network
gives the narrow one's answers, and training goes on where it stopped. Noise on the copies lets them
learn something of their own.

Source: Chen, Goodfellow and Shlens, "Net2Net", ICLR 2016.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle
from numpy.typing import NDArray

from models.lite import PortraitNetLite
from models.mobilenetv2 import SKIP_STAGES
from models.portraitnet import PortraitNet
from models.weights import MAX_WIDTH, load_model, save_atomically
from portraitnet.cli import command, float_range, int_range, make_parser

MIN_FRACTION, MAX_FRACTION = (
    0.3,
    0.7,
)  # of an outgoing weight that one of two copies gets, before scaling
STEPS = (16, 8, 4, 2, 1)  # of the decoder, by the grid that each block works on


class Copies(NamedTuple):
    """How the channels of one feature map were copied.

    Attributes:
        source: (C,) int, the old channel of each new one; the old ones come first.
        fraction: (C,) float32, its part of the outgoing weights; the copies of a channel sum to 1.
        is_new: (C,) bool.
    """

    source: NDArray[np.int64]
    fraction: NDArray[np.float32]
    is_new: NDArray[np.bool_]


def draw_copies(old: int, new: int, rng: np.random.Generator) -> Copies:
    """Copies of `old` channels so that there are `new`, spread evenly over the old ones."""
    extra = [rng.permutation(old) for _ in range(-(-new // old) - 1)]
    source = np.concatenate([np.arange(old), *extra])[:new]
    fraction = rng.uniform(MIN_FRACTION, MAX_FRACTION, new)
    fraction /= np.bincount(source, fraction, old)[source]
    return Copies(source, fraction.astype(np.float32), np.arange(new) >= old)


def widen(model: PortraitNet, width: float, noise: float = 0.2, seed: int = 0) -> PortraitNet:
    """A wider network with the same answers.

    Args:
        model: PortraitNet, not the lite one.
        width: of the result, larger than that of `model`.
        noise: standard deviation of the noise on the copies' weights, as a fraction of that of the
            layer's weights; without noise the answers are equal but for rounding.
        seed: of copies and noise.

    Raises:
        ValueError: `model` is PortraitNetLite, is narrower than 1, or is wider than the result.
    """
    if isinstance(model, PortraitNetLite) or any(
        getattr(model, f"decode{grid}").shortcut is None for grid in STEPS
    ):
        raise ValueError("This network cannot be widened: give a PortraitNet of width 1 or more.")
    rng = np.random.default_rng(seed)
    wide = PortraitNet(width=width)
    old = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    shapes = {name: tensor.shape for name, tensor in wide.state_dict().items()}
    new = {}

    def copies_of(name, axis=0):
        if shapes[name][axis] < old[name].shape[axis]:
            raise ValueError(f"The network is wider than {width:g} at {name}: give a larger width.")
        return draw_copies(old[name].shape[axis], shapes[name][axis], rng)

    def with_noise(weight, copies, axis=0):
        shape = [1] * weight.ndim
        shape[axis] = -1
        sigma = noise * weight.std() * copies.is_new.reshape(shape)
        return weight + sigma.astype(np.float32) * rng.standard_normal(weight.shape, np.float32)

    def conv(name, inputs, outputs):
        weight = old[f"{name}.conv.weight"][outputs.source]
        if weight.shape[1] > 1:  # not depthwise
            weight = weight[:, inputs.source] * inputs.fraction[:, None, None]
        new[f"{name}.conv.weight"] = with_noise(weight, outputs)
        for part in ("weight", "bias", "_mean", "_variance"):
            new[f"{name}.bn.{part}"] = old[f"{name}.bn.{part}"][outputs.source]

    image = Copies(np.arange(3), np.ones(3, np.float32), np.zeros(3, bool))
    x = copies_of("encoder.stem.conv.weight")
    conv("encoder.stem", image, x)
    stages = []  # all blocks of a stage are added up, so they have the same copies
    for i, stage in enumerate(model.encoder.stages):
        outputs = copies_of(f"encoder.stages.{i}.0.project.conv.weight")
        for j in range(len(stage)):
            block = f"encoder.stages.{i}.{j}"
            hidden = copies_of(f"{block}.expand.conv.weight")
            conv(f"{block}.expand", x, hidden)
            conv(f"{block}.depthwise", hidden, hidden)
            conv(f"{block}.project", hidden, outputs)
            x = outputs
        stages.append(outputs)

    skips = [stages[i] for i in reversed(SKIP_STAGES[:-1])]  # 1/16, 1/8, 1/4
    for i, grid in enumerate(STEPS):
        block, up = f"decode{grid}", f"up{grid}.weight"
        middle, outputs = (copies_of(f"{block}.block.{n}.conv.weight") for n in (1, 3))
        conv(f"{block}.block.0", x, x)
        conv(f"{block}.block.1", x, middle)
        conv(f"{block}.block.2", middle, middle)
        conv(f"{block}.block.3", middle, outputs)
        conv(f"{block}.shortcut", x, outputs)
        x = skips[i] if i < len(skips) else copies_of(up, axis=1)
        weight = old[up][outputs.source][:, x.source] * outputs.fraction[:, None, None, None]
        new[up] = with_noise(weight, x, axis=1)
    for head in ("mask_head.weight", "edge_head.weight"):
        new[head] = old[head][:, x.source] * x.fraction[:, None, None]

    wide.set_state_dict({name: paddle.to_tensor(value) for name, value in new.items()})
    wide.eval()
    return wide


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Write a wider network with a trained network's answers, to train it further.",
        example="python -m models.widen --model_path narrow.pdparams --output wide.pdparams",
    )
    add = parser.add_argument
    add("--model_path", type=Path, required=True, help=".pdparams file of a PortraitNet")
    width = float_range(above=0, high=MAX_WIDTH)
    add("--width", type=width, default=1.75, help="factor on the network's channels")
    noise = "noise on the copied weights, as a fraction of the layer's standard deviation"
    add("--noise", type=float_range(), default=0.2, help=noise)
    add("--seed", type=int_range(), default=0, help="seed of copies and noise")
    add("--output", type=Path, required=True, help=".pdparams file to write")
    return parser.parse_args(argv)


@command("models.widen")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    model = load_model(args.model_path)
    wide = widen(model, args.width, args.noise, args.seed)
    save_atomically(wide.state_dict(), args.output)
    print(f"saved {args.output}: width {args.width:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
