"""Three trained networks joined to a PortraitNetLarge.

python -m models.join --wide wide.pdparams --output portraitnet_large.pdparams
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import paddle

from models.large import WIDTH, PortraitNetLarge
from models.portraitnet import PortraitNet
from models.weights import load_model, load_state, save_atomically
from portraitnet.backends import WEIGHTS
from portraitnet.cli import command, make_parser


def join(parts: dict[str, PortraitNet]) -> dict[str, paddle.Tensor]:
    """The weights of a PortraitNetLarge of trained networks, in float16.

    Args:
        parts: name in PortraitNetLarge.PARTS -> network.

    Raises:
        ValueError: a network has not the size that it must have.
    """
    model, state = PortraitNetLarge(), {}
    for name, part in parts.items():
        load_state(getattr(model, name), part.state_dict(), f"the {name} network")
        state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    return {name: value.astype("float16") for name, value in state.items()}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    example = "python -m models.join --wide wide.pdparams --output portraitnet_large.pdparams"
    parser = make_parser("Join three trained networks to a PortraitNetLarge.", example=example)
    add, base = parser.add_argument, WEIGHTS / "portraitnet.pdparams"
    lite = WEIGHTS / "portraitnet_lite.pdparams"
    add("--wide", type=Path, required=True, help=f"PortraitNet of width {WIDTH}, .pdparams")
    add("--base", type=Path, default=base, help="PortraitNet, .pdparams")
    add("--lite", type=Path, default=lite, help="PortraitNetLite, .pdparams")
    add("--output", type=Path, required=True, help="a new .pdparams file")
    return parser.parse_args(argv)


@command("models.join")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    parts = {name: load_model(getattr(args, name)) for name in PortraitNetLarge.PARTS}
    save_atomically(join(parts), args.output)
    print(f"saved {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
