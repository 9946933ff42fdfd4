"""Whether `--backend auto` takes the backend that needs the least time, for few and many photos.

    python -m benchmarks.backend_choice --counts 1 30 300 1000

Each run is a whole command in a process of its own, its start included: it reads copies of one
photo at 640x480 and writes their masks. Times are CPU seconds, which other load changes little.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2

from benchmarks.table import heading, row
from portraitnet.backends import MODELS, choose, is_installed
from portraitnet.cli import int_range, make_parser
from portraitnet.images import read_image

PHOTO = Path(__file__).parents[1] / "examples" / "portrait.jpg"
RIVALS = ("onnx", "openvino")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Compare --backend auto with every backend, for few and many photos.",
        example="python -m benchmarks.backend_choice --counts 1 300",
    )
    add = parser.add_argument
    counts = "numbers of photos"
    add("--counts", type=int_range(1), nargs="+", default=[1, 30, 300, 1000], help=counts)
    add("--models", nargs="+", choices=MODELS, default=["full"], help="bundled networks")
    add("--rounds", type=int_range(1), default=3, help="runs of each command; the least counts")
    return parser.parse_args(argv)


def cpu_seconds(command: Sequence[str]) -> float:
    """CPU seconds of a command and of the processes that it starts."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])  # user and system time of finished children


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    rivals = [name for name in RIVALS if is_installed(name)]
    photo = cv2.imencode(".jpg", cv2.resize(read_image(PHOTO), (480, 640)))[1].tobytes()
    print(heading(["network", "photos", *(f"{name}, CPU s" for name in rivals), "auto takes"]))
    with tempfile.TemporaryDirectory() as folder:
        for count in args.counts:
            photos = Path(folder, f"{count}")
            photos.mkdir()
            for i in range(count):
                (photos / f"{i}.jpg").write_bytes(photo)
            for model in args.models:
                seconds = dict.fromkeys(rivals, float("inf"))
                for turn in range(args.rounds):
                    for name in rivals:
                        output = Path(folder, f"{count}-{model}-{turn}-{name}")
                        flags = ["--mode", "mask", "--backend", name, "--model_path", model]
                        command = [sys.executable, "predict.py", str(photos), *flags]
                        took = cpu_seconds([*command, "--output", str(output)])
                        seconds[name] = min(seconds[name], took)
                taken = choose(model, photos=count).backend
                verdict = f"{taken}, {seconds[taken] / min(seconds.values()):.2f} of the best"
                print(row([model, count, *(f"{seconds[name]:.2f}" for name in rivals), verdict]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
