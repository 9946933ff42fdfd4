"""From the network's answer to the photo's size: false regions removed, edges as in the photo."""

import cv2
import numpy as np

from portraitnet.images import THRESHOLD, Image, Probability, mask_of

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


GUIDE_SIDE = 112  # longer side at which the guided filter is fitted, pixels
GUIDE_RADIUS = 0.025  # of its window, as a share of the longer side
GUIDE_EPSILON = 2.5e-3  # variance of a colour (0..1 squared) below which a window counts as flat
# Longer side at which the fit is applied, pixels: the noise of larger photos averages out, and none
# of them takes much longer.
APPLY_SIDE = 800
BOUND_SIDE = 5  # pixels of GUIDE_SIDE around, whose probabilities bound the answer
SPIKE = 0.0025  # half width, as a share of the longer side, of a thing that is too thin to be kept
SPECK = 0.001  # of the photo: a smaller region needs the network's support
SUPPORT = 0.3  # by how much its mean probability must lie beyond the threshold
FLAT = 0.05  # a probability that changes less from pixel to pixel of GUIDE_SIDE is left as it is
TILE = 8  # side of the squares in which it is applied, pixels of GUIDE_SIDE


def guided_upsample(probability: Probability, image: Image) -> Probability:
    """Bring a network input's probability to the photo's size so that its edges follow the photo's.

    A guided filter: in every window the probability is fitted as a . (blue, green, red) + b, which
    keeps an edge where the photo has one. Fitted at GUIDE_SIDE pixels and applied at APPLY_SIDE,
    where the probability changes. Two things keep the photo's texture from printing itself on the
    mask: the answer stays between the least and the greatest probability of the pixels of
    GUIDE_SIDE around, and `without_spikes` and `without_specks` take out what it adds.
    benchmarks/refine_quality.py measures it.

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
    height, width = applied.shape[:2]
    guide = limited(applied, GUIDE_SIDE) / np.float32(255)
    small_height, small_width = guide.shape[:2]
    # The network is less sure of its boundary than it might be.
    coarse = squared_odds(cv2.resize(probability, (small_width, small_height)))
    # A pixel is (blue, green, red, 255): the offset is a slope of the fourth.
    fit = cv2.merge(color_fit(guide, coarse)) / np.float32(255)
    around = np.ones((BOUND_SIDE, BOUND_SIDE), np.uint8)
    bounds = cv2.merge([cv2.erode(coarse, around), cv2.dilate(coarse, around)])
    around = np.ones((3, 3), np.uint8)
    changing = cv2.dilate(cv2.morphologyEx(coarse, cv2.MORPH_GRADIENT, around), around) > FLAT

    coarse = cv2.resize(coarse, (width, height))
    refined = coarse.copy()
    scale_x, scale_y = width / small_width, height / small_height
    for top, bottom, left, right in tiles_of(changing):
        rows = slice(int(np.ceil(top * scale_y)), int(np.ceil(bottom * scale_y)))
        columns = slice(int(np.ceil(left * scale_x)), int(np.ceil(right * scale_x)))
        pixels = cv2.cvtColor(applied[rows, columns], cv2.COLOR_BGR2BGRA)
        # As `cv2.resize` of the whole fit would fill this part.
        x, y = (columns.start + 0.5) / scale_x - 0.5, (rows.start + 0.5) / scale_y - 0.5
        matrix = np.array([[1 / scale_x, 0, x], [0, 1 / scale_y, y]])
        how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
        value = cv2.warpAffine(fit, matrix, pixels.shape[1::-1], **how)
        value *= pixels
        bound = cv2.warpAffine(bounds, matrix, pixels.shape[1::-1], **how)
        value = value @ np.ones(4, np.float32)
        np.clip(value, bound[:, :, 0], bound[:, :, 1], out=refined[rows, columns])
    refined = without_specks(without_spikes(refined, coarse), coarse)
    return refined if applied is image else cv2.resize(refined, image.shape[1::-1])


def squared_odds(probability: Probability) -> Probability:
    """A probability whose odds of person to background are squared, (h, w) float32 0..1."""
    person, background = probability**2, (1 - probability) ** 2
    return person / (person + background)


def without_spikes(refined: Probability, coarse: Probability) -> Probability:
    """Take out thin spikes and dashes, such as a wire grid leaves, that the network did not see.

    Args:
        refined: (H, W) float32 0..1.
        coarse: (H, W) float32 0..1, from before the guided filter.

    Returns:
        (H, W) float32: what is thinner than SPIKE falls, at most to `coarse`. (Gaps as thin stay:
        closing them costs seven tenths of boundary IoU.)
    """
    side = 2 * max(1, round(SPIKE * max(refined.shape))) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    opened = cv2.morphologyEx(refined, cv2.MORPH_OPEN, disc)
    return np.minimum(refined, np.maximum(opened, coarse))


def without_specks(refined: Probability, coarse: Probability) -> Probability:
    """Take out small regions and fill small holes of the mask that the network did not see.

    Args:
        refined: (H, W) float32 0..1; changed in place.
        coarse: (H, W) float32 0..1, from before the guided filter.

    Returns:
        `refined`: at THRESHOLD, or just above it, where such a region was.
    """
    above = np.nextafter(np.float32(THRESHOLD), np.float32(1))
    mask = mask_of(refined)
    for sign, flat in ((mask, np.float32(THRESHOLD)), (1 - mask, above)):
        if cv2.connectedComponents(sign)[0] <= 2:  # one region: seven times as fast as areas
            continue
        _, labels, found, _ = cv2.connectedComponentsWithStats(sign)
        for label in 1 + np.flatnonzero(found[1:, cv2.CC_STAT_AREA] < SPECK * refined.size):
            left, top, width, height = found[label, :4]
            part = slice(top, top + height), slice(left, left + width)
            own = labels[part] == label
            seen = float(coarse[part][own].mean()) - THRESHOLD
            if (seen if sign is mask else -seen) < SUPPORT:
                refined[part][own] = flat
    return refined


def limited(image, side):
    """The photo, shrunk to at most `side` pixels on its longer side."""
    ratio = side / max(image.shape[:2])
    if ratio >= 1:
        return image
    size = [max(1, round(length * ratio)) for length in image.shape[1::-1]]
    # Of a pixel and its neighbours at most: several times as fast where it suffices.
    few = ratio > 0.5
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR if few else cv2.INTER_AREA)


def color_fit(guide, probability, radius=None, epsilon=GUIDE_EPSILON):
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


def tiles_of(changing):
    """Squares with a pixel of `changing` (h, w) bool: (top, bottom, left, right), pixels."""
    height, width = changing.shape
    tiles = np.logical_or.reduceat(changing, np.arange(0, height, TILE), axis=0)
    tiles = np.logical_or.reduceat(tiles, np.arange(0, width, TILE), axis=1)
    for top, left in (TILE * np.argwhere(tiles)).tolist():
        yield top, min(top + TILE, height), left, min(left + TILE, width)
