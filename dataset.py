"""Portrait data sets: photos and masks on disk -> (image, texture-augmented image, mask, edge).

`python dataset.py --data_root EG1800 Picsart` reads every pair and names each file that is missing
or wrong. docs/data.md describes the layouts.
"""

import argparse
import ctypes
import hashlib
import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
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
from transforms.geometry import inside_of, letterbox_box, letterbox_matrix, resize, warp

PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h
SPLITS = ("train", "val", "test")
OFFICIAL_LIST = "eg1800_{}.txt"  # lines are names, photos in Images/, masks in Labels/
PAIR_LIST = "{}_list.txt"  # lines are "image mask", relative to the root
VAL_SHARE = 0.1  # split off the training photos where no root has a validation list
HELD_OUT_EVERY = 10  # of the person-free photos, sorted by name, kept for evaluation
CACHE_SIDE = SIZE * 3 // 2  # longer side of a photo before augmentation, pixels
MAJORITY = 5  # pixels: window of the vote that takes speckles off a training mask
PHOTOS_PER_CENSUS = 256  # cached photos that a process writes before it measures the folder again


def default_cache_dir():
    """The folder for decoded photos in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "portraitnet" / "photos"


def read_lists(data_root):
    """The pairs that one root lists, whether the files exist or not.

    Args:
        data_root: folder in the official EG1800 layout or in the list layout.

    Returns:
        dict from the name of a split to a list of (image path, mask path).

    Raises:
        FileNotFoundError: no such folder, or no list in it.
        ValueError: a line that is not `image mask`.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}: give the folder of a data set as data_root.")
    lists = {}
    for split in SPLITS:
        official, paired = root / OFFICIAL_LIST.format(split), root / PAIR_LIST.format(split)
        if official.is_file():
            lists[split] = _read_names(root, official)
        elif paired.is_file():
            lists[split] = _read_pairs(root, paired)
    if not lists:
        raise FileNotFoundError(
            f"{root} has no list of photos: it needs {OFFICIAL_LIST.format('train')} beside "
            f"Images/ and Labels/, or {PAIR_LIST.format('train')} with lines `image mask`."
        )
    return lists


def _read_names(root, path):
    images, labels = _names_in(root / "Images"), _names_in(root / "Labels")
    names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    return [
        (
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


def _read_pairs(root, path):
    pairs = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        parts = line.strip().split("\t") if "\t" in line.strip() else line.split()
        if len(parts) not in (0, 2):
            raise ValueError(
                f"{path} line {number} is {line.strip()!r}: write `image mask`, "
                "with a tab between them where a name has spaces."
            )
        if parts:
            pairs.append((str(root / parts[0].strip()), str(root / parts[1].strip())))
    return pairs


def find_pairs(data_root, split, seed=0):
    """The pairs of one split over all roots.

    Where no root has a validation list, a tenth of the training photos is split off by `seed`.
    Where one has, a root without contributes to the training alone.

    Args:
        data_root: a folder or a list of folders.
        split: train, val or test.

    Returns:
        pairs: list of (image path, mask path).
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
        order = np.random.default_rng(seed).permutation(len(listed["train"]))
        count = max(1, round(VAL_SHARE * len(order)))
        parts = {"val": sorted(order[:count]), "train": sorted(order[count:])}
        listed.update({s: [listed["train"][i] for i in part] for s, part in parts.items()})
        notes.append(
            f"No validation list in {where}: {count} of the {len(order)} training photos "
            f"are kept for validation (seed {seed})."
        )
    pairs = listed[split]
    if not pairs:
        present = " and ".join(s for s in SPLITS if listed[s])
        raise FileNotFoundError(
            f"No {split} photos in {where}: there are {present or 'no'} photos; choose such a "
            f"split, or add {OFFICIAL_LIST.format(split)} or {PAIR_LIST.format(split)}."
        )
    missing = [path for pair in pairs for path in pair if not os.path.exists(path)]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} listed files are missing, the first is {missing[0]}: "
            f"`python dataset.py --data_root {' '.join(map(str, roots))}` names them all."
        )
    return pairs, notes


def split_backgrounds(folder):
    """The person-free photos of a folder, every tenth by name held out for evaluation.

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


class PhotoCache:
    """Photos decoded once and kept on disk at the size that augmentation needs.

    One .npy file a photo, named after the paths, sizes and times of change of its files: a changed
    photo is decoded anew. Files are written under a temporary name and renamed, so any number of
    processes may share the folder. When `limit` bytes lie in it (each process looks every 256
    photos, so it may be passed by some 100 MB) or the disk is full, photos are decoded and not
    kept. Nothing is deleted.

    Args:
        folder: where, made when missing; None keeps nothing.
        limit: bytes.
    """

    def __init__(self, folder, limit):
        self.folder, self.limit = None if folder is None else Path(folder), limit
        self.room, self.until_census = 0, 0  # bytes, photos
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def photo(self, image_path, mask_path=None):
        """What `decode` returns, from the cache where it is there."""
        if self.folder is None:
            return decode(image_path, mask_path)
        path = self.folder / cache_name(image_path, mask_path)
        try:
            return np.load(path)
        except (FileNotFoundError, ValueError, EOFError):  # new, or not whole after a power cut
            photo = decode(image_path, mask_path)
        try:
            self._keep(path, photo)
        except OSError:  # disk full or folder gone: go on, try again later
            self.room, self.until_census = 0, PHOTOS_PER_CENSUS
        return photo

    def _keep(self, path, photo):
        if self.until_census == 0:
            with os.scandir(self.folder) as entries:
                self.room = self.limit - sum(entry.stat().st_size for entry in entries)
            self.until_census = PHOTOS_PER_CENSUS
        self.until_census -= 1
        if photo.nbytes > self.room:
            return
        self.room -= photo.nbytes
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                np.save(file, photo)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def cache_name(image_path, mask_path=None):
    """The name of a photo's file in the cache."""
    key = [CACHE_SIDE, MAJORITY]
    for path in filter(None, (image_path, mask_path)):
        status = os.stat(path)
        key += [os.path.abspath(path), status.st_mtime_ns, status.st_size]
    return hashlib.sha1(repr(key).encode()).hexdigest() + ".npy"


def decode(image_path, mask_path=None):
    """Read a photo with its mask and reduce both to what augmentation needs.

    The mask loses its speckles by a majority vote over 5x5 pixels, as the paper's truth does.

    Args:
        mask_path: None for a photo without a person.

    Returns:
        (H, W, 4) uint8, BGR and mask 0..255 (averaged, so soft), longer side at most CACHE_SIDE.

    Raises:
        FileNotFoundError, ValueError: see `read_pair`.
    """
    if mask_path is None:
        image = read_image(image_path)
        mask = np.zeros(image.shape[:2], np.uint8)
    else:
        image, mask = read_pair(image_path, mask_path)
    mask = mask * np.uint8(255)
    if max(mask.shape) > CACHE_SIDE:
        height, width = letterbox_box(*mask.shape, CACHE_SIDE)[2:]
        image, mask = resize(image, height, width), resize(mask, height, width)
    return cv2.merge([image, cv2.medianBlur(mask, MAJORITY)])


def read_pair(image_path, mask_path):
    """image (H, W, 3) uint8 BGR and mask (H, W) uint8 0/1 at the photo's own size.

    Raises:
        FileNotFoundError, ValueError: as `read_image` and `read_mask`; the two differ in size.
    """
    image, mask = read_image(image_path), read_mask(mask_path)
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"{image_path} has {image.shape[1]}x{image.shape[0]} pixels and its mask {mask_path} "
            f"{mask.shape[1]}x{mask.shape[0]}: give the mask the size of the photo."
        )
    return image, mask


def swap_background(photo, background, rng):
    """Put the person of one photo in front of another photo.

    A random part of `background` with the photo's proportions, blurred half of the time, as lenses
    do. Its brightness moves half of the way to that of the old background and the mask is
    feathered, so that no cut-out line gives the person away.

    Args:
        photo: (H, W, 4) uint8, BGR and mask 0..255.
        background: (h, w, 4) uint8.

    Returns:
        (H, W, 4) uint8, the mask unchanged.
    """
    image, mask = cv2.cvtColor(photo, cv2.COLOR_BGRA2BGR), cv2.extractChannel(photo, 3)
    scene = cv2.cvtColor(_random_part(background, *mask.shape, rng), cv2.COLOR_BGRA2BGR)
    if rng.random() < 0.5:
        scene = cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.5, 3))
    old, new = sum(cv2.mean(image, 255 - mask)), sum(cv2.mean(scene))
    gain = np.clip(np.sqrt((old + 24) / (new + 24)), 0.6, 1.6)
    weight = cv2.GaussianBlur(mask, (5, 5), 0).astype(np.float32) / 255
    swapped = cv2.blendLinear(image, cv2.convertScaleAbs(scene, alpha=gain), weight, 1 - weight)
    return cv2.merge([swapped, mask])


def _random_part(picture, height, width, rng):
    """A random rectangle with the proportions of height x width at that size, mirrored or not."""
    share = rng.uniform(0.6, 1) * min(picture.shape[0] / height, picture.shape[1] / width)
    part_height, part_width = max(1, int(share * height)), max(1, int(share * width))
    top = rng.integers(picture.shape[0] - part_height + 1)
    left = rng.integers(picture.shape[1] - part_width + 1)
    part = resize(picture[top : top + part_height, left : left + part_width], height, width)
    return cv2.flip(part, 1) if rng.random() < 0.5 else part


class PortraitDataset:
    """Photos of people with their masks, letterboxed to a square.

    Item i is (image, texture, mask, edge): (S, S, 3), (S, S, 3), (S, S), (S, S) uint8. With
    `augment` the photo is deformed (all four alike) and `texture` is the image in other light; all
    chance comes from (seed, epoch, i), so a sample depends neither on workers nor on ranks nor on
    the order. Without it the photo lies upright and whole in the square and `texture` is `image`.

    Args:
        data_root: a folder or a list of folders (docs/data.md).
        split: train, val or test.
        size: side S of the square; the attribute may be changed between epochs.
        augment: deform and vary.
        seed: of the augmentation, and of the choice of validation photos where no list names them.
        backgrounds: folder of person-free photos; every tenth is held out (`split_backgrounds`).
        background_prob: probability that a photo gets one of them as background.
        empty_share: probability that a sample is one of them, with empty mask and edge.
        cache_dir: folder for decoded photos, None for none (`default_cache_dir()` is a good one);
            used with `augment` alone: evaluation reads the photos as they are.
        cache_gb: bound of that folder, GB.
        rotation: degrees, most turn either way.
        scale: (least, most) enlargement.
        shift: most shift either way, as a share of S.
        flip_prob: probability of mirroring.
        texture_prob: probability that `texture` differs from `image`.

    Attributes:
        pairs: list of (image path, mask path).
        strength: share 0..1 of rotation, scale and shift in use; set it between epochs.
        notes: sentences for the user, to be printed once.

    Raises:
        FileNotFoundError, ValueError: see `find_pairs` and `split_backgrounds`; background_prob or
            empty_share without backgrounds.
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
        texture_prob=1.0,
    ):
        super().__init__()
        if backgrounds is None and (background_prob or empty_share):
            raise ValueError(
                f"background_prob {background_prob} and empty_share {empty_share} need photos "
                "without people: give their folder as backgrounds."
            )
        self.pairs, self.notes = find_pairs(data_root, split, seed)
        self.backgrounds = [] if backgrounds is None else split_backgrounds(backgrounds)[0]
        self.background_prob, self.empty_share = background_prob, empty_share
        self.size, self.augment, self.seed, self.epoch = size, augment, seed, 0
        self.rotation, self.scale, self.shift = rotation, scale, shift
        self.flip_prob, self.texture_prob, self.strength = flip_prob, texture_prob, 1.0
        try:
            self.cache = PhotoCache(cache_dir if augment else None, cache_gb * 1e9)
        except OSError as error:
            self.cache = PhotoCache(None, 0)
            self.notes.append(
                f"Photos are decoded anew every epoch, for there is no cache ({error})."
            )

    def __len__(self):
        return len(self.pairs)

    def set_epoch(self, epoch):
        """Choose the augmentation; call it before the workers of an epoch start."""
        self.epoch = epoch

    def deformation(self):
        """The transforms that move pixels, in their order, at the present `strength`."""
        least, most = self.scale
        scale = 1 - self.strength * (1 - least), 1 + self.strength * (most - 1)
        return (
            RandomHorizontalFlip(self.flip_prob),
            RandomRotation(angle=self.strength * self.rotation, scale=scale),
            RandomTranslate(shift=self.strength * self.shift),
        )

    def photo(self, index):
        """image (H, W, 3) uint8 BGR and mask (H, W) uint8 0/1 at the photo's own size."""
        return read_pair(*self.pairs[index])

    def __getitem__(self, index):
        if self.augment:
            return self._augmented(index)
        image, mask = self.photo(index)
        square, (top, left, height, width) = letterbox(image, self.size)
        inside = np.zeros((self.size, self.size), np.uint8)
        inside[top : top + height, left : left + width] = 1
        mask = letterbox_mask(mask, self.size)
        return square, square, mask, edge_of(mask, inside)

    def _augmented(self, index):
        rng = np.random.default_rng((self.seed, self.epoch, index))
        photo = self._draw_photo(index, rng)
        matrix = letterbox_matrix(*photo.shape[:2], self.size)
        for transform in self.deformation():
            matrix = transform.matrix(self.size, rng) @ matrix
        image, mask = warp(photo, matrix, self.size, self.size)
        inside = inside_of(*photo.shape[:2], matrix, self.size)
        varied = rng.random() < self.texture_prob
        texture = degrade(image, rng, inside) if varied else image
        return image, texture, mask, edge_of(mask, inside)

    def _draw_photo(self, index, rng):
        """The photo, the same before another background, or a photo without a person."""
        empty, swapped = rng.random() < self.empty_share, rng.random() < self.background_prob
        if not empty and not swapped:
            return self.cache.photo(*self.pairs[index])
        background = self.cache.photo(self.backgrounds[rng.integers(len(self.backgrounds))])
        if empty:
            return background
        return swap_background(self.cache.photo(*self.pairs[index]), background, rng)


def load_batches(dataset, batches, num_workers):
    """Read and augment batches in worker processes, at most two a worker ahead of their use.

    The workers are forked here, so they see the dataset as it is now: call this once an epoch.

    Args:
        dataset: PortraitDataset.
        batches: list of lists of indices.
        num_workers: processes; 0 reads in this one.

    Yields:
        [image, texture, mask, edge] for each list in order: uint8 with a leading batch axis.

    Raises:
        FileNotFoundError, ValueError: a photo cannot be read.
    """
    if num_workers == 0:
        yield from (load_batch(dataset, batch) for batch in batches)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_workers, context, worker_init) as pool:
        ahead = deque()
        try:
            for batch in batches:
                ahead.append(pool.submit(load_batch, dataset, batch))
                if len(ahead) > 2 * num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def load_batch(dataset, batch):
    """[image, texture, mask, edge] of a list of indices, stacked."""
    return [np.stack(arrays) for arrays in zip(*(dataset[index] for index in batch))]


def worker_init():
    """A worker is one thread, leaves Ctrl-C to the training, and ends with it, come what may."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def check_pair(image_path, mask_path):
    """Read one pair from end to end.

    Returns:
        problems: list of sentences.
        digest: of the photo's file, bytes; None if it cannot be read.
    """
    problems, pictures, digest = [], [], None
    for path, read in ((image_path, read_image), (mask_path, read_mask)):
        try:
            pictures.append(read(path))
        except FileNotFoundError:
            problems.append(f"missing: {path}")
        except (OSError, ValueError) as error:
            problems.append(f"unreadable: {error}")
        else:
            if path == image_path:
                digest = hashlib.sha1(Path(path).read_bytes()).digest()
            elif not pictures[-1].any():
                problems.append(f"empty mask: {path}")
            elif pictures[-1].all():
                problems.append(f"full mask: {path}")
    if len(pictures) == 2 and pictures[0].shape[:2] != pictures[1].shape:
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in pictures)
        problems.append(f"different sizes: {image_path} and {mask_path}, {sizes}")
    return problems, digest


def check(roots, splits=SPLITS):
    """Read every listed pair; print each problem, then the counts.

    Returns:
        number of problems.
    """
    listed = [
        (root, split, pair)
        for root in roots
        for split, pairs in read_lists(root).items()
        for pair in pairs
        if split in splits
    ]
    seen, problem_count = {}, 0  # seen: digest -> where
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda entry: check_pair(*entry[2]), listed)
        bar = tqdm(results, total=len(listed), unit="pair")
        for (_, split, (image_path, _)), (problems, digest) in zip(listed, bar):
            name = f"{image_path} ({split})"
            if digest in seen:
                problems.append(f"duplicate: {name} has the content of {seen[digest]}")
            elif digest is not None:
                seen[digest] = name
            problem_count += len(problems)
            for problem in problems:
                tqdm.write(problem)
    for (root, split), count in Counter((root, split) for root, split, _ in listed).items():
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
