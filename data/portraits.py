"""Portrait data sets: photos and masks on disk -> image, photometric copy, mask, edge."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.cache import PhotoCache, read_pair
from data.lists import Pair, find_pairs, read_lists
from portraitnet.images import Image, Mask, Probability, mask_of
from transforms import DEFORMATION, PHOTOMETRIC, degrade, edge_of
from transforms.compose import occlude, swap_background
from transforms.geometry import fit_matrix, inside_of, warp


class PortraitDataset:
    """The pairs of photos and masks of one split.

    Iterating gives (image, mask) of each photo in order.

    Args:
        data_root: a folder or several folders (docs/data.md).
        split: train, val or test.
        seed: seed of the choice of validation photos if no list names them.

    Attributes:
        pairs: list of Pair.
        notes: sentences for the user, to be printed once.

    Raises:
        FileNotFoundError, ValueError: see `find_pairs`.
    """

    def __init__(self, data_root: str | Path | Iterable[str | Path], split: str, seed: int = 0):
        self.pairs, self.notes = find_pairs(data_root, split, seed)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[Image, Mask | Probability]]:
        return map(self.photo, range(len(self)))

    def photo(self, index: int) -> tuple[Image, Mask | Probability]:
        """The image and the mask of a photo; shapes and errors as in `read_pair`."""
        return read_pair(*self.pairs[index])


def validation_sets(
    data_root: Iterable[str | Path], split: str = "val", seed: int = 0
) -> dict[str, PortraitDataset]:
    """One data set for each root that has a list of the split, because each is scored separately.

    If no root has such a list, the photos that `find_pairs` takes from the training photos are the
    only data set.

    Args:
        data_root: data folders.
        split, seed: see `PortraitDataset`.

    Returns:
        {name of the folder: data set}.

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
    """Augmented training samples: deformed photos, new backgrounds, photometric copies.

    A sample depends only on (seed, epoch, index). Workers, ranks and the order make no difference.

    Args:
        pairs: the training photos.
        deformation: transforms that move pixels, each with `matrix(input_shape, rng, strength)`.
        photometric: transforms that change light, blur and noise of the photometric copy.
        photometric_prob: probability that `photometric` is applied.
        seed: seed of all random numbers.
        backgrounds: paths of photos without people.
        background_prob: probability that a photo gets one of `backgrounds` as its background.
        negative_prob: probability of a negative sample: one of `backgrounds` with empty mask and
            edge.
        min_person_scale: smallest scale of a person on another background (`swap_background`).
        occlusion_prob: probability that an occluder hides a part of the person (`occlude`).
        turn_prob: probability of a turn by 90, 180 or 270 degrees.
        cache_dir: folder for decoded photos, such as `default_cache_dir()`; None for no cache.

    Attributes:
        pairs, backgrounds: lists of Pair.
        notes: sentences for the user, to be printed once.

    Raises:
        ValueError: background_prob, negative_prob or occlusion_prob without backgrounds.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        deformation: Iterable = DEFORMATION,
        photometric: Iterable = PHOTOMETRIC,
        photometric_prob: float = 1.0,
        seed: int = 0,
        backgrounds: Sequence[str] = (),
        background_prob: float = 0.0,
        negative_prob: float = 0.0,
        min_person_scale: float = 1.0,
        occlusion_prob: float = 0.0,
        turn_prob: float = 0.0,
        cache_dir: str | Path | None = None,
    ):
        if not backgrounds and (background_prob or negative_prob or occlusion_prob):
            raise ValueError(
                f"background_prob {background_prob}, negative_prob {negative_prob} and "
                f"occlusion_prob {occlusion_prob} need photos without people: give their folder as "
                "backgrounds."
            )
        self.pairs, self.backgrounds, self.seed = pairs, [Pair(path) for path in backgrounds], seed
        self.deformation, self.photometric = deformation, photometric
        self.photometric_prob = photometric_prob
        self.background_prob, self.negative_prob = background_prob, negative_prob
        self.min_person_scale, self.occlusion_prob = min_person_scale, occlusion_prob
        self.turn_prob = turn_prob
        self.notes = []
        try:
            self.cache = PhotoCache(cache_dir)
        except OSError as error:
            self.cache = PhotoCache(None)
            self.notes.append(f"No cache ({error}): photos are decoded again each epoch.")

    def __len__(self) -> int:
        return len(self.pairs)

    def digest(self) -> str:
        """A digest of the names and sizes of all files; another digest means other data."""
        paths = [path for pair in [*self.pairs, *self.backgrounds] for path in pair[:2] if path]
        files = [(os.path.basename(path), os.path.getsize(path)) for path in paths]
        return hashlib.sha1(repr(files).encode(errors="surrogateescape")).hexdigest()

    def sample(
        self, index: int, input_shape: tuple[int, int], epoch: int = 0, strength: float = 1.0
    ) -> tuple[Image, Image, NDArray[np.float32], Mask]:
        """One training sample.

        Args:
            index: index of the pair.
            input_shape: (h, w) of the sample, pixels.
            epoch: every epoch gives another sample.
            strength: fraction 0..1 of the ranges of rotation, scale and shift.

        Returns:
            image: (h, w, 3) uint8 BGR.
            photometric: (h, w, 3) uint8 BGR, the photometric copy.
            mask: (h, w) float32; 0 or 1, or alpha 0..1 if the photo's mask is soft.
            edge: (h, w) uint8 0/1.

        Raises:
            FileNotFoundError, ValueError: see `read_pair`.
        """
        # Two generators, so that the composition does not change the deformation.
        bgra, soft = self._compose(index, np.random.default_rng((self.seed, epoch, index, 1)))
        rng = np.random.default_rng((self.seed, epoch, index))
        # Favour zooms that fill the network input, because user photos have no bars.
        matrix = fit_matrix(bgra.shape[:2], input_shape, zoom=np.sqrt(rng.random()))
        for transform in self.deformation:
            matrix = transform.matrix(input_shape, rng, strength) @ matrix
        image, alpha = warp(bgra, matrix, *input_shape)
        inside = inside_of(bgra.shape[:2], matrix, input_shape)
        varied = rng.random() < self.photometric_prob
        photometric = degrade(image, rng, inside, self.photometric) if varied else image
        hard = mask_of(alpha)
        mask = alpha / np.float32(255) if soft else hard.astype(np.float32)
        return image, photometric, mask, edge_of(hard, inside)

    def _compose(self, index, rng):
        """The photo after background and occluder are drawn.

        Returns:
            bgra: (H, W, 4) uint8, image and mask.
            soft: whether the mask is soft.
        """
        probs = self.negative_prob, self.background_prob, self.occlusion_prob
        negative, swapped, occluded = rng.random(3) < probs
        if negative:
            return self._background(rng), False
        pair = self.pairs[index]
        bgra = self.cache.photo(*pair)
        if swapped:
            bgra = swap_background(bgra, self._background(rng), rng, self.min_person_scale)
        if occluded:
            bgra = occlude(bgra, self._background(rng), rng)
        if rng.random() < self.turn_prob:
            bgra = np.ascontiguousarray(np.rot90(bgra, rng.integers(1, 4)))
        return bgra, pair.soft

    def _background(self, rng):
        return self.cache.photo(*self.backgrounds[rng.integers(len(self.backgrounds))])
