"""How the masks hold under harder conditions, and how often a person is invented.

python -m benchmarks.robustness --data_root EG1800/ --backgrounds backgrounds/ --split val

Each condition changes every photo of the list (its longer side first brought to 448 pixels), and
the mask with it where the geometry changes. Scores: mean person IoU and mean boundary IoU at that
size. The person-free photos are those that training left out (every tenth by name).
"""

import argparse
import sys

import cv2
import numpy as np
from tqdm import tqdm

from data.lists import SPLITS, split_backgrounds
from data.portraits import PortraitDataset
from metrics import boundary_iou, confusion, person_iou
from portraitnet.cli import make_parser
from portraitnet.files import write_json
from portraitnet.geometry import letterbox_box, resize
from portraitnet.images import THRESHOLD, read_image
from training.checkpoints import open_predictor
from transforms.color import noise
from transforms.geometry import rotate

SIDE = 448  # longer side of the photos, pixels
BLOB_FRACTION = 0.01  # of a person-free photo: a connected piece of person above it is an invention


def jpeg(image, quality):
    """Compress and decompress (H, W, 3) uint8."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def gain(image, factor):
    """Multiply the light of (H, W, 3) uint8, clipped."""
    return cv2.convertScaleAbs(image, alpha=factor)


def gamma(image, power):
    """Bend the tone curve of (H, W, 3) uint8; above 1 darkens."""
    return cv2.LUT(image, np.rint(255 * (np.arange(256) / 255) ** power).astype(np.uint8))


def cut(image, mask, top, bottom, left, right):
    """Keep the part between the given shares of height and width."""
    height, width = mask.shape
    rows, columns = (
        slice(int(top * height), int(bottom * height)),
        slice(int(left * width), int(right * width)),
    )
    return image[rows, columns], mask[rows, columns]


def color_only(function):
    """A condition that leaves the mask alone."""
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
    "scale 0.5": lambda image, mask, rng: rotate(image, mask, 0, 0.5),
    "scale 1.5": lambda image, mask, rng: rotate(image, mask, 0, 1.5),
    "left third cut": lambda image, mask, rng: cut(image, mask, 0, 1, 1 / 3, 1),
    "top quarter cut": lambda image, mask, rng: cut(image, mask, 1 / 4, 1, 0, 1),
    "bottom third cut": lambda image, mask, rng: cut(image, mask, 0, 2 / 3, 0, 1),
}


def score_conditions(predictor, dataset, seed=0):
    """Mean person IoU and boundary IoU under every condition.

    Returns:
        {condition: (person IoU, boundary IoU)}, 0..1.
    """
    scores = {name: [] for name in CONDITIONS}
    for index in tqdm(range(len(dataset)), desc="photos"):
        image, mask = dataset.photo(index)
        height, width = letterbox_box(*mask.shape, SIDE)[2:]
        image, mask = (
            resize(image, height, width),
            resize(mask * np.uint8(255), height, width) // 128,
        )
        for name, condition in CONDITIONS.items():
            harder, truth = condition(image, mask, np.random.default_rng((seed, index)))
            person = predictor.probability(np.ascontiguousarray(harder)) > THRESHOLD
            scores[name].append((person_iou(confusion(person, truth)), boundary_iou(person, truth)))
    return {name: tuple(map(float, np.mean(values, 0))) for name, values in scores.items()}


def score_person_free(predictor, paths):
    """Inventions on photos without a person.

    Returns:
        {"pixels": mean share of pixels called person, "photos": share of photos with a blob over
        BLOB_SHARE, "worst": [(share, path), ...] of the worst ten}.
    """
    shares, blobs = [], []
    for path in tqdm(paths, desc="person-free"):
        person = (predictor.probability(read_image(path)) > THRESHOLD).astype(np.uint8)
        areas = cv2.connectedComponentsWithStats(person)[2][1:, cv2.CC_STAT_AREA]
        shares.append(float(person.mean()))
        blobs.append(bool(areas.max(initial=0) > BLOB_FRACTION * person.size))
    worst = sorted(zip(shares, map(str, paths)), reverse=True)[:10]
    return {"pixels": float(np.mean(shares)), "photos": float(np.mean(blobs)), "worst": worst}


def parse_args(argv=None):
    parser = make_parser(
        "How the masks hold under harder conditions, and how often a person is invented.",
        example="python -m benchmarks.robustness --split val --data_root EG1800/",
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    add("--split", choices=SPLITS, default="test", help="which list")
    add("--backgrounds", help="folder of person-free photos, of which every tenth is scored")
    add("--model_path", help="weights to score (default: those in weights/)")
    add("--refine", action=argparse.BooleanOptionalAction, default=True, help="as predict.py's")
    add("--json", help="write the scores to this file too")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    predictor = open_predictor(args.model_path, refine=args.refine)
    report = {
        "conditions": score_conditions(predictor, PortraitDataset(args.data_root, args.split))
    }
    print(f"{'condition':18} person IoU  boundary IoU")
    for name, (person, boundary) in report["conditions"].items():
        print(f"{name:18} {100 * person:10.2f}  {100 * boundary:12.2f}")
    if args.backgrounds:
        held_out = split_backgrounds(args.backgrounds)[1]
        report["person_free"] = free = score_person_free(predictor, held_out)
        pixels, photos = 100 * free["pixels"], 100 * free["photos"]
        print(f"{len(held_out)} person-free photos: {pixels:.2f} % of pixels called person,")
        print(f"{photos:.1f} % of photos with a blob over {100 * BLOB_FRACTION:.0f} %")
        for share, path in free["worst"][:5]:
            print(f"  {100 * share:5.1f} %  {path}")
    if args.json:
        write_json(args.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
