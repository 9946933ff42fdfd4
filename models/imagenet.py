"""Conversion of `paddle.vision`'s MobileNetV2 weights into those of our encoder."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
from numpy.typing import NDArray

from models.mobilenetv2 import STAGES
from portraitnet.predictor import MEAN, SCALE

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, for pixels in 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)
BN_TENSORS = ("weight", "bias", "_mean", "_variance")


def encoder_state(state: dict[str, paddle.Tensor], source: str | Path) -> dict[str, paddle.Tensor]:
    """Convert `paddle.vision`'s MobileNetV2 weights; our encoder then gives the same features.

    Two differences are folded into the weights:
    1. Our batch is BGR and (pixel - MEAN) * SCALE. The file expects RGB with ImageNet's mean and
       standard deviation. So the stem's weights are reordered and scaled, and the remaining offset
       goes into the running mean of the stem's BatchNorm. This is exact but for the outermost
       pixels, because zero padding means MEAN here and IMAGENET_MEAN there, half a grey level
       apart.
    2. Our first stage has an expansion that the file lacks. The expansion becomes the identity.

    Args:
        state: {name in paddle.vision: float32 or float16 tensor}.
        source: the file, for the error.

    Returns:
        {name in our encoder: float32 tensor}.

    Raises:
        ValueError: layers are missing.
    """
    taken = {}
    for ours, conv, bn in imagenet_names():
        taken[f"{ours}.conv.weight"] = state.get(f"{conv}.weight")
        for tensor in BN_TENSORS:
            taken[f"{ours}.bn.{tensor}"] = state.get(f"{bn}.{tensor}")
    missing = [name for name, value in taken.items() if value is None]
    if missing:
        raise ValueError(
            f"{source} is not paddle.vision's mobilenet_v2: it lacks {', '.join(missing[:3])}."
        )
    taken = {name: value.numpy().astype("float32") for name, value in taken.items()}
    taken |= identity_expansion(taken["stem.bn.weight"], taken["stem.bn.bias"])

    weight = taken["stem.conv.weight"]  # (C, 3, 3, 3), input channels RGB
    std, mean = np.array(IMAGENET_STD), np.array(IMAGENET_MEAN)
    offset = (np.array(MEAN[::-1]) / 255 - mean) / std  # their stem's input where ours is 0
    taken["stem.bn._mean"] -= np.einsum("ocij,c->o", weight, offset).astype("float32")
    weight = weight / (SCALE * 255 * std[None, :, None, None])
    taken["stem.conv.weight"] = weight[:, ::-1].astype("float32")
    return {name: paddle.to_tensor(np.ascontiguousarray(v)) for name, v in taken.items()}


def imagenet_names() -> Iterator[tuple[str, str, str]]:
    """Yield (our ConvBN, the file's convolution, the file's BatchNorm) of each common layer."""
    yield "stem", "features.0.0", "features.0.1"
    index = 1
    for stage, (_, repeats, _, bn_scale) in enumerate(STAGES):
        for block in range(repeats):
            parts = ("expand", "depthwise", "project") if bn_scale > 1 else ("depthwise", "project")
            for i, part in enumerate(parts):
                theirs = f"features.{index}.conv.{i}"
                if part == "project":
                    names = theirs, f"features.{index}.conv.{i + 1}"
                else:
                    names = f"{theirs}.0", f"{theirs}.1"
                yield f"stages.{stage}.{block}.{part}", *names
            index += 1


def identity_expansion(
    gamma: NDArray[np.float32], beta: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Weights that make the first stage's extra expansion the identity, in training too.

    The convolution is the identity matrix. BatchNorm's scale and shift restore the deviation and
    mean that its normalisation removes. These are the moments of the stem's ReLU6 output, whose
    input is taken as Gaussian. Training normalises by the batch's own moments and therefore starts
    near the identity.

    Args:
        gamma: (C,) standard deviation of the ReLU6's input: the scale of the stem's BatchNorm.
        beta: (C,) mean of that input: the shift of the stem's BatchNorm.

    Returns:
        {name in our encoder: array}.
    """
    name = "stages.0.0.expand"
    z = np.linspace(-6, 6, 2001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    activation = np.clip(beta[:, None] + np.abs(gamma)[:, None] * z, 0, 6)
    mean = activation @ density
    variance = ((activation - mean[:, None]) ** 2) @ density
    return {
        f"{name}.conv.weight": np.eye(len(gamma), dtype="float32")[:, :, None, None],
        f"{name}.bn.weight": np.sqrt(variance + 1e-5).astype("float32"),
        f"{name}.bn.bias": mean.astype("float32"),
        f"{name}.bn._mean": mean.astype("float32"),
        f"{name}.bn._variance": variance.astype("float32"),
    }
