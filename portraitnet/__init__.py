"""People cut out of photos: a photo in, the probability of a person out, effects on both.

>>> from portraitnet import Predictor, cut_out, read_image, write_image
>>> image = read_image("photo.jpg")  # (H, W, 3) uint8, BGR
>>> write_image("person.png", cut_out(image, Predictor().probability(image)))

Images are BGR, as OpenCV reads them, everywhere in this package.
"""

try:
    import cv2  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"OpenCV cannot be loaded ({error}): run `pip install opencv-python`, and on a server "
        "without a screen `pip install opencv-python-headless` instead."
    ) from None

from portraitnet.backgrounds import read_background
from portraitnet.effects import blur, cut_out, grey, matte, overlay, replace
from portraitnet.images import decode_image, encode_image, mask_of, read_image, write_image
from portraitnet.predictor import Predictor

__version__ = "1.0.0"
__all__ = [
    "Predictor",
    "blur",
    "cut_out",
    "decode_image",
    "encode_image",
    "grey",
    "mask_of",
    "matte",
    "overlay",
    "read_background",
    "read_image",
    "replace",
    "write_image",
]
