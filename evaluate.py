"""Score a checkpoint with every published protocol.

python evaluate.py --model_path output/model_59.pdparams --batch_size 32 --log_iter 10 \
    --data_root EG1800/
"""

import argparse
import copy
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.lists import DATA_ROOT, SPLITS
from data.portraits import PortraitDataset, validation_sets
from metrics import PROTOCOLS, SELECTION, Scores, score
from portraitnet.backends import AUTO, BACKENDS, DEFAULT, MODEL_HELP, choose
from portraitnet.cli import command, int_range, make_parser, sentence
from portraitnet.effects import contact_sheet
from portraitnet.files import check_writable, write_json
from portraitnet.geometry import letterbox
from portraitnet.images import THRESHOLD, Image, Mask, Probability, write_image
from portraitnet.jobs import Failure
from portraitnet.parallel import FAILURES
from portraitnet.predictor import Predictor
from training.checkpoints import open_predictor
from transforms import degrade_photo

SHEET_SIDE = 240  # of a picture on the sheet of the worst photos, pixels
Vary = Callable[[Image, int], Image]  # function of an image and its index -> corrupted image


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Score a checkpoint with every published protocol, each data folder separately.",
        example="python evaluate.py --split val --data_root EG1800/",
    )
    add = parser.add_argument_group("data").add_argument
    roots = "data folders (docs/data.md); default: the checkpoint's training data, or EG1800/"
    add("--data_root", nargs="+", help=roots)
    add("--split", choices=SPLITS, default="test", help="list to score")
    degrade = "corrupt the photos before scoring (light, blur, noise)"
    add("--degrade", action="store_true", help=degrade)
    seed = "seed of --degrade and of the choice of validation photos if no list names them"
    add("--seed", type=int_range(), default=0, help=seed)
    add = parser.add_argument_group("network").add_argument
    add("--model_path", default=DEFAULT, help=MODEL_HELP)
    backend = "runtime of the network; auto: the fastest installed"
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help=backend)
    add("--batch_size", type=int_range(1), default=32, help="photos in a batch")
    refine = "let the mask follow the photo's edges"
    add("--refine", action=argparse.BooleanOptionalAction, default=True, help=refine)
    add = parser.add_argument_group("results").add_argument
    log_iter = "iterations between progress lines; 0 for none"
    add("--log_iter", type=int_range(), default=10, help=log_iter)
    add("--json", help="file for the scores as JSON")
    add("--save_dir", help="folder for a contact sheet of the worst photos")
    add("--worst", type=int_range(1), default=20, help="number of photos on that sheet")
    return parser.parse_args(argv)


def choose_data(model_path: str) -> list[str]:
    """The default data folders: the `data_root` in args.json beside the checkpoint, or DATA_ROOT.

    Raises:
        ValueError: args.json has no `data_root`.
    """
    settings = choose(model_path).path.with_name("args.json")
    if not settings.is_file():
        return [DATA_ROOT]
    try:
        roots = [str(root) for root in json.loads(settings.read_text())["data_root"]]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{settings} has no valid data_root: give --data_root.") from None
    print(f"--data_root {' '.join(roots)}, from {settings}.")
    return roots


def worst_sheet(
    predictor: Predictor,
    dataset: PortraitDataset,
    scores: Scores,
    count: int,
    vary: Vary | None = None,
    failed: Collection[int] = (),
) -> Image:
    """Rows of photo, true mask, prediction and error; the worst photo is first.

    Args:
        predictor: the network.
        dataset: the photos.
        scores: scores of the photos that could be read.
        count: number of rows.
        vary: function of an image and its index that corrupts the image first, or None.
        failed: indices of photos without scores.

    Returns:
        (H, W, 3) uint8 BGR. Labels begin with the photo's person IoU. False person is red, missed
        person blue.
    """
    ious = [each["person_iou_full"] for each in scores.photo_scores]
    scored = [index for index in range(len(dataset)) if index not in failed]
    cells = []
    for iou, index in sorted(zip(ious, scored))[:count]:
        image, mask = dataset.photo(index)
        image = image if vary is None else vary(image, index)
        true, person = mask > THRESHOLD, predictor.probability(image) > THRESHOLD
        error = (image * 0.4).astype(np.uint8)
        error[person & ~true] = (0, 0, 255)
        error[~person & true] = (255, 0, 0)
        pictures = [image, image * true[:, :, None], image * person[:, :, None], error]
        name = Path(dataset.pairs[index].image_path).name
        labels = f"{iou:.3f} {name}", "truth", "mask", "error"
        cells += zip(labels, (letterbox(picture, SHEET_SIDE)[0] for picture in pictures))
    return contact_sheet(cells, columns=4)


class Evaluation(NamedTuple):
    """The result of `evaluate`.

    Attributes:
        scores: Scores of all photos that could be read.
        unrefined: the same of the network's answers without refinement and without the scores of
            the matting, if asked for.
        seconds: time that the predictor took.
        failed: {index: error} of unreadable photos.
    """

    scores: Scores
    seconds: float
    failed: dict[int, Exception]
    unrefined: Scores | None = None


def evaluate(
    predictor: Predictor,
    dataset: PortraitDataset,
    batch_size: int = 32,
    log_iter: int = 0,
    vary: Vary | None = None,
    unrefined: bool = False,
) -> Evaluation:
    """Score every readable photo of a data set and print the progress.

    Args:
        predictor: the network.
        dataset: the photos, read at their own size.
        batch_size: photos in a batch.
        log_iter: iterations between progress lines; 0 for none.
        vary: function of an image and its index that corrupts the image first, or None.
        unrefined: whether to score the same answers without refinement too.
    """
    seconds, iterations, failed = 0.0, 0, {}
    plain, masks, bilinear = Scores() if unrefined else None, deque(), copy.copy(predictor)
    bilinear.refine = False

    def readable_photos() -> Iterator[tuple[Image, Mask | Probability]]:
        for index in range(len(dataset)):
            try:
                image, mask = dataset.photo(index)
            except FAILURES as error:
                failed[index] = error
            else:
                masks.append(mask)
                yield image if vary is None else vary(image, index), mask

    def probabilities(images):
        nonlocal seconds
        began = time.perf_counter()
        answers = predictor.run([predictor.prepare(image) for image in images], images)
        restored = [predictor.restore(*each) for each in zip(answers, images)]
        seconds += time.perf_counter() - began
        for answer, image in zip(answers, images):
            mask = masks.popleft()
            if plain is not None:
                plain.add(bilinear.restore(answer, image), mask)
        return restored

    def progress(scores):
        nonlocal iterations
        iterations += 1
        if log_iter and iterations % log_iter == 0:
            print(f"iter {iterations - 1} {short(scores.summary())}", flush=True)

    scores = score(probabilities, readable_photos(), batch_size, matting=True, progress=progress)
    return Evaluation(scores, seconds, failed, plain)


def short(summary: dict[str, float]) -> str:
    """The two scores of the homework report."""
    return f"acc: {summary['accuracy']:.4f}, miou: {summary['miou_raw']:.4f}"


def epoch_scores(summary: dict[str, float]) -> str:
    """The scores that train.py prints after each epoch."""
    return (
        f"{short(summary)}, person iou: {summary[SELECTION]:.4f}, "
        f"boundary iou: {summary['boundary_iou']:.4f}"
    )


def print_table(summary: dict[str, float], intervals: dict[str, tuple[float, float]]) -> None:
    """One line a score: name, value, 95 % interval, protocol."""
    width = max(map(len, summary))
    for name, value in summary.items():
        low, high = intervals[name]
        print(f"{name:{width}} {value:.4f}  {low:.4f}-{high:.4f}  {PROTOCOLS[name]}")


@command("evaluate.py")
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    data_root = args.data_root or choose_data(args.model_path)
    sets = validation_sets(data_root, args.split, args.seed)
    predictor = open_predictor(args.model_path, args.backend, refine=args.refine)
    sheets = {
        name: Path(args.save_dir, f"worst_{name}_{args.split}.png".replace("/", "_"))
        for name in (sets if args.save_dir else ())
    }
    for path in filter(None, (args.json, *sheets.values())):  # before the scoring
        check_writable(path, keep=[predictor.model_path])
    model_path = str(predictor.model_path)
    report = {"model_path": model_path, "backend": predictor.backend, "split": args.split}
    report |= {"degraded": args.degrade, "lists": {}}
    vary = (lambda image, index: degrade_photo(image, (args.seed, index))) if args.degrade else None

    failures = 0
    for name, dataset in sets.items():
        message = f"{name}: {len(dataset)} photos of {args.split}, {model_path} with"
        print(*dataset.notes, f"{message} {predictor.backend}", sep="\n")
        known = args.refine and predictor.backend == "paddle"  # a checkpoint's, from its training
        scores, seconds, failed, unrefined = evaluate(
            predictor, dataset, args.batch_size, args.log_iter, vary, unrefined=known
        )
        count, failures = len(scores.photo_scores), failures + len(failed)
        for index, error in failed.items():
            failure = Failure(dataset.pairs[index].image_path, sentence(error))
            print(f"evaluate.py: {failure}", file=sys.stderr)
        if not count:
            raise ValueError(f"No photo of {name} can be read: `check.py` names all problems.")
        summary, intervals = scores.summary(), scores.intervals()
        latency = 1000 * seconds / count
        print(f"eval: {short(summary)}, {latency:.1f} ms a photo")
        print_table(summary, intervals)
        if unrefined is not None:
            plain = unrefined.summary()
            print(f"without refinement, as train.py prints it: {epoch_scores(plain)}")
            report["unrefined"] = report.get("unrefined", {}) | {name: plain}
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
    if failures:
        print(
            f"evaluate.py: {failures} photos failed and are not part of the scores.",
            file=sys.stderr,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
