"""Segmentation scores: integer counts first, one ratio last, each named with its protocol.

A prediction and a mask are 0/1 arrays of one shape. A ratio of nothing to nothing is 1: a photo
without a person in which none is found is right, as in the official code; one false pixel there
makes an IoU of 0.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from effects import THRESHOLD, matte
from images import Image, Mask, Probability, cv2
from pipeline import FAILURES
from transforms import SIZE, letterbox, letterbox_mask

SIGMA = 5.0  # px of the letterboxed 224 square: how fast the boundary weight falls off
BAND = 0.02  # of the photo's diagonal: the width of boundary IoU's band
TOLERANCE = 0.0075  # of the photo's diagonal: how far apart two boundaries may lie

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
SMOKE_DEPTH = 8 / 320  # of the longer side: how far from the boundary the inside begins
HALO_REACH = 6 / 320  # the same of the outside
SMOKY = 0.01  # share of the inside from which on a photo counts
# Of a soft mask against a true one, which may be soft too; less is better. The published figures of
# the first four are sums over a photo's pixels, these are means: they do not grow with the photo.
MATTING = {
    "absolute_error": "mean |alpha - mask| of a pixel",
    "squared_error": "mean (alpha - mask)^2 of a pixel",
    "gradient_error": "mean squared difference of the slopes at a pixel (Rhemann 2009)",
    "connectivity_error": "mean difference in what hangs together at a pixel (Rhemann 2009)",
    "halo": "mean alpha of the pixels over 6 px, at 320, outside the person",
    "smoke": "photos with over 1 % of the person's inside (8 px at 320 from the boundary) at an "
    "alpha of .1 to .9",
}
for alpha in ("", "matte_"):
    protocol = f", alpha is {'effects.matte' if alpha else 'the probability'}, mean over photos"
    PROTOCOLS |= {alpha + name: text + protocol for name, text in MATTING.items()}
GRADIENT_SIGMA = 1.4  # px: of the Gaussian whose derivatives are the slopes
LEVELS = np.arange(0.1, 1.05, 0.1)  # of alpha, at which it is asked what hangs together
LEAST_GAP = 0.15  # alpha: a smaller distance from what hangs together is none
SELECTION = "person_iou_smoothed"  # its mean over the validation lists chooses checkpoints
ROUNDS = 2000  # resamples of a bootstrap interval


def ratio(part, whole):
    """part / whole in float64, and 1 where the whole is 0; numbers or arrays."""
    whole = np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)[()]


def batch_counts(
    prediction: np.ndarray, mask: np.ndarray, ignore: int | None = 255
) -> NDArray[np.int64]:
    """The four counts of each photo, from which every score of regions is made.

    Args:
        prediction: (N, ...) bool or 0/1 of any dtype.
        mask: (N, ...) 0/1, the same shape.
        ignore: value of the mask's pixels that do not count.

    Returns:
        (N, 4) int64 pixels: background found, background called person, person missed, person
        found. Sum over axis 0 for the whole set.

    Raises:
        ValueError: the shapes differ, or a value is not 0, 1 or (in the mask) `ignore`.
    """
    prediction, mask = np.asarray(prediction), np.asarray(mask)
    if prediction.shape != mask.shape:
        raise ValueError(
            f"the prediction {prediction.shape} and the mask {mask.shape} differ in shape: "
            "bring both to one size first"
        )
    prediction, mask = prediction.reshape(len(mask), -1), mask.reshape(len(mask), -1)
    called = {0: prediction == 0, 1: prediction == 1}
    true = {0: mask == 0, 1: mask == 1}
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    counts = [np.count_nonzero(true[t] & called[c], axis=1) for t, c in cells]
    # Each pixel must be in one cell; np.unique is slow, so it only words the error.
    if np.sum(counts) + np.count_nonzero(mask == ignore) != mask.size:
        raise ValueError(
            f"the prediction holds {np.unique(prediction)[:5]} and the mask {np.unique(mask)[:5]}: "
            f"allowed are 0 and 1, and {ignore} in the mask for a pixel that does not count"
        )
    return np.stack(counts, axis=1).astype(np.int64)


def confusion(
    prediction: np.ndarray, mask: np.ndarray, ignore: int | None = 255
) -> NDArray[np.int64]:
    """As `batch_counts`, over all pixels of arrays of any shape at once: (4,) int64."""
    return batch_counts(np.asarray(prediction)[None], np.asarray(mask)[None], ignore)[0]


def pixel_accuracy(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of right pixels; counts (..., 4) -> float64 (...)."""
    return ratio(counts[..., 0] + counts[..., 3], counts.sum(-1))


def person_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection of the predicted and the true person over their union; (..., 4) -> (...)."""
    return ratio(counts[..., 3], counts[..., 1:].sum(-1))


def mean_iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of the person's and the background's IoU; counts (..., 4) -> float64 (...)."""
    return (person_iou(counts) + person_iou(counts[..., ::-1])) / 2


def smooth_mask(mask: Mask) -> Mask:
    """Each pixel becomes what at least 13 of the 25 pixels around it are.

    Args:
        mask: (H, W) uint8 0/1, letterboxed already; mirrored beyond its border.

    Returns:
        (H, W) uint8 0/1.

    Source: PortraitNet's published data loader, which smooths the test masks too.
    """
    return (cv2.boxFilter(mask, -1, (5, 5), normalize=False) >= 13).astype(np.uint8)


def distance_to_boundary(mask: Mask) -> NDArray[np.float32]:
    """Distance in px of each pixel's centre from the line between person and background.

    The photo's frame is no boundary. Without any boundary all distances are infinite.

    Args:
        mask: (H, W) uint8 0/1.

    Returns:
        (H, W) float32, at least 0.5.
    """
    if mask.all() or not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return distance_to_zero(mask) + distance_to_zero(1 - mask) - 0.5


def distance_to_zero(mask):
    """Each pixel's distance to the nearest zero, px, (H, W) float32.

    OpenCV's last digit depends on where in memory the mask lies; the square is a whole number.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.sqrt(np.rint(distance * distance))


def boundary_weighted_iou(prediction: Mask, mask: Mask, sigma: float = SIGMA) -> float:
    """Person IoU where a pixel at distance d from the true boundary weighs exp(-d^2 / 2 sigma^2).

    The smaller sigma, the more the boundary counts. Without a boundary it is the plain IoU.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1.
        sigma: px of these arrays.

    Returns:
        float 0..1.

    Source: PortraitNet section 4, which weighs each pixel by its distance to the boundary, sigma
        saying how fast the weight falls off. No code of it is published: the Gaussian and the
        value of sigma are our reading, so compare only figures made here.
    """
    prediction, mask = np.asarray(prediction, bool), np.asarray(mask, np.uint8)
    distance = distance_to_boundary(mask)
    if np.isinf(distance[0, 0]):
        return float(person_iou(confusion(prediction, mask)))
    weight = np.exp(-(distance**2) / (2 * sigma**2))
    overlap, union = prediction & (mask == 1), prediction | (mask == 1)
    return float(ratio(weight[overlap].sum(), weight[union].sum()))


def boundary_band(mask: Mask, width: int, frame: bool = False) -> Mask:
    """The person's pixels that are within `width` px of a background pixel, also diagonally.

    Args:
        mask: (H, W) bool or uint8 0/1.
        width: px, at least 1.
        frame: take what lies outside the photo for background: its frame is boundary then.

    Returns:
        (H, W) uint8 0/1.
    """
    mask = np.asarray(mask, np.uint8)
    outside = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0 if frame else 1}
    return mask - cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width, **outside)


def boundary_iou(prediction: Mask, mask: Mask, frame: bool = False) -> float:
    """IoU of the bands inside the boundaries of prediction and mask.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1, at the photo's size.
        frame: count the photo's frame as boundary, as the published code does. Where it cuts the
            body that part is nearly always right: it adds about ten points on EG1800.

    Returns:
        float 0..1.

    Source: Cheng et al., "Boundary IoU", CVPR 2021; band 2 % of the diagonal, at least 1 px.
    """
    width = max(1, round(BAND * float(np.hypot(*mask.shape))))
    bands = [boundary_band(m, width, frame) for m in (prediction, mask)]
    return float(person_iou(confusion(*bands)))


def boundary_f_score(prediction: Mask, mask: Mask, frame: bool = False) -> float:
    """Harmonic mean of the boundary's precision and recall within a tolerance.

    Precision is the share of predicted boundary pixels that have a true one within the tolerance,
    recall the reverse. Two masks without boundary score 1, a boundary on one side alone 0.

    Args:
        prediction, mask: (H, W) bool or uint8 0/1, at the photo's size.
        frame: count the photo's frame as boundary.

    Returns:
        float 0..1.

    Source: Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
        2013; tolerance 0.75 % of the diagonal, at least 1 px.
    """
    tolerance = max(1.0, TOLERANCE * float(np.hypot(*mask.shape)))
    found, true = (boundary_band(m, 1, frame) for m in (prediction, mask))
    if not (found.any() and true.any()):
        return float(found.any() == true.any())
    near_found, near_true = (distance_to_zero(1 - line) <= tolerance for line in (found, true))
    precision = np.count_nonzero(near_true & (found == 1)) / np.count_nonzero(found)
    recall = np.count_nonzero(near_found & (true == 1)) / np.count_nonzero(true)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def matting_scores(
    alpha: Probability, truth: Probability, distance: NDArray[np.float32]
) -> dict[str, float]:
    """The scores of `MATTING`: how far a soft mask is from the true one.

    Args:
        alpha, truth: (H, W) float32 0..1.
        distance: (H, W) px of each pixel from the true boundary.

    Returns:
        dict of name -> float 0..1; 0 is best.

    Source: Rhemann et al., "A perceptually motivated online benchmark for image matting", CVPR
        2009: slopes under a Gaussian, and connectivity in steps of a tenth from 0.15 on.
    """
    person, distance = truth > THRESHOLD, distance / max(truth.shape)
    inside, outside = person & (distance > SMOKE_DEPTH), ~person & (distance > HALO_REACH)
    error = alpha - truth
    return {
        "absolute_error": float(np.abs(error).mean()),
        "squared_error": float(np.square(error).mean()),
        "gradient_error": gradient_error(alpha, truth),
        "connectivity_error": connectivity_error(alpha, truth),
        "halo": float(alpha[outside].mean()) if outside.any() else 0.0,
        "smoke": float(smoke(alpha, inside) > SMOKY),
    }


def smoke(alpha: Probability, inside: NDArray[np.bool_]) -> float:
    """Share of the person's inside that is neither found nor missed: see-through in a cut-out.

    Args:
        alpha: (H, W) float32 0..1.
        inside: (H, W) bool.

    Returns:
        float 0..1; 0 where nothing is inside.
    """
    unsure = (alpha > 0.1) & (alpha < 0.9)
    return np.count_nonzero(inside & unsure) / max(np.count_nonzero(inside), 1)


def slopes(alpha: Probability) -> Probability:
    """Length of the gradient under a Gaussian of GRADIENT_SIGMA: (H, W) float32, 0 where flat."""
    at = np.arange(-4, 5, dtype=np.float32)
    gauss = np.exp(-(at**2) / (2 * GRADIENT_SIGMA**2))
    derivative = at * gauss
    gauss, derivative = (line / np.linalg.norm(line) for line in (gauss, derivative))
    sides = [(derivative, gauss), (gauss, derivative)]
    along = (
        cv2.sepFilter2D(alpha, cv2.CV_32F, x, y, borderType=cv2.BORDER_REPLICATE) for x, y in sides
    )
    return cv2.magnitude(*along)


def gradient_error(alpha: Probability, truth: Mask | Probability) -> float:
    """Mean squared difference of two soft masks' slopes."""
    return float(np.square(slopes(alpha) - slopes(np.asarray(truth, np.float32))).mean())


def connectivity_error(alpha: Probability, truth: Probability) -> float:
    """Mean difference of two soft masks' connectivity, 0..1.

    A pixel hangs together with what is surely person up to the level at which it falls out of the
    largest region where both masks reach that level. What its alpha exceeds that level by is how
    far it floats free.
    """
    lower, level = np.minimum(alpha, truth), np.zeros_like(alpha)
    held = np.ones(alpha.shape, bool)
    for step in LEVELS:
        _, labels, sizes, _ = cv2.connectedComponentsWithStats(
            (lower >= step - 1e-6).astype(np.uint8), connectivity=4
        )
        areas = sizes[1:, cv2.CC_STAT_AREA]
        held &= labels == (1 + areas.argmax() if len(areas) else -1)
        level[held] = step
    free = (np.where(gap >= LEAST_GAP, gap, 0) for gap in (alpha - level, truth - level))
    return float(np.abs(np.subtract(*free)).mean())


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
