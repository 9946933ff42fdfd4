"""Find the person in videos, or live before a camera.

`python -m apps.video clip.mp4 --mode blur` writes clip_blur.mp4 beside it, with its sound;
`python -m apps.video --camera 0` opens a window whose keys switch the effect.
"""

import argparse
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

import effects
from backends import AUTO, BACKENDS
from predict import ahead, background
from predictor import Predictor
from smoothing import Smoother, drop_doubtful
from videos import SUFFIXES, open_writer, probe, read_video, way_of_writing

COLOR_SIDE = 256  # of effects.person_colors: a fifth of the time of a photo's, alike to the eye
MODES = {  # name -> function of image, probability, background and sigma of the blur
    "overlay": lambda image, probability, _, sigma: effects.overlay(image, probability),
    "mask": lambda image, probability, _, sigma: cv2.merge(
        [255 * effects.mask_of(probability)] * 3
    ),
    "cutout": lambda image, probability, _, sigma: effects.cut_out(image, probability, COLOR_SIDE),
    "replace": lambda image, probability, background, _: effects.replace(
        image, probability, background, COLOR_SIDE
    ),
    "blur": lambda image, probability, _, sigma: effects.blur(
        image, probability, sigma, COLOR_SIDE
    ),
    "grey": lambda image, probability, _, sigma: effects.grey(image, probability),
}
LIVE_MODES = ["blur", "replace", "grey", "overlay", "mask", "none"]  # keys 1 to 6
HELP = "1-6 or m: effect   b: background   f: mirror   h: help   q: quit"
FAILURES = (OSError, ValueError, cv2.error)  # of one video: the others go on
END = object()


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("videos", nargs="*", type=Path, help="video files")
    add("--camera", type=int, help="number of a camera to show live instead: 0 is the first")
    add("--model_path", type=Path, help="model file (default: the one in weights/)")
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="what runs the network")
    add("--output", type=Path, help="folder of the results (default: beside each video)")
    add("--mode", choices=MODES, help="default: overlay; blur for --camera")
    add(
        "--background",
        type=Backdrop,
        nargs="+",
        default="green",
        help="for --mode replace: a photo, a video (looped), a color #rrggbb or its name;"
        " several for --camera, where key b goes on to the next",
    )
    add("--blur", type=float, default=2.0, help="for --mode blur: sigma, %% of the longer side")
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the mask follow the frame's edges",
    )
    add(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the masks of successive frames follow each other without flicker",
    )
    args = parser.parse_args(argv)
    if isinstance(args.background, Backdrop):  # the default
        args.background = [args.background]
    args.mode = args.mode or ("overlay" if args.camera is None else "blur")
    if (args.camera is None) == (not args.videos):
        parser.error("give video files, or --camera with the number of a camera, not both")
    if args.camera is not None and args.mode not in LIVE_MODES:
        parser.error(f"--mode {args.mode} is not for --camera: give {', '.join(LIVE_MODES[:-1])}")
    if args.camera is None and len(args.background) > 1:
        parser.error(f"a video takes one --background, not {len(args.background)}")
    if args.blur < 0:
        parser.error(f"--blur must be 0 or more, not {args.blur}")
    return args


class Backdrop:
    """What stands behind the person: a color, a photo, or a video over and over again.

    Args:
        text: as predict.py's --background, or the path of a video.
    """

    def __init__(self, text):
        self.text = text
        self.filled = self.frames = None
        if Path(text).suffix.lower() not in SUFFIXES:
            self.picture = background(text)
            return
        try:
            self.step = 1 / probe(text)[0]
            self.frames = read_video(text)
            _, self.picture = next(self.frames)
        except (OSError, ValueError, StopIteration) as error:
            raise argparse.ArgumentTypeError(str(error) or f"{text} is empty") from None
        self.start = self.seconds = 0

    def at(self, seconds, shape):
        """The BGR color, or the (H, W, 3) image of shape `shape`, at a time not before the last."""
        while self.frames and self.seconds + self.step / 2 < seconds:
            frame = next(self.frames, None)
            if frame is None:
                self.start = self.seconds + self.step
                self.frames = read_video(self.text)
                frame = next(self.frames)
            self.seconds, self.picture = self.start + frame[0], frame[1]
            self.filled = None
        if self.picture.ndim == 1:
            return self.picture
        if self.filled is None or self.filled.shape != shape:
            self.filled = effects.fill(self.picture, *shape[:2])
        return self.filled


def in_thread(items, depth):
    """The items, made in a thread of their own and up to `depth` ahead of who takes them."""
    items = iter(items)
    with ThreadPoolExecutor(1) as pool:
        for _, future in ahead(pool, lambda _: next(items, END), count(), depth):
            item = future.result()
            if item is END:
                return
            yield item


def results(frames, predictor, draw, smooth=True, depth=4):
    """Frames in, pictures out: reading, network and drawing overlap, in order.

    Args:
        frames: iterable of (seconds, image, background), run in a thread of its own.
        draw: function of (image, probability, background) -> picture, called in two threads.
        smooth: smooth the masks over time.
        depth: how many frames each of the three stages may be ahead of the next.

    Yields:
        (seconds, picture, share of person).
    """
    smoother = Smoother() if smooth else None

    def prepare():
        for seconds, image, behind in frames:
            yield seconds, image, behind, predictor.prepare(image)

    def run(prepared):
        for seconds, image, behind, view in prepared:
            probability = predictor.run([view])[0]
            if smoother:
                probability = smoother(view, probability)
            yield seconds, image, behind, drop_doubtful(probability)

    def finish(item):
        seconds, image, behind, probability = item
        probability = predictor.restore(probability, image)
        share = effects.mask_of(probability).mean()
        return seconds, draw(image, probability, behind), share

    with ThreadPoolExecutor(2) as pool:
        seen = in_thread(run(in_thread(prepare(), depth)), depth)
        for _, future in ahead(pool, finish, seen, depth):
            yield future.result()


def convert(video, result, predictor, args):
    """Write the result of one video, with a progress bar.

    Returns:
        number of frames and mean share of person in them.
    """
    rate, total = probe(video)
    backdrop = Backdrop(args.background[0].text)

    def frames():
        for seconds, image in read_video(video):
            yield seconds, image, backdrop.at(seconds, image.shape)

    def draw(image, probability, behind):
        return MODES[args.mode](image, probability, behind, args.blur / 100)

    shares = []
    with (
        closing(results(frames(), predictor, draw, args.smooth)) as pictures,
        tqdm(total=total, unit="frame", desc=video.name) as bar,
    ):
        first = next(pictures, None)
        if first is None:
            raise ValueError(f"{video} holds no frame that can be decoded: give a whole video.")
        with open_writer(result, first[1].shape, rate, video) as write:
            for seconds, picture, share in chain([first], pictures):
                write(seconds, picture)
                shares.append(share)
                bar.update()
    return len(shares), float(np.mean(shares))


class Look(NamedTuple):
    """What the live window shows."""

    mode: str
    mirror: bool = True
    background: int = 0  # place in the list of --background
    help: bool = True


def press(look, key, backgrounds):
    """What a key does in the live window.

    Args:
        look: Look before it.
        key: code from cv2.waitKey; -1 for none.
        backgrounds: number of backgrounds.

    Returns:
        Look after it, None to end.
    """
    letter = chr(key & 0xFF) if key >= 0 else None
    if letter in ("q", "\x1b"):
        return None
    if letter == "m":
        following = (LIVE_MODES.index(look.mode) + 1) % len(LIVE_MODES)
        return look._replace(mode=LIVE_MODES[following])
    if letter == "b":  # the first press shows the background, the others go on to the next
        step = look.mode == "replace"
        return look._replace(mode="replace", background=(look.background + step) % backgrounds)
    if letter == "f":
        return look._replace(mirror=not look.mirror)
    if letter == "h":
        return look._replace(help=not look.help)
    if letter and letter in "123456":
        return look._replace(mode=LIVE_MODES[int(letter) - 1])
    return look


def live(predictor, args):
    """Show a camera with the effect that the keys choose, until q, Esc or the window's end.

    Raises:
        OSError: the camera cannot be opened or read.
        cv2.error: this OpenCV can open no window.
    """
    look = Look(args.mode)
    title = "PortraitNet"
    capture = cv2.VideoCapture(args.camera)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # no frames that have waited

    def frames():
        start = time.perf_counter()
        while True:
            read, image = capture.read()
            if not read:
                raise OSError(
                    f"Camera {args.camera} gives no picture: give the number of another one, or"
                    " close the program that uses it."
                )
            seconds = time.perf_counter() - start
            image = cv2.flip(image, 1) if look.mirror else image
            yield seconds, image, args.background[look.background].at(seconds, image.shape)

    def draw(image, probability, behind):
        if look.mode == "none":
            return image
        return MODES[look.mode](image, probability, behind, args.blur / 100)

    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        times = deque(maxlen=30)
        with closing(results(frames(), predictor, draw, args.smooth, depth=2)) as pictures:
            for _, picture, _ in pictures:
                times.append(time.perf_counter())
                if look.help:
                    rate = (len(times) - 1) / max(1e-3, times[-1] - times[0])
                    picture = caption(picture, [f"{look.mode}, {rate:.0f} frames/s", HELP])
                cv2.imshow(title, picture)
                look = press(look, cv2.waitKey(1), len(args.background))
                if look is None or cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) < 1:
                    return
    finally:
        capture.release()
        cv2.destroyAllWindows()


def caption(picture, lines):
    """A copy of a picture with lines of text at its top, white on black."""
    picture = picture.copy()
    for row, line in enumerate(lines, 1):
        for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            place = (10, 22 * row)
            cv2.putText(picture, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, width)
    return picture


def plan(args):
    """Pair each video with its result.

    Returns:
        list of (video, result) and list of (video, reason it cannot be done).
    """
    inputs = {video.resolve() for video in args.videos}
    tasks, refused, taken = [], [], set()
    suffix = ".webm" if args.mode == "cutout" else ".mp4"
    for video in args.videos:
        result = (args.output or video.parent) / f"{video.stem}_{args.mode}{suffix}"
        if result.resolve() in inputs | taken:
            whose = "an input" if result.resolve() in inputs else "that of another video"
            refused.append((video, f"its result {result} is {whose}: give another --output"))
        else:
            taken.add(result.resolve())
            tasks.append((video, result))
    return tasks, refused


def main(argv=None):
    args = parse_args(argv)
    try:
        predictor = Predictor(args.model_path, args.backend, args.refine)
        if args.camera is not None:
            live(predictor, args)
            return 0
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    except cv2.error as error:
        print(
            f"No window can be opened ({error.err}): run on a machine with a screen, with"
            " opencv-python rather than opencv-python-headless.",
            file=sys.stderr,
        )
        return 1

    if way_of_writing() == "OpenCV":
        print("Sound is lost, for PyAV is not installed: run `pip install av` to keep it.")
    tasks, failures = plan(args)
    for video, result in tasks:
        start = time.perf_counter()
        try:
            frames, share = convert(video, result, predictor, args)
        except FAILURES as error:
            failures.append((video, str(error).removeprefix(f"{video}: ").rstrip(".")))
        else:
            rate = frames / (time.perf_counter() - start)
            print(f"{result}: {frames} frames, {share:.1%} person, {rate:.1f} frames/s")
    for video, reason in failures:
        print(reason if str(video) in reason else f"{video}: {reason}", end=".\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
