"""The lists of a data folder: which mask belongs to which photo (docs/data.md)."""

import codecs
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from portraitnet.images import SUFFIXES

DATA_ROOT = "EG1800/"  # default data folder of the commands
SPLITS = ("train", "val", "test")
OFFICIAL_LIST = "eg1800_{}.txt"  # a line is a name; photos in Images/, masks in Labels/
PAIR_LIST = "{}_list.txt"  # a line is "image mask", relative to the root
SOFT_LIST = "soft_list.txt"  # the same for more training photos with soft masks, 0..255
MAX_WRONG_LINES = 20  # wrong lines of a list that an error names
VAL_FRACTION = 0.1  # of the training photos, for validation if no root has a validation list
HELD_OUT_EVERY = 10  # every tenth photo without people, sorted by name, is kept for evaluation


class Pair(NamedTuple):
    """The files of a photo.

    Attributes:
        image_path: the photo.
        mask_path: its mask; None for a photo without a person.
        soft: whether the mask is soft: alpha as grey levels 0..255, not 0/1 or 0/255.
    """

    image_path: str
    mask_path: str | None = None
    soft: bool = False


def read_lists(data_root: str | Path) -> dict[str, list[Pair]]:
    """The pairs that one root lists, whether their files exist or not.

    Args:
        data_root: folder in the official EG1800 layout or in the list layout.

    Returns:
        {split: pairs}.

    Raises:
        FileNotFoundError: the folder is missing or has no list.
        ValueError: a line is not `image mask` (all such lines are named), or a list is not UTF-8.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}: give the folder of a data set with --data_root (docs/data.md says "
            "where to download EG1800 and how to list your own photos)."
        )
    files = [(split, root / PAIR_LIST.format(split)) for split in SPLITS]
    files.append(("train", root / SOFT_LIST))
    lists, wrong = {}, []
    for split, path in files:
        soft, official = path.name == SOFT_LIST, root / OFFICIAL_LIST.format(split)
        try:
            if official.is_file() and not soft:
                lists[split] = _read_names(root, official)
            elif path.is_file():
                lists[split] = lists.get(split, []) + read_pairs(root, path, soft)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    if not lists:
        raise FileNotFoundError(
            f"{root} has no list of photos: it needs {OFFICIAL_LIST.format('train')} beside "
            f"Images/ and Labels/, or {PAIR_LIST.format('train')} with lines `image mask`."
        )
    return lists


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, or in UTF-16 as Windows' PowerShell writes it.

    Raises:
        ValueError: the file has another encoding.
    """
    data = path.read_bytes()
    utf16 = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path} line {line} is not in UTF-8: save the list as UTF-8.") from None


def _read_names(root, path):
    images, labels = _names_in(root / "Images"), _names_in(root / "Labels")
    names = [line.strip() for line in read_lines(path) if line.strip()]
    return [
        Pair(
            str(root / "Images" / _present(name, images, Path(name).suffix)),
            str(root / "Labels" / _present(name, labels, ".png")),
        )
        for name in names
    ]


def _names_in(folder):
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _present(name, names, suffix):
    """The name with the suffix of an existing file; `suffix` is preferred, and the fallback."""
    candidates = [Path(name).stem + s for s in (suffix, Path(name).suffix, *SUFFIXES)]
    return next((candidate for candidate in candidates if candidate in names), candidates[0])


def read_pairs(root: Path, path: Path, soft: bool = False) -> list[Pair]:
    """The pairs of one list in the list layout.

    Args:
        root: folder that the names are relative to.
        path: the list.
        soft: whether its masks are soft.

    Raises:
        ValueError: a line is not `image mask`; the error names such lines.
    """
    pairs, wrong = [], []
    for number, line in enumerate(read_lines(path), 1):
        parts = line.strip().split("\t") if "\t" in line.strip() else line.split()
        if len(parts) == 2:
            image_path, mask_path = (str(root / part.strip()) for part in parts)
            pairs.append(Pair(image_path, mask_path, soft))
        elif parts:
            wrong.append(f"line {number} is {line.strip()!r}")
    if wrong:
        message = ", ".join(wrong[:MAX_WRONG_LINES])
        surplus = len(wrong) - MAX_WRONG_LINES
        more = f" and {surplus} more" if surplus > 0 else ""
        raise ValueError(
            f"{path} {message}{more}: write `image mask`, separated by a tab if a name has spaces."
        )
    return pairs


def find_pairs(
    data_root: str | Path | Iterable[str | Path], split: str, seed: int = 0
) -> tuple[list[Pair], list[str]]:
    """The pairs of one split over all roots.

    If no root has a validation list, a tenth of the training photos is used for validation. If any
    root has one, roots without a validation list are used for training only.

    Args:
        data_root: a folder or several folders.
        split: train, val or test.
        seed: seed of the choice of validation photos.

    Returns:
        pairs: the pairs of the split.
        notes: sentences for the user.

    Raises:
        FileNotFoundError: see `read_lists`; no root has the split; listed files are missing.
        ValueError: see `read_lists`; the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    roots = [data_root] if isinstance(data_root, (str, os.PathLike)) else list(data_root)
    lists = [read_lists(root) for root in roots]
    listed = {s: [pair for found in lists for pair in found.get(s, [])] for s in SPLITS}
    where, notes = ", ".join(map(str, roots)), []
    if listed["train"] and not any("val" in found for found in lists):
        train = listed["train"]
        # Soft masks are drafts: they are no ground truth, unless the data has no other masks.
        eligible = [i for i, pair in enumerate(train) if not pair.soft] or range(len(train))
        if split == "train" and len(train) == 1:
            raise ValueError(
                f"{where} lists one training photo: a training needs at least two, because one is "
                "used for validation."
            )
        count = max(1, round(VAL_FRACTION * len(eligible)))
        chosen = set(np.random.default_rng(seed).permutation(eligible)[:count].tolist())
        listed["val"] = [train[i] for i in sorted(chosen)]
        listed["train"] = [pair for i, pair in enumerate(train) if i not in chosen]
        notes.append(
            f"No validation list in {where}: {count} of the {len(train)} training photos "
            f"are used for validation (seed {seed})."
        )
    pairs = listed[split]
    if not pairs:
        present = " and ".join(s for s in SPLITS if listed[s])
        raise FileNotFoundError(
            f"No {split} photos in {where}: there are {present or 'no'} photos; choose "
            f"one with --split, or add {OFFICIAL_LIST.format(split)} or {PAIR_LIST.format(split)}."
        )
    missing = [path for pair in pairs for path in pair[:2] if not os.path.exists(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} listed files are missing, the first is {missing[0]}: "
            f"`python check.py --data_root {' '.join(map(str, roots))}` names them all."
        )
    return pairs, notes


def split_backgrounds(folder: str | Path) -> tuple[list[str], list[str]]:
    """Split a folder's photos without people; every tenth by name is held out for evaluation.

    Returns:
        train: paths for training.
        held_out: paths for evaluation.

    Raises:
        FileNotFoundError: the folder is missing or has fewer than two photos.
    """
    folder = Path(folder)
    names = sorted(_names_in(folder))
    paths = [str(folder / name) for name in names if name.lower().endswith(SUFFIXES)]
    if len(paths) < 2:
        raise FileNotFoundError(
            f"{folder} has {len(paths)} photos: backgrounds need a folder of photos without people."
        )
    train = [path for i, path in enumerate(paths) if i % HELD_OUT_EVERY]
    return train, paths[::HELD_OUT_EVERY]
