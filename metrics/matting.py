"""Matting scores: the error of an alpha against the true one."""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.images import Mask, Probability, mask_of

# Distances from the boundary, as fractions of the longer side.
INTERIOR_DEPTH = 8 / 320  # the interior begins here
HALO_REACH = 6 / 320  # the far background begins here
TRANSPARENT_FRACTION = 0.01  # a photo with a larger transparent part of the interior counts
# Errors: 0 is best. The true alpha may be soft. The published figures of the first four are sums
# over a photo's pixels. These are means, so that they do not grow with the photo.
MATTING = {
    "absolute_error": "mean |alpha - mask| over pixels",
    "squared_error": "mean (alpha - mask)^2 over pixels",
    "gradient_error": "mean squared difference of the gradients over pixels (Rhemann 2009)",
    "connectivity_error": "mean difference of the connectivity over pixels (Rhemann 2009)",
    "halo": "mean alpha of the background over 6 px (at 320) from the person",
    "interior_transparency": "fraction of photos with over 1 % of the interior (8 px, at 320, from "
    "the boundary) at an alpha of .1 to .9",
}
GRADIENT_SIGMA = 1.4  # px, of the Gaussian whose derivatives give the gradient
LEVELS = np.arange(0.1, 1.05, 0.1)  # alpha thresholds of the connectivity
MIN_GAP = 0.15  # alpha; smaller differences from the connected level count as 0


def matting_scores(
    alpha: Probability, truth: Probability, distance: NDArray[np.float32]
) -> dict[str, float]:
    """The scores of `MATTING` for one photo.

    Args:
        alpha: (H, W) float32 0..1, the alpha to score.
        truth: (H, W) float32 0..1, the true alpha.
        distance: (H, W) float32, each pixel's distance to the true boundary, px.

    Returns:
        dict of name -> float 0..1; 0 is best.

    Source: Rhemann et al., "A perceptually motivated online benchmark for image matting", CVPR
        2009: Gaussian gradients, connectivity in steps of 0.1, differences from 0.15 on.
    """
    person, distance = mask_of(truth) == 1, distance / max(truth.shape)
    inside, outside = person & (distance > INTERIOR_DEPTH), ~person & (distance > HALO_REACH)
    error = alpha - truth
    return {
        "absolute_error": float(np.abs(error).mean()),
        "squared_error": float(np.square(error).mean()),
        "gradient_error": gradient_error(alpha, truth),
        "connectivity_error": connectivity_error(alpha, truth),
        "halo": float(alpha[outside].mean()) if outside.any() else 0.0,
        "interior_transparency": float(interior_transparency(alpha, inside) > TRANSPARENT_FRACTION),
    }


def interior_transparency(alpha: Probability, inside: NDArray[np.bool_]) -> float:
    """Fraction of the person's interior with an alpha between .1 and .9, transparent in a cut-out.

    Args:
        alpha: (H, W) float32 0..1.
        inside: (H, W) bool, the interior.

    Returns:
        float 0..1; 0 if the interior is empty.
    """
    unsure = (alpha > 0.1) & (alpha < 0.9)
    return np.count_nonzero(inside & unsure) / max(np.count_nonzero(inside), 1)


def slopes(alpha: Probability) -> Probability:
    """Gradient magnitude with Gaussian derivatives of GRADIENT_SIGMA.

    Args:
        alpha: (H, W) float32 0..1.

    Returns:
        (H, W) float32, >= 0.
    """
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
    """Mean squared difference of two alphas' gradient magnitudes.

    Args:
        alpha: (H, W) float32 0..1.
        truth: (H, W) uint8 0/1 or float32 0..1.

    Returns:
        float >= 0; 0 is best.
    """
    return float(np.square(slopes(alpha) - slopes(np.asarray(truth, np.float32))).mean())


def connectivity_error(alpha: Probability, truth: Probability) -> float:
    """Mean difference of two alphas' connectivity.

    At each level of LEVELS, the largest region where both alphas reach the level is the connected
    region. A pixel's connected level is the highest one at which that region contains the pixel.
    Its alpha minus that level is its disconnected part.

    Args:
        alpha, truth: (H, W) float32 0..1.

    Returns:
        float 0..1; 0 is best.
    """
    lower, level = np.minimum(alpha, truth), np.zeros_like(alpha)
    connected = np.ones(alpha.shape, bool)
    for step in LEVELS:
        _, labels, sizes, _ = cv2.connectedComponentsWithStats(
            (lower >= step - 1e-6).astype(np.uint8), connectivity=4
        )
        areas = sizes[1:, cv2.CC_STAT_AREA]
        connected &= labels == (1 + areas.argmax() if len(areas) else -1)
        level[connected] = step
    loose = (np.where(gap >= MIN_GAP, gap, 0) for gap in (alpha - level, truth - level))
    return float(np.abs(np.subtract(*loose)).mean())
