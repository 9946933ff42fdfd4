"""Memory and speed of a long run over time: python -m benchmarks.soak photos --count 20000

The benchmark runs the real command on drawn photos, follows its progress bar and its memory, and
draws both as SVG. Exit code 1: the last quarter used over 3 % more memory than the second quarter.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from portraitnet.cli import command, int_range, make_parser
from portraitnet.files import write_whole
from portraitnet.images import write_image

ROOT = Path(__file__).parent.parent
LIMIT = 0.03  # relative growth of the median memory from the second quarter to the last
WIDTH, HEIGHT = 640, 200  # size of a curve, pixels
KINDS = "photos", "frames", "training"


def draw_photo(rng, side):
    """Draw a photo (side * 3 / 4, side, 3) uint8 of an ellipse, and its mask 0/255."""
    height = side * 3 // 4
    mask = np.zeros((height, side), np.uint8)
    center = tuple(map(int, rng.integers((side // 3, height // 3), (side * 2 // 3, height // 2))))
    cv2.ellipse(mask, center, (side // 7, height // 3), 0, 0, 360, 255, -1)
    image = cv2.resize(rng.integers(0, 200, (12, 16, 3), np.uint8), (side, height))
    image[mask > 0] = rng.integers(0, 256, 3)
    return image, mask


def prepare(kind, count, side, size, batch, folder):
    """Write the command's inputs; returns the command's words after `python`."""
    pairs = [draw_photo(np.random.default_rng(i), side) for i in range(8)]
    out = str(folder / "out")
    if kind == "frames":
        from apps.video.writing import open_writer

        video_path = folder / "video.mp4"
        with open_writer(video_path, pairs[0][0].shape, 25) as write:
            for i in range(count):
                write(i / 25, pairs[i // 25 % 8][0])
        return ["-m", "apps.video", str(video_path), "--output", out]
    for i, (image, mask) in enumerate(pairs):
        write_image(folder / "in" / f"photo{i}.jpg", image)
        write_image(folder / "in" / f"mask{i}.png", mask)
    if kind == "photos":
        (folder / "many").mkdir()
        for i in range(count):
            (folder / "many" / f"{i:06}.jpg").hardlink_to(folder / "in" / f"photo{i % 8}.jpg")
        return ["predict.py", str(folder / "many"), "--output", out]
    lines = [f"photo{i % 8}.jpg mask{i % 8}.png\n" for i in range(batch * count)]
    (folder / "in" / "train_list.txt").write_text("".join(lines))
    (folder / "in" / "val_list.txt").write_text(lines[0])
    training = ["--epoch", "1", "--log_iter", "50"]
    training += ["--size", str(size), "--batch_size", str(batch)]
    return ["train.py", "--data_root", str(folder / "in"), "--output", out, *training]


def measure(words, count):
    """Run a command; returns rows of (seconds, finished items, memory in MB)."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    start, rows, message = time.perf_counter(), [], b""
    while piece := process.stderr.read1():
        message = (message + piece)[-1000:]
        found = re.findall(rb"(\d+)/(\d+) \[", message)
        if found and int(found[-1][1]) == count:
            status = Path(f"/proc/{process.pid}/status").read_text()
            memory = int((re.search(r"VmRSS:\s+(\d+)", status) or [0, 0])[1]) / 1000
            if memory:
                rows.append((time.perf_counter() - start, int(found[-1][0]), memory))
    if process.wait():
        raise RuntimeError(message.decode(errors="replace").strip().splitlines()[-1])
    return np.array(rows)


def curve(seconds, values, label, top):
    """SVG of one curve, with its axis from 0 to the largest value."""
    x = 60 + (WIDTH - 70) * seconds / seconds[-1]
    y = top + HEIGHT - 25 - (HEIGHT - 55) * values / values.max()
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y))
    style = 'font-family="sans-serif" font-size="13" fill="#888"'
    return f"""<text x="60" y="{top + 18}" {style}>{label}</text>
<text x="5" y="{top + 34}" {style}>{values.max():.0f}</text>
<text x="5" y="{top + HEIGHT - 22}" {style}>0</text>
<text x="{WIDTH - 60}" y="{top + HEIGHT - 6}" {style}>{seconds[-1]:.0f} s</text>
<polyline points="{points}" fill="none" stroke="#27c" stroke-width="1.5"/>"""


def draw(rows, kind):
    """SVG of memory and speed over time."""
    steps = rows[:: max(1, len(rows) // 200)]
    rates = np.diff(steps[:, 1]) / np.maximum(np.diff(steps[:, 0]), 1e-3)
    smooth = np.convolve(rates, np.ones(9) / 9, "valid") if len(rates) > 9 else rates
    times = steps[len(steps) - len(smooth) :, 0]
    curves = curve(rows[:: max(1, len(rows) // 400), 0], rows[:: max(1, len(rows) // 400), 2],
                   f"{kind}: memory, MB", 0)  # fmt: skip
    curves += "\n" + curve(times, smooth, f"{kind} per second", HEIGHT)
    size = f'width="{WIDTH}" height="{2 * HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{curves}\n</svg>\n'


def parse_args(argv=None):
    parser = make_parser(
        "Memory and speed of a long run over time.",
        "python -m benchmarks.soak photos --count 20000 --output docs/soak_photos.svg",
    )
    add = parser.add_argument
    add("kind", choices=KINDS, help="task that is repeated")
    add(
        "--count",
        type=int_range(40),
        default=20_000,
        help="number of photos, frames or training steps",
    )
    add(
        "--size",
        type=int_range(32, multiple=32),
        default=224,
        help="training's input size, pixels",
    )
    add("--batch_size", type=int_range(1), default=32, help="photos per training step")
    add(
        "--side",
        type=int_range(64, multiple=8),
        default=640,
        help="longer side of a photo or frame, pixels",
    )
    add("--output", type=Path, help="SVG file to write (default: soak_KIND.svg)")
    return parser.parse_args(argv)


@command("soak")
def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        sizes = args.count, args.side, args.size, args.batch_size
        words = prepare(args.kind, *sizes, Path(folder))
        rows = measure(words, args.count)
    write_whole(args.output or Path(f"soak_{args.kind}.svg"), draw(rows, args.kind).encode())
    quarters = np.searchsorted(rows[:, 1], args.count * np.arange(1, 4) / 4)
    second, last = np.median(rows[quarters[0] : quarters[1], 2]), np.median(rows[quarters[2] :, 2])
    rate = (rows[-1, 1] - rows[0, 1]) / (rows[-1, 0] - rows[0, 0])
    growth = last / second - 1
    print(
        f"{args.count} {args.kind}: {second:.0f} MB in the second quarter, {last:.0f} MB in the "
        f"last quarter ({growth:+.1%}), {rate:.2f} per second"
    )
    return 1 if growth > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
