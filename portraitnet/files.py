"""The one way to write a file: under a temporary name beside it, renamed when it is whole."""

import errno
import hashlib
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

PARTIAL = ".{node}-{process}-{digest}.part{suffix}"  # name of what is being written
PARTIAL_START = re.compile(r"\..+-\d+-[0-9a-f]{12}\.part")
SUM_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)|SHA256 \((.+)\) = ([0-9a-fA-F]{64})")


@contextmanager
def whole_file(path: str | Path, durable: bool = True) -> Iterator[Path]:
    """Write a file whole or not at all; an earlier one of its name stays until then.

    Args:
        path: of the file; its folder is made when missing.
        durable: whole even after a power cut, for which the disk is waited for.

    Yields:
        Path to write to, in the same folder and with the same suffix. It becomes `path` when the
        block ends, and is gone when the block fails.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    path = Path(path)
    # A digest, for the name itself may be as long as names can be.
    digest = hashlib.sha1(os.fsencode(path.stem)).hexdigest()[:12]
    temporary = path.with_name(
        PARTIAL.format(node=platform.node(), process=os.getpid(), digest=digest, suffix=path.suffix)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_partials(path.parent)
        yield temporary
        if durable:
            sync(temporary)  # or the name could be there without the content
        temporary.replace(path)
        if durable:
            sync(path.parent)  # or the new name could be gone
    except OSError as error:
        # A full disk names no file, and other failures the temporary one.
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # the first failure is the one to tell
            temporary.unlink(missing_ok=True)


def sync(path: str | Path) -> None:
    """Wait until the disk holds a file's content, or a folder's names."""
    if os.name != "posix" and os.path.isdir(path):  # Windows has no such call
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@cache  # once a process
def remove_partials(folder: Path) -> None:
    """Remove what processes of this machine were writing into a folder when they were killed."""
    if os.name != "posix":  # os.kill ends a process elsewhere
        return
    known = PARTIAL.format(node="NODE", process="PROCESS", digest="DIGEST", suffix="")
    known = re.escape(known).replace("NODE", re.escape(platform.node()))
    known = re.compile(known.replace("PROCESS", r"(\d+)").replace("DIGEST", "[0-9a-f]{12}"))
    for name in os.listdir(folder):
        if match := known.match(name):
            try:
                os.kill(int(match[1]), 0)
            except ProcessLookupError:
                (folder / name).unlink(missing_ok=True)
            except OSError:  # it lives, and is another user's
                pass


def check_writable(path: str | Path, keep: Iterable[str | Path] = ()) -> None:
    """See whether a file can be written, before the work for it.

    Args:
        keep: paths that must not be overwritten.

    Raises:
        OSError: it cannot; the error names `path`.
        ValueError: it is one of `keep`.
    """
    path = Path(path)
    refuse_inputs(path, keep)
    try:
        there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        tempfile.TemporaryFile(dir=there).close()
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def refuse_inputs(path: Path, keep: Iterable[str | Path]) -> None:
    """Raise ValueError if a file that is to be written is one of `keep`, under whatever name."""
    for kept in map(Path, keep):
        linked = path.exists() and kept.exists() and path.samefile(kept)
        if linked or os.path.realpath(path) == os.path.realpath(kept):
            raise ValueError(f"{path} is an input and is not overwritten: choose another output.")


def check_sha256(path: Path) -> None:
    """Check a file against a SHA256SUMS file beside it, in any form that sha256sum writes.

    Raises:
        OSError: the file cannot be read.
        ValueError: its sum is another, or a line is not one of sha256sum.
    """
    path.open("rb").close()
    sums = path.parent / "SHA256SUMS"
    if not sums.is_file():
        return
    if PARTIAL_START.match(path.name):  # being written; its sum follows when it has its name
        return
    listed = False
    for line in filter(str.strip, sums.read_text(errors="surrogateescape").splitlines()):
        match = SUM_LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"{sums} has the line {line!r}: write it anew with sha256sum.")
        name, expected = match[2] or match[3], (match[1] or match[4]).lower()
        if Path(name) != Path(path.name):
            continue
        listed = True
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ValueError(
                f"{path} is not the file that {sums} names (SHA-256 differs); download it again."
            )

    if not listed:
        raise ValueError(
            f"{sums} does not list {path.name}: add its line with sha256sum, or move the file."
        )


def add_sha256(paths: Iterable[Path]) -> None:
    """Write the sums of files of one folder into its SHA256SUMS, if it has such a file."""
    paths = list(paths)
    sums = paths[0].parent / "SHA256SUMS"
    if not sums.is_file():
        return
    names = {path.name for path in paths}
    kept = [
        line
        for line in sums.read_text(errors="surrogateescape").splitlines()
        if not ((match := SUM_LINE.fullmatch(line.strip())) and (match[2] or match[3]) in names)
    ]
    new = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in paths]
    lines = sorted(kept + new, key=lambda line: line.rpartition(" ")[2])
    write_whole(sums, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


def write_whole(path: str | Path, data: bytes, durable: bool = True) -> None:
    """Write bytes, whole or not at all; `durable` as in `whole_file`."""
    with whole_file(path, durable) as temporary:
        temporary.write_bytes(data)


def is_whole(path: str | Path) -> bool:
    """Whether a file is there with content; a power cut can leave an empty one."""
    return os.path.isfile(path) and os.path.getsize(path) > 0


def write_json(path: str | Path, value: object) -> None:
    """Write a value as indented JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


def lock(path: str | Path, wait: bool) -> IO | None:
    """Keep others out while this process lives, however it ends; on a Unix only.

    Args:
        path: of the file that is locked; made when missing, and left there.
        wait: until another process has ended, rather than give up.

    Returns:
        What holds the lock: keep it, or close it to let others in. None: another process holds it.
    """
    file = open(path, "w")  # noqa: SIM115
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
