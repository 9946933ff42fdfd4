"""Markdown tables of the benchmarks."""

from collections.abc import Iterable


def heading(names: Iterable[object]) -> str:
    """The first two lines of a table with these column names."""
    names = list(names)
    return f"{row(names)}\n{'|---' * len(names)}|"


def row(values: Iterable[object]) -> str:
    """One line of a table with these cells."""
    return f"| {' | '.join(map(str, values))} |"
