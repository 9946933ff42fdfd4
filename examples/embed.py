"""PortraitNet in your own program: needs weights/portraitnet.onnx, this file and the packages
onnxruntime, numpy and OpenCV. Example: `python examples/embed.py photo.jpg cutout.png`

The short file has neither the second look, the refinement nor the clean colours of `portraitnet`:
small people may be missed, the mask's edges do not follow the photo's, and mixed pixels of hair
keep the old background's colour.
"""

import os
import sys
from itertools import product
from math import log

import cv2
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import, or it reports to its maker
import onnxruntime  # noqa: E402

MEAN, SCALE = np.float32([103.94, 116.78, 123.68]), np.float32(0.017)  # of B, G, R in 0..255


def input_shape(height, width):
    """(height, width) of the network input: about 224**2 pixels, nearly the photo's proportions."""
    ratio, sides = log(height / width), range(32, 449, 32)

    def misfit(shape):
        h, w = shape
        return abs(log(h / w) - ratio) + 0.25 * abs(log(h * w / 224**2))

    return min(product(sides, sides), key=misfit)


def predict(session, image):
    """image (H, W, 3) uint8 BGR -> (H, W) float32 0..1, the probability of person."""
    height, width = image.shape[:2]
    h, w = input_shape(height, width)
    method = cv2.INTER_AREA if h < height or w < width else cv2.INTER_LINEAR
    network_input = cv2.resize(image, (w, h), interpolation=method).astype(np.float32)
    batch = ((network_input - MEAN) * SCALE).transpose(2, 0, 1)[None]
    [probability] = session.run(None, {"batch": batch})
    return cv2.resize(probability[0], (width, height))


def matte(probability):
    """Opacity of the person: 0 up to 0.33, 1 from 0.67 on, because the network is never certain."""
    return np.clip((probability - 0.33) / (0.67 - 0.33), 0, 1)


if __name__ == "__main__":
    image = cv2.imread(sys.argv[1])
    session = onnxruntime.InferenceSession("weights/portraitnet.onnx")
    alpha = 255 * matte(predict(session, image))
    cv2.imwrite(sys.argv[2], np.dstack([image, alpha]).astype(np.uint8))
