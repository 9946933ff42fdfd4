"""Training photos made of cut-out people before other photos, at many sizes, one to four of them.

    python -m data.composites cutouts/ --backgrounds backgrounds/ --count 2400 --output Whole/

A set of portraits has no small people, no groups and few raised arms. Cut-outs of whole people
(files with transparency) bring these. The output is a data folder for train.py and evaluate.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data.lists import split_backgrounds
from portraitnet.cli import command, int_range, make_parser
from portraitnet.files import write_whole
from portraitnet.geometry import limited_size, resize
from portraitnet.images import Image, Probability, decode_layers, read_image, write_image
from portraitnet.jobs import find_photos

SIDE = 336  # longer side of a composite, pixels
PROPORTIONS = (4 / 3, 4 / 3, 3 / 2, 16 / 9, 1, 3 / 4, 9 / 16)  # height to width
PEOPLE = (0.5, 0.27, 0.15, 0.08)  # probabilities of one, two, three and four people
HEIGHTS = (0.18, 1.5)  # (min, max) of a person, in heights of the composite
SOFTENED = 0.3  # probability of a slight blur, which hides the seams
MIN_FRACTION = 0.006  # of the pixels that are person; a composite with fewer is drawn again
HOLD_OUT = 8  # every eighth cut-out is for validation
SPLITS = {"train": "soft_list.txt", "val": "val_list.txt"}


def paste(
    image: NDArray[np.float32],
    alpha: Probability,
    person: NDArray[np.uint8],
    height: float,
    center: float,
    bottom: float,
    rng: np.random.Generator,
) -> None:
    """Put a person into a picture, in the light of its new place; changes `image` and `alpha`.

    Args:
        image: (H, W, 3) float32 BGR, 0..255.
        alpha: (H, W) float32 0..1, of the people so far.
        person: (h, w, 4) uint8 BGRA.
        height: of the person, pixels.
        center, bottom: the person's place: the middle's column and the row below the feet, pixels.
        rng: generator of the mirroring and of the light.
    """
    scale = height / person.shape[0]
    person = resize(person, max(4, round(height)), max(4, round(person.shape[1] * scale)))
    if rng.random() < 0.5:
        person = person[:, ::-1]
    top, left = round(bottom) - person.shape[0], round(center - person.shape[1] / 2)
    rows = slice(max(0, top), min(image.shape[0], top + person.shape[0]))
    columns = slice(max(0, left), min(image.shape[1], left + person.shape[1]))
    if rows.stop - rows.start < 8 or columns.stop - columns.start < 4:
        return  # nearly all of the person is outside
    part = person[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    color = part[:, :, :3].astype(np.float32)
    opacity = part[:, :, 3:].astype(np.float32) / 255
    under = image[rows, columns]
    # A part of the way to the place's brightness and tint, because photos differ in their light.
    place, own = under.mean((0, 1)) + 1, color[opacity[:, :, 0] > 0.5]
    if len(own):
        color *= (place / (own.mean(0) + 1)) ** rng.uniform(0, 0.45) * rng.uniform(0.8, 1.15)
    image[rows, columns] = under + (np.clip(color, 0, 255) - under) * opacity
    alpha[rows, columns] = np.maximum(alpha[rows, columns], opacity[:, :, 0])


def compose(
    people: Sequence[NDArray[np.uint8]], background: Image, rng: np.random.Generator
) -> tuple[Image, Probability]:
    """One to four people, drawn from `people`, before a part of a background.

    Args:
        people: (h, w, 4) uint8 BGRA each.
        background: (H, W, 3) uint8 BGR.
        rng: generator of all random numbers.

    Returns:
        image (H', W', 3) uint8 BGR with a longer side of SIDE, and alpha (H', W') float32 0..1.
    """
    proportion = rng.choice(PROPORTIONS)
    height, width = limited_size(10_000 * proportion, 10_000, SIDE)
    scale = rng.uniform(1, 1.5) * max(height / background.shape[0], width / background.shape[1])
    sides = (max(side, round(old * scale)) for side, old in zip((height, width), background.shape))
    scene = resize(background, *sides)
    row, column = (rng.integers(n - m + 1) for n, m in zip(scene.shape, (height, width)))
    image = scene[row : row + height, column : column + width].astype(np.float32)
    alpha = np.zeros((height, width), np.float32)

    count = 1 + rng.choice(len(PEOPLE), p=PEOPLE)
    usual = height * np.exp(rng.uniform(*np.log(HEIGHTS)))  # people of one scene are alike in size
    order = rng.permutation(count)
    for place in order:
        tall = usual * rng.uniform(0.75, 1.2)
        if usual < 0.9 * height:  # the feet are in the picture
            bottom = max(height * rng.uniform(0.75, 1.02), min(height, 0.95 * tall))
        else:
            bottom = height * rng.uniform(1.0, 0.4 + 0.75 * usual / height)
        low, high = (0.15, 0.85) if count == 1 else ((place + 0.2) / count, (place + 0.8) / count)
        person = people[rng.integers(len(people))]
        paste(image, alpha, person, tall, width * rng.uniform(low, high), bottom, rng)
    if rng.random() < SOFTENED:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8))
    return np.clip(image, 0, 255).astype(np.uint8), alpha


def read_person(path: Path) -> NDArray[np.uint8]:
    """A cut-out, (H, W, 4) uint8 BGRA.

    Raises:
        OSError, ValueError: the file cannot be read, or has no transparency.
    """
    color, alpha = decode_layers(path.read_bytes(), path)
    if alpha is None or alpha.min() == 255:
        raise ValueError(f"{path} has no transparency: give cut-outs of people.")
    return cv2.merge([*cv2.split(color), alpha])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Make training photos of cut-out people before other photos.",
        example="python -m data.composites cutouts/ --backgrounds backgrounds/ --output Whole/",
    )
    add = parser.add_argument
    add("cutouts", type=Path, help="folder of cut-outs of people, files with transparency")
    add("--backgrounds", required=True, help="folder of photos without people")
    add("--split", choices=SPLITS, default="train", help="val: the held-out cut-outs, drawn masks")
    add("--count", type=int_range(1), default=2400, help="number of composites")
    add("--seed", type=int_range(), default=0, help="seed of all random numbers")
    add("--output", type=Path, required=True, help="new data folder")
    return parser.parse_args(argv)


@command("data.composites")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.output.exists():
        raise FileExistsError(f"{args.output} exists already: give a new folder.")
    held_out = args.split == "val"
    found, unread = find_photos([args.cutouts])
    if unread:
        raise OSError(f"{unread[0].path} cannot be read: {unread[0].error}.")
    paths = [path for i, (path, _) in enumerate(found) if (i % HOLD_OUT == 0) == held_out]
    backgrounds = split_backgrounds(args.backgrounds)[held_out]
    if not paths or not backgrounds:
        raise ValueError("Nothing to compose: give more cut-outs and photos without people.")
    people = [read_person(path) for path in paths]
    rng, lines = np.random.default_rng(args.seed), []
    for i in tqdm(range(args.count), desc="composites"):
        alpha = np.zeros(1)
        while alpha.mean() < MIN_FRACTION:
            background = read_image(backgrounds[rng.integers(len(backgrounds))])
            image, alpha = compose(people, background, rng)
        if held_out:
            alpha = alpha > 0.5
        names = f"Images/{i:05}.jpg", f"Labels/{i:05}.png"
        write_image(args.output / names[0], image)
        write_image(args.output / names[1], np.rint(alpha * 255.0).astype(np.uint8))
        lines.append("\t".join(names) + "\n")
    write_whole(args.output / SPLITS[args.split], "".join(lines).encode())
    print(f"{len(lines)} composites of {len(people)} cut-outs in {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
