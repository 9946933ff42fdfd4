"""The one way to write a file: under a temporary name beside it, renamed when it is whole."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None


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
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # or the name could be there without the content
        temporary.replace(path)
    except OSError as error:
        # A full disk names no file, and other failures the temporary one.
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # the first failure is the one to tell
            temporary.unlink(missing_ok=True)


def write_whole(path: str | Path, data: bytes) -> None:
    """Write bytes, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


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
