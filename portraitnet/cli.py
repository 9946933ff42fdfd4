"""Helpers of every command line: numbers in a range, so that a wrong flag is a usage error before
any work; help with defaults; one sentence instead of a traceback for a user's mistake."""

import argparse
import errno
import functools
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Errors that a user can mend: a file, a flag, a package, memory. Any other error is a bug, whose
# traceback belongs into a report.
MISTAKES = (OSError, ValueError, ImportError, RuntimeError, FloatingPointError, MemoryError)
LARGEST = 2**31 - 1  # largest integer of a flag: C++ counts with 32 bits
STOPPED = 130  # exit code after Ctrl-C, by the convention of shells
ADVICE = {  # errno -> what to do
    errno.ENOENT: "check its name",
    errno.EEXIST: "a folder is needed there, so give another path",
    errno.ENOTDIR: "a folder is needed there, so give another path",
    errno.EISDIR: "name a file",
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.ENOSPC: "make room, or give another path",
    errno.ENAMETOOLONG: "give a shorter name",
}


def command(name: str) -> Callable:
    """Decorator of a command's `main(argv)`: every end is one sentence and an exit code.

    Args:
        name: name of the command, which begins each of its lines.
    """

    def decorate(main):
        @functools.wraps(main)
        def run(argv=None):
            _mend_streams()
            try:
                return main(argv)
            except KeyboardInterrupt:
                print(f"{name}: Interrupted; finished results were kept.", file=sys.stderr)
                return STOPPED
            except BrokenPipeError:  # `| head` closes the pipe early
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            except MISTAKES as error:
                if isinstance(error, RuntimeError) and "\n" in str(error):  # a bug of Paddle
                    raise
                print(f"{name}: {sentence(error)}", file=sys.stderr)
                return 1

        return run

    return decorate


def sentence(error: Exception, who: str = "this") -> str:
    """The sentence for one of MISTAKES; `who` needs the package if one is missing."""
    if isinstance(error, ModuleNotFoundError):
        return f"{who} needs {error.name}: run `pip install -r requirements-dev.txt`."
    if isinstance(error, OSError) and error.strerror and error.filename:
        advice = ADVICE.get(error.errno, "give another path")
        return f"{error.filename} cannot be used ({error.strerror}): {advice}."
    return str(error) or type(error).__name__


def _mend_streams():
    """Open what a shell has closed, as by `<&-`, with nothing in it; print names that are not UTF-8
    with escaped bytes instead of failing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # as files 0, 1 and 2
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help with the defaults, and with examples unwrapped."""

    def _get_help_string(self, action):
        default = action.default
        # Python 3.10 adds it to a BooleanOptionalAction's help by itself.
        off = default is None or default is False or default in ("", argparse.SUPPRESS)
        if off or "%(default)s" in action.help:
            return action.help
        values = default if isinstance(default, (list, tuple)) else [default]
        return f"{action.help} (default: {' '.join(map(_shown, values))})"

    def _fill_text(self, text, width, indent):
        if text.startswith("example"):
            return indent + text
        return super()._fill_text(text, width, indent)


class RaisingParser(argparse.ArgumentParser):
    """A parser for flags that come from elsewhere than a shell: wrong usage is a ValueError."""

    def error(self, message):
        raise ValueError(message)


def make_parser(
    description: str,
    example: str,
    parser_class: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """A parser with defaults in its help; abbreviated flags are errors.

    Args:
        description: one or two sentences on what the command does.
        example: a whole command line.
    """
    words = example.split()
    return parser_class(
        prog=" ".join(words[:3]) if words[1] == "-m" else words[words[0] == "python"],
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=Help,
        allow_abbrev=False,
    )


def int_range(low=0, high=LARGEST, multiple=1):
    """Type of an integer from `low` to `high`, a multiple of `multiple`."""
    message = f"a whole number{_range(low, high)}" if multiple == 1 else f"a multiple of {multiple}"

    def parse(text):
        number = int(text) if re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) else None
        if number is None or not low <= number <= high or number % multiple:
            raise argparse.ArgumentTypeError(f"must be {message}, not {text!r}")
        return number

    return parse


def float_range(low=0.0, high=math.inf, above=None):
    """Type of a finite number from `low` to `high`, or above `above` if that is given."""
    message = f"a number{_range(low, high)}" if above is None else f"a number above {above:g}"

    def parse(text):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        in_range = low <= number <= high if above is None else above < number <= high
        if not (math.isfinite(number) and in_range):
            raise argparse.ArgumentTypeError(f"must be {message}, not {text!r}")
        return number

    return parse


def height_by_width(text: str) -> tuple[int, int]:
    """Type of a network input's shape, such as 256x192: (height, width), multiples of 32."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    shape = tuple(map(int, match.groups())) if match else (0, 0)
    if min(shape) < 32 or shape[0] % 32 or shape[1] % 32:
        raise argparse.ArgumentTypeError(
            f"must be height x width in multiples of 32, such as 256x192, not {text!r}"
        )
    return shape


def shard(text: str) -> tuple[int, int]:
    """Type of one part of the work, such as 3/16: (index from 0, number of parts)."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    part, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= part <= count:
        raise argparse.ArgumentTypeError(
            f"must be a part and the number of parts, such as 3/16, not {text!r}"
        )
    return part - 1, count


def _shown(value):
    """A default as it is typed: files of this project relative to its folder."""
    inside = isinstance(value, Path) and value.is_relative_to(ROOT)
    return str(value.relative_to(ROOT) if inside else value)


def _range(low, high):
    if high in (LARGEST, math.inf):
        return f" from {low:g}" if low > -math.inf else ""
    return f" from {low:g} to {high:g}"
