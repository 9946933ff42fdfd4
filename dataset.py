"""Portrait data sets: photos and masks on disk -> image, texture-augmented image, mask, edge."""

import ctypes
import hashlib
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from files import whole_file
from images import cv2, read_image, read_mask, read_share
from pairs import Pair, find_pairs, read_lists
from pipeline import window
from transforms import DEFORMATION, SIZE, TEXTURE, degrade, edge_of
from transforms.compose import cover_part, swap_background
from transforms.geometry import fit_matrix, inside_of, letterbox_box, resize, threshold, warp

PR_SET_PDEATHSIG = 1  # Linux, sys/prctl.h
CACHE_SIDE = SIZE * 3 // 2  # longer side of a photo before augmentation, pixels
MAJORITY = 5  # pixels: window of the vote that takes speckles off a training mask
CACHE_LIMIT = 8e9  # bytes
PHOTOS_PER_CENSUS = 256  # cached photos that a process writes before it measures the folder again


def default_cache_dir():
    """The folder for decoded photos in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "portraitnet" / "photos"


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
        with whole_file(path, durable=False) as temporary:  # `photo` makes a broken one anew
            np.save(temporary, photo)


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
        self.least_scale, self.thing_prob = least_scale, thing_prob
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

    def digest(self):
        """A digest of the names and sizes of all files, to see whether they are still the same."""
        paths = [path for pair in [*self.pairs, *self.backgrounds] for path in pair[:2] if path]
        files = [(os.path.basename(path), os.path.getsize(path)) for path in paths]
        return hashlib.sha1(repr(files).encode(errors="surrogateescape")).hexdigest()

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
        shares = self.empty_share, self.background_prob, self.thing_prob
        empty, swapped, covered = rng.random(3) < shares
        if empty:
            return self._background(rng), False
        pair = self.pairs[index]
        bgra = self.cache.photo(*pair)
        if swapped:
            bgra = swap_background(bgra, self._background(rng), rng, self.least_scale)
        if covered:
            bgra = cover_part(bgra, self._background(rng), rng)
        return bgra, pair.soft

    def _background(self, rng):
        return self.cache.photo(*self.backgrounds[rng.integers(len(self.backgrounds))])


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
    with ProcessPoolExecutor(num_workers, context, worker_init, (samples, os.getpid())) as pool:
        yield from window(pool, worker_batch, jobs, depth=2 * num_workers + 1)


def load_batch(samples, view_shape, indices, epoch, strength):
    """[image, texture, mask, edge] of a list of indices, stacked."""
    drawn = (samples.sample(index, view_shape, epoch, strength) for index in indices)
    return [np.stack(arrays) for arrays in zip(*drawn)]


def worker_init(samples, training):
    """A worker is one thread, leaves Ctrl-C to the training, and ends with it, come what may."""
    global _worker_samples
    _worker_samples = samples  # by the fork, once; with every job it would be pickled
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != training:  # it ended before it could be asked for
            os._exit(1)


def worker_batch(job):
    """`load_batch` in a worker."""
    return load_batch(_worker_samples, *job)
