"""The effect of the paper's two auxiliary losses: four trainings that differ in nothing else.

python -m benchmarks.ablation --data_root EG1800/ --output ablation --epoch 10

All arms have the same data, seed, schedule and number of epochs. The scores are those of the last
epoch, so no checkpoint is selected. After an interruption the same command keeps finished arms and
resumes the unfinished one. Flags after `--` are passed to train.py.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.table import heading, row
from data.portraits import validation_sets
from metrics import score
from portraitnet.cli import make_parser
from portraitnet.files import write_json
from training.checkpoints import open_predictor
from training.state import RESUME_FILE
from transforms import degrade_photo

ARMS = {  # name -> weight of the boundary term, weight of the consistency term
    "mask": (0.0, 0.0),
    "mask + boundary": (0.1, 0.0),
    "mask + consistency": (0.0, 1.0),
    "mask + boundary + consistency": (0.1, 1.0),
}
SCORES = {  # name in metrics.PROTOCOLS -> heading
    "miou_raw": "mIoU raw",
    "miou_smoothed": "mIoU smoothed",
    "person_iou_smoothed": "person IoU smoothed",
    "weighted_iou": "boundary-weighted IoU",
    "person_iou_full": "person IoU full size",
    "boundary_iou": "boundary IoU",
    "boundary_f": "boundary F",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Train and score the network with and without each auxiliary loss.",
        example="python -m benchmarks.ablation --data_root EG1800/ --epoch 10",
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    add("--output", type=Path, default=Path("ablation"), help="folder of the trainings and tables")
    add("--epoch", type=int, default=10, help="epochs of each training")
    add("--seeds", type=int, nargs="+", default=[0], help="seeds; every arm is trained with each")
    add("--plot", type=Path, help="file of the plot (default: OUTPUT/ablation.svg)")
    train_flags = "more flags of train.py, after --, for every arm"
    add("train_flags", nargs="*", help=train_flags)
    return parser.parse_args(argv)


def train_arm(
    arm: str,
    seed: int,
    epochs: int,
    data_root: Sequence[str],
    output: Path,
    train_flags: Sequence[str] = (),
) -> Path:
    """Run or resume train.py up to the arm's last epoch.

    Args:
        arm: name in ARMS.
        seed: seed of the training.
        epochs: number of epochs.
        data_root: data folders.
        output: folder of all trainings.
        train_flags: more flags of train.py.

    Returns:
        Path of the last epoch's checkpoint.
    """
    folder = output / f"{arm.replace(' + ', '_')}_{seed}"
    last = folder / f"model_{epochs - 1}.pdparams"
    if last.is_file():
        return last
    command = [sys.executable, "train.py", "--data_root", *data_root]
    command += ["--output", folder, "--epoch", epochs, "--seed", seed]
    command += ["--loss_weights", *ARMS[arm]]
    command += ["--resume"] if (folder / RESUME_FILE).is_file() else []
    subprocess.run([*map(str, command), *train_flags], check=True)
    return last


def score_weights(weights: Path, data_root: Sequence[str]) -> dict[str, dict[str, float]]:
    """Score one checkpoint on plain and on degraded photos.

    Returns:
        {"plain": scores, "degraded": scores}, means over the validation lists.
    """
    probabilities = open_predictor(weights).probabilities

    def degraded(dataset):
        for index, (image, mask) in enumerate(dataset):
            yield degrade_photo(image, (0, index)), mask

    def mean_scores(photos):
        sets = validation_sets(data_root).values()
        each = [score(probabilities, photos(dataset)).summary() for dataset in sets]
        return {name: float(np.mean([summary[name] for summary in each])) for name in SCORES}

    return {"plain": mean_scores(iter), "degraded": mean_scores(degraded)}


def print_tables(results: Sequence[dict]) -> None:
    """Print a Markdown table for plain and one for degraded photos, in per cent."""
    for photos in ("plain", "degraded"):
        print(f"\n{photos}\n\n{heading(['losses', 'seed', *SCORES.values()])}")
        for result in results:
            values = [f"{100 * result[photos][name]:.2f}" for name in SCORES]
            print(row([result["arm"], result["seed"], *values]))


def draw_curves(results: Sequence[dict], path: Path) -> None:
    """Plot the validation person IoU of every epoch: one curve an arm, mean over the seeds."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for arm in ARMS:
        histories = [result["history"] for result in results if result["arm"] == arm]
        runs = [[100 * epoch["mean_person_iou"] for epoch in history] for history in histories]
        curve = np.mean(runs, axis=0)
        axes.plot(range(1, len(curve) + 1), curve, marker="o", markersize=3, label=arm)
    axes.set(xlabel="epoch", ylabel="validation person IoU, %")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    results = []
    for seed in args.seeds:
        for arm in ARMS:
            data = args.data_root, args.output, args.train_flags
            weights = train_arm(arm, seed, args.epoch, *data)
            lines = (weights.parent / "log.jsonl").read_text().splitlines()
            history = list(map(json.loads, lines))
            minutes = sum(epoch["seconds"] for epoch in history) / 60
            results.append({"arm": arm, "seed": seed, "minutes": minutes, "history": history})
            results[-1] |= score_weights(weights, args.data_root)
            print(f"{arm}, seed {seed}: {minutes:.1f} min", flush=True)
    write_json(args.output / "ablation.json", results)
    print_tables(results)
    draw_curves(results, args.plot or args.output / "ablation.svg")


if __name__ == "__main__":
    main()
