"""Photo in, probability out: the only pre- and post-processing, whatever runs the network.

>>> from images import read_image
>>> from predictor import Predictor
>>> probability = Predictor().probability(read_image("examples/astronaut.png"))
"""

import warnings
from pathlib import Path

import cv2
import numpy as np

from transforms import SIZE, letterbox, to_batch, unletterbox

MODEL_PATH = Path(__file__).parent / "weights" / "portraitnet.pdparams"
GUIDE_SIDE = 256  # longer side at which the guided filter is fitted, pixels
GUIDE_RADIUS = 0.015  # of its window, as a share of the longer side
GUIDE_EPSILON = 1e-3  # luma variance (0..1 squared) below which a window counts as flat


class Predictor:
    """A loaded network; call it from one thread at a time.

    `probability` and `probabilities` are all that most need. They are `prepare`, `run` and
    `restore` in a row; a pipeline may call these apart, `prepare` and `restore` in any thread.

    Args:
        model_path: weights; None for the ones in weights/.
        backend: name of a function in BACKENDS, or "auto" to go by the suffix of `model_path`.
        refine: let the mask follow the photo's edges (`guided_upsample`) instead of bilinear.
        size: side of the network's square input, pixels, a multiple of 32.

    Raises:
        FileNotFoundError, ValueError: one sentence on what is wrong with the weights.
    """

    def __init__(self, model_path=None, backend="auto", refine=True, size=SIZE):
        model_path = Path(model_path or MODEL_PATH)
        if backend == "auto":
            backend = SUFFIXES.get(model_path.suffix)
        if backend not in BACKENDS:
            known = ", ".join(SUFFIXES)
            raise ValueError(f"{model_path} is of no known model format: give a file in {known}.")
        self.size, self.refine = size, refine
        self.run_batch = BACKENDS[backend](model_path)

    def probability(self, image):
        """Where the person is.

        Args:
            image: (H, W, 3) uint8 BGR, any size.

        Returns:
            (H, W) float32, 0..1, the probability that a pixel is person.
        """
        return self.probabilities([image])[0]

    def probabilities(self, images):
        """As `probability`, for a list of images of any sizes in one pass of the network."""
        squares, boxes = zip(*map(self.prepare, images))
        return [self.restore(*each) for each in zip(self.run(squares), boxes, images)]

    def prepare(self, image):
        """(H, W, 3) uint8 -> its (size, size, 3) uint8 square and the box it fills in it."""
        return letterbox(image, self.size)

    def run(self, squares):
        """List of N (size, size, 3) uint8 -> (N, size, size) float32 person probability."""
        return self.run_batch(to_batch(squares))

    def restore(self, square, box, image):
        """(size, size) float32 probability and what `prepare` returned -> (H, W) float32."""
        if self.refine:
            return guided_upsample(square, box, image)
        return unletterbox(square, box, image.shape[:2])


def guided_upsample(square, box, image):
    """Bring a letterboxed probability to the photo's size so that its edges follow the photo's.

    A guided filter: in every window the probability is fitted as a * luma + b, which keeps an edge
    where the photo has one. Fitted at GUIDE_SIDE pixels and applied at full size, so that the cost
    of a large photo is two resizes. benchmarks/refine_quality.py measures it.

    Args:
        square: (S, S) float32 0..1, the network's answer.
        box: (top, left, height, width) of the photo in it.
        image: (H, W, 3) uint8 BGR, the photo.

    Returns:
        (H, W) float32, 0..1.

    Source: He and Sun, "Fast Guided Filter", arXiv 1505.00996, with the luma as guide.
    """
    height, width = image.shape[:2]
    ratio = min(1, GUIDE_SIDE / max(height, width))
    small = max(1, round(height * ratio)), max(1, round(width * ratio))
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    guide = cv2.resize(luma, small[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    probability = unletterbox(square, box, small)

    window = (2 * max(1, round(GUIDE_RADIUS * max(small))) + 1,) * 2

    def mean(plane):
        return cv2.boxFilter(plane, -1, window, borderType=cv2.BORDER_REFLECT)

    mean_guide, mean_probability = mean(guide), mean(probability)
    variance = mean(guide * guide) - mean_guide**2
    slope = (mean(guide * probability) - mean_guide * mean_probability) / (variance + GUIDE_EPSILON)
    offset = mean(mean_probability - slope * mean_guide)
    slope = mean(slope) / 255  # the photo's luma counts 0..255

    slope, offset = (cv2.resize(plane, (width, height)) for plane in (slope, offset))
    refined = cv2.multiply(slope, luma, dst=slope, dtype=cv2.CV_32F)
    refined += offset
    return np.clip(refined, 0, 1, out=refined)


def person_probability(logits):
    """(N, 2, H, W) float32 logits -> (N, H, W) float32: softmax over two classes, channel 1."""
    return 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -80, 80)))


def paddle_backend(model_path):
    """Run a .pdparams file with Paddle: returns batch (N, 3, S, S) -> (N, S, S) probability."""
    # Paddle tells everyone who imports it to install a C++ compiler's cache.
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle  # only who runs Paddle needs it

    from models.weights import load_model

    model = load_model(model_path)

    def run_batch(batch):
        with paddle.no_grad():
            return person_probability(model.mask_logits(paddle.to_tensor(batch)).numpy())

    return run_batch


BACKENDS = {"paddle": paddle_backend}
SUFFIXES = {".pdparams": "paddle"}  # of a model file -> the backend that runs it
