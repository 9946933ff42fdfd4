"""Which files a command reads, and where their results go."""

import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from portraitnet.cli import sentence
from portraitnet.images import SUFFIXES, UNREAD_SUFFIXES, is_picture

PIPE = Path("-")  # stands for stdin among the photos, for stdout after --output
# Endings of pictures, videos, sound, documents and data, by which a path is a file's.
FILE_SUFFIXES = (
    *SUFFIXES,
    *UNREAD_SUFFIXES,
    *""".svg .svgz .ppm .pgm .pbm .pnm .pam .pfm .j2k .ico .pcx .dds .eps .ps .ai .mp4 .m4v .mov
    .mkv .webm .avi .wmv .flv .mpg .mpeg .ts .3gp .ogv .mp3 .m4a .wav .ogg .opus .flac .pdf .doc
    .docx .odt .ppt .pptx .xls .xlsx .txt .html .htm .md .csv .json .xml .zip .npy .npz""".split(),
)


class Task(NamedTuple):
    """An input file and the files of its results."""

    path: Path
    results: list[Path]


class Failure(NamedTuple):
    """A file that failed, and why: a sentence, with or without the file's name and a full stop."""

    path: Path
    reason: str

    def __str__(self) -> str:
        named = self.reason if str(self.path) in self.reason else f"{self.path}: {self.reason}"
        return named.rstrip(".") + "."


def is_file_name(output: Path) -> bool:
    """Whether --output names a file rather than a folder: it is -, or ends like a file and is no
    folder. Whether such a file can be written is another question."""
    return output == PIPE or (output.suffix.lower() in FILE_SUFFIXES and not output.is_dir())


def find_photos(
    paths: Iterable[Path], results: Iterable[str] = ()
) -> tuple[list[tuple[Path, Path]], list[Failure]]:
    """Every photo under the given files and folders, once and in order, with its place in them.

    In a folder, a file is a photo if its name or its content says so. Hidden files are skipped,
    and so are results of earlier runs: "a_blur.png" where a photo "a" lies beside it.

    Args:
        paths: files and folders.
        results: endings of the names of earlier results, such as "blur".

    Returns:
        list of (path, relative path of its result's folder below --output), and a failure for each
        folder and each photo of a format that cannot be read.
    """
    found, unread, results = {}, [], tuple(results)
    for path in paths:
        if not os.path.isdir(path):
            found.setdefault(path, Path())
            continue
        photos = sorted(_photos_in(path, unread))
        stems = {photo.with_suffix("") for photo in photos}
        for photo in photos:
            stem, _, mode = photo.stem.rpartition("_")
            if not stem or mode not in results or photo.with_name(stem) not in stems:
                found.setdefault(photo, photo.parent.relative_to(path))
    return list(found.items()), unread


def _photos_in(folder, unread):
    def fail(error):
        unread.append(Failure(Path(error.filename), sentence(error)))

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if name.startswith("."):
                continue
            suffix = path.suffix.lower()
            if suffix in UNREAD_SUFFIXES:  # no photo: a JPEG of its name beside it is one
                unread.append(Failure(path, f"{suffix} files are not read; save it as a JPEG"))
            elif suffix in SUFFIXES or _has_picture(path, unread):
                yield path


def _has_picture(path, unread):
    """Whether a file's content is a picture; files that cannot be opened join `unread`."""
    if not path.is_file():  # a pipe would wait for ever
        return False
    try:
        with open(path, "rb") as file:
            return is_picture(file.read(16))
    except OSError as error:
        unread.append(Failure(path, sentence(error)))
        return False


def in_shard(photo: tuple[Path, Path], shard: tuple[int, int]) -> bool:
    """Whether a photo belongs to one part of the work, by its name alone.

    Machines that share a disk agree without a word, even while photos are added and wherever the
    folder is mounted.

    Args:
        photo: path and place, as `find_photos` returns them.
        shard: (index from 0, number of parts).
    """
    path, place = photo
    index, count = shard
    return zlib.crc32(os.fsencode(place / path.name)) % count == index


def without_clashes(
    tasks: Iterable[Task], inputs: Iterable[Path]
) -> tuple[list[Task], list[Failure]]:
    """Separate the tasks whose result is an input, or the result of another task.

    Args:
        inputs: paths that must not be overwritten.

    Returns:
        the other tasks, and a failure for each separated task.
    """
    inputs = {os.path.realpath(path) for path in inputs}  # works for a loop of links too
    kept, refused, taken = [], [], {}
    for task in tasks:
        result = task.results[0]
        place = os.path.realpath(result)
        overwritten = [each for each in task.results if os.path.realpath(each) in inputs]
        if overwritten:
            # The name first: a result that is the photo itself has it in the sentence too.
            reason = f"{task.path}: its result {overwritten[0]} is an input and is kept: "
            reason += "give another --output"
            refused.append(Failure(task.path, reason))
        elif place in taken:
            reason = f"its result {result} is already that of {taken[place]}: rename one"
            refused.append(Failure(task.path, reason))
        else:
            taken[place] = task.path
            kept.append(task)
    return kept, refused
