"""Masks of difficult videos: in the dark, of two people, of a person who leaves and returns.

    python -m benchmarks.hard_videos woman.mp4 man.mp4 --output videos/

makes these videos from two ordinary clips of one person each and prints, per video:

- minimum and mean person IoU between the masks and those of the unchanged clip, over the frames in
  which the person covers at least 2 % of the picture;
- missed: frames without a mask although the person covers at least 1 %;
- invented: frames with a mask although nobody is there.

The person who leaves is shown in front of another background (--room).
"""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from apps.video.drawing import Frame, process_frames
from apps.video.reading import read_video
from apps.video.writing import open_writer
from benchmarks.table import heading, row
from portraitnet import effects
from portraitnet.cli import int_range, make_parser
from portraitnet.images import mask_of, read_image
from training.checkpoints import open_predictor

HEIGHT, WIDTH, RATE = 360, 640, 30
COLUMNS = ["video", "minimum IoU", "mean IoU", "missed, frames", "invented, frames"]


def darken(image, light, rng):
    """The image with `light` times as much light and a sensor's noise (shot and read noise)."""
    linear = (image / 255.0) ** 2.2 * light
    linear += rng.normal(0, 1, image.shape) * np.sqrt(4e-4 * linear + 2e-5)
    return np.rint(255 * np.clip(linear, 0, 1) ** (1 / 2.2)).astype(np.uint8)


def shift_at(step, steps):
    """Pixels by which the person is moved: the person stays, leaves, is away, returns."""
    return int(np.interp(step / steps, (0.15, 0.4, 0.65, 0.9), (0, 700, 700, 0)))


def push(plane, pixels):
    """Move a plane to the right, with zeros on the left."""
    return cv2.warpAffine(plane, np.float32([[1, 0, pixels], [0, 1, 0]]), (WIDTH, HEIGHT))


def masks_of(images, predictor):
    frames = [Frame(index / RATE, image, "mask", None) for index, image in enumerate(images)]
    found = process_frames(frames, predictor, lambda _, probability: mask_of(probability))
    return np.stack([mask for _, mask in found])


def measure(name, masks, truth):
    """A row of the table.

    Args:
        name: name of the video.
        masks, truth: (T, H, W) uint8 0/1, of the network and expected.
    """
    fractions = truth.mean(axis=(1, 2))
    both, either = ((masks & truth).sum((1, 2)), (masks | truth).sum((1, 2)))
    iou = (both / np.maximum(either, 1))[fractions >= 0.02]
    empty = ~masks.any(axis=(1, 2))
    missed, invented = (empty & (fractions >= 0.01)).sum(), (~empty & (fractions == 0)).sum()
    counts = [f"{missed} of {(fractions >= 0.01).sum()}", f"{invented} of {(fractions == 0).sum()}"]
    return [name, f"{iou.min():.3f}", f"{iou.mean():.3f}", *counts]


def parse_args(argv=None):
    parser = make_parser(
        "Masks of videos in the dark, of two people, of a person who leaves and returns.",
        example="python -m benchmarks.hard_videos woman.mp4 man.mp4 --output videos/",
    )
    parser.add_argument("clips", nargs=2, type=Path, help="two videos of one person each")
    parser.add_argument("--room", type=Path, help="photo of a room without people (default: grey)")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the videos that are made"
    )
    parser.add_argument("--frames", type=int_range(1), default=90, help="frames of each video")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    predictor, rng = open_predictor("full"), np.random.default_rng(0)
    first, second = (
        [effects.fill(image, HEIGHT, WIDTH) for _, image in islice(read_video(path), args.frames)]
        for path in args.clips
    )
    steps = min(len(first), len(second))
    room = read_image(args.room) if args.room else np.full((9, 16, 3), 128, np.uint8)
    room = effects.fill(room, HEIGHT, WIDTH)
    probabilities = predictor.probabilities(first[:steps])
    pushed = [push(effects.matte(p), shift_at(i, steps)) for i, p in enumerate(probabilities)]
    clean = np.stack([mask_of(p) for p in probabilities])
    half = slice(WIDTH // 4, 3 * WIDTH // 4)
    videos = {
        "dark (6 %)": [darken(image, 0.06, rng) for image in first],
        "darker (2 %)": [darken(image, 0.02, rng) for image in first],
        "two": [np.hstack([a[:, half], b[:, half]]) for a, b in zip(first, second)],
        "leaves": [
            np.rint(push(image, shift_at(i, steps)) * a[:, :, None] + room * (1 - a[:, :, None]))
            for i, (image, a) in enumerate(zip(first, pushed))
        ],
    }
    others = np.stack([mask_of(p) for p in predictor.probabilities(second[:steps])])
    truths = {"dark (6 %)": clean, "darker (2 %)": clean}
    truths["two"] = np.concatenate([clean[:, :, half], others[:, :, half]], axis=2)
    truths["leaves"] = np.stack([(alpha > 0.5).astype(np.uint8) for alpha in pushed])
    print(heading(COLUMNS))
    for name, images in videos.items():
        images = [np.uint8(image) for image in images[:steps]]
        path = args.output / f"{name.split()[0]}.mp4"
        with open_writer(path, images[0].shape, RATE) as write:
            for index, image in enumerate(images):
                write(index / RATE, image)
        print(row(measure(name, masks_of(images, predictor), truths[name])), flush=True)


if __name__ == "__main__":
    main()
