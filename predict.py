"""Find the person in photos: `python predict.py photo.jpg` writes photo_overlay.png beside it."""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from backends import AUTO, BACKENDS
from backgrounds import COLORS, read_background
from effects import EFFECTS, Options, mask_of
from flags import command, make_parser, real, whole
from images import SUFFIXES, read_image, write_image
from pipeline import outcomes
from predictor import Predictor
from tasks import Failure, Task, find_photos, without_clashes


def parse_args(argv=None):
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("photos", nargs="+", type=Path, help="photos, or folders that are searched for photos")
    add("--model_path", type=Path, help="what train.py or export.py wrote (default: in weights/)")
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help="auto: the fastest installed")
    add("--output", type=Path, help="folder of the results (default: beside each photo)")
    add("--mode", choices=EFFECTS, default="overlay", help="what to write")
    add(
        "--background",
        default="green",
        help=f"for --mode replace: a photo, a colour #rrggbb, or one of {', '.join(COLORS)}",
    )
    add(
        "--blur",
        type=real(),
        default=2.0,
        help="for --mode blur: sigma, %% of the longer side",
    )
    add("--save_mask", action="store_true", help="write the 0/255 mask too: photo_mask.png")
    add(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the mask follow the photo's edges",
    )
    add("--skip_existing", action="store_true", help="pass over photos whose result exists")
    add("--batch_size", type=whole(1), default=4, help="photos the network sees at once")
    args = parser.parse_args(argv)
    try:
        background = read_background(args.background)
    except ValueError as error:
        parser.error(f"argument --background: {error}")
    args.options = Options(background, args.blur / 100)
    return args


def plan(args):
    """Pair each photo with the files of its results: tasks, and failures where that cannot be."""
    photos = find_photos(args.photos)
    tasks = []
    for path, place in photos:
        folder = args.output / place if args.output else path.parent
        tasks.append(Task(path, [folder / f"{path.stem}_{mode}.png" for mode in modes(args)]))
    return without_clashes(tasks, [*dict(photos), Path(args.background)])


def modes(args):
    """The effects to write: --mode, and the mask if --save_mask asks for it."""
    return [args.mode] + ["mask"] * (args.save_mask and args.mode != "mask")


def predict(tasks, predictor, args):
    """Write the results of each task.

    Yields:
        Outcome of a task, its result the share of person.
    """

    def prepare(task):
        image = read_image(task.path)
        return image, predictor.prepare(image)

    def network(prepared):
        return predictor.run([view for _, view in prepared])

    def finish(task, prepared, probability):
        image, _ = prepared
        probability = predictor.restore(probability, image)
        for mode, result in zip(modes(args), task.results):
            write_image(result, EFFECTS[mode](image, probability, args.options))
        return mask_of(probability).mean()

    size = args.batch_size
    return outcomes(tasks, prepare, network, finish, readers=2, depth=size, batch_size=size)


@command("predict.py")
def main(argv=None):
    args = parse_args(argv)
    tasks, refused = plan(args)
    if not tasks and not refused:
        folders = ", ".join(map(str, args.photos))
        raise FileNotFoundError(f"No photo in {folders}: give {' '.join(SUFFIXES)} files.")
    # Set by `python -m paddle.distributed.launch`: every process takes its share of the list.
    rank = int(os.environ.get("PADDLE_TRAINER_ID", 0))
    count = int(os.environ.get("PADDLE_TRAINERS_NUM", 1))
    tasks, refused = tasks[rank::count], refused[rank::count]
    if args.skip_existing:
        todo = [task for task in tasks if not all(result.exists() for result in task.results)]
        print(f"{len(tasks) - len(todo)} photos skipped: their results exist.")
        tasks = todo
    predictor = Predictor(args.model_path, args.backend, refine=args.refine)
    print(f"{predictor.model_path} with {predictor.backend}")

    failed = len(refused)
    for failure in refused:
        print(f"predict.py: {failure}", file=sys.stderr)
    with tqdm(total=len(tasks), unit="photo", disable=len(tasks) < 2 or rank > 0) as bar:
        for (path, results), share, error, seconds in predict(tasks, predictor, args):
            if error is not None:
                failed += 1
                tqdm.write(f"predict.py: {Failure(path, str(error))}", file=sys.stderr)
            else:
                tqdm.write(f"{results[0]}: {share:.1%} person, {1000 * seconds:.0f} ms")
            bar.update()
    if failed:
        count = len(tasks) + len(refused)
        print(f"predict.py: {failed} of {count} photos failed.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
