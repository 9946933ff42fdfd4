"""Speed of apps.video from file to file, and the time of each stage.

    python -m benchmarks.video_speed

pans over examples/astronaut.png at two sizes. Stages run one after the other and are given in CPU
milliseconds per frame, summed over all threads. The last columns are complete runs of apps.video,
whose stages overlap, in frames per second of wall time.
"""

import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from apps.video import __main__ as video
from apps.video.drawing import Background, Frame, draw
from apps.video.reading import read_video
from apps.video.smoothing import Smoother
from apps.video.writing import open_writer
from benchmarks.table import heading, row
from portraitnet.cli import make_parser
from portraitnet.effects import EFFECTS
from portraitnet.images import read_image
from training.checkpoints import open_predictor

PHOTO = Path(__file__).parent.parent / "examples" / "astronaut.png"
SIZES = ((640, 480), (1280, 720))
RATE = 30


def parse_args(argv=None):
    parser = make_parser(
        "Speed of apps.video in frames/s, and the time of each stage.",
        example="python -m benchmarks.video_speed",
    )
    add = parser.add_argument
    add("--frames", type=int, default=150, help="length of the video, frames")
    add(
        "--modes",
        nargs="+",
        choices=EFFECTS,
        default=["overlay", "replace", "blur"],
        help="effects to measure",
    )
    add("--model_path", type=Path, help="model file (default: the bundled weights)")
    return parser.parse_args(argv)


def draw_video(path, size, frames):
    """Write a slow pan over the photo, with camera noise."""
    photo = read_image(PHOTO)
    rng = np.random.default_rng(0)
    scale = 1.2 * max(size[0] / photo.shape[1], size[1] / photo.shape[0])
    noise = rng.normal(0, 1, (8, size[1], size[0], 3))
    with open_writer(path, (size[1], size[0], 3), RATE) as write:
        for index in range(frames):
            swing = 0.05 * size[0] * np.sin(index / 15)
            matrix = np.float32([[scale, 0, swing - 0.1 * size[0]], [0, scale, 0]])
            image = cv2.warpAffine(photo, matrix, size, borderMode=cv2.BORDER_REFLECT)
            write(index / RATE, np.clip(image + noise[index % 8], 0, 255).astype(np.uint8))


def stages(path, predictor, folder, modes):
    """Mean CPU milliseconds per frame of each stage: name -> mean."""
    costs = {}
    background = Background(str(PHOTO)).at(0, next(read_video(path))[1].shape)
    smoother = Smoother()

    def timed(name, function, *arguments):
        start = time.process_time()
        result = function(*arguments)
        costs.setdefault(name, []).append(1000 * (time.process_time() - start))
        return result

    images = timed("read", lambda: [image for _, image in read_video(path)])
    costs["read"] = [costs["read"][0] / len(images)] * len(images)
    with open_writer(folder / "stage.mp4", images[0].shape, RATE) as write:
        for index, image in enumerate(images):
            network_input = timed("network input", predictor.prepare, image)
            probability = timed("network", predictor.run, [network_input])[0]
            probability = timed("smoothing", smoother, network_input, probability)
            probability = timed("refinement", predictor.restore, probability, image)
            for mode in modes:
                frame = Frame(index / RATE, image, mode, background)
                picture = timed(mode, draw, frame, probability, 0.02)
            timed("write", write, index / RATE, picture)
    return {name: np.mean(times[10:]) for name, times in costs.items()}  # without the warm-up


def main(argv=None):
    args = parse_args(argv)
    predictor = open_predictor(args.model_path)
    print(
        f"{predictor.model_path}, {predictor.backend}, {os.cpu_count()} cores, {args.frames} frames"
    )
    with tempfile.TemporaryDirectory() as folder:
        for number, size in enumerate(SIZES):
            path = Path(folder) / f"{size[0]}x{size[1]}.mp4"
            draw_video(path, size, args.frames)
            cells = {
                name: f"{ms:.1f}"
                for name, ms in stages(path, predictor, path.parent, args.modes).items()
            }
            for mode in args.modes:
                background, start = Background(str(PHOTO)), time.perf_counter()
                result = path.with_name("out.mp4")
                frames = video.convert(path, result, predictor, mode, background).frames
                cells[f"{mode}, frames/s"] = f"{frames / (time.perf_counter() - start):.1f}"
            if number == 0:
                print(heading(["size", *cells]))
            print(row([path.stem, *cells.values()]), flush=True)


if __name__ == "__main__":
    main()
