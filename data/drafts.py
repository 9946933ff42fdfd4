"""Draft masks: the mean of several networks' answers in log-odds."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from portraitnet.images import Image, Probability

MIN_PROBABILITY = 1e-4  # clips each answer to 1e-4 .. 1 - 1e-4, so that no network outvotes all
SAME_PERSON = 0.6  # IoU with the mean from which on IS-Net's answer is taken for the person


class Network(Protocol):
    """A network that gives a list of images their probabilities, such as `Predictor`."""

    def probabilities(self, images: list[Image]) -> list[Probability]: ...


class Draft(NamedTuple):
    """A draft mask.

    Attributes:
        alpha: (H, W) uint8 0..255.
        agreement: IoU of all answers, 0..1: the pixels that every answer calls person, divided by
            those that any answer calls person.
    """

    alpha: NDArray[np.uint8]
    agreement: float


def log_odds(probability: Probability) -> NDArray[np.float32]:
    """Log-odds of the clipped probability: (H, W) float32 0..1 -> (H, W) float32, -9.2..9.2."""
    probability = np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.log(probability / (1 - probability))


def answers(networks: Sequence[Network], image: Image) -> Iterator[NDArray[np.float32]]:
    """Each network's answers for an image and for its mirror image.

    Args:
        networks: the networks.
        image: (H, W, 3) uint8 BGR.

    Yields:
        (H, W) float32 log-odds, two for each network.
    """
    mirrored = np.ascontiguousarray(image[:, ::-1])
    for network in networks:
        straight, reversed_ = network.probabilities([image, mirrored])
        yield log_odds(straight)
        yield log_odds(reversed_[:, ::-1])


def draft_mask(
    networks: Sequence[Network],
    image: Image,
    given: Probability | None = None,
    weight: float = 0.0,
    isnet=None,
) -> Draft:
    """The mean in log-odds of several networks' answers and of a given mask.

    Args:
        networks: the networks; each answers for the image and for its mirror image.
        image: (H, W, 3) uint8 BGR.
        given: (H, W) float32 0..1, an earlier soft mask, or None.
        weight: weight of `given` in the mean, 0..1; the networks share the rest equally.
        isnet: `training.distillation.ISNet`, or None. Its answer counts like that of one network
            if its IoU with the mean is above SAME_PERSON.

    Returns:
        Draft.
    """
    total, everyone, anyone = 0, True, False
    for answer in answers(networks, image):
        total = total + answer
        everyone, anyone = everyone & (answer > 0), anyone | (answer > 0)
    mean = total / (2 * len(networks))
    if isnet is not None:
        answer = log_odds(isnet.probability(image))
        both = np.count_nonzero((answer > 0) & (mean > 0))
        if both > SAME_PERSON * np.count_nonzero((answer > 0) | (mean > 0)):
            mean = (len(networks) * mean + answer) / (len(networks) + 1)
    if given is not None:
        answer = log_odds(given)
        mean = (1 - weight) * mean + weight * answer
        everyone, anyone = everyone & (answer > 0), anyone | (answer > 0)
    alpha = np.rint(255 / (1 + np.exp(-mean))).astype(np.uint8)
    return Draft(alpha, np.count_nonzero(everyone) / max(1, np.count_nonzero(anyone)))
