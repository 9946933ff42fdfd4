"""From the network's answer to the photo's size: false regions removed, edges as in the photo."""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.geometry import limited, limited_size
from portraitnet.images import THRESHOLD, Image, Probability

# The network is never quite sure: up to CLEAR it means background, from SOLID on person.
CLEAR, SOLID = 0.33, 0.67
# A person's region has this fraction of the input's pixels and this mean probability (where the
# probability exceeds THRESHOLD; the smallest on EG1800's validation photos were .29 and .84).
MIN_PERSON_AREA, MIN_PERSON_MEAN = 0.003, 0.75
# A region of this fraction is kept however unsure the network is: a bundled network is never
# unsure of so much where nobody is, and a beginner's own network is unsure everywhere.
LARGE_AREA = 0.1


def drop_doubtful(probability: Probability) -> Probability:
    """Remove what the network only suspects: regions too small or too unsure to be a person.

    Args:
        probability: (h, w) float32 0..1.

    Returns:
        (h, w) float32, 0 in such regions, their rims included; 0 all over when no region is left.
    """
    _, labels = cv2.connectedComponents((probability > CLEAR).astype(np.uint8))
    core = probability > THRESHOLD
    areas = np.bincount(labels[core], minlength=labels.max() + 1)
    sums = np.bincount(labels[core], probability[core], minlength=labels.max() + 1)
    sure = (areas >= MIN_PERSON_AREA * probability.size) & (sums >= MIN_PERSON_MEAN * areas)
    if not sure[1:].any() and len(areas) > 1:
        largest = 1 + int(areas[1:].argmax())
        sure[largest] = areas[largest] >= LARGE_AREA * probability.size
    sure[0] = sure[1:].any()  # what lies between the regions
    return probability * sure[labels]


def largest_region(probability: Probability) -> float:
    """The largest connected region over THRESHOLD, as a fraction of the picture."""
    person = (probability > THRESHOLD).astype(np.uint8)
    areas = cv2.connectedComponentsWithStats(person)[2][1:, cv2.CC_STAT_AREA]
    return float(areas.max(initial=0) / person.size)


GUIDE_SIDE = 112  # longer side at which the guided filter is fitted, pixels
GUIDE_RADIUS = 0.025  # of its window, as a fraction of the longer side
GUIDE_EPSILON = 1.25e-3  # variance of a colour (0..1 squared) below which a window counts as flat
# Longer side at which the fit is applied, pixels: the noise of larger photos averages out, and no
# photo takes much longer.
APPLY_SIDE = 800
SPIKE = 0.0025  # half width, as a fraction of the longer side, below which a part is a spike
SPECK = 0.001  # fraction of the photo below which a region needs the network's support
SUPPORT = 0.3  # by how much its mean probability must then lie beyond THRESHOLD


def guided_upsample(probability: Probability, image: Image) -> Probability:
    """Bring a network input's probability to the photo's size so that its edges follow the photo's.

    A guided filter: in every window the probability is fitted as a . (blue, green, red) + b, which
    keeps an edge where the photo has one. The fit is made at GUIDE_SIDE pixels and applied at
    APPLY_SIDE. Bounds and filters keep the photo's texture from printing itself on the mask. The
    answer stays between the least and the greatest probability of the 3x3 pixels of GUIDE_SIDE
    around. `without_spikes` and `without_specks` remove what the filter adds.
    benchmarks/refine_quality.py and benchmarks/matting.py measure the result.

    Args:
        probability: (h, w) float32 0..1, the network's answer.
        image: (H, W, 3) uint8 BGR, the photo.

    Returns:
        (H, W) float32, 0..1.

    Source: He, Sun and Tang, "Guided Image Filtering", PAMI 2013, section 3.4 (a colour guide), and
        He and Sun, "Fast Guided Filter", arXiv 1505.00996. The bounds and the squared odds are our
        own.
    """
    applied = limited(image, APPLY_SIDE)
    guide = small_guide(applied)
    # The network is less sure of its boundary than it might be.
    coarse = squared_odds(cv2.resize(probability, guide.shape[1::-1]))
    around = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(coarse, around), cv2.dilate(coarse, around)
    planes = cv2.merge(color_fit(guide, coarse)), low, high, coarse
    fit, low, high, coarse = (cv2.resize(plane, applied.shape[1::-1]) for plane in planes)
    # A pixel is (blue, green, red, 255): the offset is a slope of the fourth.
    fit *= cv2.cvtColor(applied, cv2.COLOR_BGR2BGRA)
    refined = fit @ np.full(4, 1 / 255, np.float32)
    refined = np.minimum(np.maximum(refined, low), high)
    refined = without_specks(without_spikes(refined, coarse), coarse)
    return refined if applied is image else cv2.resize(refined, image.shape[1::-1])


def squared_odds(probability: Probability) -> Probability:
    """A probability whose odds of person to background are squared, (h, w) float32 0..1."""
    person, background = probability**2, (1 - probability) ** 2
    return person / (person + background)


def without_spikes(refined: Probability, coarse: Probability) -> Probability:
    """Take thin spikes and dashes, such as a wire grid leaves, out of the mask.

    Args:
        refined: (H, W) float32 0..1.
        coarse: (H, W) float32 0..1, from before the guided filter.

    Returns:
        (H, W) float32: what is thinner than SPIKE falls to THRESHOLD, or to `coarse` if that is
        higher: loose hair stays half opaque. Gaps as thin stay: closing them costs seven tenths of
        boundary IoU.
    """
    side = 2 * max(1, round(SPIKE * max(refined.shape))) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    opened = cv2.morphologyEx(refined, cv2.MORPH_OPEN, disc)
    limit = np.maximum(np.maximum(opened, coarse), np.float32(THRESHOLD))
    return np.minimum(refined, limit)


def without_specks(refined: Probability, coarse: Probability) -> Probability:
    """Remove small regions and fill small holes that the network did not see.

    Regions count above CLEAR, where they are visible, and above THRESHOLD, where they are mask.

    Args:
        refined: (H, W) float32 0..1; changed in place.
        coarse: (H, W) float32 0..1, from before the guided filter.

    Returns:
        `refined`: at that level, or just above it in a hole, where such a region was.
    """
    max_area = SPECK * refined.size
    for level, sign in ((CLEAR, 1), (THRESHOLD, 1), (THRESHOLD, -1)):
        level = np.float32(level)
        side = (refined > level if sign > 0 else refined <= level).astype(np.uint8)
        # Contours take a thirtieth of the time of connected components.
        contours, hierarchy = cv2.findContours(side, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for i, contour in enumerate(contours):
            if hierarchy[0, i, 3] >= 0 or cv2.contourArea(contour) >= max_area:
                continue  # the contour of a hole, or of a large region
            left, top, width, height = cv2.boundingRect(contour)
            part = slice(top, top + height), slice(left, left + width)
            filled = np.zeros((height, width), np.uint8)
            cv2.drawContours(filled, contours, i, 1, cv2.FILLED, offset=(-left, -top))
            own = (filled & side[part]) > 0
            support = sign * (float(coarse[part][own].mean()) - THRESHOLD)
            if np.count_nonzero(own) < max_area and support < SUPPORT:
                refined[part][own] = level if sign > 0 else np.nextafter(level, np.float32(1))
    return refined


def small_guide(image: Image) -> NDArray[np.float32]:
    """The photo at GUIDE_SIDE pixels, float32 0..1; for speed, not every pixel counts."""
    guide = limited(image, 4 * GUIDE_SIDE)
    height, width = limited_size(*image.shape[:2], GUIDE_SIDE)
    return cv2.resize(guide, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)


def color_fit(
    guide: NDArray[np.float32],
    probability: Probability,
    radius: int | None = None,
    epsilon: float = GUIDE_EPSILON,
) -> list[NDArray[np.float32]]:
    """Slopes of blue, green and red, and the offset, that fit the probability around each pixel.

    Args:
        guide: (h, w, 3) float32 0..1.
        probability: (h, w) float32 0..1.
        radius: of the window, pixels; None for GUIDE_RADIUS of the longer side.
        epsilon: see GUIDE_EPSILON.

    Returns:
        list of 4 (h, w) float32.
    """
    if radius is None:
        radius = max(1, round(GUIDE_RADIUS * max(probability.shape)))
    window = (2 * radius + 1,) * 2

    def mean(plane):
        return cv2.boxFilter(plane, -1, window, borderType=cv2.BORDER_REFLECT)

    b, g, r = colors = cv2.split(guide)
    means, level = [mean(color) for color in colors], mean(probability)
    against = [mean(c * probability) - m * level for c, m in zip(colors, means)]

    def covariance(i, j):
        return mean(colors[i] * colors[j]) - means[i] * means[j] + epsilon * (i == j)

    bb, bg, br, gg, gr, rr = (
        covariance(*pair) for pair in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    )
    # The symmetric 3x3 system is solved by its adjugate: far quicker than np.linalg.solve.
    rows = [
        [gg * rr - gr * gr, br * gr - bg * rr, bg * gr - br * gg],
        [br * gr - bg * rr, bb * rr - br * br, bg * br - bb * gr],
        [bg * gr - br * gg, bg * br - bb * gr, bb * gg - bg * bg],
    ]
    determinant = bb * rows[0][0] + bg * rows[0][1] + br * rows[0][2]
    slopes = [sum(a * c for a, c in zip(row, against)) / determinant for row in rows]
    offset = level - sum(slope * m for slope, m in zip(slopes, means))
    return [mean(plane) for plane in (*slopes, offset)]
