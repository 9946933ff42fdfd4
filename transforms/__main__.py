"""A contact sheet of every transform: `python -m transforms PHOTO [--output FILE]`."""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from images import read_image, read_mask, write_image
from transforms import SIZE, color, degrade, edge_of, geometry, letterbox

COLUMNS = 6
LABEL_HEIGHT = 20  # pixels under each picture


def tiles(image, mask, rng):
    """Every transform at telling strengths.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 0/1; all 0 shows no mask and no edge.

    Returns:
        list of (label, (SIZE, SIZE, 3) uint8 BGR).
    """
    sheet = []
    for label, matrix in (
        ("letterbox", np.eye(3)),
        ("flip", geometry.flip_matrix(SIZE)),
        ("rotate -45", geometry.rotation_matrix(SIZE, SIZE, -45)),
        ("rotate 45", geometry.rotation_matrix(SIZE, SIZE, 45)),
        ("scale 0.5", geometry.rotation_matrix(SIZE, SIZE, 0, 0.5)),
        ("scale 1.5", geometry.rotation_matrix(SIZE, SIZE, 0, 1.5)),
        ("translate 56 -56", geometry.translation_matrix(56, -56)),
    ):
        matrix = matrix @ geometry.letterbox_matrix(*mask.shape, SIZE)
        moved, moved_mask = geometry.warp(geometry.stack(image, mask), matrix, SIZE, SIZE)
        edge = edge_of(moved_mask, geometry.inside_of(*mask.shape, matrix, SIZE))
        moved[moved_mask == 1] = moved[moved_mask == 1] // 2 + np.array([0, 96, 0], np.uint8)
        moved[edge == 1] = 0, 255, 255
        sheet.append((label, moved))
    square = letterbox(image, SIZE)[0]
    inside = geometry.inside_of(*mask.shape, geometry.letterbox_matrix(*mask.shape, SIZE), SIZE)
    for label, function, strengths in (
        ("hsv hue", color.hsv, (-8, 8, 45)),
        ("brightness", color.brightness, (0.4, 1.6)),
        ("saturation", color.saturation, (0.4, 1.6)),
        ("contrast", color.contrast, (0.6, 1.4)),
        ("sharpness", color.sharpness, (0.8, 1.2)),
        ("blur", color.blur, (3, 5)),
    ):
        sheet += [(f"{label} {strength:g}", function(square, strength)) for strength in strengths]
    sheet.append(("noise 10", color.noise(square, 10, rng)))
    return sheet + [(f"texture, draw {i}", degrade(square, rng, inside)) for i in (1, 2, 3)]


def contact_sheet(sheet):
    """Lay labelled pictures out in rows of COLUMNS; (H, W, 3) uint8 BGR."""
    cells = []
    for label, picture in sheet:
        cell = cv2.copyMakeBorder(
            picture, 4, LABEL_HEIGHT, 4, 4, cv2.BORDER_CONSTANT, value=(255,) * 3
        )
        place = (6, cell.shape[0] - 6)
        cells.append(cv2.putText(cell, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0,) * 3, 1))
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % COLUMNS)
    rows = [np.hstack(cells[i : i + COLUMNS]) for i in range(0, len(cells), COLUMNS)]
    return np.vstack(rows)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m transforms",
        description="Show what every training transform does to a photo.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("photo", help="any photo")
    parser.add_argument("--mask", help="its mask, to see mask (green) and edge (yellow) move along")
    parser.add_argument("--output", help="picture to write; PHOTO_transforms.png if not given")
    parser.add_argument("--seed", type=int, default=0, help="of noise and draws")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    photo = Path(args.photo)
    output = Path(args.output or photo.with_name(f"{photo.stem}_transforms.png"))
    try:
        image = read_image(photo)
        mask = read_mask(args.mask) if args.mask else np.zeros(image.shape[:2], np.uint8)
        if mask.shape != image.shape[:2]:
            raise ValueError(f"{args.mask} and {photo} differ in size: give the photo's own mask.")
        sheet = contact_sheet(tiles(image, mask, np.random.default_rng(args.seed)))
        write_image(output, sheet, keep=[path for path in (photo, args.mask) if path])
    except FileNotFoundError as error:
        print(f"There is no file {error.filename}: give the path of a picture.", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
