"""Writes benchmarks/README.md, docs/performance.md and the plots from the JSON files of results."""

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
SUMMARY_HEAD = """\
# How fast it is

`inv bench` measures this program and what people would use instead, in one run and in turn, and writes this page. Do
not edit it. A time is a median. [All figures](../benchmarks/README.md) come with spread, limit and the machine's load.

![Each figure as a share of what it is compared with](../benchmarks/side-by-side.svg)
"""
SIDE_BY_SIDE, GROWTH, SUMMARY = "side-by-side.svg", "growth.svg", "../docs/performance.md"


def amount(value: float, unit: str) -> str:
    """A value as text: three digits, and less than a second in milliseconds."""
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
    """The page of all results, from those of each subject by name."""
    lines = [HEAD, f"![Each figure as a share of what it is compared with]({SIDE_BY_SIDE})", ""]
    for name, results in found.items():
        lines += [f"## {name}", "", f"Measured with: {_machine(results)}.", ""]
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


def _machine(results: Results) -> str:
    return ", ".join(f"{what} {value}" for what, value in results.machine.items())


def summary(found: Mapping[str, Results]) -> str:
    """The page of comparisons, from the results of each subject by name."""
    lines = [SUMMARY_HEAD, "| what | against | ours | the other | ratio | limit | load |"]
    lines.append("|---|---|---|---|---|---|---|")
    machines: dict[str, None] = {}
    for results in found.values():
        compared = [figure for figure in results.figures if figure.unit == TIMES and len(figure.sides) > 1]
        if compared:
            machines[_machine(results)] = None
        for figure in compared:
            ours, other = (amount(side.median, figure.side_unit) for side in list(figure.sides.values())[:2])
            limit = "" if figure.limit is None else f"{'≥' if figure.at_least else '≤'} {figure.limit:g}"
            load = " → ".join(f"{one:g}" for one in figure.load)
            cells = [figure.what, figure.against, ours, other, f"{figure.value.median:.3g}", limit, load]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "*Load* is the load average of the machine at the figure's begin and end."]
    lines += [f"Measured with {'; '.join(machines)}." if machines else "", ""]
    return "\n".join(lines)


def render(folder: Path, subjects: Sequence[str]) -> dict[str, str]:
    """The text of each file that is generated from the JSON files in a folder, by file name.

    Args:
        folder: The folder of the JSON files.
        subjects: Their names without suffix, in order; missing ones are skipped.
    """
    found = {name: Results.read(folder / f"{name}.json") for name in subjects if (folder / f"{name}.json").exists()}
    figures = [figure for results in found.values() for figure in results.figures]
    grown = [growth for results in found.values() for growth in results.growths]
    made = {"README.md": page(found), SUMMARY: summary(found), SIDE_BY_SIDE: side_by_side(figures)}
    if grown:
        made[GROWTH] = growths(grown)
    return made


def write(folder: Path, subjects: Sequence[str]) -> None:
    """Write the files of :func:`render` into the folder of the JSON files."""
    for name, text in render(folder, subjects).items():
        (folder / name).write_text(text, encoding="utf-8")
