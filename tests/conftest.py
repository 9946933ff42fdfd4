"""Drawn portraits: a person-like shape on a noisy background, in an EG1800 tree."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.alignment import inside_distance
from portraitnet.geometry import resize
from portraitnet.images import read_image
from portraitnet.predictor import Predictor, to_batch

# Flags of a training of seconds on `data_root`.
SMALL_TRAINING = "--width 0.25 --size 64 --batch_size 4 --log_iter 2".split()


def draw_portrait(rng, height=96, width=80):
    """A head and shoulders in reddish tones on a bluish background.

    Returns:
        image (H, W, 3) uint8 BGR and mask (H, W) uint8 0/1.
    """
    mask = np.zeros((height, width), np.uint8)
    x = int(width * rng.uniform(0.4, 0.6))
    y = int(height * rng.uniform(0.3, 0.45))
    head = (int(width * 0.15), int(height * 0.2))
    cv2.ellipse(mask, (x, y), head, 0, 0, 360, 1, -1)
    cv2.ellipse(mask, (x, height), (int(width * 0.35), int(height * 0.45)), 0, 0, 360, 1, -1)
    person = rng.integers((20, 40, 150), (80, 100, 255))
    background = rng.integers((120, 60, 0), (255, 140, 60))
    image = np.where(mask[:, :, None] == 1, person, background) + rng.normal(
        0, 8, (height, width, 3)
    )
    return np.clip(image, 0, 255).astype(np.uint8), mask


def grid(text):
    """Rows of 0, 1 and x (255) -> (H, W) uint8: grid("01 1x")."""
    digits = {"0": 0, "1": 1, "x": 255}
    return np.array([[digits[c] for c in row] for row in text.split()], np.uint8)


def square(size, top, left, height, width):
    """A mask (size, size) uint8 0/1 of one rectangle."""
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def draw_blob(seed, grow=0.0, size=120):
    """A dark, slightly blurred shape before a light, noisy background.

    Args:
        grow: px that the mask's contour lies outside the shape.

    Returns:
        image (size, size, 3) uint8 BGR and mask (size, size) uint8 0/1.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    middle, axes = rng.uniform(50, 70, 2), rng.uniform(20, 32, 2)
    shape = (((rows - middle[0]) / axes[0]) ** 2 + ((columns - middle[1]) / axes[1]) ** 2 < 1) * 1.0
    image = 200 - 120 * cv2.GaussianBlur(shape, (0, 0), 0.7)[..., None].repeat(3, axis=2)
    image = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    return image, (inside_distance(shape.astype(np.uint8)) > -grow).astype(np.uint8)


def draw_data_root(root, train=12, val=4, test=4, seed=0):
    """Write drawn portraits as an EG1800 tree below `root` and return it."""
    rng = np.random.default_rng(seed)
    for folder in ("Images", "Labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    number = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        names = [f"{number + i:05d}" for i in range(count)]
        number += count
        for name in names:
            image, mask = draw_portrait(rng)
            cv2.imwrite(str(root / "Images" / f"{name}.png"), image)
            cv2.imwrite(str(root / "Labels" / f"{name}.png"), mask * 255)
        (root / f"eg1800_{split}.txt").write_text("".join(f"{name}.png\n" for name in names))
    return root


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Decoded photos go into a folder of the tests; kernels that were built before are used."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    own = tmp_path_factory.mktemp("cache")
    (own / "portraitnet").mkdir()
    for digest in Path(home, "portraitnet").glob("*/sha256"):  # of a finished build
        build = digest.parent
        (own / "portraitnet" / build.name).symlink_to(build)
    os.environ["XDG_CACHE_HOME"] = str(own)


@pytest.fixture
def data_root(tmp_path):
    """A temporary EG1800 tree of 12 + 4 + 4 drawn portraits."""
    return draw_data_root(tmp_path / "drawn")


@pytest.fixture
def list_root(tmp_path):
    """A data folder in the list layout: 20 training photos (JPEG), no validation list."""
    rng, root = np.random.default_rng(7), tmp_path / "listed"
    (root / "my photos").mkdir(parents=True)
    lines = []
    for i in range(20):
        image, mask = draw_portrait(rng, 80, 120)
        cv2.imwrite(str(root / "my photos" / f"{i}.jpg"), image)
        cv2.imwrite(str(root / f"{i}_mask.png"), mask)
        lines.append(f"my photos/{i}.jpg\t{i}_mask.png\n")
    (root / "train_list.txt").write_text("".join(lines) + "\n")
    return root


@pytest.fixture
def backgrounds(tmp_path):
    """Twenty plain green photos."""
    folder = tmp_path / "backgrounds"
    folder.mkdir()
    for i in range(20):
        cv2.imwrite(str(folder / f"{i:02d}.png"), np.full((90, 130, 3), (0, 200 + i, 0), np.uint8))
    return folder


@pytest.fixture
def soft_root(tmp_path):
    """A data folder with one photo and its soft mask: a third each of 0, 40 and 100 %."""
    root, alpha = tmp_path / "soft", np.zeros((90, 90), np.uint8)
    alpha[30:60], alpha[60:] = 102, 255
    root.mkdir()
    cv2.imwrite(str(root / "photo.png"), np.full((90, 90, 3), 90, np.uint8))
    cv2.imwrite(str(root / "mask.png"), alpha)
    (root / "soft_list.txt").write_text("photo.png mask.png\n")
    return root


def pixels(*margins):
    """Two-class logits (1, 2, 1, W) whose class 1 leads by these margins, with gradient."""
    import paddle

    logits = np.array([[[[0.0] * len(margins)], [list(margins)]]], "float32")
    return paddle.to_tensor(logits, stop_gradient=False)


def labels(*values, dtype="int64"):
    """Labels (1, 1, W) of pixels."""
    import paddle

    return paddle.to_tensor([[list(values)]], dtype=dtype)


def random_logits(shape, seed=0, scale=3.0):
    """Gaussian logits, with gradient."""
    import paddle

    values = np.random.default_rng(seed).normal(0, scale, shape).astype("float32")
    return paddle.to_tensor(values, stop_gradient=False)


def save_random_weights(path, seed=0, gain=1):
    """A small network with random weights; its answers are `gain` times as sure as they come."""
    import paddle

    from models import PortraitNet

    paddle.seed(seed)
    weights = PortraitNet(width=0.25).state_dict()
    weights["mask_head.weight"] *= gain
    paddle.save(weights, str(path))
    return str(path)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    """Path of a small network with random weights that is sure of a third of each photo."""
    return save_random_weights(tmp_path_factory.mktemp("weights") / "random.pdparams", 3, gain=20)


def make_batch(height, width):
    """Two drawn portraits as a network's batch (2, 3, height, width)."""
    images = [draw_portrait(np.random.default_rng(seed))[0] for seed in range(2)]
    return to_batch([resize(image, height, width) for image in images])


def lively(model, seed=0):
    """Give a random network's BatchNorm statistics that a fold must get right."""
    rng = np.random.default_rng(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith(("_variance", "bn.weight")):
            tensor.set_value(rng.uniform(0.7, 1.3, tensor.shape).astype("float32"))
        elif name.endswith(("_mean", "bn.bias")):
            tensor.set_value(rng.uniform(-0.5, 0.5, tensor.shape).astype("float32"))
    model.eval()
    return model


def far_person(side=60):
    """The astronaut far away before plain ground: a photo of 600x650 pixels and the mask, bool."""
    photo = read_image(Path(__file__).parents[1] / "examples" / "astronaut.png")
    person = Predictor().probability(photo)
    photo, person = (resize(each, side, side) for each in (photo, person))
    image, mask = np.full((600, 650, 3), (180, 170, 160), np.uint8), np.zeros((600, 650), bool)
    place = slice(300, 300 + side), slice(250, 250 + side)
    weight = person[:, :, None]
    image[place] = np.rint(weight * photo + (1 - weight) * image[place])
    mask[place] = person > 0.5
    return image, mask
