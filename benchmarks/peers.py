"""Our weights and MediaPipe's selfie model on the same photos, one Markdown table a data folder.

    pip install ai-edge-litert
    npm pack @mediapipe/selfie_segmentation && tar xzf mediapipe-selfie_segmentation-*.tgz
    python -m benchmarks.peers --data_root EG1800/ --mediapipe package/selfie_segmentation.tflite

Every answer is brought to the photo's size and scored in the protocols of metrics.py: person IoU
is the paper's, "95 %" where it would lie for 95 % of other draws of as many photos.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.table import heading, row
from data.lists import SPLITS
from data.portraits import PortraitDataset
from label import ask
from metrics import Scores
from portraitnet.cli import make_parser
from training.checkpoints import open_predictor
from training.distillation import MediaPipeSelfie

POOR = 0.9  # person IoU below which a photo counts as lost
COLUMNS = ("person_iou_smoothed", "person_iou_full", "boundary_iou", "absolute_error", "smoke")


class Mirrored:
    """Networks and their answers on the mirrored photo, averaged in log-odds as label.py does.

    Args:
        networks: what has `probabilities`.
    """

    def __init__(self, *networks):
        self.networks = networks

    def probabilities(self, images):
        """List of images (H, W, 3) uint8 BGR -> list of (H, W) float32 0..1."""
        means = [np.mean(list(ask(self.networks, image)), axis=0) for image in images]
        return [1 / (1 + np.exp(-mean)) for mean in means]


def parse_args(argv=None):
    parser = make_parser(
        "Our weights and MediaPipe's selfie model on the same photos.",
        example="python -m benchmarks.peers --data_root EG1800/ --mediapipe selfie.tflite",
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders, scored apart (docs/data.md)")
    add("--split", choices=SPLITS, default="val", help="which list")
    add("--model_path", nargs="+", type=Path, help="ours, one or several (default: in weights/)")
    add("--mediapipe", type=Path, help="MediaPipe's selfie_segmentation.tflite")
    return parser.parse_args(argv)


def make_candidates(args):
    """dict of name -> what has `probabilities`.

    Raises:
        OSError, ValueError, ImportError: a file or a package is missing or wrong.
    """
    candidates = {}
    for path in args.model_path or [None]:
        bilinear = open_predictor(path, refine=False)
        name = path or bilinear.model_path.name
        candidates[f"{name}, guided filter"] = open_predictor(path)
        candidates[f"{name}, bilinear"] = bilinear
        candidates[f"{name}, bilinear, with mirror image"] = Mirrored(bilinear)
    if args.mediapipe:
        selfie = MediaPipeSelfie(args.mediapipe)
        candidates["MediaPipe selfie"] = selfie
        candidates["MediaPipe selfie, with mirror image"] = Mirrored(selfie)
    return candidates


def compare(candidates, dataset):
    """Score each candidate on each photo of a data set.

    Returns:
        dict of name -> Scores.
    """
    scores = {name: Scores(matting=True) for name in candidates}
    for index in tqdm(range(len(dataset)), unit="photo"):
        image, mask = dataset.photo(index)
        for name, candidate in candidates.items():
            scores[name].add(candidate.probabilities([image])[0], mask)
    return scores


def print_table(scores):
    """One row a candidate, in per cent."""
    names = ["network", "person IoU", "95 %", "below .90", "at full size"]
    print(heading([*names, "boundary IoU", "abs. error", "smoke"]))
    for name, each in scores.items():
        first, *others = (f"{100 * each.summary()[column]:.2f}" for column in COLUMNS)
        low, high = (100 * bound for bound in each.intervals()[COLUMNS[0]])
        poor = 100 * np.mean([photo[COLUMNS[0]] < POOR for photo in each.photo_scores])
        print(row([name, first, f"{low:.2f}-{high:.2f}", f"{poor:.1f}", *others]))


def main(argv=None):
    args = parse_args(argv)
    cv2.setNumThreads(1)
    try:
        sets = {root: PortraitDataset(root, args.split) for root in args.data_root}
        candidates = make_candidates(args)
    except (OSError, ValueError, ImportError) as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return 1
    for root, dataset in sets.items():
        scores = compare(candidates, dataset)
        print(f"\n{Path(root).resolve().name}, {len(dataset)} photos ({args.split})\n")
        print_table(scores)
    return 0


if __name__ == "__main__":
    sys.exit(main())
