"""From the network's answer to the photo's size: false regions removed, edges as in the photo."""

import cv2
import numpy as np

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


GUIDE_SIDE = 128  # longer side at which the guided filter is fitted, pixels
GUIDE_RADIUS = 0.016  # of its window, as a fraction of the longer side
GUIDE_EPSILON = 1e-3  # variance of a colour (0..1 squared) below which a window counts as flat
FLAT = 0.05  # a probability that changes less from pixel to pixel of GUIDE_SIDE is left as it is
TILE = 8  # side of the squares in which it is applied, pixels of GUIDE_SIDE


def guided_upsample(probability: Probability, image: Image) -> Probability:
    """Bring a network input's probability to the photo's size so that its edges follow the photo's.

    A guided filter: in every window the probability is fitted as a . (blue, green, red) + b, which
    keeps an edge where the photo has one. Fitted at GUIDE_SIDE pixels and applied at full size,
    where the probability changes. It stays between the least and the greatest probability of the
    pixels of GUIDE_SIDE around, lest the photo's texture prints itself on the mask.
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
    height, width = image.shape[:2]
    ratio = min(1, GUIDE_SIDE / max(height, width))
    small_height, small_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    probability = cv2.resize(probability, (small_width, small_height))
    # The network is less sure of its boundary than it might be: the odds are squared.
    person, background = probability**2, (1 - probability) ** 2
    probability = person / (person + background)
    # A pixel is (blue, green, red, 255): the offset is a slope of the fourth.
    fit = cv2.merge(color_fit(small_guide(image, ratio), probability)) / np.float32(255)
    around = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(probability, around), cv2.dilate(probability, around)
    bounds = cv2.merge([low, high])
    changing = cv2.dilate(high - low, around) > FLAT

    refined = cv2.resize(probability, (width, height))
    scale_x, scale_y = width / small_width, height / small_height
    for top, bottom, left, right in tiles_of(changing):
        rows = slice(int(np.ceil(top * scale_y)), int(np.ceil(bottom * scale_y)))
        columns = slice(int(np.ceil(left * scale_x)), int(np.ceil(right * scale_x)))
        pixels = cv2.cvtColor(image[rows, columns], cv2.COLOR_BGR2BGRA)
        # As `cv2.resize` of the whole fit would fill this part.
        x, y = (columns.start + 0.5) / scale_x - 0.5, (rows.start + 0.5) / scale_y - 0.5
        matrix = np.array([[1 / scale_x, 0, x], [0, 1 / scale_y, y]])
        how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_REPLICATE}
        value = cv2.warpAffine(fit, matrix, pixels.shape[1::-1], **how)
        value *= pixels
        bound = cv2.warpAffine(bounds, matrix, pixels.shape[1::-1], **how)
        value = value @ np.ones(4, np.float32)
        np.clip(value, bound[:, :, 0], bound[:, :, 1], out=refined[rows, columns])
    return refined


def small_guide(image, ratio):
    """The photo shrunk by `ratio`, float32 0..1; of a large one, for speed, not every pixel."""
    size = [max(1, round(length * ratio)) for length in image.shape[1::-1]]
    if max(image.shape) > 8 * GUIDE_SIDE:
        image = cv2.resize(image, [4 * length for length in size])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA) / np.float32(255)


def color_fit(guide, probability):
    """Slopes of blue, green and red, and the offset, that fit the probability around each pixel.

    Args:
        guide: (h, w, 3) float32 0..1.
        probability: (h, w) float32 0..1.

    Returns:
        list of 4 (h, w) float32.
    """
    window = (2 * max(1, round(GUIDE_RADIUS * max(probability.shape))) + 1,) * 2

    def mean(plane):
        return cv2.boxFilter(plane, -1, window, borderType=cv2.BORDER_REFLECT)

    b, g, r = colors = cv2.split(guide)
    means, level = [mean(color) for color in colors], mean(probability)
    against = [mean(c * probability) - m * level for c, m in zip(colors, means)]

    def covariance(i, j):
        return mean(colors[i] * colors[j]) - means[i] * means[j] + GUIDE_EPSILON * (i == j)

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
