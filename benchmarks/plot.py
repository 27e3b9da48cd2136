"""Plots as SVG. The same figures always give the same text.

No library is used: plotting libraries are tens of megabytes, or write random names into the SVG.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

from .figures import TIMES, Figure, Growth

FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
INK, FAINT, KEPT, MISSED = "#1f2328", "#d1d9e0", "#1a7f37", "#cf222e"
#: Pixels of side_by_side: the labels, the axis, a row, a line of a label.
LABELS, AXIS, ROW, LINE = 420, 440, 42, 15
#: The most characters of one line of a label.
LETTERS = 62
#: The width and height of one panel of growths in pixels, and the panels in a row.
PANEL_WIDTH, PANEL_HEIGHT, BESIDE = 300, 230, 3


class _Drawing:
    """An SVG drawing with a white background, since some users have dark pages."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._root = ElementTree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {width} {height}",
                "width": str(width),
                "height": str(height),
                "font-family": FONT,
                "font-size": "12",
                "role": "img",
            },
        )
        ElementTree.SubElement(self._root, "title").text = title
        self._add("rect", width=width, height=height, fill="#ffffff")

    def _add(self, kind: str, **attributes: object) -> ElementTree.Element:
        shown = {
            name.replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else str(value)
            for name, value in attributes.items()
        }
        return ElementTree.SubElement(self._root, kind, shown)

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str, width: float = 1, dash: str = "") -> None:
        more = {"stroke_dasharray": dash} if dash else {}
        self._add(
            "line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), stroke=stroke, stroke_width=width, **more
        )

    def text(self, x: float, y: float, text: str, anchor: str = "start", fill: str = INK, size: int = 12) -> None:
        more = {} if size == 12 else {"font_size": size}
        self._add("text", x=float(x), y=float(y), text_anchor=anchor, fill=fill, **more).text = text

    def dot(self, x: float, y: float, fill: str, title: str) -> None:
        dot = self._add("circle", cx=float(x), cy=float(y), r=4, fill=fill)
        ElementTree.SubElement(dot, "title").text = title

    def path(self, points: Sequence[tuple[float, float]], stroke: str) -> None:
        shown = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._add("polyline", points=shown, fill="none", stroke=stroke, stroke_width=1.5)

    def __str__(self) -> str:
        ElementTree.indent(self._root, " ")
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"


def _logarithmic(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    """A function that maps values to positions on a logarithmic axis; values outside go to its ends."""

    def place(value: float) -> float:
        value = min(max(value, low), high)
        return begin + (end - begin) * math.log(value / low) / math.log(high / low)

    return place


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def side_by_side(figures: Sequence[Figure]) -> str:
    """Plot each comparison as a share of the other side, on a logarithmic axis, with quartiles and limit."""
    shown = [figure for figure in figures if figure.unit == TIMES and not figure.at_least]
    lows = [figure.value.lower for figure in shown] + [0.1]
    highs = [figure.value.upper for figure in shown] + [1.5]
    low, high = min(lows) * 0.8, max(highs) * 1.2
    top, height = 58, 58 + ROW * len(shown) + 34
    drawing = _Drawing(LABELS + AXIS + 20, height, "Each figure as a share of what it is compared with")
    x = _logarithmic(low, high, LABELS + 10, LABELS + AXIS)
    drawing.text(16, 22, "Time that this program takes, as a share of what it is compared with", size=15)
    legend = "dot: ratio of the medians · thick line: middle half of the rounds · bar: its limit"
    drawing.text(16, 42, legend + " · left of 1: this program is quicker", size=11)
    bottom = top + ROW * len(shown)
    for mark in (one for decade in _decades(low, high) for one in (decade, 2 * decade, 5 * decade)):
        if low <= mark <= high:
            drawing.line(x(mark), top, x(mark), bottom, INK if mark == 1 else FAINT)
            drawing.text(x(mark), bottom + 18, f"{mark:g}", "middle")
    for number, figure in enumerate(shown):
        middle = top + ROW * number + ROW / 2
        drawing.line(16, middle + ROW / 2, LABELS + AXIS, middle + ROW / 2, FAINT)
        name = textwrap.shorten(figure.what, LETTERS, placeholder=" …")
        drawing.text(16, middle - 2, name)
        other = textwrap.shorten(f"against {figure.against}", LETTERS, placeholder=" …")
        drawing.text(16, middle - 2 + LINE, other, fill="#59636e", size=11)
        if figure.limit is not None:
            drawing.line(x(figure.limit), middle - 13, x(figure.limit), middle + 13, INK, 2)
        colour = KEPT if figure.kept else MISSED
        drawing.line(x(figure.value.lower), middle, x(figure.value.upper), middle, colour, 5)
        title = f"{figure.value.median:.3g}" + (f", limit {figure.limit:g}" if figure.limit is not None else "")
        drawing.dot(x(figure.value.median), middle, colour, title)
        drawing.text(x(figure.value.median), middle - 8, f"{figure.value.median:.2g}", "middle", size=11)
    return str(drawing)


def growths(found: Sequence[Growth]) -> str:
    """Plot each cost by the size of the work, both logarithmic, with a line of linear growth to the largest size."""
    rows = math.ceil(len(found) / BESIDE)
    width, height = PANEL_WIDTH * min(BESIDE, max(len(found), 1)) + 10, 30 + PANEL_HEIGHT * rows
    drawing = _Drawing(width, height, "Costs by the size of the work")
    drawing.text(12, 20, "Cost by the size of the work (dashed: linear growth)", size=15)
    for number, growth in enumerate(found):
        left = PANEL_WIDTH * (number % BESIDE) + 52
        top = 30 + PANEL_HEIGHT * (number // BESIDE) + 34
        _panel(drawing, growth, left, top, PANEL_WIDTH - 66, PANEL_HEIGHT - 84)
    return str(drawing)


def _panel(drawing: _Drawing, growth: Growth, left: float, top: float, width: float, height: float) -> None:
    sizes, points = zip(*sorted(growth.points.items()), strict=True)
    low, high = min(one.lower for one in points), max(one.upper for one in points)
    # The axis has at least two decades, so that a constant cost looks constant.
    margin = max(1.3, math.sqrt(100 / (high / low)))
    low, high = low / margin, high * margin
    x = _logarithmic(sizes[0] / 1.3, sizes[-1] * 1.3, left, left + width)
    y = _logarithmic(low, high, top + height, top)
    drawing.text(left - 40, top - 10, textwrap.shorten(growth.what, 46, placeholder=" …"))
    drawing.line(left, top, left, top + height, INK)
    drawing.line(left, top + height, left + width, top + height, INK)
    for mark in _decades(low, high):
        if low <= mark <= high:
            drawing.line(left, y(mark), left + width, y(mark), FAINT)
            drawing.text(left - 5, y(mark) + 4, f"{mark:g} {growth.unit}", "end", size=10)
    for size in sizes:
        drawing.text(x(size), top + height + 14, f"{size:,}", "middle", size=10)
    drawing.text(left + width / 2, top + height + 30, growth.of, "middle", size=11)
    # The line of linear growth begins where it enters the panel, and ends at the largest size.
    begin = max(sizes[0], sizes[-1] * low / points[-1].median)
    start = points[-1].median * begin / sizes[-1]
    drawing.line(x(begin), y(start), x(sizes[-1]), y(points[-1].median), "#59636e", 1, "4 3")
    colour = KEPT if growth.kept else MISSED
    drawing.path([(x(size), y(point.median)) for size, point in zip(sizes, points, strict=True)], colour)
    for size, point in zip(sizes, points, strict=True):
        drawing.line(x(size), y(point.lower), x(size), y(point.upper), colour, 3)
        drawing.dot(x(size), y(point.median), colour, f"{size:,}: {point.median:g} {growth.unit}")
