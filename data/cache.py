"""Photos decoded once and kept on disk at the size that augmentation needs."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np

from portraitnet.files import whole_file
from portraitnet.geometry import SIZE, letterbox_box, resize
from portraitnet.images import read_alpha, read_image, read_mask

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
    mask = read_alpha(mask_path) if soft else read_mask(mask_path)
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"{image_path} has {image.shape[1]}x{image.shape[0]} pixels and its mask {mask_path} "
            f"{mask.shape[1]}x{mask.shape[0]}: give the mask the size of the photo."
        )
    return image, mask
