"""Photo in, probability out: the only pre- and post-processing, whatever runs the network.

>>> from images import read_image
>>> from predictor import Predictor
>>> probability = Predictor().probability(read_image("examples/astronaut.png"))
"""

from pathlib import Path

import numpy as np

from backends import AUTO, WEIGHTS, RunBatch, choose, load
from effects import drop_doubtful
from images import Image, Probability, cv2
from transforms import SIZE, to_batch
from transforms.geometry import resize, view_shape

MODEL_PATH = WEIGHTS / "portraitnet.pdparams"  # what train.py's best became
GUIDE_SIDE = 256  # longer side at which the guided filter is fitted, pixels
GUIDE_RADIUS = 0.015  # of its window, as a share of the longer side
GUIDE_EPSILON = 1e-3  # luma variance (0..1 squared) below which a window counts as flat


class Predictor:
    """A loaded network; call it from one thread at a time.

    `probability` and `probabilities` are all that most need. They are `prepare`, `run` and
    `restore` in a row; a pipeline may call these apart, `prepare` and `restore` in any thread.
    The network sees a photo in a rectangle of nearly its proportions, without padding: its `view`.

    Args:
        model_path: model file, or a name in `backends.MODELS`; None for the default one.
        backend: name in `backends.BACKENDS`, or "auto" for the fastest that is installed.
        refine: take out what is hardly a person (`drop_doubtful`) and let the mask follow the
            photo's edges (`guided_upsample`), instead of the network's answer, bilinear.
        size: side of the square with a view's area, pixels; None for the name's or the file's.
        threads: that the network may use; None for the runtime's choice.

    Attributes:
        backend: name of the one that runs.
        model_path: of the file that it runs.
        size: as above.

    Raises:
        FileNotFoundError, ValueError: one sentence on what is wrong with the model file.
        ImportError: the backend is not installed.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        backend: str = AUTO,
        refine: bool = True,
        size: int | None = None,
        threads: int | None = None,
    ):
        self.model_path, self.backend, named_size = choose(model_path, backend)
        network = load(self.model_path, self.backend, size or named_size, threads)
        self.run_batch, self.size = network
        self.refine = refine

    @classmethod
    def of(cls, run_batch: RunBatch, size: int = SIZE, refine: bool = True) -> "Predictor":
        """A Predictor of a network in memory, such as `backends.runner(model)` while it trains.

        Args:
            run_batch: function of batch (N, 3, h, w) float32 -> probability (N, h, w) float32.
            size, refine: as above.
        """
        predictor = cls.__new__(cls)
        predictor.run_batch, predictor.size, predictor.refine = run_batch, size, refine
        return predictor

    def probability(self, image: Image) -> Probability:
        """Where the person is.

        Args:
            image: (H, W, 3) uint8 BGR, any size.

        Returns:
            (H, W) float32, 0..1, the probability that a pixel is person.
        """
        return self.probabilities([image])[0]

    def probabilities(self, images: list[Image]) -> list[Probability]:
        """As `probability`, for a list of images of any sizes."""
        probabilities = self.run([self.prepare(image) for image in images])
        return [self.restore(*each) for each in zip(probabilities, images)]

    def prepare(self, image: Image) -> Image:
        """image (H, W, 3) uint8 -> its view (h, w, 3) uint8, which is what the network sees."""
        return resize(image, *view_shape(*image.shape[:2], self.size))

    def run(self, views: list[Image]) -> list[Probability]:
        """List of views -> list of their (h, w) float32 probabilities; one pass for each shape."""
        probabilities = [None] * len(views)
        for shape in {view.shape for view in views}:
            indices = [i for i, view in enumerate(views) if view.shape == shape]
            batch = to_batch([views[i] for i in indices])
            answers = self.run_batch(batch)
            if not np.isfinite(answers).all():
                raise ValueError(
                    "The network's answer is not finite: its weights are damaged; use other ones."
                )
            for i, probability in zip(indices, answers):
                probabilities[i] = probability
        return probabilities

    def restore(self, probability: Probability, image: Image) -> Probability:
        """A view's probability (h, w) float32 -> the image's, (H, W) float32."""
        if self.refine:
            return guided_upsample(drop_doubtful(probability), image)
        return cv2.resize(probability, image.shape[1::-1])


def guided_upsample(probability: Probability, image: Image) -> Probability:
    """Bring a view's probability to the photo's size so that its edges follow the photo's.

    A guided filter: in every window the probability is fitted as a * luma + b, which keeps an edge
    where the photo has one. Fitted at GUIDE_SIDE pixels and applied at full size, so that the cost
    of a large photo is two resizes. benchmarks/refine_quality.py measures it.

    Args:
        probability: (h, w) float32 0..1, the network's answer.
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
    probability = cv2.resize(probability, small[::-1])

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
