"""Find the person in photos: `python predict.py photo.jpg` writes photo_overlay.png beside it."""

import argparse
import os
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import effects
from backends import AUTO, BACKENDS
from images import SUFFIXES, read_image, write_image
from predictor import Predictor

COLORS = {  # BGR
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (0, 0, 255),
    "green": (0, 177, 64),
    "blue": (255, 71, 0),
}
MODES = {  # name of the mode, and of its file -> function of image, probability and arguments
    "overlay": lambda image, probability, args: effects.overlay(image, probability),
    "mask": lambda image, probability, args: 255 * effects.mask_of(probability),
    "cutout": lambda image, probability, args: effects.cut_out(image, probability),
    "replace": lambda image, probability, args: effects.replace(
        image, probability, args.background
    ),
    "blur": lambda image, probability, args: effects.blur(image, probability, args.blur / 100),
    "grey": lambda image, probability, args: effects.grey(image, probability),
}
FAILURES = (OSError, ValueError, MemoryError, cv2.error)  # of one photo: the others go on


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("photos", nargs="+", type=Path, help="photos, or folders that are searched for photos")
    add("--model_path", type=Path, help="what train.py or export.py wrote (default: in weights/)")
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="auto: the fastest installed")
    add("--output", type=Path, help="folder of the results (default: beside each photo)")
    add("--mode", choices=MODES, default="overlay", help="what to write")
    add(
        "--background",
        type=background,
        default="green",
        help=f"for --mode replace: a photo, a color #rrggbb, or one of {', '.join(COLORS)}",
    )
    add("--blur", type=float, default=2.0, help="for --mode blur: sigma, %% of the longer side")
    add("--save_mask", action="store_true", help="write the 0/255 mask too: photo_mask.png")
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the mask follow the photo's edges",
    )
    add("--skip_existing", action="store_true", help="pass over photos whose result exists")
    add("--batch_size", type=int, default=4, help="photos the network sees at once")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f"--batch_size must be 1 or more, not {args.batch_size}")
    if args.blur < 0:
        parser.error(f"--blur must be 0 or more, not {args.blur}")
    return args


def background(text):
    """--background: the name of a color, #rrggbb, or the path of a photo -> BGR color or image."""
    if text in COLORS:
        return np.array(COLORS[text])
    if text.startswith("#") and len(text) == 7:
        try:
            return np.array(bytearray.fromhex(text[1:]))[::-1]
        except ValueError:
            pass  # no color: then it must be a file
    try:
        return read_image(text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"neither color nor photo: {error}") from None


def find_photos(paths):
    """Every photo under the given files and folders, once and in order, with its place in them.

    In a folder, hidden files are passed over, and so are results of earlier runs: "a_blur.png"
    where a photo "a" lies beside it.

    Returns:
        list of (path, relative path of its result's folder below --output).
    """
    found = {}
    for path in paths:
        if not path.is_dir():
            found.setdefault(path, Path())
            continue
        photos = sorted(p for p in path.rglob("[!.]*") if p.suffix.lower() in SUFFIXES)
        stems = {photo.with_suffix("") for photo in photos}
        for photo in photos:
            stem, _, mode = photo.stem.rpartition("_")
            if mode not in MODES or photo.with_name(stem) not in stems:
                found.setdefault(photo, photo.parent.relative_to(path))
    return list(found.items())


def plan(photos, args):
    """Pair each photo with the files of its results.

    Returns:
        list of (photo, results) and list of (photo, reason it cannot be done).
    """
    tasks = []
    for photo, place in photos:
        folder = args.output / place if args.output else photo.parent
        results = [folder / f"{photo.stem}_{mode}.png" for mode in modes(args)]
        tasks.append((photo, results))
    return without_clashes(tasks, [photo for photo, _ in photos])


def without_clashes(tasks, inputs):
    """Set apart every task whose result is an input or already that of another photo.

    Args:
        tasks: list of (photo, results).
        inputs: paths that must not be overwritten.

    Returns:
        list of (photo, results) and list of (photo, reason it cannot be done).
    """
    inputs = {path.resolve() for path in inputs}
    kept, refused, taken = [], [], {}
    for photo, results in tasks:
        key = results[0].resolve()
        overwritten = [result for result in results if result.resolve() in inputs]
        if overwritten:
            reason = f"its result {overwritten[0]} is an input and is kept: give another --output"
            refused.append((photo, reason))
        elif key in taken:
            reason = f"its result {results[0]} is already that of {taken[key]}: rename one of them"
            refused.append((photo, reason))
        else:
            taken[key] = photo
            kept.append((photo, results))
    return kept, refused


def modes(args):
    """The modes to write: --mode, and the mask if --save_mask asks for it."""
    return [args.mode] + ["mask"] * (args.save_mask and args.mode != "mask")


def ahead(pool, function, items, depth):
    """Call `function` on items in the threads of a pool, at most `depth` ahead of the reader.

    Yields:
        (item, future), in the order of the items.
    """
    items = iter(items)
    window = deque((item, pool.submit(function, item)) for item in islice(items, depth))
    while window:
        yield window.popleft()
        window.extend((item, pool.submit(function, item)) for item in islice(items, 1))


def predict(tasks, predictor, args):
    """Decode, run the network, write; the three overlap, and few photos are in memory at a time.

    Args:
        tasks: list of (photo, results), as `plan` makes them.

    Yields:
        (photo, result, share of person, seconds), or for a failure (photo, None, reason, None).
    """

    def load(task):
        start = time.perf_counter()
        image = read_image(task[0])
        view = predictor.prepare(image)
        return image, view, time.perf_counter() - start

    def finish(results, image, probability, seconds):
        start = time.perf_counter()
        probability = predictor.restore(probability, image)
        for mode, result in zip(modes(args), results):
            write_image(result, MODES[mode](image, probability, args))
        share = effects.mask_of(probability).mean()
        return share, seconds + time.perf_counter() - start

    def report(photo, result, future):
        try:
            return photo, result, *future.result()
        except FAILURES as error:
            return photo, None, str(error), None

    with ThreadPoolExecutor(2) as loaders, ThreadPoolExecutor(2) as finishers:
        writing = deque()
        loading = ahead(loaders, load, tasks, args.batch_size)
        while group := list(islice(loading, args.batch_size)):
            loaded = []
            for (photo, results), future in group:
                if future.exception() is None:
                    loaded.append((photo, results, *future.result()))
                else:
                    yield report(photo, None, future)
            if loaded:
                start = time.perf_counter()
                probabilities = predictor.run([view for _, _, _, view, _ in loaded])
                network = (time.perf_counter() - start) / len(loaded)
                for (photo, results, image, _, seconds), each in zip(loaded, probabilities):
                    future = finishers.submit(finish, results, image, each, seconds + network)
                    writing.append((photo, results[0], future))
            while len(writing) > args.batch_size:
                yield report(*writing.popleft())
        while writing:
            yield report(*writing.popleft())


def main(argv=None):
    args = parse_args(argv)
    tasks, refused = plan(find_photos(args.photos), args)
    if not tasks and not refused:
        folders = ", ".join(map(str, args.photos))
        print(f"No photo in {folders}: give {' '.join(SUFFIXES)} files.", file=sys.stderr)
        return 1
    # Set by `python -m paddle.distributed.launch`: every process takes its share of the list.
    rank = int(os.environ.get("PADDLE_TRAINER_ID", 0))
    count = int(os.environ.get("PADDLE_TRAINERS_NUM", 1))
    tasks, refused = tasks[rank::count], refused[rank::count]
    if args.skip_existing:
        todo = [task for task in tasks if not all(result.exists() for result in task[1])]
        print(f"{len(tasks) - len(todo)} photos skipped: their results exist.")
        tasks = todo
    try:
        predictor = Predictor(args.model_path, args.backend, refine=args.refine)
    except (OSError, ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{predictor.model_path} with {predictor.backend}")

    failed = len(refused)
    for photo, reason in refused:
        print(f"{photo}: {reason}.", file=sys.stderr)
    with tqdm(total=len(tasks), unit="photo", disable=len(tasks) < 2 or rank > 0) as bar:
        for photo, result, share, seconds in predict(tasks, predictor, args):
            if result is None:
                failed += 1
                reason = share if str(photo) in share else f"{photo}: {share}"
                tqdm.write(reason, file=sys.stderr)
            else:
                tqdm.write(f"{result}: {share:.1%} person, {1000 * seconds:.0f} ms")
            bar.update()
    if failed:
        print(f"{failed} of {len(tasks) + len(refused)} photos failed.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
