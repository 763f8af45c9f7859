"""A table as ss lays it out: columns as wide as what stands in them, and on a terminal spread over its width.

Rows may end in a text that begins with a line break: it then goes on in the next line. Widths are characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, what stands between it and the one before, and to which side its texts stand."""

    title: str
    delimiter: str = " "
    is_right: bool = False


def measure(columns: Sequence[Column], rows: Sequence[Row], least: Sequence[int] | None = None, terminal: int | None = None) -> list[int]:
    """Return the widths, no less than `least`; with `terminal`, none wider than that, and each of its lines filled."""
    widths = list(least) if least is not None else [0] * len(columns)
    for row in rows:
        for index, text in enumerate(row):
            if len(text) > widths[index]:
                widths[index] = len(text)
    return widths if terminal is None else _spread(columns, widths, terminal)


def title_widths(columns: Sequence[Column]) -> list[int]:
    """Return the widths that the titles take."""
    return [len(column.title) for column in columns]


def _spread(columns: Sequence[Column], widths: Sequence[int], terminal: int) -> list[int]:
    """Share what is left of each line of the terminal among the columns in it, evenly, the rest among the last of them."""
    spread = [min(width, terminal) for width in widths]
    line: list[int] = []
    used = 0
    for index, column in enumerate(columns):
        wanted = len(column.delimiter) + spread[index]
        if line and used + wanted > terminal:
            _fill(spread, line, terminal - used)
            line, used = [], 0
        line.append(index)
        used += wanted
    _fill(spread, line, terminal - used)
    return spread


def _fill(widths: list[int], line: Sequence[int], left: int) -> None:
    if left <= 0:
        return
    share, rest = divmod(left, len(line))
    for place, index in enumerate(line):
        widths[index] += share + (place >= len(line) - rest)


def format_row(columns: Sequence[Column], widths: Sequence[int], row: Row) -> str:
    """Return a row, padded, without the line break at its end."""
    parts = []
    for column, width, text in zip(columns, widths, row, strict=True):
        parts.append(column.delimiter)
        parts.append(text.rjust(width) if column.is_right else text.ljust(width))
    return "".join(parts)
