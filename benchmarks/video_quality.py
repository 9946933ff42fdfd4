"""Flicker and lag of the masks of a video, frame by frame and smoothed.

    python -m benchmarks.video_quality clips/*.mp4

prints a table for each smoothing method. All figures compare the probabilities of successive
network inputs:

- still: mean change, in thousandths, where the frame neither moves nor changes.
- moved: mean change, in thousandths, where optical flow finds a pixel again; the earlier mask is
  moved along the flow first.
- noise: mean change, in thousandths, on one frame under new Gaussian noise (sigma NOISE).
- lag: frames by which the mask trails the unsmoothed mask where that mask moves (the time shift
  with the best agreement); "-" for clips whose mask hardly moves.
- pushed: the lag of the clip's person, pushed sideways over a still background.
- ghost: pixels, in thousandths, called person although the unsmoothed mask has been certain of
  background for two frames, or the reverse.
"""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from apps.video.reading import read_video
from apps.video.smoothing import Smoother
from benchmarks.table import heading, row
from portraitnet.cli import make_parser
from portraitnet.effects import CLEAR, SOLID
from portraitnet.images import THRESHOLD
from training.checkpoints import open_predictor

STILL = 0.25  # optical flow up to which nothing moves, pixels per frame
SAME = 5  # change of the luma (0..255) that counts as none
FOUND = 0.5  # maximum distance between a pixel and its place after flow forth and back, pixels
NOISE = 5  # sigma, 0..255
PUSH = 4  # speed of the pushed person, pixels per frame
MIN_MOVING = 2000  # changing pixels in a clip; with fewer the lag cannot be measured
SHIFTS = range(-1, 6)  # candidates for the lag, frames
COLUMNS = ("still", "moved", "noise", "lag", "pushed", "ghost")


def average(weight):
    """Exponential averaging, the usual method; `weight` is that of the new mask."""

    def smooth(inputs, probabilities):
        smoothed = [probabilities[0]]
        for probability in probabilities[1:]:
            smoothed.append(smoothed[-1] + weight * (probability - smoothed[-1]))
        return np.stack(smoothed)

    return smooth


METHODS = {  # name -> function of (network inputs, probabilities) of a clip -> probabilities
    "per frame": lambda inputs, probabilities: probabilities,
    "average of 0.5": average(0.5),
    "average of 0.2": average(0.2),
    "Smoother": lambda inputs, probabilities: np.stack(
        list(map(Smoother(), inputs, probabilities))
    ),
}


def parse_args(argv=None):
    parser = make_parser(
        "Flicker and lag of the masks of videos, unsmoothed and smoothed.",
        example="python -m benchmarks.video_quality clip.mp4",
    )
    add = parser.add_argument
    add("videos", nargs="+", type=Path, help="video files with one person each")
    add(
        "--frames",
        type=int,
        default=150,
        help="number of frames used, from the beginning of each video",
    )
    add("--model_path", type=Path, help="model file (default: the bundled weights)")
    return parser.parse_args(argv)


def motion(inputs):
    """Where figures are measured, for each pair of successive frames.

    Returns:
        list of (map, still, found). `map`, (h, w, 2) float32: place in the earlier frame of each
        pixel of the later one; `still`, (h, w) bool: nothing moves or changes; `found`, (h, w)
        bool: the flow finds the pixel again.
    """
    lumas = [cv2.cvtColor(network_input, cv2.COLOR_BGR2GRAY) for network_input in inputs]
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grid = np.dstack(np.meshgrid(*map(np.arange, lumas[0].shape[::-1]))).astype(np.float32)
    pairs = []
    for before, after in zip(lumas, lumas[1:]):
        back, forth = flow.calc(after, before, None), flow.calc(before, after, None)
        place = grid + back
        returns = np.linalg.norm(back + cv2.remap(forth, place, None, cv2.INTER_LINEAR), axis=2)
        before, after = (cv2.GaussianBlur(luma, (0, 0), 1) for luma in (before, after))
        alike = cv2.absdiff(after, cv2.remap(before, place, None, cv2.INTER_LINEAR)) < SAME
        speed = cv2.dilate(np.linalg.norm(back, axis=2), np.ones((5, 5)))
        still = (speed < STILL) & (cv2.absdiff(before, after) < SAME)
        pairs.append((place, still, (returns < FOUND) & alike))
    return pairs


def flicker(smoothed, pairs):
    """Mean changes in thousandths: (where nothing moves, along the motion)."""
    changes = np.zeros(2)
    counts = np.zeros(2)
    for before, after, (place, still, found) in zip(smoothed, smoothed[1:], pairs):
        moved = cv2.remap(before, place, None, cv2.INTER_LINEAR)
        changes += np.abs(after - before)[still].sum(), np.abs(after - moved)[found].sum()
        counts += still.sum(), found.sum()
    return 1000 * changes / np.maximum(counts, 1)


def lag(smoothed, steady):
    """Frames by which `smoothed` trails `steady`; nan if `steady` hardly changes."""
    errors, count = np.zeros(len(SHIFTS)), 0
    for time in range(SHIFTS[-1], len(steady) - 3):
        moving = np.abs(steady[time + 3] - steady[time - 3]) > 0.5
        count += moving.sum()
        errors += [np.abs(smoothed[time] - steady[time - shift])[moving].sum() for shift in SHIFTS]
    best = errors.argmin()
    if count < MIN_MOVING or best in (0, len(SHIFTS) - 1):
        return np.nan
    # Errors grow linearly on both sides: the minimum is where two lines of equal slope meet.
    before, low, after = errors[best - 1 : best + 2]
    return SHIFTS[best] + (before - after) / (max(before, after) - low) / 2


def ghosts(smoothed, probabilities):
    """Thousandths of the pixels that contradict two certain frames of the network."""
    low, high = (pick(probabilities[1:], probabilities[:-1]) for pick in (np.maximum, np.minimum))
    later = smoothed[1:]
    wrong = ((later > THRESHOLD) & (low < CLEAR)) | ((later < THRESHOLD) & (high > SOLID))
    return 1000 * wrong.mean()


def pushed(network_input, probability, steps=24):
    """Network inputs that show the person pushed sideways over a still, blurred background."""
    behind = cv2.GaussianBlur(network_input, (0, 0), 20)
    inputs = []
    for step in range(steps):
        shift = np.float32([[1, 0, PUSH * (step - steps // 2)], [0, 1, 0]])
        person, alpha = (
            cv2.warpAffine(each, shift, each.shape[1::-1], borderMode=cv2.BORDER_CONSTANT)
            for each in (network_input, probability)
        )
        inputs.append(cv2.blendLinear(person, behind, alpha, 1 - alpha))
    return inputs


def measure(path, predictor, frames):
    """Figures of a clip: name of the method -> figures in the order of COLUMNS."""
    inputs = [predictor.prepare(image) for _, image in islice(read_video(path), frames)]
    run = [
        predictor.run([network_input])[0]
        for network_input in tqdm(inputs, desc=path.stem, leave=False)
    ]
    probabilities = np.stack(run)
    pairs = motion(inputs)
    steady = np.stack([np.median(probabilities[max(0, t - 2) : t + 3], 0) for t in range(len(run))])

    middle = len(inputs) // 2
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(inputs[middle] + rng.normal(0, NOISE, inputs[0].shape), 0, 255).astype(np.uint8)
        for _ in range(24)
    ]
    noisy_run = np.stack(predictor.run(noisy))
    moving = pushed(inputs[middle], probabilities[middle])
    moving_run = np.stack(predictor.run(moving))

    figures = {}
    for name, smooth in METHODS.items():
        smoothed = smooth(inputs, probabilities)
        figures[name] = [
            *flicker(smoothed, pairs),
            1000 * np.abs(np.diff(smooth(noisy, noisy_run)[8:], axis=0)).mean(),
            lag(smoothed, steady),
            lag(smooth(moving, moving_run), moving_run),
            ghosts(smoothed, probabilities),
        ]
    return figures


def main(argv=None):
    args = parse_args(argv)
    predictor = open_predictor(args.model_path)
    figures = {path.stem: measure(path, predictor, args.frames) for path in args.videos}
    print(f"{args.frames} frames of each clip, {predictor.model_path}, {predictor.backend}")
    for name in METHODS:
        rows = {clip: each[name] for clip, each in figures.items()}
        rows["mean"] = np.nanmean(list(rows.values()), axis=0)
        print(f"\n{heading([name, *COLUMNS])}")
        for clip, values in rows.items():
            print(row([clip, *(f"{value:.2f}".replace("nan", "-") for value in values)]))


if __name__ == "__main__":
    main()
