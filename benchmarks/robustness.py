"""Scores under harder conditions, and false detections on photos without a person.

python -m benchmarks.robustness --data_root EG1800/ --backgrounds backgrounds/ --split val

Each condition changes every photo of the list, at a longer side of 448 pixels. Geometric conditions
change the mask too. The scores are the mean person IoU and the mean boundary IoU at that size.
Photos without a person are the held-out backgrounds of training, every tenth by name.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.table import heading, row
from data.lists import SPLITS, split_backgrounds
from data.portraits import PortraitDataset
from metrics import boundary_iou, confusion, person_iou
from portraitnet.cli import make_parser
from portraitnet.files import write_json
from portraitnet.geometry import letterbox_box, resize
from portraitnet.images import Image, Mask, mask_of, read_image
from portraitnet.postprocess import largest_region
from portraitnet.predictor import Predictor
from training.checkpoints import open_predictor
from transforms.color import jpeg, noise
from transforms.geometry import rotate

SIDE = 448  # longer side of the photos, pixels
BLOB_FRACTION = 0.01  # of a photo's pixels; a larger connected region is a false detection
Condition = Callable[[Image, Mask, np.random.Generator], tuple[Image, Mask]]


def gain(image: Image, factor: float) -> Image:
    """Multiply every pixel by `factor`, with clipping."""
    return cv2.convertScaleAbs(image, alpha=factor)


def gamma(image: Image, power: float) -> Image:
    """Apply a gamma curve; a `power` above 1 darkens."""
    return cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8))


def crop(
    image: Image, mask: Mask, top: float, bottom: float, left: float, right: float
) -> tuple[Image, Mask]:
    """Crop to the given fractions of height and width."""
    height, width = mask.shape
    rows = slice(int(top * height), int(bottom * height))
    columns = slice(int(left * width), int(right * width))
    return image[rows, columns], mask[rows, columns]


def turn(image: Image, mask: Mask, times: int) -> tuple[Image, Mask]:
    """Turn by 90 degrees, counterclockwise, `times` times."""
    return np.rot90(image, times), np.rot90(mask, times)


def color_only(function: Callable[[Image, np.random.Generator], Image]) -> Condition:
    """A condition that does not change the mask."""
    return lambda image, mask, rng: (function(image, rng), mask)


CONDITIONS = {
    "as it is": color_only(lambda image, rng: image),
    "gain 0.3": color_only(lambda image, rng: gain(image, 0.3)),
    "gain 0.6": color_only(lambda image, rng: gain(image, 0.6)),
    "gain 1.6": color_only(lambda image, rng: gain(image, 1.6)),
    "gamma 0.5": color_only(lambda image, rng: gamma(image, 0.5)),
    "gamma 2.2": color_only(lambda image, rng: gamma(image, 2.2)),
    "grey": color_only(lambda image, rng: cv2.merge([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)] * 3)),
    "blur sigma 3 px": color_only(lambda image, rng: cv2.GaussianBlur(image, (0, 0), 3)),
    "noise sigma 20": color_only(lambda image, rng: noise(image, 20, rng)),
    "JPEG quality 10": color_only(lambda image, rng: jpeg(image, 10)),
    "rotated +30": lambda image, mask, rng: rotate(image, mask, 30, 1.0),
    "rotated -30": lambda image, mask, rng: rotate(image, mask, -30, 1.0),
    "turned by 90": lambda image, mask, rng: turn(image, mask, 1),
    "turned by 180": lambda image, mask, rng: turn(image, mask, 2),
    "turned by 270": lambda image, mask, rng: turn(image, mask, 3),
    "scale 0.5": lambda image, mask, rng: rotate(image, mask, 0, 0.5),
    "scale 1.5": lambda image, mask, rng: rotate(image, mask, 0, 1.5),
    "left third cut": lambda image, mask, rng: crop(image, mask, 0, 1, 1 / 3, 1),
    "top quarter cut": lambda image, mask, rng: crop(image, mask, 1 / 4, 1, 0, 1),
    "bottom third cut": lambda image, mask, rng: crop(image, mask, 0, 2 / 3, 0, 1),
}


def score_conditions(
    predictor: Predictor, dataset: PortraitDataset, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Mean person IoU and mean boundary IoU under every condition.

    Returns:
        {condition: (person IoU, boundary IoU)}, 0..1.
    """
    scores = {name: [] for name in CONDITIONS}
    for index in tqdm(range(len(dataset)), desc="photos"):
        image, mask = dataset.photo(index)
        height, width = letterbox_box(*mask.shape, SIDE)[2:]
        image = resize(image, height, width)
        mask = mask_of(resize(mask * np.uint8(255), height, width))
        for name, condition in CONDITIONS.items():
            harder, truth = condition(image, mask, np.random.default_rng((seed, index)))
            harder, truth = np.ascontiguousarray(harder), np.ascontiguousarray(truth)
            person = mask_of(predictor.probability(harder))
            scores[name].append((person_iou(confusion(person, truth)), boundary_iou(person, truth)))
    return {name: tuple(map(float, np.mean(values, 0))) for name, values in scores.items()}


def score_person_free(predictor: Predictor, paths: Sequence[str | Path]) -> dict:
    """False detections on photos without a person.

    Returns:
        {"pixels": mean fraction of pixels called person, "photos": fraction of photos with a region
        over BLOB_FRACTION, "worst": [(fraction of pixels, path), ...] of the worst ten photos}.
    """
    fractions, blobs = [], []
    for path in tqdm(paths, desc="person-free"):
        probability = predictor.probability(read_image(path))
        fractions.append(float(mask_of(probability).mean()))
        blobs.append(largest_region(probability) > BLOB_FRACTION)
    worst = sorted(zip(fractions, map(str, paths)), reverse=True)[:10]
    return {"pixels": float(np.mean(fractions)), "photos": float(np.mean(blobs)), "worst": worst}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Score a network under harder conditions and on photos without a person.",
        example="python -m benchmarks.robustness --split val --data_root EG1800/",
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    add("--split", choices=SPLITS, default="test", help="list to score")
    add("--backgrounds", help="folder of photos without a person; every tenth is scored")
    add("--model_path", help="model file (default: the bundled weights)")
    refine = "let the mask follow the photo's edges"
    add("--refine", action=argparse.BooleanOptionalAction, default=True, help=refine)
    add("--json", help="file for the scores as JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    predictor = open_predictor(args.model_path, refine=args.refine)
    report = {
        "conditions": score_conditions(predictor, PortraitDataset(args.data_root, args.split))
    }
    print(heading(["condition", "person IoU", "boundary IoU"]))
    for name, (person, boundary) in report["conditions"].items():
        print(row([name, f"{100 * person:.2f}", f"{100 * boundary:.2f}"]))
    if args.backgrounds:
        held_out = split_backgrounds(args.backgrounds)[1]
        report["person_free"] = free = score_person_free(predictor, held_out)
        pixels, photos = 100 * free["pixels"], 100 * free["photos"]
        print(f"{len(held_out)} photos without a person: {pixels:.2f} % of pixels called person,")
        print(f"{photos:.1f} % of photos with a region over {100 * BLOB_FRACTION:.0f} %")
        for fraction, path in free["worst"][:5]:
            print(f"  {100 * fraction:5.1f} %  {path}")
    if args.json:
        write_json(args.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
