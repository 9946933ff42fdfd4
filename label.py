"""Draft masks for photos that have none: `python label.py photos/ --output drafts/`.

The command writes drafts/Labels/NAME.png (soft masks, 0..255) and drafts/soft_list.txt. After that
`train.py --data_root EG1800/ drafts/` trains with these masks too (docs/data.md).
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from data.alignment import inset
from data.cache import read_pair
from data.drafts import Network, draft_mask
from data.lists import SOFT_LIST, read_lines, read_pairs
from portraitnet.backends import DEFAULT, MODEL_HELP
from portraitnet.cli import command, float_range, make_parser, sentence
from portraitnet.effects import EFFECTS
from portraitnet.files import check_writable, write_whole
from portraitnet.images import mask_of, read_image, write_image
from portraitnet.jobs import Failure, Task, find_photos, without_clashes
from portraitnet.parallel import Outcome, outcomes
from training.distillation import ISNet, load_teacher

MIN_PERSON_FRACTION = 0.005  # of the photo's pixels; a smaller person counts as none
NO_PERSON = "no person found"  # reason to leave a photo out


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Draft soft masks for photos without masks. Correct them, or train with them as they are.",
        example="python label.py photos/ --output mine/",
    )
    add = parser.add_argument_group("photos and masks").add_argument
    add("photos", nargs="*", type=Path, help="photos, or folders that are searched for photos")
    data_root = f"data folder whose {SOFT_LIST} names the photos, instead of PHOTOS"
    add("--data_root", type=Path, help=data_root)
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
        help="IS-Net as an ONNX file (docs/data.md); its answer is averaged too if it shows the "
        "same person",
    )
    add(
        "--draft_weight",
        type=float_range(0, 1),
        default=0.0,
        help=f"weight (0 to 1) of the masks that --data_root's {SOFT_LIST} names",
    )
    add(
        "--min_agreement",
        type=float_range(0, 1),
        default=0.55,
        help="smallest IoU (0 to 1) of all answers; other photos are left out",
    )
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="guided upsampling: contours closer to the photo's edges, but softer interiors",
    )
    add(
        "--inset",
        type=float_range(-8, 8),
        default=0.0,
        metavar="PIXELS",
        help="distance by which contours are moved inwards, px (check.py measures it)",
    )
    args = parser.parse_args(argv)
    if bool(args.photos) == (args.data_root is not None):
        parser.error("give either photos or --data_root")
    if args.draft_weight and args.data_root is None:
        parser.error("--draft_weight needs --data_root, which names the masks")
    return args


class Plan(NamedTuple):
    """The work of a run.

    Attributes:
        tasks: a photo and the file of its mask each.
        failures: photos without a task.
        drafts: {photo: mask that its list names}; empty without --data_root.
    """

    tasks: list[Task]
    failures: list[Failure]
    drafts: dict[Path, Path]


def plan_photos(photos: Iterable[Path], output: Path) -> Plan:
    """Pair each photo with the file of its mask in output/Labels.

    Args:
        photos: photos and folders of photos; masks of earlier runs are skipped.
        output: folder of the masks.
    """
    labels = output / "Labels"
    found, failures = find_photos(photos, EFFECTS)
    drafted = Path(os.path.realpath(labels))
    places = {
        path: place for path, place in found if drafted not in Path(os.path.realpath(path)).parents
    }
    tasks = [Task(path, [labels / place / f"{path.stem}.png"]) for path, place in places.items()]
    tasks, refused = without_clashes(tasks, places)
    return Plan(tasks, failures + refused, {})


def plan_list(data_root: Path, output: Path) -> Plan:
    """Pair each photo of a data folder's SOFT_LIST with the file of its mask.

    A mask gets the same place in `output` as the list's mask has in `data_root`.

    Raises:
        FileNotFoundError: there is no such list.
        ValueError: a line of the list is wrong.
    """
    path = data_root / SOFT_LIST
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: give a folder with such a list, or photos without --data_root."
        )
    pairs = read_pairs(data_root, path)
    drafts = {Path(pair.image_path): Path(pair.mask_path) for pair in pairs}
    tasks, failures = [], []
    for photo, draft in drafts.items():
        try:
            tasks.append(Task(photo, [output / place_of(draft, data_root)]))
        except ValueError as error:
            failures.append(Failure(photo, f"{path}: {error}"))
    tasks, refused = without_clashes(tasks, [*drafts, *drafts.values()])
    return Plan(tasks, failures + refused, drafts)


def place_of(draft: Path, data_root: Path) -> Path:
    """The relative path of the new mask for a mask that a list names.

    Raises:
        ValueError: a relative path leads out of `data_root`, so the new mask would be written
            outside --output.
    """
    if not draft.is_relative_to(data_root):  # an absolute path
        return Path("Labels", draft.with_suffix(".png").name)
    place = Path(os.path.normpath(draft.relative_to(data_root)))
    if place.parts[:1] in ((), ("..",)):
        raise ValueError(
            f"the mask {place} is outside {data_root}: move the mask into that folder and correct "
            "the line, or delete the line"
        )
    return place.with_suffix(".png")


def label(
    tasks: Sequence[Task],
    networks: Sequence[Network],
    isnet: ISNet | None = None,
    drafts: dict[Path, Path] | None = None,
    draft_weight: float = 0.0,
    min_agreement: float = 0.0,
    inset_pixels: float = 0.0,
) -> Iterator[Outcome]:
    """Draft and write the mask of each task.

    Args:
        tasks: a photo and the file of its mask each.
        networks, isnet: see `draft_mask`.
        drafts: {photo: earlier soft mask}; None only if `draft_weight` is 0.
        draft_weight: weight of the earlier masks in the mean, 0..1.
        min_agreement: smallest IoU of all answers, 0..1.
        inset_pixels: see `inset`; 0 for none.

    Yields:
        Outcome of each task in order. Its result is None, or the reason to leave the photo out, in
        which case no mask was written.
    """

    def prepare(task):
        if draft_weight:
            return read_pair(task.path, drafts[task.path], soft=True)
        return read_image(task.path), None

    def network(prepared):
        return [draft_mask(networks, *each, draft_weight, isnet) for each in prepared]

    def finish(task, _, draft):
        if mask_of(draft.alpha).mean() < MIN_PERSON_FRACTION:
            return NO_PERSON
        if draft.agreement < min_agreement:
            return f"the answers disagree (IoU {draft.agreement:.2f})"
        alpha = inset(draft.alpha, inset_pixels) if inset_pixels else draft.alpha
        write_image(task.results[0], alpha)
        return None

    return outcomes(tasks, prepare, network, finish)


def list_line(photo: Path, mask: Path, folder: Path) -> str:
    """The line `image mask` of a list.

    Args:
        photo, mask: files.
        folder: folder of the list; the paths are relative to it, or absolute on another drive.

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


def write_list(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a list; earlier lines stay, and no line is repeated."""
    old = read_lines(path) if path.is_file() else []
    write_whole(path, "".join(f"{line}\n" for line in dict.fromkeys([*old, *lines])).encode())


@command("label.py")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.data_root is None:
        tasks, failures, drafts = plan_photos(args.photos, args.output)
    else:
        tasks, failures, drafts = plan_list(args.data_root, args.output)
    check_writable(args.output / SOFT_LIST)
    if not tasks and not failures:
        where = args.data_root or ", ".join(map(str, args.photos))
        raise FileNotFoundError(f"No photo in {where}: give photos or folders of photos.")
    networks = [load_teacher(path, args.refine) for path in args.model_path]
    isnet = None if args.isnet is None else ISNet(args.isnet)
    print(*(f"{each.model_path} with {each.backend}" for each in networks), sep="\n")

    lines, left_out, todo = {}, [], []
    for task in tasks:
        mask = task.results[0]
        try:
            lines[task.path] = list_line(task.path, mask, args.output)
        except ValueError as error:
            failures.append(Failure(task.path, str(error)))
        else:
            todo += [] if mask.exists() else [task]
    done_before = len(lines) - len(todo)
    settings = args.draft_weight, args.min_agreement, args.inset
    labelled = label(todo, networks, isnet, drafts, *settings)
    for outcome in tqdm(labelled, total=len(todo), unit="photo", disable=len(tasks) < 2):
        path, reason = outcome.item.path, outcome.result
        if outcome.error is not None:
            failures.append(Failure(path, sentence(outcome.error)))
        elif reason is not None:
            left_out.append((path, reason))
        else:
            continue
        del lines[path]
    if lines:
        write_list(args.output / SOFT_LIST, lines.values())
    for path, reason in left_out:
        print(f"{path}: {reason}, left out")
    for failure in failures:
        print(f"label.py: {failure}", file=sys.stderr)
    nobody = sum(reason == NO_PERSON for _, reason in left_out)
    print(
        f"{args.output / SOFT_LIST}: {len(lines)} masks, {done_before} of them from earlier runs; "
        f"left out: {nobody} photos without a person, {len(left_out) - nobody} photos with too "
        f"little agreement; {len(failures)} failed."
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
