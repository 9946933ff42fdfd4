"""What to make of a photo and of where the person is in it: pure functions on arrays.

Each takes `image`, (H, W, 3) uint8 BGR, and `probability`, (H, W) float32 0..1 of the same size,
changes neither, and returns a new uint8 picture of that size, BGR where nothing else is said.
`alpha`, (H, W) float32 0..1, is the opacity of the person, such as `Predictor.alpha` gives. Without
it the opacity is `matte(probability)`; with it `probability` may be None.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from portraitnet.geometry import limited, resize
from portraitnet.images import mask_of
from portraitnet.postprocess import CLEAR, SOLID

OVERLAY_COLOR = (80, 200, 80)  # BGR
COLOR_SIDE = 1024  # longer side at which colours are estimated, pixels
# Half widths of the windows of the two colour estimates, as fractions of the longer side: 90 and 6
# pixels at about 1000 in the paper.
FAR, NEAR = 0.09, 0.006
PURITY = 4  # power of alpha that weighs a colour: how much pure pixels count above mixed ones
LABEL_HEIGHT, MARGIN = 20, 4  # pixels under, and left, right and above each picture of a sheet
CUT_ALREADY = 0.95  # fraction of what is visible that is person where the person was cut out
BLUR_SIGMA = 6  # a wider blur is made on a smaller picture, where its sigma is this many pixels


def matte(probability: np.ndarray) -> np.ndarray:
    """Opacity of the person: the probability with its unsure ends cut off, alike for every photo.

    Returns:
        (H, W) float32, 0..1: 0 up to CLEAR, 1 from SOLID on, linear between.
    """
    alpha = (probability - np.float32(CLEAR)) * np.float32(1 / (SOLID - CLEAR))
    return np.clip(alpha, 0, 1, out=alpha)


def overlay(
    image: np.ndarray,
    probability: np.ndarray,
    color: tuple[int, int, int] = OVERLAY_COLOR,
    strength: float = 0.4,
) -> np.ndarray:
    """The person tinted and outlined, to judge a mask by eye.

    Args:
        color: BGR, of tint and outline.
        strength: of the tint, 0..1.
    """
    width = max(3, round(max(image.shape) / 300))
    # The gradient's default border keeps the frame of the photo free of outline.
    outline = cv2.morphologyEx(
        mask_of(probability), cv2.MORPH_GRADIENT, np.ones((width, width), np.uint8)
    )
    weight = np.maximum(np.float32(strength) * probability, cv2.blur(outline, (3, 3)))
    return _blend(np.full_like(image, color), image, weight)


class Layers(NamedTuple):
    """A picture that came with transparency of its own.

    Attributes:
        colors: (H, W, 3) uint8 BGR, straight: not mixed with any background.
        alpha: (H, W) uint8 0..255.
    """

    colors: np.ndarray
    alpha: np.ndarray


def person_layers(
    image: np.ndarray,
    probability: np.ndarray | None,
    side: int = COLOR_SIDE,
    layers: Layers | None = None,
    alpha: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The person's own colours and opacity.

    A picture that came with transparency is never less transparent than before. Where hardly
    anything but the person is left of it, somebody has cut the person out already: that cut-out is
    kept as it is.

    Args:
        side: as for `person_colors`.
        layers: of a picture with transparency, whose `image` is before white; else None.

    Returns:
        colors (H, W, 3) uint8 BGR, and alpha (H, W) float32 0..1.
    """
    alpha = matte(probability) if alpha is None else alpha
    colors = person_colors(image, alpha, side)
    if layers is None:
        return colors, alpha
    given = layers.alpha / np.float32(255)
    if np.minimum(alpha, given).sum() > CUT_ALREADY * given.sum():
        return layers.colors, given
    # Beside a transparent part the network saw white, which is in no colour there.
    reach = 2 * max(1, round(NEAR * max(alpha.shape))) + 1
    beside = cv2.dilate((layers.alpha < 255).astype(np.uint8), np.ones((reach, reach), np.uint8))
    return np.where(beside[:, :, None] > 0, layers.colors, colors), alpha * given


def cut_out(
    image: np.ndarray,
    probability: np.ndarray | None,
    side: int = COLOR_SIDE,
    layers: Layers | None = None,
    alpha: np.ndarray | None = None,
) -> np.ndarray:
    """The person alone, in the person's own colours; nothing of the old background is kept.

    Args:
        side, layers: as for `person_layers`.

    Returns:
        (H, W, 4) uint8 BGRA, straight alpha; black where alpha is 0.
    """
    colors, alpha = person_layers(image, probability, side, layers, alpha)
    # OpenCV's calls take a fifth of the time of NumPy's on a large photo.
    alpha = cv2.convertScaleAbs(alpha, alpha=255)
    colors = cv2.bitwise_and(colors, colors, mask=alpha)
    return cv2.insertChannel(alpha, cv2.cvtColor(colors, cv2.COLOR_BGR2BGRA), 3)


def replace(
    image: np.ndarray,
    probability: np.ndarray | None,
    background: np.ndarray,
    side: int = COLOR_SIDE,
    layers: Layers | None = None,
    alpha: np.ndarray | None = None,
) -> np.ndarray:
    """The person before another background, without a halo of the old one.

    Args:
        background: a BGR colour, or an image of any size, cut to fill the photo.
        side, layers: as for `person_layers`.
    """
    if np.ndim(background) == 1:
        background = np.full_like(image, background)
    else:
        background = fill(background, *image.shape[:2])
    colors, alpha = person_layers(image, probability, side, layers, alpha)
    return _blend(colors, background, alpha)


def blur(
    image: np.ndarray,
    probability: np.ndarray | None,
    strength: float = 0.02,
    side: int = COLOR_SIDE,
    alpha: np.ndarray | None = None,
) -> np.ndarray:
    """The person sharp before a blurred background.

    The blur averages background alone, so that the person does not bleed into it.

    Args:
        strength: sigma of the blur as a fraction of the photo's longer side; 0 for none.
        side: as for `person_colors`.
    """
    alpha = matte(probability) if alpha is None else alpha
    sigma = strength * max(image.shape)
    if sigma <= 0:
        return image.copy()
    small = limited(image, max(image.shape) * min(1, BLUR_SIGMA / sigma))
    sigma *= max(small.shape) / max(image.shape)
    weight = 1 - resize(alpha, *small.shape[:2])
    # Deep inside the person no background is near: there the photo itself counts, a little.
    background = _mean(small, weight, lambda plane: cv2.GaussianBlur(plane, (0, 0), sigma))
    background = resize(np.rint(background).astype(np.uint8), *image.shape[:2])
    return _blend(person_colors(image, alpha, side), background, alpha)


def grey(
    image: np.ndarray, probability: np.ndarray | None, alpha: np.ndarray | None = None
) -> np.ndarray:
    """The person in colour before a grey background."""
    alpha = matte(probability) if alpha is None else alpha
    luma = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return _blend(image, luma, alpha)


class Options(NamedTuple):
    """What the effects of `EFFECTS` may ask for beside image and probability.

    Attributes:
        background: of `replace`.
        blur: `blur`'s strength.
        side: as for `person_colors`.
        layers: as for `person_layers`; of `cut_out` and `replace`.
        alpha: of the effects in `WITH_ALPHA`.
    """

    background: np.ndarray
    blur: float
    side: int = COLOR_SIDE
    layers: Layers | None = None
    alpha: np.ndarray | None = None


# Name of the effect, and of its files -> function of image, probability and Options; the page has
# the same (apps/web/effects.js).
EFFECTS = {
    "overlay": lambda image, probability, _: overlay(image, probability),
    "mask": lambda image, probability, _: 255 * mask_of(probability),
    "cutout": lambda image, probability, options: cut_out(
        image, probability, options.side, options.layers, options.alpha
    ),
    "replace": lambda image, probability, options: replace(
        image, probability, options.background, options.side, options.layers, options.alpha
    ),
    "blur": lambda image, probability, options: blur(
        image, probability, options.blur, options.side, options.alpha
    ),
    "grey": lambda image, probability, options: grey(image, probability, options.alpha),
}
WITH_ALPHA = ("cutout", "replace", "blur", "grey")  # the effects that take an alpha


def fill(background: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image until it covers (height, width) and cut what stands out, evenly."""
    ratio = max(height / background.shape[0], width / background.shape[1])
    rows, columns = max(1, round(height / ratio)), max(1, round(width / ratio))
    top, left = (background.shape[0] - rows) // 2, (background.shape[1] - columns) // 2
    part = background[top : top + rows, left : left + columns]
    return resize(part, height, width)


def person_colors(image: np.ndarray, alpha: np.ndarray, side: int = COLOR_SIDE) -> np.ndarray:
    """The person's own colours where person and background mix.

    A mixed pixel is alpha * F + (1 - alpha) * B. F and B are first taken as the weighted means of
    the colours around, then F is corrected by what they leave unexplained; done twice, with a wide
    window that reaches beyond the mixed band and with a narrow one that keeps detail.

    Args:
        image: (H, W, 3) uint8 BGR.
        alpha: (H, W) float32, 0..1.
        side: longer side, in pixels, at which the colours are estimated; a video takes less.

    Returns:
        (H, W, 3) uint8 BGR, equal to `image` where alpha is 0 or 1.

    Source: Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021. Two departures: the
    means, being smooth, are taken at `side` pixels and only the last correction at full size;
    and they are weighted by alpha ** PURITY, for the rim of a network's mask is wide.
    """
    small = limited(image, side).astype(np.float32)
    small_alpha = resize(alpha, *small.shape[:2])
    weights = [cv2.pow(part, PURITY) for part in (small_alpha, 1 - small_alpha)]

    def means(person, background, fraction):
        window = (2 * max(1, round(fraction * max(small.shape))) + 1,) * 2
        layers = zip((person, background), weights)
        return (_mean(*layer, lambda plane: cv2.blur(plane, window)) for layer in layers)

    person_mean, background = means(small, small, FAR)
    person = _unmix(small, cv2.merge([small_alpha] * 3), person_mean, background)
    person_mean, background = means(person, background, NEAR)

    mixed = np.flatnonzero((alpha > 0) & (alpha < 1))

    def pick(picture):
        return picture.reshape(-1, 3).take(mixed, axis=0).astype(np.float32)

    person_mean, background = (
        pick(resize(np.rint(plane).astype(np.uint8), *image.shape[:2]))
        for plane in (person_mean, background)
    )
    weight = np.repeat(alpha.reshape(-1, 1).take(mixed, axis=0), 3, axis=1)
    colors = image.copy()
    colors.reshape(-1, 3)[mixed] = np.rint(_unmix(pick(image), weight, person_mean, background))
    return colors


def _unmix(color, alpha, person, background):
    """The person's colours, corrected by what the mixture leaves unexplained; all of one shape."""
    unexplained = color - background
    unexplained -= alpha * (person - background)
    return np.clip(person + alpha * unexplained, 0, 255)


def _mean(color, weight, blur):
    """Weighted mean of (h, w, 3) colours by (h, w) weights in the window of `blur`, float32."""
    # The little constant makes it the plain mean where every weight in the window is 0. A plane for
    # each colour, because arrays of one shape are multiplied several times as fast.
    planes = cv2.merge([weight + np.float32(1e-4)] * 3)
    return blur(color * planes) / blur(planes)


def _blend(front, back, weight):
    """front * weight + back * (1 - weight) for (H, W, 3) uint8 and (H, W) float 0..1."""
    weight = np.asarray(weight, np.float32)
    return cv2.blendLinear(front, back, weight, 1 - weight)


def contact_sheet(cells: Sequence[tuple[str, np.ndarray]], columns: int) -> np.ndarray:
    """Lay labelled pictures, (h, w, 3) uint8 BGR of any sizes, out in rows; (H, W, 3) uint8 BGR."""
    height, width = (max(picture.shape[axis] for _, picture in cells) for axis in (0, 1))
    white = (255,) * 3
    tiles = []
    for label, picture in cells:
        below = height - picture.shape[0] + LABEL_HEIGHT
        beside = width - picture.shape[1] + MARGIN
        tile = cv2.copyMakeBorder(
            picture, MARGIN, below, MARGIN, beside, cv2.BORDER_CONSTANT, value=white
        )
        place = (MARGIN + 2, tile.shape[0] - 6)
        font = cv2.FONT_HERSHEY_SIMPLEX
        tiles.append(cv2.putText(tile, label, place, font, 0.45, (0,) * 3, 1, cv2.LINE_AA))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
