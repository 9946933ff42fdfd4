"""Break the line behind each promise, once, and see a test fail: python -m benchmarks.mutations

Works on a copy of the repository's tracked files. Prints a row of docs/reliability.md for each
promise, and ends with 1 if a break went unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.table import heading, row
from portraitnet.cli import command, make_parser

ROOT = Path(__file__).parent.parent


class Mutation(NamedTuple):
    """A promise, the text that keeps it (once in its file), what breaks it, and who must notice."""

    promise: str
    file: str
    kept: str
    broken: str
    test: str


MUTATIONS = [
    Mutation(
        "a file is whole or not there",
        "portraitnet/files.py",
        "        yield temporary\n",
        "        yield path\n",
        "tests/portraitnet/test_files.py",
    ),
    Mutation(
        "a cached photo is whole or not there",
        "data/cache.py",
        "np.save(temporary, photo)",
        "np.save(path, photo)",
        "tests/test_faults.py -k cache",
    ),
    Mutation(
        "it is on the disk before it has its name",
        "portraitnet/files.py",
        "            sync(temporary)",
        "            str(temporary)",
        "tests/test_faults.py -k before_it_has_its_name",
    ),
    Mutation(
        "what a killed process was writing goes",
        "portraitnet/files.py",
        "        remove_partials(path.parent)\n",
        "",
        "tests/test_faults.py -k goes_with_the_next",
    ),
    Mutation(
        "a failed write leaves nothing",
        "portraitnet/files.py",
        "            temporary.unlink(missing_ok=True)",
        "            pass",
        "tests/portraitnet/test_files.py",
    ),
    Mutation(
        "a hard link to an input is an input",
        "portraitnet/files.py",
        "        if linked or",
        "        if",
        "tests/portraitnet/test_files.py -k under_every_name",
    ),
    Mutation(
        "a worker ends with its training",
        "data/loader.py",
        "prctl(PR_SET_PDEATHSIG, signal.SIGKILL)",
        "prctl(PR_SET_PDEATHSIG, 0)",
        "tests/test_faults.py -k workers_end",
    ),
    Mutation(
        "a worker whose training is gone ends",
        "data/loader.py",
        "        if os.getppid() != training:",
        "        if False:",
        "tests/data/test_loader.py -k without_its_training",
    ),
    Mutation(
        "a stop reaches every process",
        "training/distributed.py",
        "        os.killpg(process.pid, signal.SIGINT)",
        "        pass",
        "tests/training/test_distributed.py -k launching_process",
    ),
    Mutation(
        "processes without a parent save and end",
        "training/distributed.py",
        "        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)",
        "        pass",
        "tests/training/test_distributed.py -k launching_process",
    ),
    Mutation(
        "one training a folder",
        "training/state.py",
        "    if held is None:",
        "    if False:",
        "tests/training/test_state.py -k holds_one_training",
    ),
    Mutation(
        "within an epoch its photos stay the same",
        "training/state.py",
        'if state["batch"] and deciding:',
        "if False:",
        "tests/training/test_state.py -k order_of_the_photos",
    ),
    Mutation(
        "data that changed between stop and resume are reported",
        "training/state.py",
        'if state.get("photos", self.photos) != self.photos:',
        "if False:",
        "tests/training/test_state.py -k reports_what_differs",
    ),
    Mutation(
        "weights that are not finite are never saved",
        "training/state.py",
        "if not bool(paddle.isfinite(tensor).all()):",
        "if False:",
        "tests/training/test_state.py -k not_finite",
    ),
    Mutation(
        "best.pdparams is the best epoch's",
        "training/state.py",
        "            self.best = result[SELECTED]\n",
        "",
        "tests/training/test_state.py -k best_is_the_best",
    ),
    Mutation(
        "weight decay is for convolutions only",
        "training/state.py",
        " if p.ndim > 1}",
        "}",
        "tests/training/test_state.py -k decay_shrinks",
    ),
    Mutation(
        "the averaged weights warm up",
        "training/state.py",
        "decay = min(self.ema, (1 + self.step) / (10 + self.step))",
        "decay = self.ema",
        "tests/training/test_state.py -k warm_up",
    ),
    Mutation(
        "the learning rate changes in every iteration",
        "train.py",
        "schedule.learning_rate(state.epoch + state.batch / len(steps))",
        "schedule.learning_rate(state.epoch)",
        "tests/test_train.py -k rate_and_geometry",
    ),
    Mutation(
        "the geometry's strength follows the schedule",
        "train.py",
        "strength = schedule.geometry_strength(state.epoch)",
        "strength = 1.0",
        "tests/test_train.py -k rate_and_geometry",
    ),
    Mutation(
        "neither workers nor stops change the weights",
        "data/portraits.py",
        "        rng = np.random.default_rng((self.seed, epoch, index))\n",
        "        rng = np.random.default_rng()\n",
        "tests/test_train.py -k neither_workers",
    ),
    Mutation(
        "soft masks are not filtered",
        "data/cache.py",
        "alpha if soft else cv2.medianBlur(alpha, MAJORITY)",
        "cv2.medianBlur(alpha, MAJORITY)",
        "tests/data/test_cache.py -k majority_vote",
    ),
    Mutation(
        "the edge is four pixels wide",
        "transforms/edge.py",
        "EDGE_WIDTH = 4 / 224",
        "EDGE_WIDTH = 2 / 224",
        "tests/transforms/test_edge.py",
    ),
    Mutation(
        "connectivity is found in steps of a tenth",
        "metrics/matting.py",
        "LEVELS = np.arange(0.1, 1.05, 0.1)",
        "LEVELS = np.arange(0.1, 1.05, 0.2)",
        "tests/metrics/test_matting.py -k steps_of_a_tenth",
    ),
    Mutation(
        "an inverted mask's top row is person",
        "check.py",
        "return person[0].mean() > 0.5 and",
        "return",
        "tests/test_check.py -k top_row",
    ),
    Mutation(
        "a broken photo costs no iteration",
        "train.py",
        "            except (OSError, ValueError):  # an unreadable photo",
        "            except ZeroDivisionError:  # an unreadable photo",
        "tests/test_train.py -k broken_photo",
    ),
    Mutation(
        "nothing in a file is run",
        "models/safe_load.py",
        "        if (module, name) not in FUNCTIONS:\n",
        "        if False:\n",
        "tests/models/test_safe_load.py -k nothing_in_a_file",
    ),
    Mutation(
        "weights are plain numbers, and no pointers",
        "models/safe_load.py",
        "(str(code), 0, 1) if code in DTYPES:",
        "(str(code), 0, 1):",
        "tests/models/test_safe_load.py -k harm",
    ),
    Mutation(
        "weights take as much memory as their file's size allows",
        "models/safe_load.py",
        "        if self.allowance < 0:",
        "        if False:",
        "tests/models/test_safe_load.py -k harm",
    ),
    Mutation(
        "weights are what SHA256SUMS says",
        "portraitnet/backends.py",
        "    check_sha256(Path(model_path))\n",
        "",
        "tests/test_hostile.py -k sums_of_an_onnx",
    ),
    Mutation(
        "weights hold numbers",
        "models/weights.py",
        "    if broken:",
        "    if False:",
        "tests/test_hostile.py -k test_weights",
    ),
    Mutation(
        "a network answers numbers",
        "portraitnet/predictor.py",
        "if not np.isfinite(answers).all():",
        "if False:",
        "tests/test_hostile.py -k answers_no_number",
    ),
    Mutation(
        "pixels are counted before they are decoded",
        "portraitnet/images.py",
        "if width * height > max_pixels:",
        "if False:",
        "tests/test_hostile.py -k billion",
    ),
    Mutation(
        "a JPEG's tables are no frame",
        "portraitnet/images.py",
        " and kind not in (0xC4, 0xC8, 0xCC):",
        ":",
        "tests/portraitnet/test_images.py -k frame_header",
    ),
    Mutation(
        "a folder that cannot be read is named",
        "portraitnet/jobs.py",
        "onerror=fail",
        "onerror=None",
        "tests/portraitnet/test_jobs.py -k cannot_be_read",
    ),
    Mutation(
        "no input is overwritten",
        "portraitnet/jobs.py",
        "        if overwritten:",
        "        if False:",
        "tests/test_predict.py -k overwritten",
    ),
    Mutation(
        "an input is known by its real path",
        "portraitnet/jobs.py",
        "inputs = {os.path.realpath(path) for path in inputs}",
        "inputs = {str(path) for path in inputs}",
        "tests/portraitnet/test_jobs.py -k links_and_dots",
    ),
    Mutation(
        "a result is known by its real path",
        "portraitnet/jobs.py",
        "        place = os.path.realpath(result)\n",
        "        place = str(result)\n",
        "tests/portraitnet/test_jobs.py -k links_and_dots",
    ),
    Mutation(
        "a bad photo stops no other",
        "portraitnet/parallel.py",
        "    except FAILURES as failure:",
        "    except ZeroDivisionError as failure:",
        "tests/test_predict.py -k bad_file",
    ),
    Mutation(
        "who stops taking cancels the rest",
        "portraitnet/parallel.py",
        "            future.cancel()\n",
        "            pass\n",
        "tests/portraitnet/test_parallel.py -k cancels",
    ),
    Mutation(
        "outputs are looked at before the work",
        "evaluate.py",
        "        check_writable(",
        "        str(",
        "tests/test_evaluate.py -k before_the_scoring",
    ),
    Mutation(
        "an error is one line",
        "portraitnet/cli.py",
        "            except MISTAKES as error:",
        "            except ZeroDivisionError as error:",
        "tests/portraitnet/test_cli.py",
    ),
    Mutation(
        "Ctrl-C is one line",
        "portraitnet/cli.py",
        "            except KeyboardInterrupt:",
        "            except ZeroDivisionError:",
        "tests/test_hostile.py -k ctrl_c",
    ),
    Mutation(
        "a closed pipe is exit code 1",
        "portraitnet/cli.py",
        "sys.stdout.fileno())\n                return 1\n",
        "sys.stdout.fileno())\n                return 0\n",
        "tests/portraitnet/test_cli.py -k closed_pipe",
    ),
    Mutation(
        "a video cut short is reported",
        "apps/video/reading.py",
        "    if faults is not None and",
        "    if False and",
        "tests/test_video_files.py -k cut_short_is_reported",
    ),
    Mutation(
        "the page's server answers to its own name alone",
        "apps/web/__main__.py",
        "        if not self.is_addressed():",
        "        if False:",
        "tests/test_web.py -k foreign",
    ),
    Mutation(
        "the page connects to nobody else",
        "apps/web/__main__.py",
        "default-src 'self';",
        "default-src 'self'; connect-src *;",
        "tests/test_web.py -k isolated",
    ),
    Mutation(
        "the fused kernels run where a compiler is",
        "kernels/build.py",
        "    if compiler is None:",
        "    if True:",
        "tests/kernels/test_kernels.py -k loss_leaves",
    ),
]


def copy_tracked(copy: Path) -> None:
    """Copy the files that git knows, as they are now, into a folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)


def notices(mutation, copy):
    """Whether a test fails in a copy of the repository whose line is broken."""
    path = copy / mutation.file
    text = path.read_text()
    if text.count(mutation.kept) != 1:
        raise ValueError(f"{mutation.file} has not once {mutation.kept!r}: mend the list here.")
    path.write_text(text.replace(mutation.kept, mutation.broken))
    test = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *mutation.test.split()]
    done = subprocess.run(test, cwd=copy, capture_output=True, text=True)
    path.write_text(text)
    if done.returncode not in (0, 1):
        raise ValueError(f"{mutation.test} ran no test: {done.stdout[-300:]}")
    return done.returncode == 1


def parse_args(argv=None):
    parser = make_parser(
        "Break the line behind each promise, once, and see a test fail.",
        "python -m benchmarks.mutations --only 'no input'",
    )
    parser.add_argument("--only", default="", help="promises with these words")
    return parser.parse_args(argv)


@command("mutations")
def main(argv=None):
    args = parse_args(argv)
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy_tracked(copy)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        print(heading(["promise", "broken in", "test", "noticed"]))
        for mutation in MUTATIONS:
            if args.only in mutation.promise:
                seen = notices(mutation, copy)
                unnoticed += not seen
                cells = [mutation.promise, f"`{mutation.file}`", f"`{mutation.test}`"]
                print(row([*cells, "yes" if seen else "NO"]), flush=True)
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
