"""Quality and cost of several methods of upsampling a mask to the photo's size.

    python -m benchmarks.refine_quality --data_root EG1800/

The command prints a table of scores (metrics/) at the photos' own size. All methods upsample the
same answers of the network: bilinear, bicubic, the guided filter with the luma as guide (the
default until 2026-11-24), and `guided_upsample` of portraitnet/postprocess.py (the default).
--pictures FOLDER writes the cut-outs of all methods side by side.

    python -m benchmarks.refine_quality --data_root EG1800/ --specks --photos PHOTOS/

The command counts the specks and holes of the masks instead. The photos are those of a folder and
as many of the data set's as make 79 together, and examples/portrait.jpg with sensor noise.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.table import heading, row
from data.portraits import PortraitDataset
from metrics import boundary_f_score, boundary_iou, confusion, gradient_error, person_iou
from portraitnet.cli import make_parser
from portraitnet.effects import contact_sheet, matte, replace
from portraitnet.geometry import SIZE, input_shape, resize
from portraitnet.images import Image, Mask, Probability, mask_of, read_image, write_image
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
SPECK = 0.001  # fraction of the photo below which a region is a speck, or a hole
SPECK_PHOTOS = 79
NOISE, NOISY_SIDES = 8, (640, 1600, 3000)  # sigma, 0..255; longer sides, pixels
PORTRAIT = Path(__file__).parent.parent / "examples" / "portrait.jpg"


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
    add("--specks", action="store_true", help="count specks and holes instead of scoring")
    add("--photos", type=Path, help="folder of more photos for --specks, counted first")
    args = parser.parse_args(argv)
    if args.specks and (args.true_mask or args.pictures):
        parser.error("--specks counts on the network's masks: leave out --true_mask and --pictures")
    if args.photos and not args.specks:
        parser.error("argument --photos: has an effect with --specks alone")
    return args


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


def specks(mask: Mask) -> NDArray[np.int64]:
    """How many regions of a mask, and how many holes, are smaller than SPECK of the photo: (2,)."""
    counts = []
    for side in (mask, 1 - mask):
        _, _, found, _ = cv2.connectedComponentsWithStats(side)
        areas = found[1:, cv2.CC_STAT_AREA]
        counts.append(np.count_nonzero(areas < SPECK * mask.size))
    return np.array(counts)


def noisy(image: Image, side: int) -> Image:
    """The image at a longer side of `side` pixels, with sensor noise."""
    height, width = (round(length * side / max(image.shape)) for length in image.shape[:2])
    noise = np.random.default_rng(0).normal(0, NOISE, (height, width, 3))
    return np.clip(resize(image, height, width) + noise, 0, 255).astype(np.uint8)


def count_specks(dataset: PortraitDataset, photos: Path | None, predictor: Predictor) -> None:
    """Print how many specks and holes every method leaves."""
    paths = sorted(photos.glob("*.jpg")) if photos else []
    images = [read_image(path) for path in paths]
    images += [dataset.photo(i)[0] for i in range(min(len(dataset), SPECK_PHOTOS - len(images)))]
    groups = {f"{len(images)} photos": images}
    portrait = read_image(PORTRAIT)
    groups |= {f"noise, {side} px": [noisy(portrait, side)] for side in NOISY_SIDES}
    answers = {
        group: [network_answer(predictor, image) for image in images]
        for group, images in groups.items()
    }
    print(heading(["upsampling", *(f"{group}: specks, holes" for group in groups)]))
    for name, upsample in METHODS.items():
        totals = [
            sum(specks(mask_of(upsample(*each))) for each in zip(answers[group], images))
            for group, images in groups.items()
        ]
        print(row([name, *(f"{found}, {holes}" for found, holes in totals)]))


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cv2.setNumThreads(1)
    dataset = PortraitDataset(args.data_root, args.split)
    predictor = None if args.true_mask else open_predictor(args.model_path)
    if args.specks:
        count_specks(dataset, args.photos, predictor)
        return
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
