"""Quality and cost of several methods of upsampling a mask to the photo's size.

    python -m benchmarks.refine_quality --data_root EG1800/

The command prints a table of scores (metrics/) at the photos' own size. All methods upsample the
same answers of the network: bilinear, bicubic, the guided filter with the luma as guide (the
default until 2026-11-24), and `guided_upsample` of portraitnet/postprocess.py (the default).
--pictures FOLDER writes the cut-outs of all methods side by side.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.table import heading, row
from data.portraits import PortraitDataset
from metrics import boundary_f_score, boundary_iou, confusion, gradient_error, person_iou
from portraitnet.cli import make_parser
from portraitnet.effects import contact_sheet, matte, replace
from portraitnet.geometry import SIZE, input_shape, resize
from portraitnet.images import Image, Mask, Probability, mask_of, write_image
from portraitnet.postprocess import drop_doubtful, guided_upsample
from portraitnet.predictor import Predictor
from training.checkpoints import MODEL_PATH, open_predictor

SCORES = {  # heading -> function of a probability and the true mask; printed in per cent
    "boundary IoU": lambda probability, mask: boundary_iou(mask_of(probability), mask),
    "boundary F": lambda probability, mask: boundary_f_score(mask_of(probability), mask),
    "person IoU": lambda probability, mask: person_iou(confusion(mask_of(probability), mask)),
    "abs. error": lambda probability, mask: np.abs(probability - mask).mean(),
    "abs. error of the matte": lambda probability, mask: np.abs(matte(probability) - mask).mean(),
    "gradient error of the matte": lambda probability, mask: gradient_error(
        matte(probability), mask
    ),
}
SIZES = {"CPU ms at 1280x720": (720, 1280), "at 3000x4000": (4000, 3000)}  # height, width
TIMED = 12  # number of photos that are stretched to SIZES and timed
WALL = (90, 160, 60)  # BGR, background of the cut-outs


def luma_guided(
    probability: Probability,
    image: Image,
    side: int = 256,
    radius: float = 0.015,
    epsilon: float = 1e-3,
) -> Probability:
    """The fast guided filter with the luma as guide.

    Args:
        probability: (h, w) float32 0..1, of the network input.
        image: (H, W, 3) uint8 BGR, the photo.
        side: longer side at which the filter works, pixels.
        radius: half width of the window, as a fraction of the longer side.
        epsilon: regularisation.

    Returns:
        (H, W) float32 0..1.

    Source: He and Sun, "Fast Guided Filter", 2015.
    """
    height, width = image.shape[:2]
    ratio = min(1, side / max(height, width))
    small = max(1, round(width * ratio)), max(1, round(height * ratio))
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    guide = cv2.resize(luma, small, interpolation=cv2.INTER_AREA) / np.float32(255)
    probability = cv2.resize(probability, small)
    window = (2 * max(1, round(radius * max(small))) + 1,) * 2

    def mean(plane):
        return cv2.boxFilter(plane, -1, window, borderType=cv2.BORDER_REFLECT)

    levels = mean(guide), mean(probability)
    slope = mean(guide * probability) - levels[0] * levels[1]
    slope /= mean(guide * guide) - levels[0] ** 2 + epsilon
    offset = mean(levels[1] - slope * levels[0])
    slope, offset = (cv2.resize(plane, (width, height)) for plane in (mean(slope) / 255, offset))
    refined = cv2.multiply(slope, luma, dst=slope, dtype=cv2.CV_32F)
    refined += offset
    return np.clip(refined, 0, 1, out=refined)


METHODS = {  # name -> function of the network input's probability and the photo
    "bilinear": lambda probability, image: cv2.resize(probability, image.shape[1::-1]),
    "bicubic": lambda probability, image: cv2.resize(
        probability, image.shape[1::-1], interpolation=cv2.INTER_CUBIC
    ).clip(0, 1),
    "guided by luma": luma_guided,
    "guided by colour": guided_upsample,
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Score several methods of upsampling a mask to the photo's size.",
        example="python -m benchmarks.refine_quality --data_root EG1800/",
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="data folders (docs/data.md)")
    add("--split", choices=["train", "val", "test"], default="val", help="list to score")
    add("--model_path", type=Path, default=MODEL_PATH, help="model file")
    true_mask = "upsample the true mask at the network's resolution instead of the network's answer"
    add("--true_mask", action="store_true", help=true_mask)
    add("--pictures", type=Path, help="folder for the cut-outs of every photo")
    return parser.parse_args(argv)


def reduced(mask: Mask) -> Probability:
    """The best possible answer of a network: mask (H, W) uint8 0/1 -> (h, w) float32 0..1."""
    return resize(mask * np.uint8(255), *input_shape(*mask.shape, SIZE)) / np.float32(255)


def network_answer(predictor: Predictor, image: Image) -> Probability:
    """Image (H, W, 3) uint8 BGR -> probability (h, w) float32 0..1 of its network input."""
    return drop_doubtful(predictor.run([predictor.prepare(image)])[0])


def timed(
    upsample: Callable[[Probability, Image], Probability], answer: Probability, image: Image
) -> Iterator[float]:
    """Yield the CPU milliseconds for the image stretched to each of SIZES."""
    for height, width in SIZES.values():
        large = cv2.resize(image, (width, height))
        start = time.process_time()
        upsample(answer, large)
        yield 1000 * (time.process_time() - start)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cv2.setNumThreads(1)
    dataset = PortraitDataset(args.data_root, args.split)
    predictor = None if args.true_mask else open_predictor(args.model_path)
    scores = {name: [] for name in METHODS}
    milliseconds = {name: [] for name in METHODS}
    for index in tqdm(range(len(dataset))):
        image, mask = dataset.photo(index)
        answer = reduced(mask) if args.true_mask else network_answer(predictor, image)
        cut_outs = []
        for name, upsample in METHODS.items():
            probability = upsample(answer, image)
            scores[name].append([100 * score(probability, mask) for score in SCORES.values()])
            if index < TIMED:
                milliseconds[name].append(list(timed(upsample, answer, image)))
            if args.pictures:
                cut_outs.append((name, replace(image, probability, WALL)))
        if args.pictures:
            path = args.pictures / f"{Path(dataset.pairs[index].image_path).stem}.png"
            write_image(path, contact_sheet(cut_outs, columns=len(cut_outs)))
    source = "the true mask" if args.true_mask else args.model_path
    print(f"{len(dataset)} photos ({args.split}), {source}")
    print(heading(["upsampling", *SCORES, *SIZES]))
    for name in METHODS:
        means, medians = np.mean(scores[name], axis=0), np.median(milliseconds[name], axis=0)
        values = [f"{mean:.2f}" for mean in means]
        print(row([name, *values, *(f"{median:.1f}" for median in medians)]))


if __name__ == "__main__":
    main()
