"""Labelled pictures side by side, to judge by eye."""

from collections.abc import Sequence

import numpy as np

from images import cv2

LABEL_HEIGHT = 20  # pixels under each picture
MARGIN = 4  # pixels left, right and above each picture


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
