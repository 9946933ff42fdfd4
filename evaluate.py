"""Score a checkpoint in every published protocol.

python evaluate.py --model_path output/model_59.pdparams --batch_size 32 --log_iter 10 \
    --data_root EG1800/
"""

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from backends import AUTO, BACKENDS
from dataset import SPLITS, PortraitDataset
from images import write_image, write_json
from metrics import PROTOCOLS, Scores
from predictor import Predictor
from transforms import SIZE, degrade, letterbox, letterbox_mask
from transforms.geometry import letterbox_box, resize

SHEET_SIDE = 240  # of a picture on the sheet of worst cases, pixels


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description="Score a checkpoint in every published protocol.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    add("--model_path", help="what train.py or export.py wrote (default: in weights/)")
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="auto: the fastest installed")
    add("--split", choices=SPLITS, default="test", help="which list")
    add("--batch_size", type=int, default=32, help="photos a step")
    add("--log_iter", type=int, default=10, help="iterations between progress lines")
    add("--degrade", action="store_true", help="vary light, blur and noise of the photos first")
    add("--refine", action=argparse.BooleanOptionalAction, default=True, help="as predict.py's")
    add("--seed", type=int, default=0, help="of --degrade, and of a validation split made here")
    add("--json", help="write the scores to this file too")
    add("--save_dir", help="write a sheet of the worst photos into this folder")
    add("--worst", type=int, default=20, help="photos on that sheet")
    return parser.parse_args(argv)


def evaluate(predictor, dataset, batch_size=32, log_iter=0, vary=None):
    """Score every photo of a data set.

    Args:
        predictor: Predictor.
        dataset: PortraitDataset; its photos are read at their own size.
        log_iter: iterations between progress lines, 0 for none.
        vary: function (image, index) -> image applied to the photos first, or None.

    Returns:
        Scores, and the seconds that the predictor took.
    """
    scores, seconds = Scores(), 0.0
    for iteration, start in enumerate(range(0, len(dataset), batch_size)):
        indices = range(start, min(start + batch_size, len(dataset)))
        photos, masks = zip(*(dataset.photo(i) for i in indices))
        if vary is not None:
            photos = [vary(photo, i) for photo, i in zip(photos, indices)]
        began = time.perf_counter()
        probabilities = predictor.probabilities(photos)
        seconds += time.perf_counter() - began
        for probability, mask in zip(probabilities, masks):
            square = letterbox(probability, SIZE, border=0)[0]
            scores.add(probability, mask, square, letterbox_mask(mask, SIZE))
        if log_iter and (iteration + 1) % log_iter == 0:
            so_far = scores.summary()
            told = f"acc: {so_far['accuracy']:.4f}, miou: {so_far['miou_raw']:.4f}"
            print(f"iter {iteration} {told}", flush=True)
    return scores, seconds


def degrade_photo(image, seed):
    """The training's texture transforms at the network's resolution, where they were tuned."""
    height, width = letterbox_box(*image.shape[:2], SIZE)[2:]
    small = degrade(resize(image, height, width), np.random.default_rng(seed))
    return resize(small, *image.shape[:2])


def worst_sheet(predictor, dataset, scores, count, vary=None):
    """Rows of photo, truth, prediction and error (red: invented, blue: missed), the worst first.

    Returns:
        image (count * SHEET_SIDE, 4 * SHEET_SIDE, 3) uint8 BGR.
    """
    order = np.argsort([photo["person_iou_full"] for photo in scores.photos])[:count]
    rows = []
    for index in map(int, order):
        image, mask = dataset.photo(index)
        image = image if vary is None else vary(image, index)
        person = predictor.probability(image) > 0.5
        error = (image * 0.4).astype(np.uint8)
        error[person & (mask == 0)] = (0, 0, 255)
        error[~person & (mask == 1)] = (255, 0, 0)
        pictures = [image, image * mask[:, :, None], image * person[:, :, None], error]
        row = np.hstack([letterbox(picture, SHEET_SIDE)[0] for picture in pictures])
        name = Path(dataset.pairs[index][0]).name
        told = f"{name}  person IoU {scores.photos[index]['person_iou_full']:.3f}"
        cv2.putText(row, told, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 255, 255), 1)
        rows.append(row)
    return np.vstack(rows)


def print_table(values):
    """One line a score: name, value, protocol."""
    for name, value in values.items():
        print(f"{name:20} {value:.4f}  {PROTOCOLS[name]}")


def main(argv=None):
    args = parse_args(argv)
    try:
        dataset = PortraitDataset(args.data_root, args.split, seed=args.seed)
        predictor = Predictor(args.model_path, args.backend, refine=args.refine)
    except (OSError, ValueError, ImportError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    model_path = str(predictor.model_path)
    told = f"{len(dataset)} photos of {args.split}, {model_path} with {predictor.backend}"
    print(*dataset.notes, told, sep="\n")

    vary = (lambda image, index: degrade_photo(image, (args.seed, index))) if args.degrade else None
    scores, seconds = evaluate(predictor, dataset, args.batch_size, args.log_iter, vary)
    values = scores.summary()
    told = f"acc: {values['accuracy']:.4f}, miou: {values['miou_raw']:.4f}"
    latency = 1000 * seconds / len(dataset)
    print(f"eval: {told}, {latency:.1f} ms a photo")
    print_table(values)
    if args.json:
        report = {"split": args.split, "photos": len(dataset), "degraded": args.degrade}
        report |= {
            "model_path": model_path,
            "backend": predictor.backend,
            "milliseconds": latency,
            "scores": values,
        }
        write_json(args.json, report)
    if args.save_dir:
        path = Path(args.save_dir) / f"worst_{args.split}.png"
        write_image(path, worst_sheet(predictor, dataset, scores, args.worst, vary))
        print(f"Worst photos: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
