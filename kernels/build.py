"""Building and loading of the C++ operators; the build is kept in the user's cache folder."""

import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import types

import paddle
from paddle import _C_ops
from paddle.base import core

from portraitnet.files import lock, sync

FOLDER = pathlib.Path(__file__).parent
SOURCES = sorted([*FOLDER.glob("*.h"), *FOLDER.glob("*.cpp")])
NAME = "portraitnet_ops"
SUM = "sha256"  # file beside the library: its SHA-256, written after the library
# Paddle compiles as strict C++17, in which GCC needs a flag for fused multiply-adds.
FLAGS = ["-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-pthread", "-w"]


class BuildError(Exception):
    """The operators cannot be built on this machine; the message gives the reason."""


def load_operators() -> types.SimpleNamespace:
    """Load the compiled operators; build them first if the cache does not hold them.

    Returns:
        A namespace with one function for each operator of `ops.cpp`; each returns a list of
        tensors.

    Raises:
        BuildError: the system is not Linux, the compiler is missing, the cache folder cannot be
            written, or the build fails.
    """
    if sys.platform != "linux":
        raise BuildError("the fused kernels are built on Linux only")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError("there is no C++ compiler (install g++)")
    folder = _cache_folder(compiler)
    if not _is_whole(folder):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _build_once(folder)
        except OSError as error:
            raise BuildError(
                f"{folder.parent} cannot be written (set XDG_CACHE_HOME to a writable folder)"
            ) from error
    return _import(folder)


def _cache_folder(compiler):
    """The folder of this combination of source, Paddle, Python, compiler and processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    cpu = [platform.machine()]
    if os.path.exists("/proc/cpuinfo"):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        cpu += [line for line in dict.fromkeys(lines) if line.startswith(("model name", "flags"))]
    parts = [path.read_text() for path in SOURCES]
    parts += [paddle.__version__, platform.python_version(), version, *cpu, *FLAGS]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache) / "portraitnet" / digest


def _library(folder):
    return folder / NAME / f"{NAME}.so"


def _is_whole(folder):
    """Whether the library of a finished build is intact; loading a truncated one would crash."""
    try:
        expected = (folder / SUM).read_text()
        return hashlib.sha256(_library(folder).read_bytes()).hexdigest() == expected
    except OSError:
        return False


def _build_once(folder):
    # A second process waits for the first one's build. The lock ends with its process.
    with lock(f"{folder}.lock", wait=True):
        if _is_whole(folder):
            return
        message = "Building the C++ kernels for training once: half a minute ..."
        if folder.exists():
            message = f"The C++ kernels in {folder} are damaged. {message}"
        print(message, file=sys.stderr, flush=True)
        _build(folder)


def _build(folder):
    """Compile in a temporary folder and rename it, so that `folder` is always complete."""
    work = tempfile.mkdtemp(prefix="build-", dir=folder.parent)
    # A separate process, because Paddle's builder prints and logs much.
    command = (
        "import sys; from paddle.utils.cpp_extension import load; load(sys.argv[1], "
        "sys.argv[2:3], sys.argv[4:], extra_ldflags=['-pthread'], build_directory=sys.argv[3])"
    )
    arguments = [sys.executable, "-c", command, NAME, str(FOLDER / "ops.cpp"), work, *FLAGS]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True)
        if done.returncode != 0:
            log = folder.parent / "build.log"
            log.write_text(done.stdout + done.stderr)
            raise BuildError(f"the C++ kernels did not build (see {log})")
        library = _library(pathlib.Path(work))
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
        pathlib.Path(work, SUM).write_text(digest)
        for path in (library, pathlib.Path(work, SUM), work):  # against a power cut
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged build
        os.rename(work, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _import(folder):
    """Register the operators with Paddle, one function each, named without the project's prefix."""
    names = core.load_op_meta_info_and_register_op(str(_library(folder)))
    calls = {
        name.removeprefix("portraitnet_"): functools.partial(_C_ops._run_custom_op, name)
        for name in names
    }
    return types.SimpleNamespace(**calls)
