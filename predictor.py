"""Photo in, probability out: the only pre- and post-processing, whatever runs the network.

>>> from images import read_image
>>> from predictor import Predictor
>>> probability = Predictor().probability(read_image("examples/astronaut.png"))
"""

import cv2
import numpy as np

from backends import AUTO, WEIGHTS, choose, load
from transforms import letterbox, to_batch, unletterbox

MODEL_PATH = WEIGHTS / "portraitnet.pdparams"  # what train.py's best became
GUIDE_SIDE = 256  # longer side at which the guided filter is fitted, pixels
GUIDE_RADIUS = 0.015  # of its window, as a share of the longer side
GUIDE_EPSILON = 1e-3  # luma variance (0..1 squared) below which a window counts as flat


class Predictor:
    """A loaded network; call it from one thread at a time.

    `probability` and `probabilities` are all that most need. They are `prepare`, `run` and
    `restore` in a row; a pipeline may call these apart, `prepare` and `restore` in any thread.

    Args:
        model_path: model file; None for the one in weights/ that the backend runs.
        backend: name in `backends.BACKENDS`, or "auto" for the fastest that is installed.
        refine: let the mask follow the photo's edges (`guided_upsample`) instead of bilinear.
        size: side of the network's square input, pixels, a multiple of 32; None for the file's.
        threads: that the network may use; None for the runtime's choice.

    Attributes:
        backend: name of the one that runs.
        model_path: of the file that it runs.
        size: as above.

    Raises:
        FileNotFoundError, ValueError: one sentence on what is wrong with the model file.
        ImportError: the backend is not installed.
    """

    def __init__(self, model_path=None, backend=AUTO, refine=True, size=None, threads=None):
        self.model_path, self.backend = choose(model_path, backend)
        self.run_batch, self.size = load(self.model_path, self.backend, size, threads)
        self.refine = refine

    @classmethod
    def of(cls, run_batch, size=224, refine=True):
        self = cls.__new__(cls)
        self.run_batch, self.size, self.refine, self.live = run_batch, size, refine, True
        return self

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
        if hasattr(self, "live"):
            from transforms import view_shape
            from transforms.geometry import resize

            return [
                cv2.resize(
                    self.run_batch(to_batch([resize(i, *view_shape(*i.shape[:2], self.size))]))[0],
                    i.shape[1::-1],
                )
                for i in images
            ]
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
