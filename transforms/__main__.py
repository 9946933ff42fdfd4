"""A contact sheet of every transform: `python -m transforms PHOTO [--output FILE]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from portraitnet.cli import command, int_range, make_parser
from portraitnet.effects import contact_sheet
from portraitnet.geometry import SIZE, input_shape
from portraitnet.images import Image, Mask, mask_of, read_image, read_mask, write_image
from transforms import color, compose, degrade, edge_of, geometry

COLUMNS = 6


def tiles(
    image: Image, mask: Mask, other: Image, rng: np.random.Generator
) -> list[tuple[str, Image]]:
    """Every transform at characteristic strengths.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 0/1; with an empty mask no mask and no edge is drawn.
        other: (h, w, 3) uint8 BGR, the photo that becomes background and occluder.
        rng: generator of all random numbers.

    Returns:
        (label, (h, w, 3) uint8 BGR) of each picture. Where pixels move, the mask is drawn in green
        and the edge in yellow.
    """
    bgra, shape = geometry.stack(image, mask), input_shape(*mask.shape, SIZE)
    own, square = geometry.fit_matrix(mask.shape, shape), (SIZE, SIZE)
    sheet = []

    def moved(label, matrix=own, network_input=shape, bgra=bgra):
        picture, alpha = geometry.warp(bgra, matrix, *network_input)
        person = mask_of(alpha)
        edge = edge_of(person, geometry.inside_of(mask.shape, matrix, network_input))
        picture[person == 1] = picture[person == 1] // 2 + np.array([0, 96, 0], np.uint8)
        picture[edge == 1] = 0, 255, 255
        sheet.append((label, picture))

    moved(f"network input {shape[1]}x{shape[0]}")
    moved("square, zoom 0", geometry.fit_matrix(mask.shape, square, 0), square)
    moved("square, zoom 1", geometry.fit_matrix(mask.shape, square, 1), square)
    moved("flip", geometry.flip_matrix(shape[1]) @ own)
    for degrees, scale in ((-45, 1), (45, 1), (0, 0.5), (0, 1.5)):
        turned = geometry.rotation_matrix(*shape, degrees, scale)
        moved(f"rotate {degrees}, scale {scale}", turned @ own)
    moved("translate 56 -56", geometry.translation_matrix(56, -56) @ own)

    empty = geometry.stack(other, np.zeros(other.shape[:2], np.uint8))
    for i in (1, 2):
        moved(f"background {i}", bgra=compose.swap_background(bgra, empty, rng, 0.3))
        moved(f"occluder {i}", bgra=compose.occlude(bgra, empty, rng))

    network_input = geometry.resize(image, *shape)
    for label, function, strengths in (
        ("hsv hue", color.hsv, (-8, 8, 45)),
        ("brightness", color.brightness, (0.4, 1.6)),
        ("saturation", color.saturation, (0.4, 1.6)),
        ("contrast", color.contrast, (0.6, 1.4)),
        ("sharpness", color.sharpness, (0.8, 1.2)),
        ("blur", color.blur, (3, 5)),
        ("jpeg", color.jpeg, (30, 80)),
    ):
        sheet += [
            (f"{label} {strength:g}", function(network_input, strength)) for strength in strengths
        ]
    for label, gamma, gains, slope in (
        ("relight: dim", 2.2, (1, 1, 1), 0),
        ("relight: warm", 1, (0.8, 1, 1.2), 0),
        ("relight: one side", 1, (1, 1, 1), 0.6),
    ):
        sheet.append((label, color.relight(network_input, gamma, gains, slope, 0)))
    sheet.append(("noise 10", color.noise(network_input, 10, rng)))
    return sheet + [(f"photometric copy {i}", degrade(network_input, rng)) for i in (1, 2, 3)]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Draw a contact sheet of every training transform.",
        example="python -m transforms photo.jpg --mask mask.png",
    )
    add = parser.add_argument
    add("photo", help="photo to transform")
    add("--mask", help="the photo's mask; mask (green) and edge (yellow) are drawn")
    add("--other", help="photo that becomes background and occluder (default: PHOTO)")
    add("--output", help="file of the contact sheet (default: PHOTO_transforms.png)")
    add("--seed", type=int_range(), default=0, help="seed of all random numbers")
    return parser.parse_args(argv)


@command("transforms")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    path = Path(args.photo)
    output = Path(args.output or path.with_name(f"{path.stem}_transforms.png"))
    image = read_image(path)
    mask = read_mask(args.mask) if args.mask else np.zeros(image.shape[:2], np.uint8)
    if mask.shape != image.shape[:2]:
        raise ValueError(f"{args.mask} and {path} differ in size: give the photo's own mask.")
    other = read_image(args.other or path)
    pictures = tiles(image, mask, other, np.random.default_rng(args.seed))
    sheet = contact_sheet(pictures, COLUMNS)
    write_image(output, sheet, keep=[each for each in (path, args.mask, args.other) if each])
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
