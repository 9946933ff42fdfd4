"""PortraitNet in your own program: weights/portraitnet.onnx and this file, with onnxruntime, numpy
and OpenCV alone. `python examples/embed.py photo.jpg cutout.png`
"""

import sys
from itertools import product
from math import log

import cv2
import numpy as np
import onnxruntime


def input_shape(height, width):
    """(height, width) of the rectangle that the network sees: nearly the photo's proportions."""
    ratio, sides = log(height / width), range(32, 449, 32)

    def misfit(shape):
        h, w = shape
        return abs(log(h / w) - ratio) + 0.25 * abs(log(h * w / 224**2))

    return min(product(sides, sides), key=misfit)


def person(session, image):
    """image (H, W, 3) uint8 BGR -> (H, W) float32 0..1, the probability of person."""
    height, width = image.shape[:2]
    h, w = input_shape(height, width)
    method = cv2.INTER_AREA if h < height or w < width else cv2.INTER_LINEAR
    network_input = cv2.resize(image, (w, h), interpolation=method).astype(np.float32)
    batch = ((network_input - np.float32([103.94, 116.78, 123.68])) * np.float32(0.017)).transpose(
        2, 0, 1
    )
    [probability] = session.run(None, {"batch": batch[None]})
    return cv2.resize(probability[0], (width, height))


def opacity(probability):
    """0 up to .33, 1 from .67 on, for the network is never quite sure."""
    return np.clip((probability - 0.33) / (0.67 - 0.33), 0, 1)


if __name__ == "__main__":
    image = cv2.imread(sys.argv[1])
    session = onnxruntime.InferenceSession("weights/portraitnet.onnx")
    alpha = 255 * opacity(person(session, image))
    cv2.imwrite(sys.argv[2], np.dstack([image, alpha]).astype(np.uint8))
