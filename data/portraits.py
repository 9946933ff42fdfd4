"""Portrait data sets: photos and masks on disk -> image, photometric copy, mask, edge."""

import hashlib
import os
from pathlib import Path

import numpy as np

from data.cache import PhotoCache, read_pair
from data.lists import Pair, find_pairs, read_lists
from portraitnet.images import mask_of
from transforms import DEFORMATION, PHOTOMETRIC, degrade, edge_of
from transforms.compose import occlude, swap_background
from transforms.geometry import fit_matrix, inside_of, warp


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
        deformation: transforms that move pixels, each with `matrix(input_shape, rng, strength)`.
        photometric: transforms that change light, blur and noise of the second copy.
        photometric_prob: probability that they are applied at all.
        seed: of all chance.
        backgrounds: paths of photos without people.
        background_prob: probability that a photo gets one of them as background.
        negative_prob: probability of a negative sample: one of them, with empty mask and edge.
        min_person_scale: smallest scale of a person on another background (`swap_background`).
        occlusion_prob: probability that an occluder hides a part of the person (`occlude`).
        turn_prob: probability of a turn by 90, 180 or 270 degrees.
        cache_dir: folder for decoded photos, None for none (`default_cache_dir()` is a good one).

    Attributes:
        notes: sentences for the user, to be printed once.

    Raises:
        ValueError: background_prob, negative_prob or occlusion_prob without backgrounds.
    """

    def __init__(
        self,
        pairs,
        deformation=DEFORMATION,
        photometric=PHOTOMETRIC,
        photometric_prob=1.0,
        seed=0,
        backgrounds=(),
        background_prob=0.0,
        negative_prob=0.0,
        min_person_scale=1.0,
        occlusion_prob=0.0,
        turn_prob=0.0,
        cache_dir=None,
    ):
        if not backgrounds and (background_prob or negative_prob or occlusion_prob):
            raise ValueError(
                f"background_prob {background_prob}, negative_prob {negative_prob} and occlusion_prob "
                f"{occlusion_prob} need photos without people: give their folder as backgrounds."
            )
        self.pairs, self.backgrounds, self.seed = pairs, [Pair(path) for path in backgrounds], seed
        self.deformation, self.photometric, self.photometric_prob = (
            deformation,
            photometric,
            photometric_prob,
        )
        self.background_prob, self.negative_prob = background_prob, negative_prob
        self.min_person_scale, self.occlusion_prob = min_person_scale, occlusion_prob
        self.turn_prob = turn_prob
        self.notes = []
        try:
            self.cache = PhotoCache(cache_dir)
        except OSError as error:
            self.cache = PhotoCache(None)
            self.notes.append(f"No cache ({error}): photos are decoded again each epoch.")

    def __len__(self):
        return len(self.pairs)

    def digest(self):
        """A digest of the names and sizes of all files, to see whether they are still the same."""
        paths = [path for pair in [*self.pairs, *self.backgrounds] for path in pair[:2] if path]
        files = [(os.path.basename(path), os.path.getsize(path)) for path in paths]
        return hashlib.sha1(repr(files).encode(errors="surrogateescape")).hexdigest()

    def sample(self, index, input_shape, epoch=0, strength=1.0):
        """One training sample.

        Args:
            index: of the pair.
            input_shape: (h, w) of the sample, pixels.
            epoch: another one gives another sample.
            strength: fraction 0..1 of the ranges of rotation, scale and shift.

        Returns:
            image: (h, w, 3) uint8 BGR.
            photometric: (h, w, 3) uint8 BGR, the photometric copy: the image in other light.
            mask: (h, w) float32 0..1, the person's fraction of each pixel; 0 or 1 unless the
                photo's mask is soft.
            edge: (h, w) uint8 0/1.
        """
        # Two streams, so that what is put into a photo does not change how it is then moved.
        bgra, soft = self._compose(index, np.random.default_rng((self.seed, epoch, index, 1)))
        rng = np.random.default_rng((self.seed, epoch, index))
        # Rather fill the network input than leave bars, which no photo to be judged will have.
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
        """The photo with what is put into it, BGRA, and whether its mask is soft."""
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
