"""Every published score of a data set, each named with its protocol."""

from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np

from metrics.boundary import (
    BAND,
    SIGMA,
    TOLERANCE,
    boundary_f_score,
    boundary_iou,
    boundary_weighted_iou,
    distance_to_boundary,
)
from metrics.matting import MATTING, matting_scores
from metrics.regions import confusion, mean_iou, person_iou, pixel_accuracy, smooth_mask
from portraitnet.effects import matte
from portraitnet.geometry import SIZE, letterbox, letterbox_mask
from portraitnet.images import Image, Mask, Probability, mask_of

PROTOCOLS = {
    "accuracy": "fraction of right pixels, whole-set counts, letterbox 224, raw mask",
    "miou_raw": "mean of person and background IoU, whole-set counts, letterbox 224, raw mask "
    "(as the homework report, which stretches the photos instead)",
    "miou_smoothed": "mean of person and background IoU, whole-set counts, letterbox 224, "
    "5x5 majority mask (PaddleSeg)",
    "person_iou_raw": "person IoU, mean over photos, letterbox 224, raw mask",
    "person_iou_smoothed": "person IoU, mean over photos, letterbox 224, 5x5 majority mask "
    "(PortraitNet paper)",
    "weighted_iou": "person IoU, weight exp(-d^2 / 2 sigma^2) at distance d from the boundary, "
    f"sigma {SIGMA:g} px, mean over photos, letterbox 224, "
    "5x5 majority mask (PortraitNet paper's boundary metric, our sigma)",
    "person_iou_full": "person IoU, mean over photos, photo's size, raw mask",
    "boundary_iou": f"boundary IoU, band {BAND:.0%} of the diagonal, without the frame, "
    "mean over photos, photo's size, raw mask (Cheng 2021)",
    "boundary_f": f"boundary F-score, tolerance {TOLERANCE:.2%} of the diagonal, without the "
    "frame, mean over photos, photo's size, raw mask (Csurka 2013)",
}
for alpha in ("", "matte_"):
    protocol = f", alpha is {'effects.matte' if alpha else 'the probability'}, mean over photos"
    PROTOCOLS |= {alpha + name: text + protocol for name, text in MATTING.items()}
SELECTION = "person_iou_smoothed"  # its mean over the validation lists selects the best checkpoint
ROUNDS = 2000  # resamples of a bootstrap interval


class Scores:
    """Every score of `PROTOCOLS`, collected photo by photo: `add` each photo, then `summary`.

    The letterbox scores count the padding of the square as background, as the published codes do
    (they pad the mask with 0 and score the whole square). The probability at the photo's size is
    letterboxed for these scores, whatever the network input was.

    Args:
        matting: whether to compute the scores of `MATTING`, which take three quarters of the time.

    Attributes:
        photo_scores: list of {name: float}, each photo's own scores in the order of `add`.
        raw_counts: list of (4,) int64, each photo's `confusion` with the letterboxed mask.
        smoothed_counts: the same with the 5x5 majority mask.
    """

    def __init__(self, matting: bool = False):
        self.matting = matting
        self.photo_scores, self.raw_counts, self.smoothed_counts = [], [], []

    def add(self, probability: Probability, mask: Mask | Probability) -> dict[str, float]:
        """Score one photo.

        Args:
            probability: (H, W) float32 0..1, at the photo's size.
            mask: (H, W) uint8 0/1, as annotated; or float32 0..1, a soft mask. A soft mask is
                thresholded in all scores but the first four of `MATTING`.

        Returns:
            dict of name -> float, this photo's scores: those of `PROTOCOLS` that are means over
            photos.

        Raises:
            ValueError: the two differ in shape, or an integer mask is not 0/1.
        """
        true_alpha = np.asarray(mask, np.float32)
        if mask.dtype.kind == "f":
            mask = mask_of(mask)
        prediction = mask_of(probability)
        full = confusion(prediction, mask, ignore=None)
        letterboxed = mask_of(letterbox(probability, SIZE, border=0)[0])
        letterboxed_mask = letterbox_mask(mask, SIZE)
        smoothed_mask = smooth_mask(letterboxed_mask)
        raw = confusion(letterboxed, letterboxed_mask, ignore=None)
        smoothed = confusion(letterboxed, smoothed_mask)
        self.raw_counts.append(raw)
        self.smoothed_counts.append(smoothed)
        scores = {
            "person_iou_raw": float(person_iou(raw)),
            "person_iou_smoothed": float(person_iou(smoothed)),
            "weighted_iou": boundary_weighted_iou(letterboxed, smoothed_mask),
            "person_iou_full": float(person_iou(full)),
            "boundary_iou": boundary_iou(prediction, mask),
            "boundary_f": boundary_f_score(prediction, mask),
        }
        if self.matting:
            distance = distance_to_boundary(mask)
            for name, alpha in {"": probability, "matte_": matte(probability)}.items():
                values = matting_scores(alpha, true_alpha, distance)
                scores |= {name + each: value for each, value in values.items()}
        self.photo_scores.append(scores)
        return scores

    def summary(self) -> dict[str, float]:
        """The scores of all photos.

        Returns:
            dict of name -> float 0..1, with the names and order of `PROTOCOLS`.

        Raises:
            ValueError: no photo was added.
        """
        everything = np.arange(len(self.photo_scores))[None]
        return {name: float(values[0]) for name, values in self._resampled(everything).items()}

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the scores of `summary`.

        Args:
            seed: seed of the resampling.

        Returns:
            dict of name -> (low, high).

        Raises:
            ValueError: no photo was added.

        Source: Efron, "Bootstrap methods: another look at the jackknife", 1979; percentiles.
        """
        count = len(self.photo_scores)
        draws = np.random.default_rng(seed).integers(count, size=(ROUNDS, count))
        return {
            name: tuple(map(float, np.percentile(values, (2.5, 97.5))))
            for name, values in self._resampled(draws).items()
        }

    def _resampled(self, draws):
        """Every score over each row of photo indices: (R, N) int -> {name: (R,) float64}."""
        if not self.photo_scores:
            raise ValueError("no photo was scored: add at least one photo first")
        raw, smoothed = np.stack(self.raw_counts), np.stack(self.smoothed_counts)
        raw, smoothed = (counts[draws].sum(1) for counts in (raw, smoothed))
        values = {
            "accuracy": pixel_accuracy(raw),
            "miou_raw": mean_iou(raw),
            "miou_smoothed": mean_iou(smoothed),
        }
        for name in self.photo_scores[0]:
            values[name] = np.array([scores[name] for scores in self.photo_scores])[draws].mean(1)
        return {name: values[name] for name in PROTOCOLS if name in values}


def score(
    probabilities: Callable[[list[Image]], list[Probability]],
    photos: Iterable[tuple[Image, Mask | Probability]],
    batch_size: int = 16,
    matting: bool = False,
    progress: Callable[[Scores], None] | None = None,
) -> Scores:
    """Score every photo, `batch_size` photos at a time.

    Args:
        probabilities: function of a list of images (H, W, 3) uint8 BGR of any sizes -> list of
            (H, W) float32 0..1, such as `Predictor.probabilities`.
        photos: (image, mask) of each photo at its own size, such as a PortraitDataset; see
            `Scores.add` for the mask. Errors while reading end the scoring.
        batch_size: photos in a call of `probabilities`.
        matting: see `Scores`.
        progress: function of the scores so far, called after each batch, or None.

    Returns:
        Scores of all photos.
    """
    scores, photos = Scores(matting), iter(photos)
    while batch := list(islice(photos, batch_size)):
        images, masks = zip(*batch)
        for probability, mask in zip(probabilities(list(images)), masks, strict=True):
            scores.add(probability, mask)
        if progress is not None:
            progress(scores)
    return scores
