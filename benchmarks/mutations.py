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
        "files.py",
        "        yield temporary\n",
        "        yield path\n",
        "tests/test_files.py",
    ),
    Mutation(
        "a cached photo is whole or not there",
        "dataset.py",
        "np.save(temporary, photo)",
        "np.save(path, photo)",
        "tests/test_faults.py -k cache",
    ),
    Mutation(
        "it is on the disk before it has its name",
        "files.py",
        "if durable:",
        "if False:",
        "tests/test_faults.py -k before_it_has_its_name",
    ),
    Mutation(
        "what a killed process was writing goes",
        "files.py",
        "        remove_partials(path.parent)\n",
        "",
        "tests/test_faults.py -k goes_with_the_next",
    ),
    Mutation(
        "a failed write leaves nothing",
        "files.py",
        "temporary.unlink(missing_ok=True)",
        "pass",
        "tests/test_files.py",
    ),
    Mutation(
        "a worker ends with its training",
        "dataset.py",
        "prctl(PR_SET_PDEATHSIG, signal.SIGKILL)",
        "prctl(PR_SET_PDEATHSIG, 0)",
        "tests/test_faults.py -k workers_end",
    ),
    Mutation(
        "a worker whose training is gone ends",
        "dataset.py",
        "        if os.getppid() != training:",
        "        if False:",
        "tests/test_dataset.py -k without_its_training",
    ),
    Mutation(
        "one training a folder",
        "run.py",
        "    if held is None:",
        "    if False:",
        "tests/test_train.py -k alone",
    ),
    Mutation(
        "within an epoch its photos stay the same",
        "run.py",
        'if state["batch"] and deciding:',
        "if False:",
        "tests/test_train.py -k within_an_epoch",
    ),
    Mutation(
        "data that changed between stop and resume are told",
        "run.py",
        'if state.get("photos", self.photos) != self.photos:',
        "if False:",
        "tests/test_train.py -k within_an_epoch",
    ),
    Mutation(
        "neither workers nor stops change the weights",
        "dataset.py",
        "        rng = np.random.default_rng((self.seed, epoch, index))\n",
        "        rng = np.random.default_rng()\n",
        "tests/test_train.py -k neither_workers",
    ),
    Mutation(
        "a broken photo costs no iteration",
        "train.py",
        "        except (OSError, ValueError):  # a photo",
        "        except ZeroDivisionError:  # a photo",
        "tests/test_train.py -k broken_photo",
    ),
    Mutation(
        "nothing in a file is run",
        "models/safe_load.py",
        "        if (module, name) not in FUNCTIONS:",
        "        if False:",
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
        "backends.py",
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
        "predictor.py",
        "if not np.isfinite(answers).all():",
        "if False:",
        "tests/test_hostile.py -k answers_no_number",
    ),
    Mutation(
        "pixels are counted before they are decoded",
        "images.py",
        "if width * height > most:",
        "if False:",
        "tests/test_hostile.py -k billion",
    ),
    Mutation(
        "a folder that cannot be read is named",
        "tasks.py",
        "onerror=fail",
        "onerror=None",
        "tests/test_hostile.py -k may_not_be_read",
    ),
    Mutation(
        "no input is overwritten",
        "tasks.py",
        "        if overwritten:",
        "        if False:",
        "tests/test_predict.py -k overwritten",
    ),
    Mutation(
        "a bad photo stops no other",
        "pipeline.py",
        "    except FAILURES as failure:",
        "    except ZeroDivisionError as failure:",
        "tests/test_predict.py -k bad_file",
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
        "flags.py",
        "            except MISTAKES as error:",
        "            except ZeroDivisionError as error:",
        "tests/test_flags.py",
    ),
    Mutation(
        "Ctrl-C is one line",
        "flags.py",
        "            except KeyboardInterrupt:",
        "            except ZeroDivisionError:",
        "tests/test_hostile.py -k ctrl_c",
    ),
    Mutation(
        "a video cut short is told",
        "apps/video/reading.py",
        "    if faults is not None and",
        "    if False and",
        "tests/test_video_files.py -k cut_short",
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
]


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
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in filter(None, listed.stdout.split("\0")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
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
