"""Photo in, probability out: the only pre- and post-processing, whatever runs the network.

>>> from images import read_image
>>> from predictor import Predictor
>>> probability = Predictor().probability(read_image("examples/astronaut.png"))
"""

from pathlib import Path

import numpy as np

from backends import AUTO, WEIGHTS, RunBatch, choose, load
from effects import THRESHOLD, drop_doubtful, mask_of
from images import Image, Probability, cv2
from transforms import SIZE, to_batch
from transforms.geometry import resize, view_shape

MODEL_PATH = WEIGHTS / "portraitnet.pdparams"  # what train.py's best became
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


class Predictor:
    """A loaded network; call it from one thread at a time.

    `probability` and `probabilities` are all that most need. They are `prepare`, `run` and
    `restore` in a row; a pipeline may call these apart, `prepare` and `restore` in any thread.
    The network sees a photo in a rectangle of nearly its proportions, without padding: its `view`.

    Args:
        model_path: model file, or a name in `backends.MODELS`; None for the default one.
        backend: name in `backends.BACKENDS`, or "auto" for the fastest that is installed.
        refine: take out what is hardly a person (`drop_doubtful`) and let the mask follow the
            photo's edges (`guided_upsample`), instead of the network's answer, bilinear.
        size: side of the square with a view's area, pixels; None for the name's or the file's.
        threads: that the network may use; None for the runtime's choice.

    Attributes:
        backend: name of the one that runs.
        model_path: of the file that it runs.
        size: as above.

    Raises:
        FileNotFoundError, ValueError: one sentence on what is wrong with the model file.
        ImportError: the backend is not installed.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        backend: str = AUTO,
        refine: bool = True,
        size: int | None = None,
        threads: int | None = None,
    ):
        self.model_path, self.backend, named_size = choose(model_path, backend)
        network = load(self.model_path, self.backend, size or named_size, threads)
        self.run_batch, self.size = network
        self.refine = refine

    @classmethod
    def of(cls, run_batch: RunBatch, size: int = SIZE, refine: bool = True) -> "Predictor":
        """A Predictor of a network in memory, such as `backends.runner(model)` while it trains.

        Args:
            run_batch: function of batch (N, 3, h, w) float32 -> probability (N, h, w) float32.
            size, refine: as above.
        """
        predictor = cls.__new__(cls)
        predictor.run_batch, predictor.size, predictor.refine = run_batch, size, refine
        return predictor

    def probability(self, image: Image) -> Probability:
        """Where the person is.

        Args:
            image: (H, W, 3) uint8 BGR, any size.

        Returns:
            (H, W) float32, 0..1, the probability that a pixel is person.
        """
        return self.probabilities([image])[0]

    def probabilities(self, images: list[Image]) -> list[Probability]:
        """As `probability`, for a list of images of any sizes."""
        probabilities = self.run([self.prepare(image) for image in images])
        return [self.restore(*each) for each in zip(probabilities, images)]

    def prepare(self, image: Image) -> Image:
        """image (H, W, 3) uint8 -> its view (h, w, 3) uint8, which is what the network sees."""
        return resize(image, *view_shape(*image.shape[:2], self.size))

    def run(self, views: list[Image]) -> list[Probability]:
        """List of views -> list of their (h, w) float32 probabilities; one pass for each shape."""
        probabilities = [None] * len(views)
        for shape in {view.shape for view in views}:
            indices = [i for i, view in enumerate(views) if view.shape == shape]
            batch = to_batch([views[i] for i in indices])
            answers = self.run_batch(batch)
            if not np.isfinite(answers).all():
                raise ValueError(
                    "The network's answer is not finite: its weights are damaged; use other ones."
                )
            for i, probability in zip(indices, answers):
                probabilities[i] = probability
        return probabilities

    def restore(self, probability: Probability, image: Image) -> Probability:
        """A view's probability (h, w) float32 -> the image's, (H, W) float32."""
        if self.refine:
            return guided_upsample(drop_doubtful(probability), image)
        return cv2.resize(probability, image.shape[1::-1])


def guided_upsample(probability: Probability, image: Image) -> Probability:
    """Bring a view's probability to the photo's size so that its edges follow the photo's.

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
