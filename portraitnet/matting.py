"""Opacity of the person, hair included: closed-form matting in a band around the contour.

>>> from portraitnet import Predictor, read_image
>>> image = read_image("examples/portrait.jpg")
>>> alpha = Predictor().alpha(image, matting="hair")

The module needs NumPy and OpenCV alone: PyMatting's first import compiles for 40 seconds, and its
solver, made for any matrix, takes as long as this one or longer.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.effects import matte
from portraitnet.geometry import limited, resize
from portraitnet.images import Image, Probability
from portraitnet.postprocess import color_fit, guided_upsample

WORK_SIDE = 1280  # longer side at which opacities are solved, pixels; 1.2 megapixels at 4:3
SMOOTH_SIDE = 256  # longer side at which a probability has forgotten the photo's texture, pixels
# Sure of person or background is what the network is, this far from where it is not. Where it
# doubts, as in hair, the unknown band is wide by itself. Distances: fractions of the longer side.
PERSON, BACKGROUND = 0.8, 0.3  # probabilities
INSIDE, OUTSIDE = 0.0075, 0.01
# The second solution is confined to what the first, at half the size, left mixed, and its rim.
MIXED = 0.1  # alpha
RIM = 0.004  # fraction of the longer side
# Wider half transparent parts than twice this fraction of the longer side are no hair.
HAZE = 0.015
WHOLE = 0.9  # alpha under which a hole in the person and its rim are
MIN_WISP = 0.05  # alpha above which a strand still connects to the person
CARRY_EPSILON = 1e-4  # variance of a colour (0..1 squared) below which alpha is not sharpened
TILE = 256  # side of the squares in which alpha is brought to the photo's size, pixels
EPSILON = 1e-5  # variance of a colour (0..1 squared) below which a window counts as flat
ITERATIONS = 200  # of conjugate gradients, at most
TOLERANCE = 2e-4  # mean change of alpha in an iteration at which they end
# The 9 pixels of a window, and the 25 that share a window with a pixel: (row, column) steps.
WINDOW = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
NEIGHBOURS = [(row, column) for row in range(-2, 3) for column in range(-2, 3)]


def matting(image: Image, probability: Probability) -> Probability:
    """How opaque the person is, hair by hair.

    Closed-form matting in a band around the contour, twice: at half of WORK_SIDE in a band as wide
    as the network's doubt, then at WORK_SIDE where that left the opacity mixed. Outside the band
    nothing changes, no piece comes back that is not connected to the person, no hole opens where
    the network saw the person all around, and no wide part stays half transparent.

    Args:
        image: (H, W, 3) uint8 BGR, any size.
        probability: (H, W) float32 0..1, best the network's answer as it is, bilinear: what
            `Predictor(refine=False)` gives. A refined one hides the network's doubt.

    Returns:
        (H, W) float32, 0..1.

    Source: Levin, Lischinski and Weiss, PAMI 2008 (see `closed_form`). The band, the two passes and
        the checks are our own; benchmarks/matting.py measures them.
    """
    work = limited(image, WORK_SIDE)
    smooth = _smooth(probability, work.shape[:2])
    person, background = sure_regions(smooth)
    if person.all() or background.all():
        return matte(probability)
    half = [max(1, length // 2) for length in work.shape[:2]]
    coarse = _solve(resize(work, *half), *(_nearest(m, half) for m in (person, background)), smooth)
    coarse = resize(coarse, *work.shape[:2])
    mixed = (coarse > MIXED) & (coarse < 1 - MIXED)
    band = cv2.dilate(mixed.astype(np.uint8), _disc(RIM, work.shape)) > 0
    band &= ~(person | background)
    alpha = _solve(work, (coarse >= 0.5) & ~band, (coarse < 0.5) & ~band, coarse)
    alpha = without_strays(alpha, person, smooth)
    wide = haze(alpha)
    if wide.any():
        alpha = alpha + wide * (matte(guided_upsample(probability, work)) - alpha)
    return carry(alpha, work, image)


def sure_regions(probability: Probability) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where person and where background is sure, two (H, W) bool; what is neither is the band."""
    regions = probability > PERSON, probability < BACKGROUND
    return tuple(
        cv2.erode(
            region.astype(np.uint8),
            _disc(depth, probability.shape),
            borderType=cv2.BORDER_REPLICATE,
        )
        > 0
        for region, depth in zip(regions, (INSIDE, OUTSIDE))
    )


def without_strays(
    alpha: Probability, person: NDArray[np.bool_], probability: Probability
) -> Probability:
    """Take out what is not connected to the person, and close holes that the network denies.

    Args:
        alpha: (H, W) float32 0..1.
        person: (H, W) bool, where the person is sure.
        probability: (H, W) float32 0..1, smooth.

    Returns:
        (H, W) float32, 0..1.
    """
    _, labels = cv2.connectedComponents(((alpha > MIN_WISP) | person).astype(np.uint8))
    connected = np.zeros(labels.max() + 1, bool)
    connected[labels[person]] = True
    connected[0] = True
    alpha = alpha * connected[labels]
    _, labels, found, _ = cv2.connectedComponentsWithStats((alpha < WHOLE).astype(np.uint8))
    believed, background = (
        np.bincount(labels.ravel(), where.ravel(), minlength=len(found))
        for where in (probability > 0.5, alpha < 0.5)
    )
    # The network saw the person all over it. Between strands it did not: a gap there stays.
    hole = (believed == found[:, cv2.CC_STAT_AREA]) & (background > 0)
    hole[0] = False
    return np.where(hole[labels], 1, alpha).astype(np.float32)


def haze(alpha: Probability) -> NDArray[np.float32]:
    """Where a wide part is half transparent, such as fur before a bright sky: no hair is so wide.

    Args:
        alpha: (H, W) float32 0..1.

    Returns:
        (H, W) float32, 0..1 with a soft rim: the weight that another opacity should have.
    """
    disc = _disc(HAZE, alpha.shape)
    mixed = ((alpha > MIXED) & (alpha < 1 - MIXED)).astype(np.uint8)
    wide = cv2.morphologyEx(mixed, cv2.MORPH_OPEN, disc).astype(np.float32)
    side = len(disc) // 4 * 2 + 1
    return cv2.blur(wide, (side, side), borderType=cv2.BORDER_REFLECT)


def carry(alpha: Probability, work: Image, image: Image) -> Probability:
    """Bring alpha to the photo's size so that its edges follow the photo's.

    A guided filter with colours fits alpha in windows of 3x3 pixels of `work`. Applied at full
    size, it stays between the least and the greatest alpha of the pixels around.

    Args:
        alpha: (h, w) float32 0..1.
        work: (h, w, 3) uint8 BGR, the photo at alpha's size.
        image: (H, W, 3) uint8 BGR.

    Returns:
        (H, W) float32, 0..1.

    Source: as `postprocess.guided_upsample`.
    """
    if work.shape == image.shape:
        return alpha
    height, width = image.shape[:2]
    carried = cv2.resize(alpha, (width, height))
    around = np.ones((3, 3), np.uint8)
    low, high = cv2.erode(alpha, around), cv2.dilate(alpha, around)
    guide = work / np.float32(255)
    fit = cv2.merge(color_fit(guide, alpha, radius=1, epsilon=CARRY_EPSILON)) / np.float32(255)
    bounds = cv2.merge([low, high])
    mixed = (high - low > 0.02).astype(np.uint8)
    scale_y, scale_x = height / work.shape[0], width / work.shape[1]
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            pixels = image[top : top + TILE, left : left + TILE]
            # As `cv2.resize` of the whole fit would fill this part.
            x, y = (left + 0.5) / scale_x - 0.5, (top + 0.5) / scale_y - 0.5
            matrix = np.array([[1 / scale_x, 0, x], [0, 1 / scale_y, y]])
            size = pixels.shape[1::-1]
            nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
            inside = cv2.warpAffine(mixed, matrix, size, flags=nearest)
            if not inside.any():
                continue
            how = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
            how["borderMode"] = cv2.BORDER_REPLICATE
            value = cv2.warpAffine(fit, matrix, size, **how)
            value *= cv2.cvtColor(pixels, cv2.COLOR_BGR2BGRA)
            value = value @ np.ones(4, np.float32)
            bound = cv2.warpAffine(bounds, matrix, size, **how)
            part = carried[top : top + TILE, left : left + TILE]
            np.clip(value, bound[:, :, 0], bound[:, :, 1], out=part)
    return carried


def _solve(image, person, background, guess):
    """`closed_form` between the two sure regions, (h, w) bool, from a guess of any size."""
    start = cv2.resize(guess, image.shape[1::-1])
    start[person], start[background] = 1, 0
    return closed_form(image, start, ~(person | background))


def _smooth(probability, shape):
    """A probability of the given (height, width), without what a guided filter printed on it."""
    small = limited(probability, SMOOTH_SIDE)
    return cv2.resize(small, shape[::-1])


def _nearest(region, shape):
    """A region, (H, W) bool, in another (height, width)."""
    flags = cv2.INTER_NEAREST
    return cv2.resize(region.astype(np.uint8), shape[::-1], interpolation=flags) > 0


def _disc(radius, shape):
    """A round structuring element; its radius is a fraction of the longer side of `shape`."""
    side = 2 * max(1, round(radius * max(shape))) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def closed_form(
    image: Image,
    alpha: Probability,
    unknown: NDArray[np.bool_],
    epsilon: float = EPSILON,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Probability:
    """Opacities that are, in every 3x3 window, as linear in the colours as they can be.

    Args:
        image: (H, W, 3) uint8 BGR.
        alpha: (H, W) float32 0..1: the known opacities, and a first guess of the unknown ones.
        unknown: (H, W) bool, the pixels to solve.
        epsilon: variance of a colour (0..1 squared) below which a window counts as flat.
        iterations: of conjugate gradients, at most.
        tolerance: mean change of alpha in an iteration at which they end.

    Returns:
        (H, W) float32, 0..1; `alpha` where it was known.

    Source: Levin, Lischinski and Weiss, "A Closed-Form Solution to Natural Image Matting", PAMI
        2008, equation 12. Preconditioned by the diagonal; solved without SciPy, because the rows of
        the unknown pixels alone are a short list of 25 coefficients each.
    """
    solved = alpha.astype(np.float32)
    count = int(np.count_nonzero(unknown))
    if count == 0 or min(unknown.shape) < 3:
        return solved
    coefficients, neighbours, pixels = laplacian(image, unknown, epsilon)
    values = solved.ravel()[pixels]

    def product(vector):
        total = np.zeros(count, np.float32)
        for row, indices in zip(coefficients, neighbours):
            total += row * vector.take(indices)
        return total

    # Known pixels take part in `product` with their own values in the first residual alone.
    residual = -product(values)
    scale = 1 / (coefficients[NEIGHBOURS.index((0, 0))] + np.float32(1e-6))
    direction = np.zeros_like(values)
    direction[:count] = scale * residual
    energy = float(residual @ direction[:count])
    for _ in range(iterations):
        if energy < 1e-20:  # solved exactly
            break
        image_of_direction = product(direction)
        step = energy / float(direction[:count] @ image_of_direction)
        values[:count] += np.float32(step) * direction[:count]
        residual -= np.float32(step) * image_of_direction
        if step * float(np.abs(direction[:count]).mean()) < tolerance:
            break
        scaled = scale * residual
        last, energy = energy, float(residual @ scaled)
        direction[:count] = scaled + np.float32(energy / last) * direction[:count]
    solved.ravel()[pixels[:count]] = np.clip(values[:count], 0, 1)
    return solved


def laplacian(
    image: Image, unknown: NDArray[np.bool_], epsilon: float = EPSILON
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """The matting Laplacian's rows of the unknown pixels, of which there are U.

    Args:
        image: (H, W, 3) uint8 BGR.
        unknown: (H, W) bool.
        epsilon: see `closed_form`.

    Returns:
        coefficients (25, U) float32; neighbours (25, U), each one's position in `pixels`; pixels
        (P,), indices into the flat image: the unknown ones in order, then the known ones around.
    """
    height, width = unknown.shape
    ones = np.ones((3, 3), np.uint8)
    centers = cv2.dilate(unknown.astype(np.uint8), ones)
    centers[[0, -1]] = centers[:, [0, -1]] = 0  # a window lies within the photo
    around = cv2.dilate(centers, ones).astype(bool) & ~unknown
    pixels = np.concatenate([np.flatnonzero(unknown), np.flatnonzero(around)])
    place = np.zeros(height * width, np.int32)
    place[pixels] = np.arange(len(pixels))
    centers = np.flatnonzero(centers)
    rows, columns = np.nonzero(unknown)
    count = len(rows)

    # Of each window: its colours less their mean, and these multiplied by the inverse covariance.
    flat = image.reshape(-1, 3)
    steps = [row * width + column for row, column in WINDOW]
    colors = np.stack([flat[centers + step].T for step in steps]) / np.float32(255)
    colors -= colors.mean(axis=0)
    pulled = _divided_by_covariance(colors, epsilon)

    # One more window, without any pull, stands for those that reach out of the photo.
    window_of = np.full(height * width, len(centers), np.int32)
    window_of[centers] = np.arange(len(centers))
    pull = np.zeros(len(centers) + 1, np.float32)
    coefficients = np.zeros((len(NEIGHBOURS), count), np.float32)
    for i, (row_i, column_i) in enumerate(WINDOW):
        # The window in which an unknown pixel is number i.
        row, column = rows - row_i, columns - column_i
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        windows = np.where(inside, window_of.take(row * width + column, mode="clip"), len(centers))
        for j, (row_j, column_j) in enumerate(WINDOW):
            product = np.einsum("ck,ck->k", pulled[i], colors[j])
            pull[:-1] = (i == j) - (1 + product) / np.float32(9)
            step = NEIGHBOURS.index((row_j - row_i, column_j - column_i))
            coefficients[step] += pull.take(windows)
    neighbours = np.empty((len(NEIGHBOURS), count), np.int32)
    for step, (row_step, column_step) in enumerate(NEIGHBOURS):
        # Neighbours outside the photo have coefficient 0: any position serves.
        row = np.clip(rows + row_step, 0, height - 1)
        column = np.clip(columns + column_step, 0, width - 1)
        neighbours[step] = place.take(row * width + column)
    return coefficients, neighbours, pixels


def _divided_by_covariance(colors, epsilon):
    """Centred colours (9, 3, K) of K windows times the inverse of each one's covariance."""
    b, g, r = colors.transpose(1, 0, 2)
    bb, bg, br, gg, gr, rr = (
        np.einsum("jk,jk->k", *pair, dtype=np.float64) / 9
        for pair in [(b, b), (b, g), (b, r), (g, g), (g, r), (r, r)]
    )
    bb, gg, rr = bb + epsilon / 9, gg + epsilon / 9, rr + epsilon / 9
    # The symmetric 3x3 system is solved by its adjugate: far quicker than np.linalg.solve.
    inverse = [
        [gg * rr - gr * gr, br * gr - bg * rr, bg * gr - br * gg],
        [br * gr - bg * rr, bb * rr - br * br, bg * br - bb * gr],
        [bg * gr - br * gg, bg * br - bb * gr, bb * gg - bg * bg],
    ]
    determinant = bb * inverse[0][0] + bg * inverse[0][1] + br * inverse[0][2]
    inverse = [[(value / determinant).astype(np.float32) for value in row] for row in inverse]
    return np.stack([sum(row[c] * colors[:, c] for c in range(3)) for row in inverse], axis=1)


def _enlarged(probability, image):
    return cv2.resize(probability, image.shape[1::-1])


# Name -> function of an image and its network's answer (h, w) float32, which gives alpha (H, W).
METHODS = {
    "none": lambda image, answer: matte(_enlarged(answer, image)),
    "fast": lambda image, answer: matte(guided_upsample(answer, image)),
    "hair": lambda image, answer: matting(image, _enlarged(answer, image)),
}
