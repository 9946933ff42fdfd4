"""Markdown tables, as the benchmarks print them."""

from collections.abc import Iterable


def heading(names: Iterable[object]) -> str:
    """The first two lines of a table."""
    names = list(names)
    return f"{row(names)}\n{'|---' * len(names)}|"


def row(values: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(map(str, values))} |"
