"""What every command line shares: numbers in a range, so that a wrong flag is a usage error before
any work; help that shows defaults; and one line instead of a traceback where a user can help it."""

import argparse
import functools
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What a user can mend: a file, a flag, a package, memory. Anything else is a bug: its traceback is
# what we need to be sent.
MISTAKES = (OSError, ValueError, ImportError, RuntimeError, FloatingPointError, MemoryError)
LARGEST = 2**31 - 1  # whole number of a flag: what C++ counts with
STOPPED = 130  # exit code after Ctrl-C, as shells count it


def command(name: str) -> Callable:
    """Decorator of a command's `main(argv)`: what ends it is one line and an exit code.

    Args:
        name: of the command, before each of its lines.
    """

    def decorate(main):
        @functools.wraps(main)
        def run(argv=None):
            _print_any_name()
            try:
                return main(argv)
            except KeyboardInterrupt:
                print(f"{name}: Stopped; what was finished is kept.", file=sys.stderr)
                return STOPPED
            except BrokenPipeError:  # of `| head`, which has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            except MISTAKES as error:
                if isinstance(error, RuntimeError) and "\n" in str(error):  # Paddle's own bugs
                    raise
                print(f"{name}: {sentence(error)}", file=sys.stderr)
                return 1

        return run

    return decorate


def sentence(error: Exception, who: str = "this") -> str:
    """What a user is told of one of MISTAKES; `who` needs the package where one is missing."""
    if isinstance(error, ModuleNotFoundError):
        return f"{who} needs {error.name}: run `pip install -r requirements-dev.txt`."
    return str(error) or type(error).__name__


def _print_any_name():
    """Let the terminal show names that are not UTF-8, their bytes written out, not end the run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one, and an example as it is written."""

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


def make_parser(description: str, example: str) -> argparse.ArgumentParser:
    """A parser as every command has it: help with defaults, and no flag by a part of its name.

    Args:
        description: what the command does, a sentence or two.
        example: a whole command, `python SCRIPT ...` or `python -m MODULE ...`.
    """
    words = example.split()
    return argparse.ArgumentParser(
        prog=" ".join(words[:3]) if words[1] == "-m" else words[words[0] == "python"],
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=Help,
        allow_abbrev=False,
    )


def int_range(low=0, high=LARGEST, multiple=1):
    """Type of a whole number from `least` to `most`, a multiple of `multiple`."""
    message = f"a whole number{_range(low, high)}" if multiple == 1 else f"a multiple of {multiple}"

    def parse(text):
        number = int(text) if re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) else None
        if number is None or not low <= number <= high or number % multiple:
            raise argparse.ArgumentTypeError(f"must be {message}, not {text!r}")
        return number

    return parse


def float_range(low=0.0, high=math.inf, above=None):
    """Type of a finite number from `least` (or, where given, anything above `above`) to `most`."""
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


def _shown(value):
    """A default as one types it: files of this project by their place in it."""
    inside = isinstance(value, Path) and value.is_relative_to(ROOT)
    return str(value.relative_to(ROOT) if inside else value)


def _range(low, high):
    if high in (LARGEST, math.inf):
        return f" from {low:g}" if low > -math.inf else ""
    return f" from {low:g} to {high:g}"
