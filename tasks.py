"""What a command has to do: which files it reads and where their results go."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from effects import EFFECTS
from images import SUFFIXES


class Task(NamedTuple):
    """A file and those that its results are written to."""

    path: Path
    results: list[Path]


class Failure(NamedTuple):
    """A file that was not done, and why: a sentence, with or without its name and full stop."""

    path: Path
    reason: str

    def __str__(self) -> str:
        named = self.reason if str(self.path) in self.reason else f"{self.path}: {self.reason}"
        return named.rstrip(".") + "."


def find_photos(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
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
            if not stem or mode not in EFFECTS or photo.with_name(stem) not in stems:
                found.setdefault(photo, photo.parent.relative_to(path))
    return list(found.items())


def without_clashes(
    tasks: Iterable[Task], inputs: Iterable[Path]
) -> tuple[list[Task], list[Failure]]:
    """Set apart every task whose result is an input or already that of another file.

    Args:
        inputs: paths that must not be overwritten.

    Returns:
        the tasks that can be done, and a failure for each of the others.
    """
    inputs = {path.resolve() for path in inputs}
    kept, refused, taken = [], [], {}
    for task in tasks:
        result = task.results[0]
        overwritten = [each for each in task.results if each.resolve() in inputs]
        if overwritten:
            reason = f"its result {overwritten[0]} is an input and is kept: give another --output"
            refused.append(Failure(task.path, reason))
        elif result.resolve() in taken:
            reason = f"its result {result} is already that of {taken[result.resolve()]}: rename one"
            refused.append(Failure(task.path, reason))
        else:
            taken[result.resolve()] = task.path
            kept.append(task)
    return kept, refused
