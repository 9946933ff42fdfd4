"""Flicker and lag of the masks of a video, frame by frame and smoothed.

    python -m benchmarks.video_quality clips/*.mp4

prints a table for each way of smoothing. Everything is measured on the probability of the
network inputs, between frames that follow each other:

- still: mean change, in thousandths, where the photo does not move or change.
- moved: the same wherever optical flow finds a pixel again, after moving the earlier mask along.
- noise: the same on one frame of the clip under fresh Gaussian noise (sigma NOISE).
- lag: by how many frames the mask trails the unsmoothed one, where that moves (the shift in time
  at which both agree best); "-" for clips in which it hardly moves.
- pushed: the same for the clip's person pushed sideways over a still background.
- ghost: pixels, in thousandths, that are called person while the unsmoothed mask has been sure of
  the opposite for two frames, or the reverse.
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

STILL = 0.25  # flow up to which nothing moves, pixels a frame
SAME = 5  # change of the luma (0..255) up to which nothing changes
FOUND = 0.5  # flow forth and back ends this near to where it began, pixels
NOISE = 5  # sigma, 0..255
PUSH = 4  # pixels a frame
MOVING = 2000  # fewer changing pixels in a whole clip say nothing of its lag
SHIFTS = range(-1, 6)  # that are tried for the lag, frames
COLUMNS = ("still", "moved", "noise", "lag", "pushed", "ghost")


def average(share):
    """Exponential averaging, the usual cure: `share` of the new mask, the rest of the old."""

    def smooth(inputs, probabilities):
        smoothed = [probabilities[0]]
        for probability in probabilities[1:]:
            smoothed.append(smoothed[-1] + share * (probability - smoothed[-1]))
        return np.stack(smoothed)

    return smooth


METHODS = {  # name -> function of network inputs and probabilities of a clip -> probabilities
    "per frame": lambda inputs, probabilities: probabilities,
    "average of 0.5": average(0.5),
    "average of 0.2": average(0.2),
    "Smoother": lambda inputs, probabilities: np.stack(
        list(map(Smoother(), inputs, probabilities))
    ),
}


def parse_args(argv=None):
    parser = make_parser(
        "Flicker and lag of the masks of videos, per frame and smoothed.",
        example="python -m benchmarks.video_quality clip.mp4",
    )
    add = parser.add_argument
    add("videos", nargs="+", type=Path, help="video files with one person each")
    add("--frames", type=int, default=150, help="first frames of each video to use")
    add("--model_path", type=Path, help="model file (default: the one in weights/)")
    return parser.parse_args(argv)


def motion(inputs):
    """Where to look, for each pair of successive frames.

    Returns:
        list of (map, still, found): `map` (h, w, 2) float32 leads from a pixel of the later frame
        to the earlier one; bool (h, w): nothing moves or changes; found again by `map`.
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
    """Mean change in thousandths, (where nothing moves, everywhere along the motion)."""
    changes = np.zeros(2)
    counts = np.zeros(2)
    for before, after, (place, still, found) in zip(smoothed, smoothed[1:], pairs):
        moved = cv2.remap(before, place, None, cv2.INTER_LINEAR)
        changes += np.abs(after - before)[still].sum(), np.abs(after - moved)[found].sum()
        counts += still.sum(), found.sum()
    return 1000 * changes / np.maximum(counts, 1)


def lag(smoothed, steady):
    """Frames by which `smoothed` trails `steady`, where that changes; nan where it hardly does."""
    errors, count = np.zeros(len(SHIFTS)), 0
    for time in range(SHIFTS[-1], len(steady) - 3):
        moving = np.abs(steady[time + 3] - steady[time - 3]) > 0.5
        count += moving.sum()
        errors += [np.abs(smoothed[time] - steady[time - shift])[moving].sum() for shift in SHIFTS]
    best = errors.argmin()
    if count < MOVING or best in (0, len(SHIFTS) - 1):
        return np.nan
    # Errors grow linearly on both sides: where two lines of equal slope meet.
    before, low, after = errors[best - 1 : best + 2]
    return SHIFTS[best] + (before - after) / (max(before, after) - low) / 2


def ghosts(smoothed, probabilities):
    """Thousandths of the pixels that contradict what the network has been sure of."""
    low, high = (pick(probabilities[1:], probabilities[:-1]) for pick in (np.maximum, np.minimum))
    later = smoothed[1:]
    wrong = ((later > THRESHOLD) & (low < CLEAR)) | ((later < THRESHOLD) & (high > SOLID))
    return 1000 * wrong.mean()


def pushed(network_input, probability, steps=24):
    """The person pushed sideways over a blurred background that stays: list of network inputs."""
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
    """The figures of a clip: name of the method -> figures in the order of COLUMNS."""
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
