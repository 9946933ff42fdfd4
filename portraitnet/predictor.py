"""Photo in, probability out: the only pre- and post-processing, whatever runs the network.

>>> from portraitnet import Predictor, read_image
>>> probability = Predictor().probability(read_image("examples/astronaut.png"))
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from portraitnet.backends import AUTO, Network, RunBatch, choose, load, mean_answer
from portraitnet.geometry import SIZE, input_shape, resize
from portraitnet.images import Image, Probability
from portraitnet.matting import METHODS
from portraitnet.postprocess import drop_doubtful, guided_upsample, largest_region

MEAN = (103.94, 116.78, 123.68)  # BGR, 0..255; source: official code
SCALE = 0.017
TOLERANCE = 1e-3  # largest rounding error of a probability outside 0..1
# A photo whose largest region of person is under this fraction is looked at a second time, with an
# input whose sides are CLOSER times as long: the networks learned from people who fill the picture.
SMALL, CLOSER = 0.15, 1.7
HAIR_SIZE = 384  # input size at which hair is looked at, beside the first look


class Predictor:
    """A loaded network; any number of threads may call it at a time.

    Most programs need only `probability` and `probabilities`. These are `prepare`, `run` and
    `restore` in a row; a pipeline may call the three apart, in any thread. The network input is a
    rectangle of nearly the photo's proportions, without padding. Photos with small people are
    looked at a second time, with a larger input.

    Args:
        model_path: model file, or a name in `backends.MODELS`; None for the default one.
        backend: name in `backends.BACKENDS`, or "auto" for the fastest that is installed.
        refine: look twice for small people (`run`), remove doubtful regions (`drop_doubtful`) and
            let the mask follow the photo's edges (`guided_upsample`). Without it the network's
            first answer is resized bilinearly.
        size: input size: the input's area is about size x size pixels; None for the size that
            belongs to the name or the file.
        threads: number of threads of the network; None for the runtime's choice.
        photos: number of photos to be run, by which "auto" chooses; None for many.
        load_network: `backends.load`, or a function with its arguments that runs more kinds of
            files.

    Attributes:
        backend: name of the backend in use; None for a network in memory.
        model_path: path of the file that it runs; None for a network in memory.
        size: input size, pixels.

    Raises:
        FileNotFoundError, ValueError: the model file is missing or wrong, in one sentence.
        ImportError: the backend is not installed.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        backend: str = AUTO,
        refine: bool = True,
        size: int | None = None,
        threads: int | None = None,
        photos: int | None = None,
        load_network: Callable[..., Network] = load,
    ):
        self.model_path, self.backend = choose(model_path, backend, photos)
        network = load_network(self.model_path, self.backend, size, threads)
        self.run_batch, self.size = network
        self.refine = refine

    @classmethod
    def of(cls, run_batch: RunBatch, size: int = SIZE, refine: bool = True) -> "Predictor":
        """A Predictor of a network in memory, such as `training.checkpoints.runner(model)`.

        Args:
            run_batch: function of batch (N, 3, h, w) float32 -> probability (N, h, w) float32.
            size, refine: as above.
        """
        predictor = cls.__new__(cls)
        predictor.model_path = predictor.backend = None  # it runs no file
        predictor.run_batch, predictor.size, predictor.refine = run_batch, size, refine
        return predictor

    def probability(self, image: Image) -> Probability:
        """The probability of each pixel to be person.

        Args:
            image: (H, W, 3) uint8 BGR, any size.

        Returns:
            (H, W) float32, 0..1.
        """
        return self.probabilities([image])[0]

    def probabilities(self, images: list[Image]) -> list[Probability]:
        """As `probability`, for a list of images of any sizes."""
        probabilities = self.run([self.prepare(image) for image in images], images)
        return [self.restore(*each) for each in zip(probabilities, images)]

    def alpha(self, image: Image, matting: str = "fast") -> Probability:
        """How opaque the person is, for the effects that take an alpha.

        Args:
            image: (H, W, 3) uint8 BGR, any size.
            matting: "none": the network's answer, enlarged; "fast": guided upsampling, as
                `probability`; "hair": closed-form matting, which finds single strands and takes
                0.2 to 1.6 seconds more.

        Returns:
            (H, W) float32, 0..1.

        Raises:
            ValueError: `matting` is no method's name.
        """
        return self.restore_alpha(self.run([self.prepare(image)], [image])[0], image, matting)

    def prepare(self, image: Image, size: float | None = None) -> Image:
        """Image (H, W, 3) uint8 BGR -> network input (h, w, 3) uint8 BGR, of `size` if given."""
        return resize(image, *input_shape(*image.shape[:2], size or self.size))

    def run(self, inputs: list[Image], images: Sequence[Image] = ()) -> list[Probability]:
        """The network's answers.

        Args:
            inputs: list of (h, w, 3) uint8 BGR, of `prepare`; those of one shape run in one pass.
            images: their photos (H, W, 3), of which those with small people, or with none, are
                looked at closer; empty to look once, as at a camera's frames.

        Returns:
            List of (h, w) float32 0..1, as large as the input or, after a second look, larger.
        """
        probabilities = [None] * len(inputs)
        for shape in {network_input.shape for network_input in inputs}:
            indices = [i for i, network_input in enumerate(inputs) if network_input.shape == shape]
            for i, probability in zip(indices, self.answers([inputs[i] for i in indices])):
                probabilities[i] = probability
        if self.refine:
            for i, image in enumerate(images):
                if largest_region(drop_doubtful(probabilities[i])) < SMALL:
                    probabilities[i] = self.look_closer(image, probabilities[i])
        return probabilities

    def look_closer(self, image: Image, probability: Probability) -> Probability:
        """The larger of a photo's first probability (h, w) and of one from a larger input.

        The first look may know a large person of whom the closer one sees only parts.
        """
        (found,) = self.answers([self.prepare(image, CLOSER * self.size)])
        return np.maximum(cv2.resize(probability, found.shape[::-1]), found)

    def answers(self, inputs: list[Image]) -> list[Probability]:
        """List of inputs of one shape -> list of (h, w) float32."""
        batch = to_batch(inputs)
        found = self.run_batch(batch)
        check_answers(found, batch)
        return list(found)

    def restore(self, probability: Probability, image: Image) -> Probability:
        """The network's answer (h, w) float32 -> the probability of the image (H, W) float32."""
        if self.refine:
            return guided_upsample(drop_doubtful(probability), image)
        return cv2.resize(probability, image.shape[1::-1])

    def restore_alpha(self, probability: Probability, image: Image, matting: str) -> Probability:
        """A network input's probability (h, w) float32 -> the image's alpha, (H, W) float32."""
        if matting not in METHODS:
            raise ValueError(f"There is no matting {matting}: give {', '.join(METHODS)}.")
        if self.refine and matting == "hair":
            probability = self.look_at_hair(image, probability)
        if self.refine:
            probability = drop_doubtful(probability)
        return METHODS[matting](image, probability)

    def look_at_hair(self, image: Image, probability: Probability) -> Probability:
        """The mean of a first probability (h, w) and of one from a larger input, as logits.

        A larger input shows more of the hair, but less surely that a large person is one.
        """
        if probability.shape != input_shape(*image.shape[:2], self.size):
            return probability  # a second look that `run` took
        (found,) = self.answers([self.prepare(image, HAIR_SIZE)])
        return mean_answer([cv2.resize(probability, found.shape[::-1]), found])


def check_answers(answers, batch):
    """Raise ValueError unless a network's answers are probabilities, one for each pixel."""
    expected = (len(batch), *batch.shape[2:])
    if np.shape(answers) != expected:
        raise ValueError(
            f"The network answers with {np.shape(answers)} numbers for {expected} pixels: "
            "give a file that export.py wrote."
        )
    if not np.isfinite(answers).all():
        raise ValueError(
            "The network's answer is not finite: its weights are damaged; use other ones."
        )
    if answers.min() < -TOLERANCE or answers.max() > 1 + TOLERANCE:
        raise ValueError(
            f"The network's answer goes from {answers.min():g} to {answers.max():g}, not from 0 to "
            "1: its file is not one of export.py's."
        )


def to_batch(images: Sequence[Image]) -> NDArray[np.float32]:
    """Normalise images of one size.

    Args:
        images: list of N (H, W, 3) uint8 BGR images, or their (N, H, W, 3) array.

    Returns:
        batch (N, 3, H, W) float32: (pixel - MEAN) * SCALE.
    """
    batch = np.empty((len(images), 3, *images[0].shape[:2]), np.float32)
    for planes, image in zip(batch, images):
        for channel in range(3):
            np.subtract(image[:, :, channel], np.float32(MEAN[channel]), out=planes[channel])
    batch *= np.float32(SCALE)
    return batch
