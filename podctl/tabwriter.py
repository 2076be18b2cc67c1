"""Aligns columns of tab-separated text exactly as Go's text/tabwriter does, which kubectl's output is made with. Pure.

A cell is text that a tab ends; what follows a line's last tab is not part of any column. A column is a block of
adjacent lines that all have that cell, so that a line without tabs starts new columns below it.
"""

from __future__ import annotations

from collections.abc import Iterable


def align(text: str, *, minimum: int = 0, padding: int = 2) -> str:
    """The text with its tabs replaced by spaces; a column is `minimum` wide at least, `padding` included."""
    lines = [line.split("\t") for line in text.split("\n")]
    output: list[str] = []
    _format(lines, 0, len(lines), [], output, minimum, padding)
    return "\n".join(output)


def _format(
    lines: list[list[str]], start: int, end: int, widths: list[int], output: list[str], minimum: int, padding: int
) -> None:
    column = len(widths)
    row = start
    while row < end:
        if column >= len(lines[row]) - 1:
            row += 1
            continue
        _emit(lines[start:row], widths, output)
        start, width = row, minimum
        while row < end and column < len(lines[row]) - 1:
            width = max(width, len(lines[row][column]) + padding)
            row += 1
        _format(lines, start, row, [*widths, width], output, minimum, padding)
        start = row
    _emit(lines[start:end], widths, output)


def _emit(lines: list[list[str]], widths: list[int], output: list[str]) -> None:
    for cells in lines:
        padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
        output.append("".join(padded) + cells[-1])


class Columns:
    """Rows of one table, written as they come: a column keeps the widest width it has had (kubectl get -w)."""

    def __init__(self, widths: Iterable[int] = ()) -> None:
        """`widths` of the first columns, where it is known what will come."""
        self._widths = list(widths)

    def lines(self, rows: list[list[str]]) -> list[str]:
        """The rows, aligned with all rows before (minimum width 6, padding 3, the last cell not padded)."""
        for row in rows:
            for index, cell in enumerate(row[:-1]):
                if index == len(self._widths):
                    self._widths.append(6)
                self._widths[index] = max(self._widths[index], len(cell) + 3)
        return [self._line(row) for row in rows]

    def _line(self, row: list[str]) -> str:
        return "".join(cell.ljust(width) for cell, width in zip(row[:-1], self._widths, strict=False)) + row[-1]
