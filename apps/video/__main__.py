"""Find the person in videos, or live in front of a camera.

`python -m apps.video clip.mp4 --mode blur` writes clip_blur.mp4 beside the video, with its sound.
`python -m apps.video --camera 0` opens a window whose keys change the effect;
with `--virtual_camera` the pictures go to video calls instead.
"""

import argparse
import sys
import time
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from apps.video.drawing import Background, Frame, draw_frames
from apps.video.live import EFFECT_KEYS, live
from apps.video.reading import probe, read_video
from apps.video.writing import CODECS, TRANSPARENT, choose_writer, open_writer
from portraitnet.backends import AUTO, BACKENDS, MODEL_HELP
from portraitnet.cli import STOPPED, command, float_range, int_range, make_parser, sentence
from portraitnet.effects import EFFECTS
from portraitnet.jobs import Failure, Task, is_file_name, without_clashes
from portraitnet.parallel import FAILURES, keep_memory
from portraitnet.predictor import Predictor
from training.checkpoints import open_predictor

BACKGROUND, BLUR = "green", 2.0  # defaults of --mode replace and --mode blur


def parse_args(argv=None):
    parser = make_parser(
        "Find the person in videos, or live in front of a camera, in a window whose keys change the"
        " effect. Without flags, clip_overlay.mp4 is written beside clip.mp4, with its sound.",
        example="python -m apps.video clip.mp4 --mode blur",
    )
    parser.add_argument("videos", nargs="*", type=Path, help="video files")
    add = parser.add_argument_group("results").add_argument
    add("--camera", type=int_range(), help="number of the camera to show live: 0 is the first one")
    add(
        "--virtual_camera",
        action="store_true",
        help="send --camera to a virtual camera for video calls, not to a window (needs"
        " pyvirtualcam)",
    )
    add(
        "-o",
        "--output",
        type=Path,
        help="folder of the results, or file of the only result, .mp4 or .webm (default: beside"
        " each video)",
    )
    add("--mode", choices=EFFECTS, help="effect (default: overlay; with --camera: blur)")
    add(
        "--background",
        type=Background,
        nargs="+",
        help="background of --mode replace: a photo, a video (played in a loop), a colour #rrggbb"
        f" or its name; with --camera several, which key b goes through (default: {BACKGROUND})",
    )
    add(
        "--blur",
        type=float_range(),
        help=f"strength of --mode blur: sigma in %% of the longer side (default: {BLUR:g})",
    )
    add = parser.add_argument_group("network").add_argument
    add("--model_path", help=f"{MODEL_HELP} (default: full; with --camera: lite)")
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="auto: the fastest installed")
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="align the mask with the edges in the frame",
    )
    add(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="smooth the masks over time, against flicker",
    )
    args = parser.parse_args(argv)
    args.model_path = args.model_path or ("full" if args.camera is None else "lite")
    args.mode = args.mode or ("overlay" if args.camera is None else "blur")
    if message := contradiction(args):
        parser.error(message)
    args.background = args.background or [Background(BACKGROUND)]
    args.blur = BLUR if args.blur is None else args.blur
    return args


def contradiction(args) -> str | None:
    """A sentence if flags contradict each other, else None."""
    if (args.camera is None) == (not args.videos):
        return "give either video files, or --camera with the number of a camera"
    if args.camera is not None and args.mode not in EFFECT_KEYS:
        modes = ", ".join(EFFECT_KEYS[:-1])
        return f"--mode {args.mode} does not work with --camera: give {modes}"
    if args.virtual_camera and args.camera is None:
        return "--virtual_camera needs --camera: give the camera's number, 0 is the first one"
    for flag, mode in (("background", "replace"), ("blur", "blur")):  # keys of --camera need both
        if args.camera is None and getattr(args, flag) is not None and args.mode != mode:
            return f"argument --{flag}: has an effect with --mode {mode} alone"
    if args.camera is None and len(args.background or []) > 1:
        return f"a video takes one --background, not {len(args.background)}"
    if args.camera is not None and args.output is not None:
        return "--output has no effect with --camera: leave it out"
    if args.output is None or not is_file_name(args.output):
        return None
    suffix = args.output.suffix.lower()
    if len(args.videos) > 1:
        return f"--output {args.output} is one file: give a folder, or a single video"
    if suffix not in CODECS:
        endings = " or ".join(CODECS)
        return f"{args.output} cannot be written: give --output a name ending in {endings}"
    if args.mode == "cutout" and suffix != TRANSPARENT:
        return f"{suffix} cannot hold a transparent background: give a name ending in {TRANSPARENT}"
    return None


class Conversion(NamedTuple):
    """The outcome of one video.

    Attributes:
        frames: number of frames.
        person_fraction: mean fraction of a frame that is person, 0..1.
        faults: a sentence for each fault of the video.
        notices: a sentence for each conversion of the video and for each part that is left out.
        interrupted: whether Ctrl-C ended the video; the result has the frames until then.
    """

    frames: int
    person_fraction: float
    faults: list[str]
    notices: list[str]
    interrupted: bool = False


def convert(
    path: Path,
    result: Path,
    predictor: Predictor,
    mode: str,
    background: Background,
    blur: float = 0.02,
    smooth: bool = True,
) -> Conversion:
    """Apply an effect to a video, with a progress bar; Ctrl-C keeps the frames until then.

    Args:
        path: video file.
        result: file to write, .mp4 or .webm.
        predictor: network.
        mode: name in EFFECTS.
        background: background of the mode "replace".
        blur: sigma of the mode "blur", as a fraction of the longer side.
        smooth: whether the masks are smoothed over time.

    Raises:
        OSError, ValueError: the video cannot be read, or the result cannot be written.
    """
    rate, total = probe(path)
    faults, notices, fractions, interrupted = [], [], [], False

    def frames():
        for seconds, image in read_video(path, faults, notices):
            yield Frame(seconds, image, mode, background.at(seconds, image.shape))

    with (
        closing(draw_frames(frames(), predictor, blur, smooth)) as drawn,
        tqdm(total=total, unit="frame", desc=path.name) as bar,
    ):
        first = next(drawn)
        try:
            with open_writer(result, first.picture.shape, rate, path, notices) as write:
                for seconds, picture, fraction in chain([first], drawn):
                    write(seconds, picture)
                    fractions.append(fraction)
                    bar.update()
        except KeyboardInterrupt:
            if not fractions:
                raise
            interrupted = True
    fraction = float(np.mean(fractions))
    return Conversion(len(fractions), fraction, faults, notices, interrupted)


def plan(
    videos: list[Path], output: Path | None, mode: str, background: str
) -> tuple[list[Task], list[Failure]]:
    """Pair each video with its result.

    Args:
        videos: video files.
        output: folder of the results, or file of the only one; None for beside each video.
        mode: name in EFFECTS.
        background: text of --background, which may name a file.

    Returns:
        the tasks, and a failure for each video whose result would overwrite a file.
    """
    suffix = TRANSPARENT if mode == "cutout" else ".mp4"
    if output is not None and is_file_name(output):
        tasks = [Task(path, [output]) for path in videos]
    else:
        names = {path: f"{path.stem}_{mode}{suffix}" for path in videos}
        tasks = [Task(path, [(output or path.parent) / names[path]]) for path in videos]
    return without_clashes(tasks, [*videos, Path(background)])


@command("apps.video")
def main(argv=None):
    args = parse_args(argv)
    keep_memory()
    predictor = open_predictor(args.model_path, args.backend, args.refine)
    look = args.blur / 100, args.smooth
    if args.camera is not None:
        live(predictor, args.camera, args.mode, args.background, *look, args.virtual_camera)
        return 0

    if choose_writer() == "OpenCV":
        print("Sound is lost, because PyAV is not installed: run `pip install av` to keep it.")
    [background] = args.background
    tasks, failures = plan(args.videos, args.output, args.mode, background.text)
    for path, [result] in tasks:
        start = time.perf_counter()
        try:
            # A new Background, because a background video starts again for each video.
            done = convert(path, result, predictor, args.mode, Background(background.text), *look)
        except FAILURES as error:
            failures.append(Failure(path, sentence(error)))
        else:
            rate = done.frames / (time.perf_counter() - start)
            print(
                f"{result}: {done.frames} frames, {done.person_fraction:.1%} person,"
                f" {rate:.1f} frames/s"
            )
            for notice in done.notices:
                print(notice)
            failures += [Failure(path, fault) for fault in done.faults]
            if done.interrupted:
                print(
                    f"apps.video: Interrupted: {result} has the {done.frames} frames until then.",
                    file=sys.stderr,
                )
                return STOPPED
    for failure in failures:
        print(f"apps.video: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
