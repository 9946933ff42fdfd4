"""Two trained networks joined to a PortraitNetLarge.

    python -m models.join --wide wide.pdparams --lite weights/portraitnet_lite.pdparams \\
        --output large.pdparams
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import paddle

from models.large import WIDTH, PortraitNetLarge
from models.lite import PortraitNetLite
from models.portraitnet import PortraitNet
from models.weights import load_model, load_state, save_atomically
from portraitnet.cli import command, make_parser


def join(wide: PortraitNet, lite: PortraitNetLite) -> dict[str, paddle.Tensor]:
    """The weights of a PortraitNetLarge of two trained networks, in float16.

    Raises:
        ValueError: a network has not the size that it must have.
    """
    state = {f"wide.{name}": value for name, value in wide.state_dict().items()}
    state |= {f"lite.{name}": value for name, value in lite.state_dict().items()}
    load_state(PortraitNetLarge(), state, f"a PortraitNet of width {WIDTH} with a PortraitNetLite")
    return {name: value.astype("float16") for name, value in state.items()}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    example = "python -m models.join --wide wide.pdparams --lite lite.pdparams --output l.pdparams"
    parser = make_parser("Join two trained networks.", example=example)
    for name in ("wide", "lite", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="a .pdparams file")
    return parser.parse_args(argv)


@command("models.join")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    save_atomically(join(load_model(args.wide), load_model(args.lite)), args.output)
    print(f"saved {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
