"""Draft masks for photos that have none: `python label.py photos/ --output drafts/`.

Writes drafts/Labels/NAME.png (grey, 0..255 = share of person) and drafts/soft_list.txt, so that
`train.py --data_root EG1800/ drafts/` trains with them at once (docs/data.md).
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.alignment import inset
from data.cache import read_pair
from data.lists import SOFT_LIST, read_lines, read_pairs
from portraitnet.backends import DEFAULT, MODEL_HELP
from portraitnet.cli import command, float_range, make_parser
from portraitnet.files import check_writable, write_whole
from portraitnet.images import mask_of, read_image, write_image
from portraitnet.jobs import Failure, Task, find_photos, without_clashes
from portraitnet.parallel import outcomes
from training.distillation import ISNet, load_teacher

MIN_PROBABILITY = 1e-4  # and 1 minus it: nobody is surer, or one network would outvote all
SAME = 0.6  # IoU with the other answers from which a salient thing is taken for the person
MIN_PERSON_FRACTION = 0.005  # share of the photo's pixels below which nobody was found


def parse_args(argv=None):
    parser = make_parser(
        "Draft soft masks for photos that have none, to be corrected or trained with as they are.",
        example="python label.py photos/ --output mine/",
    )
    add = parser.add_argument_group("photos and masks").add_argument
    add("photos", nargs="*", type=Path, help="photos, or folders that are searched for photos")
    add("--data_root", type=Path, help=f"instead: label the photos of this folder's {SOFT_LIST}")
    add("--output", type=Path, default=Path("drafts"), help="folder of the masks and their list")
    add = parser.add_argument_group("networks").add_argument
    add(
        "--model_path",
        nargs="+",
        type=Path,
        default=[DEFAULT],
        help=f"networks whose answers are averaged: {MODEL_HELP}, or MediaPipe's .tflite",
    )
    add(
        "--isnet",
        type=Path,
        help="IS-Net as ONNX (docs/data.md): joins them where it has cut out the same person",
    )
    add(
        "--draft_weight",
        type=float_range(0, 1),
        default=0.0,
        help=f"weight, 0 to 1, of the masks in --data_root's {SOFT_LIST} in the new ones",
    )
    add(
        "--min_agreement",
        type=float_range(0, 1),
        default=0.55,
        help="leave out photos on which the answers have a smaller common IoU",
    )
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let the masks follow the photo's edges: nearer contours, hazier insides",
    )
    add(
        "--inset",
        type=float_range(-8, 8),
        default=0.0,
        metavar="PIXELS",
        help="move the contours inwards, where check.py finds them outside the photos' edges",
    )
    args = parser.parse_args(argv)
    if bool(args.photos) == (args.data_root is not None):
        parser.error("give either photos or --data_root")
    if args.draft_weight and args.data_root is None:
        parser.error("--draft_weight needs --data_root, whose masks it weighs")
    return args


def plan(args):
    """Pair each photo with the file of its mask.

    Returns:
        tasks, and failures where that cannot be.
        drafts: dict of photo's path -> path of the mask that its list gives; empty without
            --data_root.

    Raises:
        FileNotFoundError, ValueError: --data_root has no list, or a line of it is wrong.
    """
    labels = args.output / "Labels"
    if args.data_root is None:
        photos, unread = find_photos(args.photos)
        drafted = Path(os.path.realpath(labels))
        photos = [
            (path, place)
            for path, place in photos
            if drafted not in Path(os.path.realpath(path)).parents
        ]
        tasks = [Task(path, [labels / place / f"{path.stem}.png"]) for path, place in photos]
        tasks, refused = without_clashes(tasks, dict(photos))
        return tasks, unread + refused, {}
    path = args.data_root / SOFT_LIST
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: give a folder with such a list, or photos without --data_root."
        )
    drafts = {
        Path(pair.image_path): Path(pair.mask_path) for pair in read_pairs(args.data_root, path)
    }
    tasks = []
    for path, draft in drafts.items():
        inside = draft.is_relative_to(args.data_root)
        name = draft.relative_to(args.data_root) if inside else Path("Labels", draft.name)
        tasks.append(Task(path, [args.output / name.with_suffix(".png")]))
    return *without_clashes(tasks, [*drafts, *drafts.values()]), drafts


def log_odds(probability):
    """(H, W) float32 0..1 -> (H, W) float32, at most 9.2 either way."""
    probability = np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.log(probability / (1 - probability))


def ask(predictors, image):
    """Each network's answer on an image (H, W, 3) uint8 BGR and on its mirror image.

    Yields:
        (H, W) float32 log-odds, twice a network.
    """
    mirrored = np.ascontiguousarray(image[:, ::-1])
    for predictor in predictors:
        straight, reversed_ = predictor.probabilities([image, mirrored])
        yield log_odds(straight)
        yield log_odds(reversed_[:, ::-1])


def draft_mask(predictors, image, given=None, weight=0.0, isnet=None):
    """The mean of several answers in log-odds.

    Args:
        predictors: list of Predictor or Selfie.
        image: (H, W, 3) uint8 BGR.
        given: (H, W) float32 0..1, the person's share from elsewhere, or None.
        weight: of `given` in the mean; the networks and mirror images share the rest alike.
        salient: Salient, or None. As one network more where it means the same thing as they do.

    Returns:
        share (H, W) uint8 0..255, how much of each pixel is person.
        agreement 0..1: pixels that every answer calls person over those that any does.
    """
    total, everyone, anyone = 0, True, False
    for answer in ask(predictors, image):
        total = total + answer
        everyone, anyone = everyone & (answer > 0), anyone | (answer > 0)
    mean = total / (2 * len(predictors))
    if isnet is not None:
        answer = log_odds(isnet.probability(image))
        both = np.count_nonzero((answer > 0) & (mean > 0))
        if both > SAME * np.count_nonzero((answer > 0) | (mean > 0)):
            mean = (len(predictors) * mean + answer) / (len(predictors) + 1)
    if given is not None:
        answer = log_odds(given)
        mean = (1 - weight) * mean + weight * answer
        everyone, anyone = everyone & (answer > 0), anyone | (answer > 0)
    share = np.rint(255 / (1 + np.exp(-mean))).astype(np.uint8)
    return share, np.count_nonzero(everyone) / max(1, np.count_nonzero(anyone))


def label(tasks, predictors, isnet, drafts, args):
    """Write the mask of each task, or none if it would teach nothing.

    Args:
        predictors, salient: see `draft_mask`.
        drafts: dict of photo's path -> path of the mask that joins with --draft_weight.

    Yields:
        Outcome of a task, its result None, or the reason to leave the photo out.
    """

    def prepare(task):
        if args.draft_weight:
            return read_pair(task.path, drafts[task.path], soft=True)
        return read_image(task.path), None

    def network(prepared):
        return [draft_mask(predictors, *each, args.draft_weight, isnet) for each in prepared]

    def finish(task, _, answer):
        share, agreement = answer
        if mask_of(share).mean() < MIN_PERSON_FRACTION:
            return "nobody found"
        if agreement < args.min_agreement:
            return f"the answers disagree (IoU {agreement:.2f})"
        write_image(task.results[0], inset(share, args.inset) if args.inset else share)
        return None

    return outcomes(tasks, prepare, network, finish)


def list_line(photo, mask, folder):
    """The line `image mask` of a list in `folder`: relative paths, and absolute on another drive.

    Raises:
        ValueError: a list cannot hold such a name.
    """
    paths = []
    for path in (photo, mask):
        try:
            relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
            paths.append(Path(relative).as_posix())
        except ValueError:
            paths.append(Path(os.path.realpath(path)).as_posix())
    if any("\t" in path or len(path.splitlines()) > 1 for path in paths):
        raise ValueError(f"{photo} has a tab or a line break in its path: rename it.")
    if any(path != path.encode(errors="replace").decode() for path in paths):
        raise ValueError(f"{photo} or its mask has a name that is not UTF-8: rename it.")
    return ("\t" if any(len(path.split()) > 1 for path in paths) else " ").join(paths)


def write_list(path, lines):
    """Add lines to a list, each once; those of earlier runs stay."""
    old = read_lines(path) if path.is_file() else []
    write_whole(path, "".join(f"{line}\n" for line in dict.fromkeys(old + lines)).encode())


@command("label.py")
def main(argv=None):
    args = parse_args(argv)
    tasks, failures, drafts = plan(args)
    check_writable(args.output / SOFT_LIST)
    if not tasks and not failures:
        where = args.data_root or ", ".join(map(str, args.photos))
        raise FileNotFoundError(f"No photo in {where}: give photos or folders of photos.")
    predictors = [load_teacher(path, args.refine) for path in args.model_path]
    isnet = None if args.isnet is None else ISNet(args.isnet)
    print(*(f"{p.model_path} with {p.backend}" for p in predictors), sep="\n")

    lines, left_out, todo = {}, [], []
    for task in tasks:
        path, [mask] = task
        try:
            lines[path] = list_line(path, mask, args.output)
        except ValueError as error:
            failures.append(Failure(path, str(error)))
        else:
            todo += [] if mask.exists() else [task]
    done_before = len(lines) - len(todo)
    labelled = label(todo, predictors, isnet, drafts, args)
    for (path, _), reason, error, _ in tqdm(
        labelled, total=len(todo), unit="photo", disable=len(tasks) < 2
    ):
        if error is not None:
            failures.append(Failure(path, str(error)))
        elif reason is not None:
            left_out.append((path, reason))
        else:
            continue
        del lines[path]
    if lines:
        write_list(args.output / SOFT_LIST, list(lines.values()))
    for path, reason in left_out:
        print(f"{path}: {reason}, left out")
    for failure in failures:
        print(f"label.py: {failure}", file=sys.stderr)
    nobody = sum(reason == "nobody found" for _, reason in left_out)
    print(
        f"{args.output / SOFT_LIST}: {len(lines)} masks, {done_before} of them from before; left "
        f"out: {nobody} photos without a person, {len(left_out) - nobody} on which the answers "
        f"disagree; {len(failures)} failed."
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
