"""What may stand behind the person: a colour or a photo, as --background names it."""

import re

import numpy as np

from portraitnet.images import read_image

COLORS = {  # BGR
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (0, 0, 255),
    "green": (64, 177, 0),
    "blue": (255, 71, 0),
}


def parse_color(text: str) -> np.ndarray | None:
    """The name of a colour or #rrggbb -> BGR colour; None for anything else."""
    if text in COLORS:
        return np.array(COLORS[text])
    if re.fullmatch("#[0-9a-fA-F]{6}", text):
        return np.array(bytearray.fromhex(text[1:]))[::-1]
    return None


def read_background(text: str) -> np.ndarray:
    """The name of a colour, #rrggbb, or the path of a photo -> BGR colour or image.

    Raises:
        ValueError: it is none of them.
    """
    if (color := parse_color(text)) is not None:
        return color
    try:
        return read_image(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"neither colour nor photo: {error}") from None
