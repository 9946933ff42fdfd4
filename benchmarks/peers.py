"""Our weights and MediaPipe's selfie model on the same photos, one Markdown table a data folder.

    pip install ai-edge-litert
    npm pack @mediapipe/selfie_segmentation && tar xzf mediapipe-selfie_segmentation-*.tgz
    python -m benchmarks.peers --data_root EG1800/ --mediapipe package/selfie_segmentation.tflite

Every answer is resized to the photo and scored with the protocols of metrics/scores.py. The column
person IoU is the paper's score; "95 %" is its bootstrap interval.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.table import heading, row
from data.drafts import Network, answers
from data.lists import SPLITS
from data.portraits import PortraitDataset
from metrics import Scores
from portraitnet.cli import make_parser
from portraitnet.images import Image, Probability
from training.checkpoints import open_predictor
from training.distillation import MediaPipeSelfie

POOR = 0.9  # person IoU below which a photo counts as failed
COLUMNS = (
    "person_iou_smoothed",
    "person_iou_full",
    "boundary_iou",
    "absolute_error",
    "interior_transparency",
)


class Mirrored:
    """Networks whose answers for a photo and its mirror image are averaged in log-odds.

    Args:
        networks: the networks.
    """

    def __init__(self, *networks: Network):
        self.networks = networks

    def probabilities(self, images: list[Image]) -> list[Probability]:
        """List of images (H, W, 3) uint8 BGR -> list of (H, W) float32 0..1."""
        means = [np.mean(list(answers(self.networks, image)), axis=0) for image in images]
        return [1 / (1 + np.exp(-mean)) for mean in means]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Score our weights and MediaPipe's selfie model on the same photos.",
        example="python -m benchmarks.peers --data_root EG1800/ --mediapipe selfie.tflite",
    )
    add = parser.add_argument
    add(
        "--data_root",
        nargs="+",
        required=True,
        help="data folders (docs/data.md), each with its own table",
    )
    add("--split", choices=SPLITS, default="val", help="list to score")
    model_path = "one or more model files (default: the bundled weights)"
    add("--model_path", nargs="+", type=Path, help=model_path)
    add("--mediapipe", type=Path, help="MediaPipe's selfie_segmentation.tflite")
    return parser.parse_args(argv)


def make_candidates(
    model_paths: Sequence[Path | None], mediapipe: Path | None = None
) -> dict[str, Network]:
    """The networks to compare.

    Args:
        model_paths: our model files; None stands for the bundled weights.
        mediapipe: MediaPipe's .tflite file, or None.

    Returns:
        {name: network}.

    Raises:
        OSError, ValueError, ImportError: a file or a package is missing or wrong.
    """
    candidates = {}
    for path in model_paths:
        bilinear = open_predictor(path, refine=False)
        name = path or bilinear.model_path.name
        candidates[f"{name}, guided filter"] = open_predictor(path)
        candidates[f"{name}, bilinear"] = bilinear
        candidates[f"{name}, bilinear, with mirror image"] = Mirrored(bilinear)
    if mediapipe:
        selfie = MediaPipeSelfie(mediapipe)
        candidates["MediaPipe selfie"] = selfie
        candidates["MediaPipe selfie, with mirror image"] = Mirrored(selfie)
    return candidates


def compare(candidates: dict[str, Network], dataset: PortraitDataset) -> dict[str, Scores]:
    """Score every candidate on each photo of a data set: {name: Scores}."""
    scores = {name: Scores(matting=True) for name in candidates}
    for image, mask in tqdm(dataset, unit="photo"):
        for name, candidate in candidates.items():
            scores[name].add(candidate.probabilities([image])[0], mask)
    return scores


def print_table(scores: dict[str, Scores]) -> None:
    """Print a Markdown table with one row a candidate, in per cent."""
    names = ["network", "person IoU", "95 %", "below .90", "at full size"]
    print(heading([*names, "boundary IoU", "abs. error", "transparent interior"]))
    for name, each in scores.items():
        first, *others = (f"{100 * each.summary()[column]:.2f}" for column in COLUMNS)
        low, high = (100 * bound for bound in each.intervals()[COLUMNS[0]])
        poor = 100 * np.mean([photo[COLUMNS[0]] < POOR for photo in each.photo_scores])
        print(row([name, first, f"{low:.2f}-{high:.2f}", f"{poor:.1f}", *others]))


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    cv2.setNumThreads(1)
    try:
        sets = {root: PortraitDataset(root, args.split) for root in args.data_root}
        candidates = make_candidates(args.model_path or [None], args.mediapipe)
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
