"""How well each way of cutting people out finds hair, on composites with known alpha.

    python -m benchmarks.matting --data_root EG1800/ --backgrounds backgrounds/

Portraits of EG1800's training list before plain backgrounds are the foregrounds. Their alpha is
solved in a wide band around the drawn mask, which is easy before a plain background; the result was
looked at one by one, and `FOREGROUNDS` lists the right ones. Each is put before a photo of the
held-out tenth of --backgrounds, and every method gets the composite. --mattes adds a second list, a
data folder with soft masks, in front of the same backgrounds. --pictures FOLDER writes the cut-outs
of every method, side by side.

The alpha comes from closed-form matting, so closed-form methods are favoured a little.
"""

import time
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.table import heading, row
from data.lists import read_lists, split_backgrounds
from metrics import connectivity_error, slopes
from portraitnet.cli import make_parser
from portraitnet.effects import contact_sheet, fill, matte, person_colors
from portraitnet.images import mask_of, read_alpha, read_image, read_mask, write_image
from portraitnet.matting import closed_form, matting
from portraitnet.postprocess import drop_doubtful, guided_upsample
from training.checkpoints import MODEL_PATH, open_predictor
from training.distillation import load_teacher

# Of EG1800's training list.
FOREGROUNDS = """
00004 00019 00027 00029 00033 00043 00127 00137 00151 00161 00230 00275 00281 00303 00431 00437
00441 00452 00472 00511 00583 00587 00599 00726 00817 00892 00938 01082 01099 01103 01116 01164
01180 01199 01217 01222 01248 02009 02049 02079 02099 02117 02141 02206 02207 02329 02344 02353
02368 02400 02411 02437 02489 02505 02514 02528 02532 02541 02560 02573 02586 02587 02590 02605
02615
""".split()
INNER, OUTER = 12, 22  # pixels: how far the band of the true alpha reaches from the drawn mask
BAND = 8  # pixels around a mixed alpha that count as the unknown band
MIXED = 0.02  # an alpha is mixed between this and one less this
WALL = (64, 177, 0)  # BGR, behind the cut-outs
# Of `eroded and feathered`: pixels of a photo of 600x800.
ERODED, FEATHER = 2, 2.0

SCORES = {
    "SAD, band": "sum of |alpha - truth| over the unknown band, thousands",
    "SAD": "the same over the whole photo",
    "MSE, band": "mean (alpha - truth)^2 in the band, thousandths",
    "gradient": "sum of squared differences of the slopes, thousands",
    "connectivity": "sum of differences in connectivity, thousands",
    "colour": "mean difference of the foreground colour in the band, weighted by the true alpha, "
    "0..255",
    "CPU s": "CPU seconds from the network's probability to the alpha",
}


def parse_args(argv=None):
    parser = make_parser(
        "Scores of several ways to find the opacity of hair.",
        example="python -m benchmarks.matting --data_root EG1800/ --backgrounds backgrounds/",
    )
    add = parser.add_argument
    add("--data_root", type=Path, required=True, help="EG1800, as downloaded")
    add("--backgrounds", required=True, help="folder of photos without people")
    add("--mattes", type=Path, help="second list: a data folder with soft masks (docs/data.md)")
    add("--model_path", type=Path, default=MODEL_PATH, help="model file")
    add("--mediapipe", type=Path, help="selfie_segmentation.tflite, for two more rows")
    add("--pictures", type=Path, help="folder for every method's cut-out of every composite")
    return parser.parse_args(argv)


def disc(radius):
    """A round structuring element, (2 radius + 1, 2 radius + 1) uint8 0/1."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def true_alpha(image, mask):
    """The opacity of a person before a plain background.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 0/1, as drawn.

    Returns:
        (H, W) float32 0..1.
    """
    mask = cv2.medianBlur(mask, 5)
    person = cv2.erode(mask, disc(INNER), borderType=cv2.BORDER_REPLICATE) > 0
    background = cv2.dilate(mask, disc(OUTER)) == 0
    start = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4)
    start[person], start[background] = 1, 0
    alpha = closed_form(image, start, ~person & ~background, iterations=400, tolerance=1e-5)
    # Noise keeps the solution a little away from 0 and 1.
    return np.clip((alpha - np.float32(MIXED)) / np.float32(1 - 2 * MIXED), 0, 1)


def true_colors(image, alpha):
    """The person's own colours, because the plain background is known nearly exactly.

    Args:
        image: (H, W, 3) uint8 BGR.
        alpha: (H, W) float32 0..1.

    Returns:
        (H, W, 3) float32 0..255; where alpha is under one half, the colours of the solid parts
        around.
    """
    image, weight = image.astype(np.float32), alpha[:, :, None]
    background = spread(image, (alpha < 0.003).astype(np.float32), (12, 60))
    solid = (alpha >= 0.5)[:, :, None]
    own = (image - (1 - weight) * background) / np.maximum(weight, 0.5)
    own = np.where(solid, np.clip(own, 0, 255), 0)
    around = spread(own, np.where(alpha >= 0.5, alpha**2, 0).astype(np.float32), (3, 15, 60))
    return np.where(solid, own, around)


def spread(colors, weight, sigmas):
    """Means of (H, W, 3) colours by (H, W) weights, under the narrowest Gaussian that has any."""
    result = None
    for sigma in reversed(sigmas):
        total = cv2.GaussianBlur(weight, (0, 0), sigma)
        mean = cv2.GaussianBlur(colors * weight[:, :, None], (0, 0), sigma)
        mean /= (total + np.float32(1e-6))[:, :, None]
        result = mean if result is None else np.where((total > 0.02)[:, :, None], mean, result)
    return result


def foregrounds(data_root, mattes):
    """Yield the name of a list, and image, alpha and colours of each of its foregrounds."""
    for name in FOREGROUNDS:
        image = read_image(data_root / "Images" / f"{name}.jpg")
        mask = read_mask(data_root / "Labels" / f"{name}.png")
        alpha = true_alpha(image, mask)
        yield "EG1800, plain backgrounds", image, alpha, true_colors(image, alpha)
    if mattes:
        for pair in read_lists(mattes)["train"]:
            if not pair.soft:
                continue
            image, alpha = read_image(pair.image_path), read_alpha(pair.mask_path)
            alpha = cv2.resize(alpha, image.shape[1::-1])
            yield "mattes", image, alpha, person_colors(image, alpha).astype(np.float32)


def composite(colors, alpha, background, blurred):
    """The person before another background, which is blurred as lenses do or sharp; uint8 BGR."""
    background = fill(background, *alpha.shape)
    if blurred:
        background = cv2.GaussianBlur(background, (0, 0), max(alpha.shape) / 300)
    weight = alpha[:, :, None]
    return np.rint(weight * colors + (1 - weight) * background).astype(np.uint8)


def eroded_and_feathered(image, probability):
    """What people do by hand: the mask a little smaller and blurred."""
    unit = max(image.shape) / 800
    mask = cv2.erode(mask_of(probability), disc(max(1, round(ERODED * unit))))
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), FEATHER * unit)


def methods(model_path, mediapipe):
    """Name -> (function of an image -> what it starts from, function of both -> alpha)."""
    predictor = open_predictor(model_path, threads=1)

    def answer(image):
        return drop_doubtful(predictor.run([predictor.prepare(image)])[0])

    def full_size(found, image):
        return cv2.resize(found, image.shape[1::-1])

    ways = {
        "none": (answer, lambda image, found: matte(full_size(found, image))),
        "fast": (answer, lambda image, found: matte(guided_upsample(found, image))),
        "eroded and feathered": (
            answer,
            lambda image, found: eroded_and_feathered(image, guided_upsample(found, image)),
        ),
        "hair": (answer, lambda image, found: predictor.restore_alpha(found, image, "hair")),
        "hair, one look": (answer, lambda image, found: matting(image, full_size(found, image))),
    }
    if mediapipe:

        def selfie(image):
            return mediapipe.probabilities([image])[0]

        ways["MediaPipe"] = selfie, lambda image, probability: probability
        ways["MediaPipe, hair"] = selfie, matting
    return ways


def score(alpha, truth, image, colors):
    """The values of SCORES but the time, in their order."""
    mixed = ((truth > MIXED) & (truth < 1 - MIXED)).astype(np.uint8)
    band = cv2.dilate(mixed, disc(round(BAND * max(truth.shape) / 800))) > 0
    error = np.abs(alpha - truth)
    found = person_colors(image, alpha).astype(np.float32)
    off = np.abs(found - colors).mean(axis=2)
    return [
        error[band].sum() / 1000,
        error.sum() / 1000,
        1000 * np.square(error[band]).mean(),
        np.square(slopes(alpha) - slopes(truth)).sum() / 1000,
        connectivity_error(alpha, truth) * truth.size / 1000,
        float((off * truth)[band].sum() / truth[band].sum()),
    ]


def main(argv=None):
    args = parse_args(argv)
    cv2.setNumThreads(1)
    ways = methods(args.model_path, load_teacher(args.mediapipe) if args.mediapipe else None)
    backgrounds = split_backgrounds(args.backgrounds)[1]
    scores = {}
    for index, (group, image, truth, colors) in enumerate(
        tqdm(foregrounds(args.data_root, args.mattes), unit="composite")
    ):
        background = read_image(backgrounds[index % len(backgrounds)])
        image = composite(colors, truth, background, blurred=index % 2 == 1)
        cells = [("composite", image), ("truth", on_wall(colors, truth))]
        for name, (answer, alpha_of) in ways.items():
            found = answer(image)
            start = time.process_time()
            alpha = alpha_of(image, found)
            seconds = time.process_time() - start
            values = [*score(alpha, truth, image, colors), seconds]
            scores.setdefault(group, {}).setdefault(name, []).append(values)
            if args.pictures:
                cells.append((name, on_wall(person_colors(image, alpha), alpha)))
        if args.pictures:
            path = args.pictures / f"{index:03d}.png"
            write_image(path, contact_sheet(cells, columns=4))
    for group, found in scores.items():
        print(f"{group}: {len(next(iter(found.values())))} composites\n")
        print(heading(["method", *SCORES]))
        for name, values in found.items():
            print(row([name, *(f"{mean:.2f}" for mean in np.mean(values, axis=0))]))
        print()
    for name, meaning in SCORES.items():
        print(f"{name}: {meaning}")


def on_wall(colors, alpha):
    """Colours (H, W, 3) before WALL, uint8 BGR."""
    weight = alpha[:, :, None]
    return np.rint(weight * colors + (1 - weight) * np.array(WALL)).astype(np.uint8)


if __name__ == "__main__":
    main()
