"""Which photo goes with which mask: the lists of a data folder (docs/data.md)."""

import codecs
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from portraitnet.images import SUFFIXES

DATA_ROOT = "EG1800/"  # where the commands look when they are not told
SPLITS = ("train", "val", "test")
OFFICIAL_LIST = "eg1800_{}.txt"  # lines are names, photos in Images/, masks in Labels/
PAIR_LIST = "{}_list.txt"  # lines are "image mask", relative to the root
SOFT_LIST = "soft_list.txt"  # the same, more training photos, whose masks are shares 0..255
WRONG_LINES = 20  # of a list that are named, at most
VAL_FRACTION = 0.1  # split off the training photos where no root has a validation list
HELD_OUT_EVERY = 10  # of the photos without people, sorted by name, kept for evaluation


class Pair(NamedTuple):
    """The files of a photo.

    Attributes:
        image_path: of the photo.
        mask_path: of its mask; None for a photo without a person.
        soft: whether the mask's grey levels are shares of the person, 0..255, and no 0/1 or 0/255.
    """

    image_path: str
    mask_path: str | None = None
    soft: bool = False


def read_lists(data_root):
    """The pairs that one root lists, whether the files exist or not.

    Args:
        data_root: folder in the official EG1800 layout or in the list layout.

    Returns:
        dict from the name of a split to a list of Pair.

    Raises:
        FileNotFoundError: no such folder, or no list in it.
        ValueError: lines that are not `image mask`, all named; or a list that is not in UTF-8.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"No folder {root}: give the folder of a data set with --data_root (docs/data.md says "
            "where EG1800 can be had and how your own photos are listed)."
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


def read_lines(path):
    """The lines of a text file in UTF-8, or in UTF-16 as Windows' PowerShell writes it.

    Raises:
        ValueError: it is in another encoding.
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
    """The name with the suffix under which it lies there: `suffix` at best, and if nowhere."""
    candidates = [Path(name).stem + s for s in (suffix, Path(name).suffix, *SUFFIXES)]
    return next((candidate for candidate in candidates if candidate in names), candidates[0])


def read_pairs(root, path, soft=False):
    """The pairs of one list in the list layout.

    Args:
        root: folder that the names are relative to.
        path: of the list.
        soft: whether its masks are shares.

    Raises:
        ValueError: lines that are not `image mask`; it names all of them.
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
        message = ", ".join(wrong[:WRONG_LINES])
        more = f" and {len(wrong) - WRONG_LINES} more" if len(wrong) > WRONG_LINES else ""
        raise ValueError(
            f"{path} {message}{more}: write `image mask`, with a tab between them where a name "
            "has spaces."
        )
    return pairs


def find_pairs(data_root, split, seed=0):
    """The pairs of one split over all roots.

    Where no root has a validation list, a tenth of the training photos is split off by `seed`.
    Where one has, a root without contributes to the training alone.

    Args:
        data_root: a folder or a list of folders.
        split: train, val or test.

    Returns:
        pairs: list of Pair.
        notes: list of sentences that the user should read.

    Raises:
        FileNotFoundError: as `read_lists`; no root has the split; listed files are missing.
        ValueError: as `read_lists`; no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    roots = [data_root] if isinstance(data_root, (str, os.PathLike)) else list(data_root)
    lists = [read_lists(root) for root in roots]
    listed = {s: [pair for found in lists for pair in found.get(s, [])] for s in SPLITS}
    where, notes = ", ".join(map(str, roots)), []
    if listed["train"] and not any("val" in found for found in lists):
        train = listed["train"]
        # Drafts are no truth to be judged by, unless there is nothing else.
        eligible = [i for i, pair in enumerate(train) if not pair.soft] or range(len(train))
        count = max(1, round(VAL_FRACTION * len(eligible)))
        chosen = set(np.random.default_rng(seed).permutation(eligible)[:count].tolist())
        listed["val"] = [train[i] for i in sorted(chosen)]
        listed["train"] = [pair for i, pair in enumerate(train) if i not in chosen]
        notes.append(
            f"No validation list in {where}: {count} of the {len(train)} training photos "
            f"are kept for validation (seed {seed})."
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


def split_backgrounds(folder):
    """A folder's photos without people, every tenth by name held out for evaluation.

    Returns:
        (train, held_out): two lists of paths.

    Raises:
        FileNotFoundError: no such folder, or fewer than two photos in it.
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
