"""How far a soft mask is from the true one."""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.images import THRESHOLD, Mask, Probability

INTERIOR_DEPTH = 8 / 320  # of the longer side: how far from the boundary the inside begins
HALO_REACH = 6 / 320  # the same of the outside
TRANSPARENT_FRACTION = 0.01  # share of the inside from which on a photo counts
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
GRADIENT_SIGMA = 1.4  # px: of the Gaussian whose derivatives are the slopes
LEVELS = np.arange(0.1, 1.05, 0.1)  # of alpha, at which it is asked what hangs together
MIN_GAP = 0.15  # alpha: a smaller distance from what hangs together is none


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
    inside, outside = person & (distance > INTERIOR_DEPTH), ~person & (distance > HALO_REACH)
    error = alpha - truth
    return {
        "absolute_error": float(np.abs(error).mean()),
        "squared_error": float(np.square(error).mean()),
        "gradient_error": gradient_error(alpha, truth),
        "connectivity_error": connectivity_error(alpha, truth),
        "halo": float(alpha[outside].mean()) if outside.any() else 0.0,
        "smoke": float(interior_transparency(alpha, inside) > TRANSPARENT_FRACTION),
    }


def interior_transparency(alpha: Probability, inside: NDArray[np.bool_]) -> float:
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
    free = (np.where(gap >= MIN_GAP, gap, 0) for gap in (alpha - level, truth - level))
    return float(np.abs(np.subtract(*free)).mean())
