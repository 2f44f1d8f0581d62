"""Lays out a table for a terminal, where a Korean letter is two columns wide, and says sizes for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from threadline.app.transcript import clean, fit, width

_WIDEST = 60


def rows(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, its columns aligned."""
    shown = [[fit(clean(cell), _WIDEST) for cell in row] for row in table]
    widths = [max(map(width, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = (cell + " " * (room - width(cell)) for cell, room in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def human(size: int) -> str:
    """Bytes in the largest unit that leaves at least one of it."""
    exponent = min((len(str(size)) - 1) // 3, 4)
    return f"{size} B" if exponent == 0 else f"{size / 1000**exponent:.1f} {('KB', 'MB', 'GB', 'TB')[exponent - 1]}"
