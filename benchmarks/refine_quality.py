"""How far the guided filter moves the mask's boundary towards the true one, and what it costs.

    python -m benchmarks.refine_quality --data_root EG1800/

prints a table of boundary scores at the photos' own size for bilinear and bicubic upsampling and
for `predictor.guided_upsample`, over one pass of the network.
"""

import time
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.table import heading, row
from dataset import PortraitDataset
from effects import mask_of
from flags import make_parser
from metrics import boundary_f_score, boundary_iou, confusion, person_iou
from predictor import MODEL_PATH, Predictor, guided_upsample
from transforms import SIZE
from transforms.geometry import resize, view_shape

METHODS = {  # name -> function of a view's probability and the photo
    "bilinear": lambda probability, image: cv2.resize(probability, image.shape[1::-1]),
    "bicubic": lambda probability, image: cv2.resize(
        probability, image.shape[1::-1], interpolation=cv2.INTER_CUBIC
    ).clip(0, 1),
    "guided": guided_upsample,
}


def parse_args(argv=None):
    parser = make_parser(
        "Boundary scores of three ways to bring a mask to the photo's size.",
        example="python -m benchmarks.refine_quality --data_root EG1800/",
    )
    add = parser.add_argument
    add("--data_root", nargs="+", required=True, help="one or more data folders (docs/data.md)")
    add("--split", choices=["train", "val", "test"], default="val", help="which photos")
    add("--model_path", type=Path, default=MODEL_PATH, help="weights that train.py wrote")
    add(
        "--true_mask",
        action="store_true",
        help="upsample the true mask, reduced to the photo's view, instead of the network's",
    )
    return parser.parse_args(argv)


def reduced(mask):
    """mask (H, W) uint8 0/1 -> (h, w) float32, the best answer a network can give in a view."""
    return resize(mask * np.uint8(255), *view_shape(*mask.shape, SIZE)) / np.float32(255)


def network_answer(predictor, image):
    """image (H, W, 3) uint8 -> (h, w) float32 probability of its view."""
    return predictor.run([predictor.prepare(image)])[0]


def main(argv=None):
    args = parse_args(argv)
    cv2.setNumThreads(1)
    dataset = PortraitDataset(args.data_root, args.split)
    predictor = None if args.true_mask else Predictor(args.model_path)
    scores = {name: [] for name in METHODS}
    for index in tqdm(range(len(dataset))):
        image, mask = dataset.photo(index)
        answer = reduced(mask) if args.true_mask else network_answer(predictor, image)
        for name, upsample in METHODS.items():
            start = time.perf_counter()
            prediction = mask_of(upsample(answer, image))
            milliseconds = 1000 * (time.perf_counter() - start)
            iou = person_iou(confusion(prediction, mask))
            edges = boundary_iou(prediction, mask), boundary_f_score(prediction, mask)
            scores[name].append((100 * edges[0], 100 * edges[1], 100 * iou, milliseconds))
    source = "the true mask" if args.true_mask else args.model_path
    print(f"{len(dataset)} photos ({args.split}), {source}")
    print(heading(["upsampling", "boundary IoU", "boundary F", "person IoU", "ms"]))
    for name, rows in scores.items():
        boundary, contour, iou, _ = np.mean(rows, axis=0)
        milliseconds = np.median(rows, axis=0)[3]
        values = f"{boundary:.2f}", f"{contour:.2f}", f"{iou:.2f}", f"{milliseconds:.1f}"
        print(row([name, *values]))


if __name__ == "__main__":
    main()
