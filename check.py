"""Read every photo and mask of data folders and name each problem.

python check.py --data_root EG1800/ Picsart/
"""

import argparse
import hashlib
import sys
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.alignment import contour_offset, edge_profile
from data.lists import SPLITS, Pair, read_lists
from portraitnet.cli import command, make_parser
from portraitnet.geometry import letterbox_box, resize
from portraitnet.images import THRESHOLD, mask_of, read_alpha, read_image, read_mask
from portraitnet.parallel import FAILURES

MIN_PROFILES, MAX_PROFILES = 20, 100  # photos of a list whose edges are compared with the contours
SIDE = 1024  # longer side of a photo in that comparison, pixels


def is_inverted(person: NDArray[np.bool_]) -> bool:
    """Whether person and background of a mask seem to be exchanged.

    That is so if the top row and the whole frame are mostly person, and the frame more so than the
    mask. Of 1,500 correct masks of three data sets none is taken for inverted; of the same masks
    inverted, 1,350 are.

    Args:
        person: (H, W) bool.
    """
    sides = person[0], person[-1], person[:, 0], person[:, -1]
    frame = np.concatenate(sides).mean()
    return person[0].mean() > 0.5 and frame > max(0.5, person.mean())


class PairReport(NamedTuple):
    """The result of `check_pair`.

    Attributes:
        problems: sentences.
        digest: SHA-1 of the photo's file; None if the photo cannot be read.
        profile: see `edge_profile`; None if it was not asked for or cannot be computed.
    """

    problems: list[str]
    digest: bytes | None
    profile: NDArray[np.float64] | None


def check_pair(pair: Pair, compare: bool = False) -> PairReport:
    """Read one pair completely and look for problems.

    Args:
        pair: photo and mask.
        compare: whether to compare the mask's contour with the photo's edges.
    """
    problems, pictures, digest, profile = [], [], None, None
    image_path, mask_path, soft = pair
    for path, read in ((image_path, read_image), (mask_path, read_alpha if soft else read_mask)):
        try:
            pictures.append(read(path))
        except FileNotFoundError:
            problems.append(f"missing: {path}")
        except FAILURES as error:
            problems.append(f"unreadable: {error}")
        else:
            if path == image_path:
                digest = hashlib.sha1(Path(path).read_bytes()).digest()
            else:
                problems += mask_problems(pictures[-1], path, soft)
    if len(pictures) == 2 and pictures[0].shape[:2] != pictures[1].shape:
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in pictures)
        problems.append(f"different sizes: {image_path} and {mask_path}, {sizes}")
    elif len(pictures) == 2 and compare:
        image, person = pictures[0], np.float32(pictures[1] > THRESHOLD)
        height, width = letterbox_box(*person.shape, min(SIDE, max(person.shape)))[2:]
        person = mask_of(resize(person, height, width))
        profile = edge_profile(resize(image, height, width), person)
    return PairReport(problems, digest, profile)


def mask_problems(mask: np.ndarray, path: str, soft: bool) -> list[str]:
    """At most one sentence on a mask's content.

    Args:
        mask: (H, W) uint8 0/1, or float32 0..1.
        path: its file, for the sentence.
        soft: whether the mask should be soft.
    """
    person = mask > THRESHOLD
    if soft and 0 < mask.max() <= 1 / 255:
        return [f"no soft mask: {path} holds 0 and 1; a soft mask holds grey levels 0 to 255"]
    if not person.any():
        return [f"empty mask: {path}"]
    if person.all():
        return [f"full mask: {path}"]
    if is_inverted(person):
        return [f"inverted mask? {path}: the frame is mostly person"]
    return []


class Entry(NamedTuple):
    """A pair of a list; `compare` as for `check_pair`."""

    root: str
    split: str
    pair: Pair
    compare: bool


def check(roots: Iterable[str], splits: Collection[str]) -> int:
    """Read every listed pair; print each problem, then the counts.

    Args:
        roots: data folders.
        splits: names of the splits to read.

    Returns:
        Number of problems.

    Raises:
        FileNotFoundError, ValueError: see `read_lists`; no root has a list of the splits.
    """
    lists = {
        (root, split): pairs
        for root in dict.fromkeys(roots)
        for split, pairs in read_lists(root).items()
        if split in splits
    }
    if not lists:
        message = " or ".join(splits)
        raise FileNotFoundError(f"No {message} list in {', '.join(map(str, roots))}: add one.")
    entries = [
        Entry(root, split, pair, compare=number % -(-len(pairs) // MAX_PROFILES) == 0)
        for (root, split), pairs in lists.items()
        for number, pair in enumerate(pairs)
    ]
    seen, problem_count = {}, 0  # seen: path or digest of a photo -> its place in the lists
    profiles = {key: [] for key in lists}
    with ThreadPoolExecutor() as pool:
        reports = pool.map(lambda entry: check_pair(entry.pair, entry.compare), entries)
        for entry, report in zip(entries, tqdm(reports, total=len(entries), unit="pair")):
            path, problems = entry.pair.image_path, list(report.problems)
            name = f"{path} ({entry.split})"
            if path in seen:
                problems.append(f"listed twice: {name} and {seen[path]}")
            elif report.digest in seen:
                problems.append(f"duplicate: {name} has the content of {seen[report.digest]}")
            seen.setdefault(path, name)
            if report.digest is not None:
                seen.setdefault(report.digest, name)
            if report.profile is not None:
                profiles[entry.root, entry.split].append(report.profile)
            problem_count += len(problems)
            for problem in problems:
                tqdm.write(problem)
    for (root, split), pairs in lists.items():
        problem_count += not pairs
        print(f"{root} {split}: {len(pairs) or 'empty list, no'} pairs")
        if len(profiles[root, split]) >= MIN_PROFILES:
            offset = contour_offset(profiles[root, split])
            side = "inside" if offset < 0 else "outside"
            print(f"  contours {abs(offset):.1f} px {side} the photos' edges (docs/data.md)")
    print(f"{problem_count} problems in {len(entries)} pairs")
    return problem_count


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Read every photo and mask of data folders and name each problem.",
        example="python check.py --data_root EG1800/ Picsart/",
    )
    parser.add_argument("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=SPLITS, help="lists to read")
    return parser.parse_args(argv)


@command("check.py")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return 1 if check(args.data_root, args.split) else 0


if __name__ == "__main__":
    sys.exit(main())
