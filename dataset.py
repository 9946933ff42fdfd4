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
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from images import SUFFIXES, read_image, read_mask, read_share
from transforms import DEFORMATION, SIZE, TEXTURE, degrade, edge_of
from transforms.compose import add_person, cover_part, swap_background
from transforms.geometry import fit_matrix, inside_of, letterbox_box, resize, threshold, warp

PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h
SPLITS = ("train", "val", "test")
OFFICIAL_LIST = "eg1800_{}.txt"  # lines are names, photos in Images/, masks in Labels/
PAIR_LIST = "{}_list.txt"  # lines are "image mask", relative to the root
SOFT_LIST = "soft_list.txt"  # the same, more training photos, whose masks are shares 0..255
VAL_SHARE = 0.1  # split off the training photos where no root has a validation list
HELD_OUT_EVERY = 10  # of the person-free photos, sorted by name, kept for evaluation
CACHE_SIDE = SIZE * 3 // 2  # longer side of a photo before augmentation, pixels
MAJORITY = 5  # pixels: window of the vote that takes speckles off a training mask
CACHE_LIMIT = 8e9  # bytes
PHOTOS_PER_CENSUS = 256  # cached photos that a process writes before it measures the folder again


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


def default_cache_dir():
    """The folder for decoded photos in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "portraitnet" / "photos"


def read_lists(data_root):
    """The pairs that one root lists, whether the files exist or not.

    Args:
        data_root: folder in the official EG1800 layout or in the list layout.

    Returns:
        dict from the name of a split to a list of Pair.

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
    if (root / SOFT_LIST).is_file():
        lists["train"] = lists.get("train", []) + _read_pairs(root, root / SOFT_LIST, soft=True)
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


def _read_pairs(root, path, soft=False):
    pairs = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        parts = line.strip().split("\t") if "\t" in line.strip() else line.split()
        if len(parts) not in (0, 2):
            raise ValueError(
                f"{path} line {number} is {line.strip()!r}: write `image mask`, "
                "with a tab between them where a name has spaces."
            )
        if parts:
            image_path, mask_path = (str(root / part.strip()) for part in parts)
            pairs.append(Pair(image_path, mask_path, soft))
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
        count = max(1, round(VAL_SHARE * len(eligible)))
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
            f"No {split} photos in {where}: there are {present or 'no'} photos; choose such a "
            f"split, or add {OFFICIAL_LIST.format(split)} or {PAIR_LIST.format(split)}."
        )
    missing = [path for pair in pairs for path in pair[:2] if not os.path.exists(path)]
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

    def __init__(self, folder, limit=CACHE_LIMIT):
        self.folder, self.limit = None if folder is None else Path(folder), limit
        self.room, self.until_census = 0, 0  # bytes, photos
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def photo(self, *pair):
        """What `decode` returns, from the cache where it is there."""
        if self.folder is None:
            return decode(*pair)
        path = self.folder / cache_name(*pair)
        try:
            return np.load(path)
        except (FileNotFoundError, ValueError, EOFError):  # new, or not whole after a power cut
            photo = decode(*pair)
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


def cache_name(image_path, mask_path=None, soft=False):
    """The name of a photo's file in the cache."""
    key = [CACHE_SIDE, MAJORITY, soft]
    for path in filter(None, (image_path, mask_path)):
        status = os.stat(path)
        key += [os.path.abspath(path), status.st_mtime_ns, status.st_size]
    return hashlib.sha1(repr(key).encode()).hexdigest() + ".npy"


def decode(image_path, mask_path=None, soft=False):
    """Read a photo with its mask and reduce both to what augmentation needs.

    A hard mask loses its speckles by a majority vote over 5x5 pixels, as the paper's truth does.

    Args:
        image_path, mask_path, soft: a Pair; without a mask it is a photo without a person.

    Returns:
        (H, W, 4) uint8, BGR and the person's share 0..255, longer side at most CACHE_SIDE.

    Raises:
        FileNotFoundError, ValueError: see `read_pair`.
    """
    if mask_path is None:
        image = read_image(image_path)
        mask = np.zeros(image.shape[:2], np.uint8)
    else:
        image, mask = read_pair(image_path, mask_path, soft)
    share = np.rint(mask * np.float32(255)).astype(np.uint8)
    if max(mask.shape) > CACHE_SIDE:
        height, width = letterbox_box(*mask.shape, CACHE_SIDE)[2:]
        image, share = resize(image, height, width), resize(share, height, width)
    return cv2.merge([image, share if soft else cv2.medianBlur(share, MAJORITY)])


def read_pair(image_path, mask_path, soft=False):
    """A photo and its mask at the photo's own size.

    Returns:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 0/1; of a soft pair float32 0..1, the person's share of each pixel.

    Raises:
        FileNotFoundError, ValueError: as `read_image` and `read_mask`; the two differ in size.
    """
    image = read_image(image_path)
    mask = read_share(mask_path) if soft else read_mask(mask_path)
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"{image_path} has {image.shape[1]}x{image.shape[0]} pixels and its mask {mask_path} "
            f"{mask.shape[1]}x{mask.shape[0]}: give the mask the size of the photo."
        )
    return image, mask


class PortraitDataset:
    """The pairs of photos and masks of one split.

    Args:
        data_root: a folder or a list of folders (docs/data.md).
        split: train, val or test.
        seed: of the choice of validation photos where no list names them.

    Attributes:
        pairs: list of Pair.
        notes: sentences for the user, to be printed once.

    Raises:
        FileNotFoundError, ValueError: see `find_pairs`.
    """

    def __init__(self, data_root, split, seed=0):
        self.pairs, self.notes = find_pairs(data_root, split, seed)

    def __len__(self):
        return len(self.pairs)

    def photo(self, index):
        """image (H, W, 3) uint8 BGR and its mask (H, W), see `read_pair`, at the photo's size."""
        return read_pair(*self.pairs[index])


def validation_sets(data_root, split="val", seed=0):
    """The lists to be scored apart: {name of the folder: PortraitDataset}.

    A root without such a list is left out; where none has one, what `find_pairs` splits off the
    training photos is the only set.

    Raises:
        FileNotFoundError, ValueError: see `find_pairs`.
    """
    roots = list(dict.fromkeys(Path(root) for root in data_root))
    listed = [root for root in roots if read_lists(root).get(split)]
    if not listed:
        return {split: PortraitDataset(roots, split, seed)}
    names = [root.resolve().name for root in listed]
    if len(set(names)) < len(names):
        names = [str(root) for root in listed]
    return {name: PortraitDataset(root, split, seed) for name, root in zip(names, listed)}


class TrainingSamples:
    """What training sees of its photos: deformed, in other light, before other backgrounds.

    All chance comes from (seed, epoch, index), so a sample depends neither on workers nor on ranks
    nor on the order.

    Args:
        pairs: list of Pair.
        deformation: transforms that move pixels, each with `matrix(view_shape, rng, strength)`.
        texture: transforms that change light, blur and noise of the second copy.
        texture_prob: probability that they are applied at all.
        seed: of all chance.
        backgrounds: paths of photos without people.
        background_prob: probability that a photo gets one of them as background.
        empty_share: probability that a sample is one of them, with empty mask and edge.
        least_scale: smallest size of a person on another background, 0..1 (`swap_background`).
        person_prob: probability that a second person is added (`add_person`).
        thing_prob: probability that a thing hides a part of the person (`cover_part`).
        cache_dir: folder for decoded photos, None for none (`default_cache_dir()` is a good one).

    Attributes:
        notes: sentences for the user, to be printed once.

    Raises:
        ValueError: background_prob, empty_share or thing_prob without backgrounds.
    """

    def __init__(
        self,
        pairs,
        deformation=DEFORMATION,
        texture=TEXTURE,
        texture_prob=1.0,
        seed=0,
        backgrounds=(),
        background_prob=0.0,
        empty_share=0.0,
        least_scale=1.0,
        person_prob=0.0,
        thing_prob=0.0,
        cache_dir=None,
    ):
        if not backgrounds and (background_prob or empty_share or thing_prob):
            raise ValueError(
                f"background_prob {background_prob}, empty_share {empty_share} and thing_prob "
                f"{thing_prob} need photos without people: give their folder as backgrounds."
            )
        self.pairs, self.backgrounds, self.seed = pairs, [Pair(path) for path in backgrounds], seed
        self.deformation, self.texture, self.texture_prob = deformation, texture, texture_prob
        self.background_prob, self.empty_share = background_prob, empty_share
        self.least_scale, self.person_prob, self.thing_prob = least_scale, person_prob, thing_prob
        self.notes = []
        try:
            self.cache = PhotoCache(cache_dir)
        except OSError as error:
            self.cache = PhotoCache(None)
            self.notes.append(
                f"Photos are decoded anew every epoch, for there is no cache ({error})."
            )

    def __len__(self):
        return len(self.pairs)

    def sample(self, index, view_shape, epoch=0, strength=1.0):
        """One training sample.

        Args:
            index: of the pair.
            view_shape: (h, w) of the sample, pixels.
            epoch: another one gives another sample.
            strength: share 0..1 of the ranges of rotation, scale and shift.

        Returns:
            image: (h, w, 3) uint8 BGR.
            texture: (h, w, 3) uint8 BGR, the image in other light.
            mask: (h, w) float32 0..1, the person's share of each pixel; 0 or 1 unless a mask that
                is soft went into it.
            edge: (h, w) uint8 0/1.
        """
        # Two streams, so that what is put into a photo does not change how it is then moved.
        bgra, soft = self._compose(index, np.random.default_rng((self.seed, epoch, index, 1)))
        rng = np.random.default_rng((self.seed, epoch, index))
        # Rather fill the view than leave bars, which no photo to be judged will have.
        matrix = fit_matrix(bgra.shape[:2], view_shape, zoom=np.sqrt(rng.random()))
        for transform in self.deformation:
            matrix = transform.matrix(view_shape, rng, strength) @ matrix
        image, share = warp(bgra, matrix, *view_shape)
        inside = inside_of(bgra.shape[:2], matrix, view_shape)
        varied = rng.random() < self.texture_prob
        texture = degrade(image, rng, inside, self.texture) if varied else image
        hard = threshold(share)
        mask = share / np.float32(255) if soft else hard.astype(np.float32)
        return image, texture, mask, edge_of(hard, inside)

    def _compose(self, index, rng):
        """The photo with what is put into it, BGRA, and whether its mask is soft."""
        empty, swapped, joined, covered = rng.random(4) < (
            self.empty_share,
            self.background_prob,
            self.person_prob,
            self.thing_prob,
        )
        if empty:
            return self._random(self.backgrounds, rng)[0], False
        pair = self.pairs[index]
        bgra, soft = self.cache.photo(*pair), pair.soft
        if swapped:
            background = self._random(self.backgrounds, rng)[0]
            bgra = swap_background(bgra, background, rng, self.least_scale)
        if joined:
            other, other_soft = self._random(self.pairs, rng)
            bgra, soft = add_person(bgra, other, rng), soft or other_soft
        if covered:
            bgra = cover_part(bgra, self._random(self.backgrounds, rng)[0], rng)
        return bgra, soft

    def _random(self, pairs, rng):
        pair = pairs[rng.integers(len(pairs))]
        return self.cache.photo(*pair), pair.soft


def load_batches(samples, steps, epoch, strength, num_workers):
    """Read and augment batches in worker processes, at most two a worker ahead of their use.

    Args:
        samples: TrainingSamples.
        steps: list of (view shape, list of indices).
        epoch, strength: of `TrainingSamples.sample`.
        num_workers: processes; 0 reads in this one.

    Yields:
        [image, texture, mask, edge] for each step in order, with a leading batch axis.

    Raises:
        FileNotFoundError, ValueError: a photo cannot be read.
    """
    jobs = ((view_shape, indices, epoch, strength) for view_shape, indices in steps)
    if num_workers == 0:
        yield from (load_batch(samples, *job) for job in jobs)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_workers, context, worker_init, (samples,)) as pool:
        ahead = deque()
        try:
            for job in jobs:
                ahead.append(pool.submit(worker_batch, *job))
                if len(ahead) > 2 * num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def load_batch(samples, view_shape, indices, epoch, strength):
    """[image, texture, mask, edge] of a list of indices, stacked."""
    drawn = (samples.sample(index, view_shape, epoch, strength) for index in indices)
    return [np.stack(arrays) for arrays in zip(*drawn)]


def worker_init(samples):
    """A worker is one thread, leaves Ctrl-C to the training, and ends with it, come what may."""
    global _worker_samples
    _worker_samples = samples  # by the fork, once; with every job it would be pickled
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def worker_batch(*job):
    """`load_batch` in a worker."""
    return load_batch(_worker_samples, *job)


def check_pair(pair):
    """Read one pair from end to end.

    Returns:
        problems: list of sentences.
        digest: of the photo's file, bytes; None if it cannot be read.
    """
    problems, pictures, digest = [], [], None
    image_path, mask_path, soft = pair
    for path, read in ((image_path, read_image), (mask_path, read_share if soft else read_mask)):
        try:
            pictures.append(read(path))
        except FileNotFoundError:
            problems.append(f"missing: {path}")
        except (OSError, ValueError) as error:
            problems.append(f"unreadable: {error}")
        else:
            if path == image_path:
                digest = hashlib.sha1(Path(path).read_bytes()).digest()
            elif soft and 0 < pictures[-1].max() <= 1 / 255:
                problems.append(f"no soft mask: {path} holds 0 and 1; shares are 0 to 255")
            elif not (pictures[-1] > 0.5).any():
                problems.append(f"empty mask: {path}")
            elif (pictures[-1] > 0.5).all():
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
        results = pool.map(lambda entry: check_pair(entry[2]), listed)
        bar = tqdm(results, total=len(listed), unit="pair")
        for (_, split, pair), (problems, digest) in zip(listed, bar):
            name = f"{pair.image_path} ({split})"
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
