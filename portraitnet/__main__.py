"""Find the person in photos: `portraitnet photo.jpg` writes photo_overlay.png beside it.

In a clone `python predict.py` is the same command, which also runs checkpoints with Paddle.
`portraitnet serve` answers over HTTP (portraitnet/server/).
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from portraitnet.backends import AUTO, BACKENDS, DEFAULT, MODEL_HELP, MODELS
from portraitnet.backgrounds import COLORS, read_background
from portraitnet.cli import command, float_range, int_range, make_parser, sentence, shard
from portraitnet.effects import EFFECTS, WITH_ALPHA, Layers, Options
from portraitnet.files import is_whole
from portraitnet.images import (
    MAX_PIXELS,
    OPAQUE,
    SUFFIXES,
    THRESHOLD,
    can_write,
    decode_layers,
    encode_image,
    is_opened,
    mask_of,
    over_white,
    read_bytes,
    write_image,
)
from portraitnet.jobs import (
    PIPE,
    Failure,
    Task,
    find_photos,
    in_shard,
    is_file_name,
    without_clashes,
)
from portraitnet.matting import METHODS
from portraitnet.parallel import Outcome, core_count, in_processes, keep_memory, outcomes
from portraitnet.postprocess import MIN_PERSON_MEAN
from portraitnet.predictor import Predictor
from portraitnet.server.__main__ import serve

BACKGROUND, BLUR = "green", 2.0  # what --mode replace and --mode blur use by default
MATTING = "fast"  # the method that the probability has gone through already
PROCESS_PHOTOS = 16  # photos that make up for the start of one more process, about a second


class Found(NamedTuple):
    """What was found in a photo.

    Attributes:
        person: fraction of the photo's pixels that are person.
        certainty: mean probability of the network where it sees a person, 1 where it sees none.
    """

    person: float
    certainty: float


def parse_args(argv=None, program="portraitnet", parser_class=argparse.ArgumentParser):
    words = f"python {program}" if program.endswith(".py") else program
    parser = make_parser(
        "Find the person in photos. Without flags, photo.jpg gets photo_overlay.png beside it: the"
        " person tinted and outlined, to judge by eye. --mode cutout cuts the person out. The word"
        " serve instead of photos answers over HTTP.",
        example=f"{words} photo.jpg --mode cutout -o person.png",
        parser_class=parser_class,
    )
    photos = "photos, or folders that are searched for photos; - reads one photo from stdin"
    parser.add_argument("photos", nargs="+", type=path_or_pipe, help=photos)
    add_result_flags(parser.add_argument_group("results"))
    add_network_flags(parser.add_argument_group("network"))
    args = parser.parse_args(argv)
    for flag, mode in (("background", "replace"), ("blur", "blur")):
        if getattr(args, flag) is not None and args.mode != mode:
            parser.error(f"argument --{flag}: has an effect with --mode {mode} alone")
    if args.matting and args.mode not in WITH_ALPHA:
        parser.error(f"argument --matting: has an effect with --mode {', '.join(WITH_ALPHA)} alone")
    if args.matting and not args.refine:
        parser.error("argument --matting: --no-refine means --matting none; give one of the two")
    try:
        background = read_background(args.background or BACKGROUND)
    except ValueError as error:
        parser.error(f"argument --background: {error}")
    args.options = Options(background, (BLUR if args.blur is None else args.blur) / 100)
    if args.photos == [PIPE] and args.output is None:
        args.output = PIPE
    args.output_file = args.output is not None and is_file_name(args.output)
    if message := contradiction(args):
        parser.error(message)
    return args


def path_or_pipe(text):
    """Type of a path; the other names of - are - too."""
    return PIPE if text in ("/dev/stdin", "/dev/stdout") else Path(text)


def add_result_flags(group):
    add = group.add_argument
    output = (
        "folder of the results; or the file of a single result, such as person.png; - is stdout"
    )
    add("-o", "--output", type=path_or_pipe, help=f"{output} (default: beside each photo)")
    add(
        "--mode", choices=EFFECTS, default="overlay", help="effect; the ending of the result's name"
    )
    colors = ", ".join(COLORS)
    background = f"background of --mode replace: a photo, a colour #rrggbb, or one of {colors}"
    add("--background", help=f"{background} (default: {BACKGROUND})")
    blur = "strength of --mode blur: sigma in %% of the longer side"
    add("--blur", type=float_range(), help=f"{blur} (default: {BLUR:g})")
    matting = (
        "opacity of hair. none: the network's answer, enlarged; fast: edges as in the photo; hair:"
        " single strands by closed-form matting, 0.2 to 1.6 seconds more for each photo"
    )
    add("--matting", choices=METHODS, help=f"{matting} (default: {MATTING})")
    add("--save_mask", action="store_true", help="also write the 0/255 mask: photo_mask.png")
    add("--skip_existing", action="store_true", help="skip photos whose results exist")
    part = "only this part of the photos, so that several machines each do one, such as 3/16"
    add("--shard", type=shard, metavar="PART/COUNT", default="1/1", help=part)
    add("--json", action="store_true", help="print a line of JSON for each photo")
    require = "exit code 3 if any photo contains no person"
    add("--require_person", action="store_true", help=require)


def add_network_flags(group):
    add = group.add_argument
    add("--model_path", default=DEFAULT, help=MODEL_HELP)
    backend = "runtime of the network; auto: the fastest installed"
    add("--backend", choices=[AUTO, *BACKENDS], default=AUTO, help=backend)
    refine = "let the mask follow the photo's edges"
    add("--refine", action=argparse.BooleanOptionalAction, default=True, help=refine)
    add("--batch_size", type=int_range(1), default=4, help="photos in a batch of the network")
    add("--max_pixels", type=int_range(1), default=MAX_PIXELS, help="pixel limit of a photo")


def contradiction(args):
    """What is wrong with photos and --output together, a sentence; None if nothing is."""
    if PIPE in args.photos and len(args.photos) > 1:
        return "- reads one photo from stdin: give no other photo beside it"
    if PIPE in args.photos and not args.output_file:
        return f"a photo from stdin has no name: give --output a file, not the folder {args.output}"
    if args.output_file and (len(args.photos) > 1 or args.photos[0].is_dir()):
        return f"--output {args.output} is one file: give a folder, or a single photo"
    if args.output is None and (opened := next(filter(is_opened, args.photos), None)):
        return f"a photo from {opened} has no name: give --output a file"
    endings = [suffix for suffix in SUFFIXES if can_write(f"a{suffix}")]
    if args.output_file and args.output != PIPE and args.output.suffix.lower() not in endings:
        return (
            f"{args.output}: cannot write {args.output.suffix} files: name a folder, or a file "
            f"ending in {' '.join(endings)}"
        )
    if args.output_file and args.mode == "cutout" and args.output.suffix.lower() in OPAQUE:
        return f"{args.output} cannot hold a transparent background: name a .png"
    if args.output == PIPE and (args.json or args.save_mask):
        return "the picture goes to stdout and nothing else can: give --output a file"
    return None


def plan(args):
    """Pair each photo with the files of its results: tasks, and failures where that cannot be."""
    photos, unread = find_photos(args.photos, EFFECTS)
    photos = [photo for photo in photos if in_shard(photo, args.shard)]
    tasks = [Task(path, results_of(path, place, args)) for path, place in photos]
    inputs = [*dict(photos), Path(args.background or BACKGROUND)]
    tasks, refused = without_clashes(tasks, [path for path in inputs if path != PIPE])
    return tasks, unread + refused


def results_of(path, place, args):
    """The paths of a photo's results, in the order of `modes`."""
    if args.output_file:
        mask = args.output.with_name(f"{args.output.stem}_mask.png")
        return [args.output, mask][: len(modes(args))]
    folder = args.output / place if args.output else path.parent
    return [folder / f"{path.stem}_{mode}.png" for mode in modes(args)]


def modes(args):
    """The effects to write: --mode, and the mask if --save_mask asks for it."""
    return [args.mode] + ["mask"] * (args.save_mask and args.mode != "mask")


def read(path, max_pixels):
    """A photo from a file or from stdin.

    Returns:
        image: (H, W, 3) uint8 BGR, transparency over white.
        layers: Layers where the photo has transparency, else None.
    """
    if path == PIPE:
        data, path = sys.stdin.buffer.read(), "stdin"
    else:
        data = read_bytes(path)
    return decode(data, path, max_pixels)


def decode(data, name, max_pixels):
    """As `read`, from the content of a file; `name` is what errors call it."""
    colors, alpha = decode_layers(data, name, max_pixels)
    if alpha is None:
        return colors, None
    return over_white(colors, alpha), Layers(colors, alpha)


def write(path, picture):
    """Write a result to its file, or as PNG to stdout."""
    if path != PIPE:
        write_image(path, picture)
        return
    sys.stdout.buffer.write(encode_image("stdout.png", picture))
    sys.stdout.buffer.flush()


def predict(tasks, predictor, args, read=read, write=write):
    """Write the results of each task.

    Args:
        tasks: any number of Task.
        predictor: the network.
        args: of `parse_args`.
        read, write: what opens a task's path and takes its pictures; see the functions above.

    Yields:
        Outcome of a task, its result Found.
    """

    def prepare(task):
        image, layers = read(task.path, args.max_pixels)
        return image, layers, predictor.prepare(image)

    def network(prepared):
        images, _, inputs = zip(*prepared)
        return predictor.run(inputs, images)

    def finish(task, prepared, answer):
        image, layers, _ = prepared
        probability, options = restore(predictor, answer, image, layers, args)
        for mode, result in zip(modes(args), task.results):
            write(result, EFFECTS[mode](image, probability, options))
        person = answer > THRESHOLD
        certainty = float(answer[person].mean()) if person.any() else 1.0
        return Found(float(mask_of(probability).mean()), certainty)

    size = args.batch_size
    return outcomes(tasks, prepare, network, finish, readers=2, depth=size, batch_size=size)


def restore(predictor, answer, image, layers, args):
    """The network's answer -> the probability of an image, and the Options of its effects."""
    probability = predictor.restore(answer, image)
    alpha = None
    if args.matting not in (None, MATTING):
        alpha = predictor.restore_alpha(answer, image, args.matting)
    return probability, args.options._replace(layers=layers, alpha=alpha)


def open_process(open_predictor, args, photos):
    """The function of a task -> Outcome that one of several processes calls; see `in_processes`."""
    predictor = open_predictor(
        args.model_path, args.backend, refine=args.refine, threads=1, photos=photos
    )
    return lambda task: next(predict([task], predictor, args))


def report(outcome, seconds, args, log, program):
    """Print what became of a photo: a line to `log`, or of JSON; a failure to stderr too."""
    path, results = outcome.item
    if outcome.error is not None:
        facts = {"photo": str(path), "error": sentence(outcome.error)}
        tqdm.write(f"{program}: {Failure(path, facts['error'])}", file=sys.stderr)
    else:
        person, certainty = outcome.result
        facts = {"photo": str(path), "results": [str(result) for result in results]}
        facts |= {"person": round(person, 4), "milliseconds": round(1000 * seconds, 1)}
        if not args.json:
            name = "stdout" if results[0] == PIPE else results[0]
            tqdm.write(f"{name}: {person:.1%} person, {1000 * seconds:.0f} ms", file=log)
        if person == 0:
            tqdm.write(f"{program}: {path}: no person was found.", file=sys.stderr)
        elif certainty < MIN_PERSON_MEAN:
            tqdm.write(
                f"{program}: {path}: the network is unsure of its person (mean probability "
                f"{certainty:.2f}); look at the mask, or train the network longer.",
                file=sys.stderr,
            )
    if args.json:
        tqdm.write(json.dumps(facts), file=sys.stdout)


def make_command(program: str, open_predictor: Callable[..., Predictor]) -> Callable:
    """The command's `main(argv)`, which returns the exit code.

    Args:
        program: name of the command in its messages.
        open_predictor: `Predictor`, or a function with its arguments that runs more kinds of files.
    """
    main = functools.partial(run_command, program=program, open_predictor=open_predictor)
    return command(program)(main)


def run_command(argv, program, open_predictor):
    """See `make_command`."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["serve"]:
        return serve(argv[1:], open_predictor)
    args = parse_args(argv, program)
    keep_memory()
    if args.output == PIPE and sys.stdout.isatty():
        message = "stdout is a terminal: redirect it (`> person.png`) or give --output a file."
        print(f"{program}: {message}", file=sys.stderr)
        return 2
    # What is said goes where no result goes.
    log = sys.stderr if args.json or args.output == PIPE else sys.stdout
    tasks, refused = plan(args)
    if not tasks and not refused:
        folders = ", ".join(map(str, args.photos))
        raise FileNotFoundError(f"No photo in {folders}: give {' '.join(SUFFIXES)} files.")
    # Set by `python -m paddle.distributed.launch`: every process takes its part of the list.
    rank = int(os.environ.get("PADDLE_TRAINER_ID", 0))
    count = int(os.environ.get("PADDLE_TRAINERS_NUM", 1))
    tasks, refused = tasks[rank::count], refused[rank::count]
    if args.skip_existing:
        todo = [task for task in tasks if not all(map(is_whole, task.results))]
        print(f"{len(tasks) - len(todo)} photos skipped: their results exist.", file=log)
        tasks = todo
    processes = max(1, min(core_count(), len(tasks) // PROCESS_PHOTOS))
    photos = len(tasks) // processes
    predictor = open_predictor(args.model_path, args.backend, refine=args.refine, photos=photos)
    print(f"{predictor.model_path} with {predictor.backend}", file=log)
    if args.model_path in MODELS and args.backend == AUTO and predictor.backend == "paddle":
        message = "`pip install -r requirements-apps.txt` makes it about seven times as fast."
        print(f"Paddle runs the network; {message}", file=log)

    refused = [Outcome(Task(path, []), error=ValueError(reason)) for path, reason in refused]
    if processes == 1:
        done = predict(tasks, predictor, args)
    else:  # a photo is read, run and written by one core
        done = in_processes(open_process, (open_predictor, args, photos), tasks, processes)
    failed, empty, count, last = 0, 0, len(tasks) + len(refused), time.perf_counter()
    with tqdm(total=count, unit="photo", disable=count < 2 or rank > 0) as bar:
        for outcome in chain(refused, done):
            # Photos overlap: a photo's time is its part of the whole run.
            now = time.perf_counter()
            report(outcome, now - last, args, log, program)
            last = now
            failed += outcome.error is not None
            empty += outcome.result is not None and outcome.result.person == 0
            bar.update()
    if failed:
        print(f"{program}: {failed} of {count} photos failed.", file=sys.stderr)
        return 1
    return 3 if empty and args.require_person else 0


main = make_command("portraitnet", Predictor)

if __name__ == "__main__":
    sys.exit(main())
