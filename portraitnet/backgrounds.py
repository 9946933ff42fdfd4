"""What may stand behind the person: a colour or a photo, as --background names it."""

import numpy as np

from portraitnet.images import read_image

COLORS = {  # BGR
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (0, 0, 255),
    "green": (0, 177, 64),
    "blue": (255, 71, 0),
}


def read_background(text: str) -> np.ndarray:
    """The name of a colour, #rrggbb, or the path of a photo -> BGR colour or image.

    Raises:
        ValueError: it is none of them.
    """
    if text in COLORS:
        return np.array(COLORS[text])
    if text.startswith("#") and len(text) == 7:
        try:
            return np.array(bytearray.fromhex(text[1:]))[::-1]
        except ValueError:
            pass  # no colour: then it must be a file
    try:
        return read_image(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"neither colour nor photo: {error}") from None
