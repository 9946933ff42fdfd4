"""Opacity of hair: closed-form matting in a band around the person's contour.

>>> from images import read_image
>>> from matting import matting
>>> from predictor import Predictor
>>> image = read_image("examples/portrait.jpg")
>>> alpha = matting(image, Predictor().probability(image))

It needs NumPy and OpenCV alone.
"""

import numpy as np
from numpy.typing import NDArray

from images import Image, Probability, cv2

EPSILON = 1e-5  # variance of a colour (0..1 squared) below which a window counts as flat
ITERATIONS = 200  # of conjugate gradients, at most
TOLERANCE = 2e-4  # mean change of alpha in an iteration at which they end
# The 9 pixels of a window, and the 25 that share a window with a pixel: (row, column) steps.
WINDOW = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
NEIGHBOURS = [(row, column) for row in range(-2, 3) for column in range(-2, 3)]


def closed_form(
    image: Image,
    alpha: Probability,
    unknown: NDArray[np.bool_],
    prior: Probability | None = None,
    epsilon: float = EPSILON,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
) -> Probability:
    """Opacities that are, in every 3x3 window, as linear in the colours as they can be.

    Args:
        image: (H, W, 3) uint8 BGR.
        alpha: (H, W) float32 0..1: the known opacities, and a first guess of the unknown ones.
        unknown: (H, W) bool, the pixels to solve.
        prior: (H, W) float32, how strongly each unknown pixel is drawn to the first guess, beside
            the windows' pull, whose strength is 0 to 9; None for not at all.
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
    pull = np.float32(0) if prior is None else prior[unknown].astype(np.float32)
    target = pull * values[:count]

    def product(vector):
        total = pull * vector[:count]
        for row, indices in zip(coefficients, neighbours):
            total += row * vector.take(indices)
        return total

    # Known pixels take part in `product` with their own values in the first residual alone.
    residual = target - product(values)
    scale = 1 / (coefficients[NEIGHBOURS.index((0, 0))] + pull + np.float32(1e-6))
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
    return np.stack(
        [sum(row[c] * colors[:, c] for c in range(3)) for row in inverse], axis=1
    )
