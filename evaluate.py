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

from data.lists import DATA_ROOT, SPLITS
from data.portraits import validation_sets
from metrics import PROTOCOLS, SELECTION, score
from portraitnet.backends import AUTO, BACKENDS, DEFAULT, MODEL_HELP, choose
from portraitnet.cli import command, int_range, make_parser
from portraitnet.effects import contact_sheet
from portraitnet.files import check_writable, write_json
from portraitnet.geometry import SIZE, letterbox, letterbox_box, resize
from portraitnet.images import THRESHOLD, write_image
from portraitnet.jobs import Failure
from training.checkpoints import open_predictor
from transforms import degrade

SHEET_SIDE = 240  # of a picture on the sheet of worst cases, pixels


def parse_args(argv=None):
    parser = make_parser(
        "Score a checkpoint in every published protocol, each data folder apart.",
        example="python evaluate.py --split val --data_root EG1800/",
    )
    add = parser.add_argument_group("data").add_argument
    roots = "data folders (docs/data.md); else those that the checkpoint was trained on, or EG1800/"
    add("--data_root", nargs="+", help=roots)
    add("--split", choices=SPLITS, default="test", help="which list is scored")
    add("--degrade", action="store_true", help="spoil the photos first: light, blur, noise")
    add(
        "--seed",
        type=int_range(),
        default=0,
        help="of --degrade and of a validation split made here",
    )
    add = parser.add_argument_group("network").add_argument
    add("--model_path", default=DEFAULT, help=MODEL_HELP)
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="auto: the fastest installed")
    add("--batch_size", type=int_range(1), default=32, help="photos in a step")
    refine = "let the mask follow the photo's edges"
    add("--refine", action=argparse.BooleanOptionalAction, default=True, help=refine)
    add = parser.add_argument_group("results").add_argument
    add("--log_iter", type=int_range(), default=10, help="iterations between progress lines")
    add("--json", help="write the scores to this file too")
    add("--save_dir", help="write a sheet of the worst photos into this folder")
    add("--worst", type=int_range(1), default=20, help="photos on that sheet")
    return parser.parse_args(argv)


def choose_data(model_path):
    """The data folders where none are given: those in args.json beside the checkpoint."""
    beside = choose(model_path).path.with_name("args.json")
    if not beside.is_file():
        return [DATA_ROOT]
    try:
        roots = [str(root) for root in json.loads(beside.read_text())["data_root"]]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{beside} does not tell its data_root: give --data_root.") from None
    print(f"--data_root {' '.join(roots)}, as {beside} says.")
    return roots


def degrade_photo(image, seed):
    """The training's texture transforms at the network's resolution, where they were tuned."""
    height, width = letterbox_box(*image.shape[:2], SIZE)[2:]
    small = degrade(resize(image, height, width), np.random.default_rng(seed))
    return resize(small, *image.shape[:2])


def worst_sheet(predictor, dataset, scores, count, vary=None, failed=()):
    """Rows of photo, truth, prediction and error (red: invented, blue: missed), the worst first.

    Args:
        failed: indices of photos that were not scored.

    Returns:
        image (H, W, 3) uint8 BGR; the photos' labels begin with their person IoU.
    """
    ious = [each["person_iou_full"] for each in scores.photo_scores]
    scored = [index for index in range(len(dataset)) if index not in failed]
    cells = []
    for iou, index in sorted(zip(ious, scored))[:count]:
        image, mask = dataset.photo(index)
        image, mask = image if vary is None else vary(image, index), mask > THRESHOLD
        person = predictor.probability(image) > THRESHOLD
        error = (image * 0.4).astype(np.uint8)
        error[person & ~mask] = (0, 0, 255)
        error[~person & mask] = (255, 0, 0)
        pictures = [image, image * mask[:, :, None], image * person[:, :, None], error]
        name = Path(dataset.pairs[index].image_path).name
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
        Scores, the seconds that the predictor took, and {index: error} of unreadable photos.
    """
    seconds, iterations, failed = 0.0, 0, {}

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

    scores = score(probabilities, dataset, batch_size, vary, progress, True, failed)
    return scores, seconds, failed


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
    predictor = open_predictor(args.model_path, args.backend, refine=args.refine)
    sheets = {
        name: Path(args.save_dir, f"worst_{name}_{args.split}.png".replace("/", "_"))
        for name in (sets if args.save_dir else ())
    }
    for path in filter(None, (args.json, *sheets.values())):  # before the work for them
        check_writable(path, keep=[predictor.model_path])
    model_path = str(predictor.model_path)
    report = {"model_path": model_path, "backend": predictor.backend, "split": args.split}
    report |= {"degraded": args.degrade, "lists": {}}
    vary = (lambda image, index: degrade_photo(image, (args.seed, index))) if args.degrade else None

    lost = 0
    for name, dataset in sets.items():
        message = f"{name}: {len(dataset)} photos of {args.split}, {model_path} with"
        print(*dataset.notes, f"{message} {predictor.backend}", sep="\n")
        scores, seconds, failed = evaluate(predictor, dataset, args.batch_size, args.log_iter, vary)
        count, lost = len(scores.photo_scores), lost + len(failed)
        for index, error in failed.items():
            print(
                f"evaluate.py: {Failure(dataset.pairs[index].image_path, str(error))}",
                file=sys.stderr,
            )
        if not count:
            raise ValueError(f"No photo of {name} can be scored: mend them, `check.py` names all.")
        summary, intervals = scores.summary(), scores.intervals()
        latency = 1000 * seconds / count
        print(f"eval: {short(summary)}, {latency:.1f} ms a photo")
        print_table(summary, intervals)
        report["lists"][name] = {"photos": count, "failed": len(failed), "milliseconds": latency}
        report["lists"][name] |= {"scores": summary, "intervals": intervals}
        if name in sheets:
            sheet = worst_sheet(predictor, dataset, scores, args.worst, vary, failed)
            write_image(sheets[name], sheet)
            print(f"Worst photos: {sheets[name]}")

    each = [values["scores"][SELECTION] for values in report["lists"].values()]
    report["mean"] = float(np.mean(each))
    if len(each) > 1:
        print(f"Mean of {len(each)} lists: {report['mean']:.4f}  {SELECTION}")
    if args.json:
        write_json(args.json, report)
    if lost:
        print(
            f"evaluate.py: {lost} photos failed; the scores are those of the others.",
            file=sys.stderr,
        )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
