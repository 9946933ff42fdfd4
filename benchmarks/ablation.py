"""What the two auxiliary losses of the paper are worth: four trainings that differ in them alone.

python -m benchmarks.ablation --data_root EG1800/ --output ablation --epoch 10

Every arm has the same data, seed, schedule and number of epochs at full size; the scores are those
of the last epoch, so that nothing is chosen. Stop it and give the command again: finished arms are
kept, the running one is resumed. Flags behind `--` go to train.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.table import heading, row
from data.portraits import validation_sets
from evaluate import degrade_photo
from metrics import score
from portraitnet.cli import make_parser
from portraitnet.files import write_json
from training.checkpoints import open_predictor
from training.state import RESUME_FILE

ARMS = {  # name -> weights of the boundary and of the consistency term
    "mask": (0.0, 0.0),
    "mask + boundary": (0.1, 0.0),
    "mask + consistency": (0.0, 1.0),
    "mask + boundary + consistency": (0.1, 1.0),
}
SCORES = {  # of metrics.PROTOCOLS -> heading
    "miou_raw": "mIoU raw",
    "miou_smoothed": "mIoU smoothed",
    "person_iou_smoothed": "person IoU smoothed",
    "weighted_iou": "boundary-weighted IoU",
    "person_iou_full": "person IoU full size",
    "boundary_iou": "boundary IoU",
    "boundary_f": "boundary F",
}


def parse_args(argv=None):
    parser = make_parser(
        "Train and score the network with and without each auxiliary loss.",
        example="python -m benchmarks.ablation --data_root EG1800/ --epoch 10",
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    add("--output", type=Path, default=Path("ablation"), help="folder of the runs and tables")
    add("--epoch", type=int, default=10, help="epochs of every arm")
    add("--seeds", type=int, nargs="+", default=[0], help="one training of every arm each")
    add("--plot", type=Path, help="picture of the curves (default: in --output)")
    add("train_flags", nargs="*", help="behind --: more flags for train.py, the same in every arm")
    return parser.parse_args(argv)


def train_arm(args, arm, seed):
    """Run train.py to the arm's last epoch, from wherever it stands; returns the last weights."""
    folder = args.output / f"{arm.replace(' + ', '_')}_{seed}"
    last = folder / f"model_{args.epoch - 1}.pdparams"
    if last.is_file():
        return last
    command = [sys.executable, "train.py", "--data_root", *args.data_root]
    command += ["--output", folder, "--epoch", args.epoch, "--seed", seed]
    command += ["--loss_weights", *ARMS[arm]]
    command += ["--resume"] if (folder / RESUME_FILE).is_file() else []
    subprocess.run([*map(str, command), *args.train_flags], check=True)
    return last


def score_weights(weights, data_root):
    """{"plain": scores, "degraded": scores} of one checkpoint, means over the validation lists."""
    probabilities = open_predictor(weights).probabilities

    def mean_scores(vary):
        sets = validation_sets(data_root).values()
        each = [score(probabilities, dataset, vary=vary).summary() for dataset in sets]
        return {name: float(np.mean([summary[name] for summary in each])) for name in SCORES}

    def degraded(image, index):
        return degrade_photo(image, (0, index))

    return {"plain": mean_scores(None), "degraded": mean_scores(degraded)}


def print_tables(results):
    """One Markdown table for the photos as they are and one for the degraded ones; per cent."""
    for photos in ("plain", "degraded"):
        print(f"\n{photos}\n\n{heading(['losses', 'seed', *SCORES.values()])}")
        for result in results:
            values = [f"{100 * result[photos][name]:.2f}" for name in SCORES]
            print(row([result["arm"], result["seed"], *values]))


def draw_curves(results, path):
    """Validation person IoU of every epoch, one curve an arm, mean over the seeds."""
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


def main(argv=None):
    args = parse_args(argv)
    results = []
    for seed in args.seeds:
        for arm in ARMS:
            weights = train_arm(args, arm, seed)
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
