"""Draw the documents' pictures examples/hero.jpg, modes.jpg and guided_upsampling.jpg.

python -m benchmarks.contact_sheet
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from portraitnet import effects
from portraitnet.cli import make_parser
from portraitnet.effects import contact_sheet
from portraitnet.geometry import resize
from portraitnet.images import Image, read_image, write_image
from portraitnet.predictor import Predictor
from training.checkpoints import open_predictor

EXAMPLES = Path(__file__).parent.parent / "examples"
HERO_SIDE, GAP = 320, 8  # side of a panel of hero.jpg and gap between panels, pixels
SIDE = 256  # side of a picture of modes.jpg, pixels
COLUMNS = 4
DETAIL, DETAIL_CORNER = 150, (309, 99)  # side, and first row and column, of the hair, pixels
BLUR = 0.03  # sigma as a fraction of the longer side; large, because that background is soft


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Draw the documents' pictures: a portrait in four panels, its hair, another in every mode.",
        example="python -m benchmarks.contact_sheet",
    )
    add = parser.add_argument
    add(
        "--portrait",
        type=Path,
        default=EXAMPLES / "portrait.jpg",
        help="photo of hero.jpg and of the hair",
    )
    add("--photo", type=Path, default=EXAMPLES / "astronaut.png", help="photo of modes.jpg")
    add("--output", type=Path, default=EXAMPLES, help="folder of the pictures")
    add("--model_path", type=Path, help="model file (default: large for hero.jpg, else full)")
    return parser.parse_args(argv)


def sunset(height: int, width: int) -> Image:
    """A drawn sunset over two lines of hills, (height, width, 3) uint8 BGR."""
    depth = np.linspace(0, 1, height)[:, None, None]
    sky = (1 - depth) * (140, 70, 40) + depth * (90, 160, 250)
    image = np.broadcast_to(sky, (height, width, 3)).astype(np.uint8).copy()
    center = round(0.84 * width), round(0.48 * height)
    cv2.circle(image, center, width // 12, (190, 235, 255), -1, cv2.LINE_AA)
    x = np.arange(width + 1)
    for level, wave, color in ((0.62, 0.9, (120, 90, 130)), (0.72, 1.7, (80, 55, 85))):
        ridge = height * (level + 0.05 * np.sin(2 * np.pi * (wave * x / width + level)))
        line = np.column_stack([x, ridge.round()]).astype(np.int32)
        corners = np.array([[width, height], [0, height]], np.int32)
        cv2.fillPoly(image, [np.vstack([line, corners])], color, cv2.LINE_AA)
    return image


def on_checkers(picture: np.ndarray) -> Image:
    """A picture (H, W, 4) uint8 BGRA over grey checkers -> (H, W, 3) uint8 BGR."""
    rows, columns = np.indices(picture.shape[:2]) // 16
    checkers = np.where((rows + columns)[:, :, None] % 2, 255, 204).astype(np.float32)
    alpha = picture[:, :, 3:] / np.float32(255)
    return (picture[:, :, :3] * alpha + checkers * (1 - alpha)).astype(np.uint8)


def hero(image: Image, predictor: Predictor) -> Image:
    """Portrait, cut-out, new background and blurred background side by side, hair by hair."""
    alpha = predictor.alpha(image, matting="hair")
    pictures = [
        image,
        on_checkers(effects.cut_out(image, None, alpha=alpha)),
        effects.replace(image, None, sunset(*image.shape[:2]), alpha=alpha),
        effects.blur(image, None, BLUR, alpha=alpha),
    ]
    panels = [resize(picture, HERO_SIDE, HERO_SIDE) for picture in pictures]
    gap = np.full((HERO_SIDE, GAP, 3), 255, np.uint8)
    return np.hstack([panels[0], *(part for panel in panels[1:] for part in (gap, panel))])


def modes(image: Image, predictor: Predictor) -> Image:
    """A contact sheet of every mode of predict.py."""
    probability = predictor.probability(image)
    pictures = {
        "photo": image,
        "overlay": effects.overlay(image, probability),
        "mask": cv2.merge([255 * effects.mask_of(probability)] * 3),
        "cutout": on_checkers(effects.cut_out(image, probability)),
        "replace, photo": effects.replace(image, probability, sunset(*image.shape[:2])),
        "replace, colour": effects.replace(image, probability, np.array((64, 177, 0))),
        "blur": effects.blur(image, probability),
        "grey": effects.grey(image, probability),
    }
    cells = [(name, resize(picture, SIDE, SIDE)) for name, picture in pictures.items()]
    return contact_sheet(cells, COLUMNS)


def upsampling(image: Image, predictor: Predictor) -> Image:
    """Hair in a photo, in the network's answer, after guided upsampling and in the solved alpha."""
    rows, columns = (slice(start, start + DETAIL) for start in DETAIL_CORNER)
    answer = predictor.run([predictor.prepare(image)], [image])[0]
    pictures = {
        "photo": image,
        "mask, bilinear upsampling": resize(answer, *image.shape[:2]),
        "mask, guided upsampling": predictor.restore(answer, image),
        "alpha, --matting hair": predictor.restore_alpha(answer, image, "hair"),
    }
    cells = []
    for name, picture in pictures.items():
        if picture.ndim == 2:
            picture = cv2.merge([np.rint(255 * picture).astype(np.uint8)] * 3)
        cells.append((name, resize(picture[rows, columns], SIDE, SIDE)))
    return contact_sheet(cells, COLUMNS)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    sheets = (
        ("hero", args.portrait, hero, "large"),
        ("modes", args.photo, modes, "full"),
        ("guided_upsampling", args.portrait, upsampling, "full"),
    )
    for name, path, draw, network in sheets:
        image, output = read_image(path), args.output / f"{name}.jpg"
        write_image(output, draw(image, open_predictor(args.model_path or network)))
        print(f"{output}: {output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
