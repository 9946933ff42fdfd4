"""Find the person in videos, or live before a camera.

`python -m apps.video clip.mp4 --mode blur` writes clip_blur.mp4 beside it, with its sound;
`python -m apps.video --camera 0` opens a window whose keys switch the effect;
with `--virtual_camera` video calls get the picture instead.
"""

import argparse
import sys
import time
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from apps.video.drawing import Background, Frame, pictures
from apps.video.live import EFFECT_KEYS, live
from apps.video.reading import probe, read_video
from apps.video.writing import open_writer, way_of_writing
from portraitnet.backends import AUTO, BACKENDS, MODEL_HELP
from portraitnet.cli import command, float_range, int_range, make_parser
from portraitnet.effects import EFFECTS
from portraitnet.jobs import Failure, Task, without_clashes
from portraitnet.parallel import FAILURES
from training.checkpoints import open_predictor


def parse_args(argv=None):
    parser = make_parser(
        "Find the person in videos, or live before a camera in a window whose keys switch the"
        " effect. Without flags, clip.mp4 gets clip_overlay.mp4 beside it, with its sound.",
        example="python -m apps.video clip.mp4 --mode blur",
    )
    parser.add_argument("videos", nargs="*", type=Path, help="video files")
    add = parser.add_argument_group("results").add_argument
    add(
        "--camera", type=int_range(), help="number of a camera to show live instead: 0 is the first"
    )
    add(
        "--virtual_camera",
        action="store_true",
        help="give --camera to video calls as a camera of its own, not to a window (needs"
        " pyvirtualcam)",
    )
    add("--output", type=Path, help="folder of the results (default: beside each video)")
    add("--mode", choices=EFFECTS, help="default: overlay; blur for --camera")
    add(
        "--background",
        type=Background,
        nargs="+",
        default="green",
        help="for --mode replace: a photo, a video (looped), a colour #rrggbb or its name;"
        " several for --camera, where key b goes on to the next",
    )
    add(
        "--blur",
        type=float_range(),
        default=2.0,
        help="for --mode blur: sigma, %% of the longer side",
    )
    add = parser.add_argument_group("network").add_argument
    add("--model_path", help=f"{MODEL_HELP} (default: full; lite for --camera)")
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="auto: the fastest installed")
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
    if isinstance(args.background, Background):  # the default
        args.background = [args.background]
    args.model_path = args.model_path or ("full" if args.camera is None else "lite")
    args.mode = args.mode or ("overlay" if args.camera is None else "blur")
    if (args.camera is None) == (not args.videos):
        parser.error("give video files, or --camera with the number of a camera, not both")
    if args.camera is not None and args.mode not in EFFECT_KEYS:
        parser.error(f"--mode {args.mode} is not for --camera: give {', '.join(EFFECT_KEYS[:-1])}")
    if args.virtual_camera and args.camera is None:
        parser.error("--virtual_camera is for --camera: give its number, 0 is the first")
    if args.camera is None and len(args.background) > 1:
        parser.error(f"a video takes one --background, not {len(args.background)}")
    return args


def convert(path, result, predictor, args):
    """Write the result of one video, with a progress bar.

    Returns:
        number of frames, mean share of person in them, and a sentence for each fault of the video.
    """
    rate, total = probe(path)
    faults = []
    background = Background(args.background[0].text)

    def frames():
        for seconds, image in read_video(path, faults):
            yield Frame(seconds, image, args.mode, background.at(seconds, image.shape))

    shares = []
    with (
        closing(pictures(frames(), predictor, args.blur / 100, args.smooth)) as drawn,
        tqdm(total=total, unit="frame", desc=path.name) as bar,
    ):
        first = next(drawn, None)
        if first is None:
            raise ValueError(f"{path} holds no frame that can be decoded: give a whole video.")
        with open_writer(result, first.picture.shape, rate, path) as write:
            for seconds, picture, share in chain([first], drawn):
                write(seconds, picture)
                shares.append(share)
                bar.update()
    return len(shares), float(np.mean(shares)), faults


def plan(args):
    """Pair each video with its result: tasks, and failures where that cannot be."""
    suffix = ".webm" if args.mode == "cutout" else ".mp4"
    tasks = [
        Task(path, [(args.output or path.parent) / f"{path.stem}_{args.mode}{suffix}"])
        for path in args.videos
    ]
    backgrounds = [Path(background.text) for background in args.background]
    return without_clashes(tasks, [*args.videos, *backgrounds])


@command("apps.video")
def main(argv=None):
    args = parse_args(argv)
    predictor = open_predictor(args.model_path, args.backend, args.refine)
    if args.camera is not None:
        live(predictor, args)
        return 0

    if way_of_writing() == "OpenCV":
        print("Sound is lost, for PyAV is not installed: run `pip install av` to keep it.")
    tasks, failures = plan(args)
    for path, [result] in tasks:
        start = time.perf_counter()
        try:
            frames, share, faults = convert(path, result, predictor, args)
        except FAILURES as error:
            failures.append(Failure(path, str(error)))
        else:
            rate = frames / (time.perf_counter() - start)
            print(f"{result}: {frames} frames, {share:.1%} person, {rate:.1f} frames/s")
            failures += [Failure(path, fault) for fault in faults]
    for failure in failures:
        print(f"apps.video: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
