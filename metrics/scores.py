"""Every published score of a data set, photo by photo, each named with its protocol."""

from collections.abc import Callable

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
from portraitnet.images import THRESHOLD, Image, Mask, Probability
from portraitnet.parallel import FAILURES

PROTOCOLS = {
    "accuracy": "right pixels, whole-set counts, letterbox 224, raw mask",
    "miou_raw": "mean of person and background IoU, whole-set counts, letterbox 224, raw mask "
    "(the report's, but for its stretched photos)",
    "miou_smoothed": "mean of person and background IoU, whole-set counts, letterbox 224, "
    "5x5 majority mask (PaddleSeg)",
    "person_iou_raw": "person IoU, mean over photos, letterbox 224, raw mask",
    "person_iou_smoothed": "person IoU, mean over photos, letterbox 224, 5x5 majority mask "
    "(PortraitNet paper)",
    "weighted_iou": "person IoU, pixels at distance d from the boundary weigh "
    f"exp(-d^2 / 2 sigma^2), sigma {SIGMA:g} px, mean over photos, letterbox 224, "
    "5x5 majority mask (PortraitNet paper's boundary metric, our sigma)",
    "person_iou_full": "person IoU, mean over photos, photo's size, raw mask",
    "boundary_iou": f"boundary IoU, band {BAND:.0%} of the diagonal, no frame, "
    "mean over photos, photo's size, raw mask (Cheng 2021)",
    "boundary_f": f"boundary F-score, tolerance {TOLERANCE:.2%} of the diagonal, no frame, "
    "mean over photos, photo's size, raw mask (Csurka 2013)",
}
for alpha in ("", "matte_"):
    protocol = f", alpha is {'effects.matte' if alpha else 'the probability'}, mean over photos"
    PROTOCOLS |= {alpha + name: text + protocol for name, text in MATTING.items()}
SELECTION = "person_iou_smoothed"  # its mean over the validation lists chooses checkpoints
ROUNDS = 2000  # resamples of a bootstrap interval


class Scores:
    """Every score of `PROTOCOLS`, gathered photo by photo: `add` each photo, then `summary`.

    The letterbox scores count the whole square, its padding as background, because the published
    codes do (they pad the mask with 0 and score all of it). What the network saw does not matter:
    its answer at the photo's size is letterboxed for them.

    Args:
        matting: with the scores of `MATTING`, which take three quarters of the time.
    """

    def __init__(self, matting: bool = False):
        self.matting = matting
        self.photo_scores = []  # each photo's own, in the order of `add`
        self.raw_counts = []  # (4,) int64 of each photo
        self.smoothed_counts = []

    def add(self, probability: Probability, mask: Mask | Probability) -> dict[str, float]:
        """Score one photo.

        Args:
            probability: (H, W) float32 0..1, at the photo's size.
            mask: (H, W) uint8 0/1, as annotated; or float32 0..1, the person's share, which counts
                as person above one half in all scores but the first four of `MATTING`.

        Returns:
            dict of this photo's own scores: the names of `PROTOCOLS` that are means over photos.

        Raises:
            ValueError: the two differ in shape, or a mask is not 0/1.
        """
        share = np.asarray(mask, np.float32)
        if mask.dtype.kind == "f":
            mask = (mask > THRESHOLD).astype(np.uint8)
        prediction = probability > THRESHOLD
        full = confusion(prediction, mask, ignore=None)
        letterboxed = letterbox(probability, SIZE, border=0)[0] > THRESHOLD
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
                values = matting_scores(alpha, share, distance)
                scores |= {name + each: value for each, value in values.items()}
        self.photo_scores.append(scores)
        return scores

    def summary(self) -> dict[str, float]:
        """dict of name -> float 0..1 over all photos, with the names and order of `PROTOCOLS`.

        Raises:
            ValueError: no photo was added.
        """
        everything = np.arange(len(self.photo_scores))[None]
        return {name: float(values[0]) for name, values in self._resampled(everything).items()}

    def intervals(self, seed: int = 0) -> dict[str, tuple[float, float]]:
        """dict of name -> (low, high): what 95 % of other draws of as many photos would score.

        Source: Efron, "Bootstrap methods: another look at the jackknife", 1979; percentiles.
        """
        count = len(self.photo_scores)
        draws = np.random.default_rng(seed).integers(count, size=(ROUNDS, count))
        return {
            name: tuple(map(float, np.percentile(values, (2.5, 97.5))))
            for name, values in self._resampled(draws).items()
        }

    def _resampled(self, draws):
        """Every score over each row of indices of photos, (rounds, photos) -> name: (rounds,)."""
        if not self.photo_scores:
            raise ValueError("there is nothing to sum up: add at least one photo first")
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
    dataset,
    batch_size: int = 16,
    vary: Callable[[Image, int], Image] | None = None,
    progress: Callable[[Scores], None] | None = None,
    matting: bool = False,
    failed: dict[int, Exception] | None = None,
) -> Scores:
    """Score every photo of a data set.

    Args:
        probabilities: function of a list of images (H, W, 3) uint8 BGR of any sizes -> list of
            (H, W) float32 0..1, as `Predictor.probabilities`.
        dataset: has a length and `photo(index)` -> (image, mask).
        batch_size: photos a call.
        vary: function (image, index) -> image applied to the photos first, or None.
        progress: function of the scores so far, called after each batch, or None.
        matting: of `Scores`.
        failed: given the index and error of each photo that cannot be read, and the others are
            scored; where None, the first such error ends it.
    """
    scores = Scores(matting)
    for start in range(0, len(dataset), batch_size):
        images, masks = [], []
        for index in range(start, min(start + batch_size, len(dataset))):
            try:
                image, mask = dataset.photo(index)
            except FAILURES as error:
                if failed is None:
                    raise
                failed[index] = error
            else:
                images.append(image if vary is None else vary(image, index))
                masks.append(mask)
        for probability, mask in zip(probabilities(images), masks):
            scores.add(probability, mask)
        if progress is not None and images:
            progress(scores)
    return scores
