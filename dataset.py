"""Portrait data sets: photos and masks on disk -> (image, texture-augmented image, mask, edge).

    python dataset.py --data_root EG1800 Picsart

reads every pair and names each file that is missing or wrong. The layouts are described in docs/data.md.
"""

import argparse
import hashlib
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from paddle.io import Dataset
from tqdm import tqdm

from images import SUFFIXES, read_image, read_mask
from transforms import (
    SIZE,
    RandomHorizontalFlip,
    RandomRotation,
    RandomTranslate,
    degrade,
    edge_of,
    letterbox,
    letterbox_mask,
)
from transforms.geometry import inside, letterbox_box, letterbox_matrix, resize, warp

SPLITS = ("train", "val", "test")
OFFICIAL_LIST = "eg1800_{}.txt"  # lines are names, photos in Images/, masks in Labels/
PAIR_LIST = "{}_list.txt"  # lines are "image mask", relative to the root
VAL_SHARE = 0.1  # split off the training photos where no root has a validation list
HELD_OUT_EVERY = 10  # of the person-free photos, sorted by name, kept for evaluation
CACHE_SIDE = SIZE * 3 // 2  # longer side of a cached photo: enough for scale 1.5, pixels
ENTRIES_PER_CENSUS = 256  # cached photos that a worker writes before it measures the folder again


def default_cache_dir():
    """The folder for decoded photos in the user's cache directory."""
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portraitnet" / "photos"
    )


def read_lists(data_root):
    """The pairs that one root lists.

    Args:
        data_root: folder in the official EG1800 layout or in the list layout.

    Returns:
        dict from the name of a split to a list of (image path, mask path); files that do not exist are in it.

    Raises:
        FileNotFoundError: no such folder, or no list in it.
        ValueError: a line that is not "image mask".
    """
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"There is no folder {root}: give the folder of a data set as data_root."
        )
    lists = {}
    for split in SPLITS:
        if (root / OFFICIAL_LIST.format(split)).is_file():
            lists[split] = _read_official(root, root / OFFICIAL_LIST.format(split))
        elif (root / PAIR_LIST.format(split)).is_file():
            lists[split] = _read_pairs(root, root / PAIR_LIST.format(split))
    if not lists:
        raise FileNotFoundError(
            f"{root} has no list of photos: it needs {OFFICIAL_LIST.format('train')} with Images/ and Labels/, "
            f"or {PAIR_LIST.format('train')} with lines `image mask` (docs/data.md)."
        )
    return lists


def _read_official(root, path):
    images, labels = _names(root / "Images"), _names(root / "Labels")
    lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    return [
        (
            str(root / "Images" / _present(line, images, Path(line).suffix)),
            str(root / "Labels" / _present(line, labels, ".png")),
        )
        for line in lines
        if line
    ]


def _names(folder):
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _present(name, names, suffix):
    """The listed name with the suffix under which the file lies there, or with `suffix` if it lies nowhere."""
    stem = Path(name).stem
    candidates = [stem + s for s in (suffix, Path(name).suffix, *SUFFIXES)]
    return next((candidate for candidate in candidates if candidate in names), candidates[0])


def _read_pairs(root, path):
    pairs = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if not parts:
            continue
        if len(parts) != 2:
            raise ValueError(
                f"{path} line {number} is {line.strip()!r}: write `image mask`, and a tab between them "
                "where a name has spaces."
            )
        pairs.append((str(root / parts[0].strip()), str(root / parts[1].strip())))
    return pairs


def find_pairs(data_root, split, seed=0):
    """The pairs of one split over all roots.

    Where no root has a validation list, a tenth of the training photos is split off by `seed`; a root without one
    beside a root with one only trains.

    Args:
        data_root: a folder or a list of folders.
        split: train, val or test.

    Returns:
        pairs: list of (image path, mask path).
        notes: list of sentences that the user should read.

    Raises:
        FileNotFoundError, ValueError: as `read_lists`; a split that no root has; files that are missing.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: choose one of {', '.join(SPLITS)}.")
    roots = [data_root] if isinstance(data_root, str | os.PathLike) else list(data_root)
    lists = [read_lists(root) for root in roots]
    listed = {s: [pair for found in lists for pair in found.get(s, [])] for s in SPLITS}
    notes = []
    if listed["train"] and not any("val" in found for found in lists) and split != "test":
        order = np.random.default_rng(seed).permutation(len(listed["train"]))
        count = max(1, round(VAL_SHARE * len(order)))
        chosen = order[:count] if split == "val" else order[count:]
        listed[split] = [listed["train"][i] for i in sorted(chosen)]
        notes.append(
            f"No validation list in {_join(roots)}: {count} of the {len(order)} training photos "
            f"are kept for validation (seed {seed})."
        )
    pairs = listed[split]
    if not pairs:
        present = [s for s in SPLITS if listed[s]]
        raise FileNotFoundError(
            f"No {split} photos in {_join(roots)}: there is a list for {' and '.join(present) or 'none'}; choose one "
            f"of those as split or add {OFFICIAL_LIST.format(split)} or {PAIR_LIST.format(split)}."
        )
    missing = [path for pair in pairs for path in pair if not os.path.exists(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} listed files are missing, the first is {missing[0]}: "
            f"`python dataset.py --data_root {' '.join(map(str, roots))}` names them all."
        )
    return pairs, notes


def _join(roots):
    return ", ".join(str(root) for root in roots)


def split_backgrounds(folder):
    """The person-free photos of a folder: those for training and every tenth, sorted by name, for evaluation.

    Returns:
        (train, held_out): lists of paths.

    Raises:
        FileNotFoundError: no such folder, or fewer than two photos in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}: give a folder of photos without people as backgrounds."
        )
    paths = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise FileNotFoundError(f"{folder} has {len(paths)} photos: backgrounds need at least two.")
    held_out = paths[::HELD_OUT_EVERY]
    return [path for i, path in enumerate(paths) if i % HELD_OUT_EVERY], held_out


class PhotoCache:
    """Photos decoded once and kept on disk at the size that augmentation needs.

    One .npy file a photo, named after the paths, times of change and sizes of its files, so a changed photo is
    decoded anew. Written under a temporary name and renamed: any number of processes may share the folder. When
    `limit` bytes lie in it (a process looks every 256 photos, so it may overshoot by some 100 MB) or the disk is
    full, photos are decoded and not kept. Nothing is deleted.

    Args:
        folder: where; None keeps nothing.
        limit: bytes.
    """

    def __init__(self, folder, limit):
        self.folder, self.limit = None if folder is None else Path(folder), limit
        self.room = 0  # bytes this process may write before it measures the folder again
        self.written = ENTRIES_PER_CENSUS
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def photo(self, image_path, mask_path=None):
        """A photo with its mask as fourth channel.

        Args:
            mask_path: None for a person-free photo.

        Returns:
            (H, W, 4) uint8, BGR and mask 0..255 (averaged, so soft), longer side at most CACHE_SIDE.
        """
        if self.folder is None:
            return decode(image_path, mask_path)
        path = self.folder / self._name(image_path, mask_path)
        try:
            return np.load(path)
        except FileNotFoundError:
            pass
        except (
            ValueError,
            EOFError,
        ):  # not whole, after a crash of the machine: decode and replace it
            pass
        photo = decode(image_path, mask_path)
        self._keep(path, photo)
        return photo

    def _name(self, *paths):
        key = str(CACHE_SIDE)
        for path in paths:
            if path is not None:
                status = os.stat(path)
                key += f"|{os.path.abspath(path)}|{status.st_mtime_ns}|{status.st_size}"
        return hashlib.sha1(key.encode()).hexdigest() + ".npy"

    def _keep(self, path, photo):
        if self.written >= ENTRIES_PER_CENSUS:
            with os.scandir(self.folder) as entries:
                self.room = self.limit - sum(entry.stat().st_size for entry in entries)
            self.written = 0
        if self.room < photo.nbytes:
            return
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                np.save(file, photo)
            temporary.replace(path)
        except OSError:  # disk full: go on without keeping
            temporary.unlink(missing_ok=True)
            self.room = 0
            return
        self.room -= photo.nbytes
        self.written += 1


def decode(image_path, mask_path=None):
    """Read a photo and its mask and reduce both to CACHE_SIDE: what `PhotoCache.photo` returns."""
    image = read_image(image_path)
    if mask_path is None:
        mask = np.zeros(image.shape[:2], np.uint8)
    else:
        mask = read_mask(mask_path) * np.uint8(255)
        _same_size(image, mask, image_path, mask_path)
    if max(mask.shape) > CACHE_SIDE:
        height, width = letterbox_box(*mask.shape, CACHE_SIDE)[2:]
        image, mask = resize(image, height, width), resize(mask, height, width)
    return np.dstack([image, mask])


def _same_size(image, mask, image_path, mask_path):
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"{image_path} is {image.shape[1]}x{image.shape[0]} and its mask {mask_path} "
            f"{mask.shape[1]}x{mask.shape[0]} pixels: they must agree."
        )


def swap_background(photo, background, rng):
    """Put the person of one photo in front of another photo.

    A random part of `background` with the photo's proportions, mirrored half of the time and blurred half of the
    time, as lenses do. Its brightness moves half of the way to that of the old background, and the mask is
    feathered, so that no cut-out line gives the person away.

    Args:
        photo: (H, W, 4) uint8, BGR and mask 0..255.
        background: (h, w, 4) uint8.

    Returns:
        (H, W, 4) uint8, the mask unchanged.
    """
    height, width = photo.shape[:2]
    image, mask = photo[:, :, :3], photo[:, :, 3]
    scene = random_part(background[:, :, :3], height, width, rng)
    if rng.random() < 0.5:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.5, 3))
    old, new = np.mean(cv2.mean(image, 255 - mask)[:3]), np.mean(cv2.mean(scene)[:3])
    gain = np.clip(np.sqrt((old + 8) / (new + 8)), 0.6, 1.6)
    alpha = cv2.GaussianBlur(mask, (5, 5), 0).astype(np.float32) / 255
    swapped = cv2.blendLinear(image, cv2.convertScaleAbs(scene, alpha=gain), alpha, 1 - alpha)
    return np.dstack([swapped, mask])


def random_part(image, height, width, rng):
    """A random rectangle of an image with the proportions of height x width, mirrored at random, at that size."""
    share = rng.uniform(0.6, 1) * min(image.shape[0] / height, image.shape[1] / width)
    part_height, part_width = max(1, int(share * height)), max(1, int(share * width))
    top = rng.integers(image.shape[0] - part_height + 1)
    left = rng.integers(image.shape[1] - part_width + 1)
    part = resize(image[top : top + part_height, left : left + part_width], height, width)
    return cv2.flip(part, 1) if rng.random() < 0.5 else part


class PortraitDataset(Dataset):
    """Photos of people with their masks, letterboxed to a square.

    Item i is (image, texture, mask, edge): (S, S, 3), (S, S, 3), (S, S), (S, S) uint8. With `augment` the photo is
    deformed (all four alike) and `texture` is a copy of `image` in other light; all chance comes from
    (seed, epoch, i), so that a sample depends neither on workers nor on ranks nor on the order. Without it,
    `texture` is `image`.

    Args:
        data_root: a folder or a list of folders (docs/data.md).
        split: train, val or test.
        size: side S of the square; the attribute may be changed between epochs.
        augment: deform and vary.
        seed: of the augmentation, and of the validation photos where no list names them.
        backgrounds: folder of person-free photos; every tenth is left out for evaluation.
        background_prob: probability that a photo gets one of them as background.
        empty_share: probability that a sample is one of them, with empty mask and edge.
        cache_dir: folder of the cache, None for none; used with `augment` alone, as evaluation reads whole photos.
        cache_gb: bound of that folder, GB.
        rotation: degrees, most turn either way.
        scale: (least, most) enlargement.
        shift: most shift, as a share of S.
        flip_prob: probability of mirroring.

    Attributes:
        pairs: list of (image path, mask path).
        notes: sentences for the user, to be printed once.

    Raises:
        FileNotFoundError, ValueError: see `find_pairs` and `split_backgrounds`; background_prob or empty_share
            without backgrounds.
    """

    def __init__(
        self,
        data_root,
        split,
        size=SIZE,
        augment=False,
        seed=0,
        backgrounds=None,
        background_prob=0.0,
        empty_share=0.0,
        cache_dir=None,
        cache_gb=8.0,
        rotation=45.0,
        scale=(0.5, 1.5),
        shift=0.25,
        flip_prob=0.5,
    ):
        super().__init__()
        self.pairs, self.notes = find_pairs(data_root, split, seed)
        self.size, self.augment, self.seed, self.epoch = size, augment, seed, 0
        self.background_prob, self.empty_share = background_prob, empty_share
        if backgrounds is None and (background_prob or empty_share):
            raise ValueError(
                "background_prob and empty_share need person-free photos: give their folder as backgrounds."
            )
        self.backgrounds = [] if backgrounds is None else split_backgrounds(backgrounds)[0]
        self.deformation = (
            RandomHorizontalFlip(flip_prob),
            RandomRotation(angle=rotation, scale=scale),
            RandomTranslate(shift=shift),
        )
        self.cache = PhotoCache(cache_dir if augment else None, cache_gb * 1e9)

    def __len__(self):
        return len(self.pairs)

    def set_epoch(self, epoch):
        """Choose the augmentation; call it before the workers of an epoch start."""
        self.epoch = epoch

    def photo(self, index):
        """image (H, W, 3) uint8 BGR and mask (H, W) uint8 0/1 at the photo's own size.

        Raises:
            ValueError: the two differ in size, or a file cannot be read.
        """
        image_path, mask_path = self.pairs[index]
        image, mask = read_image(image_path), read_mask(mask_path)
        _same_size(image, mask, image_path, mask_path)
        return image, mask

    def __getitem__(self, index):
        if self.augment:
            return self._augmented(index)
        image, mask = self.photo(index)
        square, (top, left, height, width) = letterbox(image, self.size)
        mask = letterbox_mask(mask, self.size)
        shown = np.zeros_like(mask)
        shown[top : top + height, left : left + width] = 1
        return square, square, mask, edge_of(mask, shown)

    def _augmented(self, index):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        photo = self._draw_photo(index, rng)
        height, width = photo.shape[:2]
        matrix = letterbox_matrix(height, width, self.size)
        for transform in self.deformation:
            matrix = transform.matrix(self.size, rng) @ matrix
        image, mask = warp(photo, matrix, self.size, self.size)
        return (
            image,
            degrade(image, rng),
            mask,
            edge_of(mask, inside(height, width, matrix, self.size)),
        )

    def _draw_photo(self, index, rng):
        """The listed photo, the same before another background, or a person-free photo."""
        is_empty, is_swapped = rng.random() < self.empty_share, rng.random() < self.background_prob
        if not (is_empty or is_swapped):
            return self.cache.photo(*self.pairs[index])
        background = self.cache.photo(self.backgrounds[rng.integers(len(self.backgrounds))])
        return (
            background
            if is_empty
            else swap_background(self.cache.photo(*self.pairs[index]), background, rng)
        )


def worker_init(_worker_id):
    """For `paddle.io.DataLoader(worker_init_fn=...)`: a worker is one thread, the cores belong to the training."""
    cv2.setNumThreads(0)


def check_pair(image_path, mask_path):
    """Read one pair from end to end.

    Returns:
        problems: list of sentences.
        digest: of the photo's file; None if there is none.
    """
    problems = [f"missing: {path}" for path in (image_path, mask_path) if not os.path.exists(path)]
    digest = None
    image, mask = None, None
    if os.path.exists(image_path):
        digest = hashlib.sha1(Path(image_path).read_bytes()).digest()
        image = _read(read_image, image_path, problems)
    if os.path.exists(mask_path):
        mask = _read(read_mask, mask_path, problems)
    if mask is not None and not mask.any():
        problems.append(f"empty mask: {mask_path}")
    elif mask is not None and mask.all():
        problems.append(f"full mask: {mask_path}")
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        problems.append(
            f"sizes differ: {image_path} {image.shape[1]}x{image.shape[0]}, "
            f"{mask_path} {mask.shape[1]}x{mask.shape[0]}"
        )
    return problems, digest


def _read(read, path, problems):
    try:
        return read(path)
    except (ValueError, OSError) as error:
        problems.append(f"unreadable: {error}")
        return None


def check(roots, splits=SPLITS):
    """Read every listed pair, print each problem and the counts.

    Returns:
        number of problems.
    """
    listed = [
        (root, split, pair)
        for root in roots
        for split, pairs in read_lists(root).items()
        for pair in pairs
    ]
    listed = [entry for entry in listed if entry[1] in splits]
    counts, first, problem_count = Counter((str(root), split) for root, split, _ in listed), {}, 0
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda entry: check_pair(*entry[2]), listed)
        for (_, split, (image_path, _)), (problems, digest) in zip(
            listed, tqdm(results, total=len(listed), unit="pair"), strict=True
        ):
            if digest in first:
                other_path, other_split = first[digest]
                problems.append(
                    f"duplicate: {image_path} ({split}) is {other_path} ({other_split})"
                )
            elif digest is not None:
                first[digest] = image_path, split
            problem_count += len(problems)
            for problem in problems:
                tqdm.write(problem)
    for (root, split), count in counts.items():
        print(f"{root} {split}: {count} pairs")
    print(f"{problem_count} problems in {len(listed)} pairs")
    return problem_count


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description="Read every photo and mask of data sets and name what is wrong.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data_root", nargs="+", required=True, help="folders of data sets")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=SPLITS, help="lists to read")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        return 1 if check(args.data_root, args.split) else 0
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
