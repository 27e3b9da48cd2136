"""Writes benchmarks/README.md and the plots from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .figures import TIMES, Figure, Growth, Results, Spread
from .plot import growths, side_by_side

HEAD = """\
# Benchmarks

`inv bench` measures this program and writes this page from `benchmarks/*.json`; do not edit it. One subject is measured
by its name (`inv --list bench`); `inv bench --quick` tries in two minutes whether all of them can be measured.

What is compared ran in one run, in turn, so that a busy moment met all sides. A value is a median, and behind it in
brackets is where the middle half of its rounds lay; of a comparison these are the ratios of each round. *Load* is the
load average of the machine when the figure's first round began and when its last one ended.
"""
SIDE_BY_SIDE, GROWTH = "side-by-side.svg", "growth.svg"


def amount(value: float, unit: str) -> str:
    """A value as people write it: three digits, seconds as milliseconds where they are few."""
    if unit == "s" and value < 1:
        value, unit = value * 1000, "ms"
    digits = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return f"{digits} {unit}".rstrip()


def _cell(spread: Spread, unit: str) -> str:
    return f"{amount(spread.median, unit)} ({amount(spread.lower, unit)} to {amount(spread.upper, unit)})"


def _row(figure: Figure) -> str:
    sides = [_cell(side, figure.side_unit) for side in figure.sides.values()]
    if not sides:
        sides = ["", ""]
    limit = "" if figure.limit is None else f"{'≥' if figure.at_least else '≤'} {figure.limit:g}"
    result = _cell(figure.value, "" if figure.unit == TIMES else figure.unit)
    kept = "" if figure.limit is None else "yes" if figure.kept else "**no**"
    what = figure.what + (f" ({figure.note})" if figure.note else "")
    load = " → ".join(f"{one:g}" for one in figure.load)
    cells = [what, figure.against, *sides, result, limit, kept, str(figure.value.times), load]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _growth(growth: Growth) -> str:
    points = ", ".join(f"{size:,}: {amount(point.median, growth.unit)}" for size, point in growth.points.items())
    kept = "yes" if growth.kept else "**no**"
    cells = [growth.what, growth.of, points, f"{growth.steepest:.2f}", f"≤ {growth.limit:g}", kept]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(found: Mapping[str, Results]) -> str:
    """The page, from the results of each subject by its name."""
    lines = [HEAD, f"![Each figure as a share of what it is compared with]({SIDE_BY_SIDE})", ""]
    for name, results in found.items():
        machine = ", ".join(f"{what} {value}" for what, value in results.machine.items())
        lines += [f"## {name}", "", f"Measured with: {machine}.", ""]
        if results.figures:
            lines += ["| figure | against | ours | the other | result | limit | kept | rounds | load |"]
            lines += ["|---|---|---|---|---|---|---|---|---|", *map(_row, results.figures), ""]
        if results.growths:
            lines += ["| cost | by | medians | steepest power | limit | kept |", "|---|---|---|---|---|---|"]
            lines += [*map(_growth, results.growths), ""]
        lines += [f"Left out: {reason}\n" for reason in results.left_out]
    if any(results.growths for results in found.values()):
        lines += ["## How costs grow", "", f"![Costs by the size of the work, both logarithmic]({GROWTH})", ""]
    return "\n".join(lines)


def render(folder: Path, subjects: Sequence[str]) -> dict[str, str]:
    """The text of each file that is made from the JSON files in a folder, by its name.

    Args:
        folder: Where the JSON files are.
        subjects: Their names without the ending, in order; one that is not there is left out.
    """
    found = {name: Results.read(folder / f"{name}.json") for name in subjects if (folder / f"{name}.json").exists()}
    figures = [figure for results in found.values() for figure in results.figures]
    grown = [growth for results in found.values() for growth in results.growths]
    made = {"README.md": page(found), SIDE_BY_SIDE: side_by_side(figures)}
    if grown:
        made[GROWTH] = growths(grown)
    return made


def write(folder: Path, subjects: Sequence[str]) -> None:
    """Write what :func:`render` gives beside the JSON files."""
    for name, text in render(folder, subjects).items():
        (folder / name).write_text(text, encoding="utf-8")
