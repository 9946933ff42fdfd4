"""What every command line shares: numbers in a range, so that a wrong flag is a usage error before
any work, and help that shows defaults."""

import argparse
import math


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one."""

    def _get_help_string(self, action):
        if action.default in (None, "", False):
            return action.help
        return super()._get_help_string(action)


def make_parser(description: str, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser as every command has it: help with defaults, and no flag by a part of its name."""
    return argparse.ArgumentParser(
        prog, description=description, formatter_class=Help, allow_abbrev=False
    )


def whole(least=0, most=math.inf, multiple=1):
    """Type of a whole number from `least` to `most`, a multiple of `multiple`."""
    told = f"a whole number{_range(least, most)}" if multiple == 1 else f"a multiple of {multiple}"

    def parse(text):
        number = int(text) if text.lstrip("+-").isdecimal() else None
        if number is None or not least <= number <= most or number % multiple:
            raise argparse.ArgumentTypeError(f"must be {told}, not {text!r}")
        return number

    return parse


def real(least=0.0, most=math.inf, above=None):
    """Type of a finite number from `least` (or, where given, anything above `above`) to `most`."""
    told = f"a number{_range(least, most)}" if above is None else f"a number above {above:g}"

    def parse(text):
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        in_range = least <= number <= most if above is None else above < number <= most
        if not (math.isfinite(number) and in_range):
            raise argparse.ArgumentTypeError(f"must be {told}, not {text!r}")
        return number

    return parse


def _range(least, most):
    if most == math.inf:
        return f" from {least:g}" if least > -math.inf else ""
    return f" from {least:g} to {most:g}"
