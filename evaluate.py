"""Score a checkpoint in every published protocol.

python evaluate.py --model_path output/model_59.pdparams --batch_size 32 --log_iter 10 \
    --data_root EG1800/
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from backends import AUTO, BACKENDS, DEFAULT, MODEL_HELP, choose
from dataset import validation_sets
from files import write_json
from flags import command, make_parser, whole
from images import write_image
from metrics import PROTOCOLS, SELECTION, THRESHOLD, score
from pairs import DATA_ROOT, SPLITS
from predictor import Predictor
from sheets import contact_sheet
from transforms import SIZE, degrade, letterbox
from transforms.geometry import letterbox_box, resize

SHEET_SIDE = 240  # of a picture on the sheet of worst cases, pixels


def parse_args(argv=None):
    parser = make_parser(
        "Score a checkpoint in every published protocol, each data folder apart.",
        example="python evaluate.py --split val --data_root EG1800/",
    )
    add = parser.add_argument_group("data").add_argument
    roots = "data folders (docs/data.md); else those that the checkpoint was trained on, or EG1800/"
    add("--data_root", nargs="+", help=roots)
    add("--split", choices=SPLITS, default="test", help="which list")
    add("--degrade", action="store_true", help="vary light, blur and noise of the photos first")
    add("--seed", type=whole(), default=0, help="of --degrade, and of a validation split made here")
    add = parser.add_argument_group("network").add_argument
    add("--model_path", default=DEFAULT, help=MODEL_HELP)
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="auto: the fastest installed")
    add("--batch_size", type=whole(1), default=32, help="photos a step")
    add("--refine", action=argparse.BooleanOptionalAction, default=True, help="as predict.py's")
    add = parser.add_argument_group("results").add_argument
    add("--log_iter", type=whole(), default=10, help="iterations between progress lines")
    add("--json", help="write the scores to this file too")
    add("--save_dir", help="write a sheet of the worst photos into this folder")
    add("--worst", type=whole(1), default=20, help="photos on that sheet")
    return parser.parse_args(argv)


def choose_data(model_path):
    """The data folders where none are given: those in args.json beside the checkpoint."""
    beside = choose(model_path).path.with_name("args.json")
    if not beside.is_file():
        return [DATA_ROOT]
    roots = json.loads(beside.read_text())["data_root"]
    print(f"--data_root {' '.join(roots)}, as {beside} says.")
    return roots


def degrade_photo(image, seed):
    """The training's texture transforms at the network's resolution, where they were tuned."""
    height, width = letterbox_box(*image.shape[:2], SIZE)[2:]
    small = degrade(resize(image, height, width), np.random.default_rng(seed))
    return resize(small, *image.shape[:2])


def worst_sheet(predictor, dataset, scores, count, vary=None):
    """Rows of photo, truth, prediction and error (red: invented, blue: missed), the worst first.

    Returns:
        image (H, W, 3) uint8 BGR; the photos' labels begin with their person IoU.
    """
    order = np.argsort([each["person_iou_full"] for each in scores.photo_scores])[:count]
    cells = []
    for index in map(int, order):
        image, mask = dataset.photo(index)
        image, mask = image if vary is None else vary(image, index), mask > THRESHOLD
        person = predictor.probability(image) > THRESHOLD
        error = (image * 0.4).astype(np.uint8)
        error[person & ~mask] = (0, 0, 255)
        error[~person & mask] = (255, 0, 0)
        pictures = [image, image * mask[:, :, None], image * person[:, :, None], error]
        name = Path(dataset.pairs[index].image_path).name
        iou = scores.photo_scores[index]["person_iou_full"]
        labels = f"{iou:.3f} {name}", "truth", "mask", "error"
        cells += zip(labels, (letterbox(picture, SHEET_SIDE)[0] for picture in pictures))
    return contact_sheet(cells, columns=4)


def evaluate(predictor, dataset, batch_size=32, log_iter=0, vary=None):
    """Score every photo of a data set and print how it goes.

    Args:
        predictor: Predictor.
        dataset: PortraitDataset; its photos are read at their own size.
        log_iter: iterations between progress lines, 0 for none.
        vary: function (image, index) -> image applied to the photos first, or None.

    Returns:
        Scores, and the seconds that the predictor took.
    """
    seconds, iterations = 0.0, 0

    def probabilities(images):
        nonlocal seconds
        began = time.perf_counter()
        answers = predictor.probabilities(images)
        seconds += time.perf_counter() - began
        return answers

    def progress(scores):
        nonlocal iterations
        iterations += 1
        if log_iter and iterations % log_iter == 0:
            print(f"iter {iterations - 1} {short(scores.summary())}", flush=True)

    return score(probabilities, dataset, batch_size, vary, progress, matting=True), seconds


def short(summary):
    """The report's two figures."""
    return f"acc: {summary['accuracy']:.4f}, miou: {summary['miou_raw']:.4f}"


def print_table(summary, intervals):
    """One line a score: name, value, 95 % interval, protocol."""
    for name, value in summary.items():
        low, high = intervals[name]
        print(f"{name:24} {value:.4f}  {low:.4f}-{high:.4f}  {PROTOCOLS[name]}")


@command("evaluate.py")
def main(argv=None):
    args = parse_args(argv)
    data_root = args.data_root or choose_data(args.model_path)
    sets = validation_sets(data_root, args.split, args.seed)
    predictor = Predictor(args.model_path, args.backend, refine=args.refine)
    model_path = str(predictor.model_path)
    report = {"model_path": model_path, "backend": predictor.backend, "split": args.split}
    report |= {"degraded": args.degrade, "lists": {}}
    vary = (lambda image, index: degrade_photo(image, (args.seed, index))) if args.degrade else None

    for name, dataset in sets.items():
        told = f"{name}: {len(dataset)} photos of {args.split}, {model_path} with"
        print(*dataset.notes, f"{told} {predictor.backend}", sep="\n")
        scores, seconds = evaluate(predictor, dataset, args.batch_size, args.log_iter, vary)
        summary, intervals = scores.summary(), scores.intervals()
        latency = 1000 * seconds / len(dataset)
        print(f"eval: {short(summary)}, {latency:.1f} ms a photo")
        print_table(summary, intervals)
        report["lists"][name] = {"photos": len(dataset), "milliseconds": latency}
        report["lists"][name] |= {"scores": summary, "intervals": intervals}
        if args.save_dir:
            path = Path(args.save_dir) / f"worst_{name}_{args.split}.png".replace("/", "_")
            write_image(path, worst_sheet(predictor, dataset, scores, args.worst, vary))
            print(f"Worst photos: {path}")

    each = [values["scores"][SELECTION] for values in report["lists"].values()]
    report["mean"] = float(np.mean(each))
    if len(each) > 1:
        print(f"Mean of {len(each)} lists: {report['mean']:.4f}  {SELECTION}")
    if args.json:
        write_json(args.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
