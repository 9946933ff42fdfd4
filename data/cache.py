"""Photos decoded once and kept on disk at the size that augmentation needs."""

import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.files import whole_file
from portraitnet.geometry import SIZE, letterbox_box, resize
from portraitnet.images import Image, Mask, Probability, read_alpha, read_image, read_mask

CACHE_SIDE = SIZE * 3 // 2  # longer side of a photo before augmentation, pixels
MAJORITY = 5  # window of the vote that removes speckles from a training mask, pixels
CACHE_LIMIT = 8e9  # bytes
PHOTOS_PER_CENSUS = 256  # photos that a process caches before it measures the folder again


def default_cache_dir() -> Path:
    """The folder for decoded photos in the user's cache directory."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "portraitnet" / "photos"


class PhotoCache:
    """Photos decoded once and kept on disk at the size that augmentation needs.

    Each photo is a .npy file. Its name is a digest of the paths, sizes and modification times of
    the photo's files, so that a changed photo is decoded again. Files are written under a temporary
    name and renamed, so any number of processes may share the folder. If the folder holds `limit`
    bytes or the disk is full, photos are decoded but not kept. Each process measures the folder
    every 256 photos, so the folder may exceed the limit by about 100 MB. Nothing is deleted.

    Args:
        folder: folder of the files, created if missing; None keeps nothing.
        limit: bytes.

    Raises:
        OSError: the folder cannot be created.
    """

    def __init__(self, folder: str | Path | None, limit: float = CACHE_LIMIT):
        self.folder, self.limit = None if folder is None else Path(folder), limit
        self.room, self.until_census = 0, 0  # bytes, photos
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def photo(
        self, image_path: str, mask_path: str | None = None, soft: bool = False
    ) -> NDArray[np.uint8]:
        """The result of `decode`, from the cache if possible; arguments and errors as there."""
        pair = image_path, mask_path, soft
        if self.folder is None:
            return decode(*pair)
        path = self.folder / cache_name(*pair)
        try:
            return np.load(path)
        except (FileNotFoundError, ValueError, EOFError):  # new, or truncated by a power cut
            photo = decode(*pair)
        try:
            self._keep(path, photo)
        except OSError:  # full disk or missing folder: continue, and try again later
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
        with whole_file(path, durable=False) as temporary:  # `photo` replaces a damaged file
            np.save(temporary, photo)


def cache_name(image_path: str, mask_path: str | None = None, soft: bool = False) -> str:
    """The name of a photo's file in the cache; the arguments are a Pair."""
    key = [CACHE_SIDE, MAJORITY, soft]
    for path in filter(None, (image_path, mask_path)):
        status = os.stat(path)
        key += [os.path.abspath(path), status.st_mtime_ns, status.st_size]
    return hashlib.sha1(repr(key).encode()).hexdigest() + ".npy"


def decode(image_path: str, mask_path: str | None = None, soft: bool = False) -> NDArray[np.uint8]:
    """Read a photo with its mask and reduce both to the size that augmentation needs.

    A majority vote over 5x5 pixels removes the speckles of a hard mask.

    Args:
        image_path, mask_path, soft: a Pair; a photo without a mask shows no person.

    Returns:
        (H, W, 4) uint8 BGRA: the image and, as alpha, its mask 0..255. The longer side is at most
        CACHE_SIDE.

    Raises:
        FileNotFoundError, ValueError: see `read_pair`.

    Source: PortraitNet's published data loader smooths its masks in the same way.
    """
    if mask_path is None:
        image = read_image(image_path)
        mask = np.zeros(image.shape[:2], np.uint8)
    else:
        image, mask = read_pair(image_path, mask_path, soft)
    alpha = np.rint(mask * np.float32(255)).astype(np.uint8)
    if max(mask.shape) > CACHE_SIDE:
        height, width = letterbox_box(*mask.shape, CACHE_SIDE)[2:]
        image, alpha = resize(image, height, width), resize(alpha, height, width)
    return cv2.merge([image, alpha if soft else cv2.medianBlur(alpha, MAJORITY)])


def read_pair(
    image_path: str | Path, mask_path: str | Path, soft: bool = False
) -> tuple[Image, Mask | Probability]:
    """Read a photo and its mask at the photo's own size.

    Args:
        image_path, mask_path: files.
        soft: whether the mask is soft (see `Pair`).

    Returns:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 0/1; for a soft pair float32 0..1.

    Raises:
        FileNotFoundError, ValueError: see `read_image` and `read_mask`.
        ValueError: photo and mask differ in size.
    """
    image = read_image(image_path)
    mask = read_alpha(mask_path) if soft else read_mask(mask_path)
    if image.shape[:2] != mask.shape:
        raise ValueError(
            f"{image_path} has {image.shape[1]}x{image.shape[0]} pixels and its mask {mask_path} "
            f"{mask.shape[1]}x{mask.shape[0]}: give the mask the size of the photo."
        )
    return image, mask
