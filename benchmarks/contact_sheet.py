"""Every mode of predict.py in one picture, the README's first: writes examples/modes.png.

python -m benchmarks.contact_sheet
"""

from pathlib import Path

import cv2
import numpy as np

import effects
from flags import make_parser
from images import read_image, write_image
from predictor import Predictor
from sheets import contact_sheet
from transforms.geometry import resize

EXAMPLES = Path(__file__).parent.parent / "examples"
SIDE = 256  # of a picture of the sheet, pixels
COLUMNS = 4


def parse_args(argv=None):
    parser = make_parser(
        "Every mode of predict.py in one picture.",
        example="python -m benchmarks.contact_sheet",
    )
    add = parser.add_argument
    add("--photo", type=Path, default=EXAMPLES / "astronaut.png", help="a square photo")
    add("--output", type=Path, default=EXAMPLES / "modes.png", help="the picture to write")
    add("--model_path", type=Path, help="model file (default: the one in weights/)")
    return parser.parse_args(argv)


def sunset(height, width):
    """A drawn background: sky from blue to orange, and a sun."""
    share = np.linspace(0, 1, height)[:, None, None]
    sky = (1 - share) * (140, 70, 40) + share * (90, 160, 250)
    image = np.broadcast_to(sky, (height, width, 3)).astype(np.uint8).copy()
    center = round(0.8 * width), round(0.45 * height)
    cv2.circle(image, center, width // 12, (190, 235, 255), -1, cv2.LINE_AA)
    return image


def on_checkers(picture):
    """(H, W, 4) BGRA over the grey checkers that stand for transparency."""
    rows, columns = np.indices(picture.shape[:2]) // 16
    checkers = np.where((rows + columns)[:, :, None] % 2, 255, 204).astype(np.float32)
    alpha = picture[:, :, 3:] / np.float32(255)
    return (picture[:, :, :3] * alpha + checkers * (1 - alpha)).astype(np.uint8)


def main(argv=None):
    args = parse_args(argv)
    image = read_image(args.photo)
    probability = Predictor(args.model_path).probability(image)
    mask = cv2.merge([255 * effects.mask_of(probability)] * 3)
    background = sunset(*image.shape[:2])
    pictures = {
        "photo": image,
        "overlay": effects.overlay(image, probability),
        "mask": mask,
        "cutout": on_checkers(effects.cut_out(image, probability)),
        "replace, photo": effects.replace(image, probability, background),
        "replace, colour": effects.replace(image, probability, np.array((64, 177, 0))),
        "blur": effects.blur(image, probability),
        "grey": effects.grey(image, probability),
    }
    cells = [(name, resize(picture, SIDE, SIDE)) for name, picture in pictures.items()]
    write_image(args.output, contact_sheet(cells, COLUMNS))
    print(f"{args.output}: {args.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
