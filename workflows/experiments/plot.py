"""A metric over its steps, drawn in text.

Plotting libraries depend on numpy or compiled code, which is too much for one plot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: The dots of a braille character, by column and row from the top: https://www.unicode.org/charts/PDF/U2800.pdf
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BLANK = 0x2800


def draw(points: Sequence[tuple[float, float]], width: int = 72, height: int = 12) -> list[str]:
    """Draw points as a line, with the values at the left and the steps below.

    Args:
        points: Step and value, in the order of the steps; values that are not finite are omitted.
        width: Columns, including the labels.
        height: Lines, without the axis.
    """
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ["(no finite values)"]
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    labels = _labels(low, high, height)
    margin = max(map(len, labels))
    columns = max(10, width - margin - 2)
    cells = [[0] * columns for _ in range(height)]
    for x, y in _pixels(finite, low, high, columns * 2, height * 4):
        cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
    lines = [
        f"{label:>{margin}} ┤" + "".join(chr(_BLANK + cell) if cell else " " for cell in row).rstrip()
        for label, row in zip(labels, cells, strict=True)
    ]
    first, last = _number(finite[0][0]), _number(finite[-1][0])
    axis = " " * margin + " └" + "─" * columns
    return [*lines, axis, " " * (margin + 2) + first + last.rjust(columns - len(first))]


def _labels(low: float, high: float, height: int) -> list[str]:
    labels = [""] * height
    if high == low:
        labels[height // 2] = _number(high)
        return labels
    labels[0], labels[-1] = _number(high), _number(low)
    if height > 4:
        middle = (height - 1) // 2
        labels[middle] = _number(high - (high - low) * middle / (height - 1))
    return labels


def _number(value: float) -> str:
    return f"{value:.4g}"


def _pixels(
    points: Sequence[tuple[float, float]], low: float, high: float, columns: int, rows: int
) -> list[tuple[int, int]]:
    """The dots of the line, as columns from the left and rows from the top."""
    begin, end = points[0][0], points[-1][0]

    def place(x: float, y: float) -> tuple[int, int]:
        across = (x - begin) / (end - begin) if end > begin else 0.0
        up = (y - low) / (high - low) if high > low else 0.5
        return round(min(max(across, 0.0), 1.0) * (columns - 1)), round((1 - up) * (rows - 1))

    found: list[tuple[int, int]] = []
    before: tuple[int, int] | None = None
    for x, y in points:
        here = place(x, y)
        if before is not None:
            long = max(abs(here[0] - before[0]), abs(here[1] - before[1]))
            found += [
                (
                    before[0] + (here[0] - before[0]) * number // long,
                    before[1] + (here[1] - before[1]) * number // long,
                )
                for number in range(1, long)
            ]
        found.append(here)
        before = here
    return found
