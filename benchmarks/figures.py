"""Results: spreads, figures with their limits, growth, and the JSON file of a subject."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: The unit of a figure that compares two sides.
TIMES = "times"


def _short(value: float) -> float:
    """Round to four significant digits; further ones are noise."""
    return float(f"{value:.4g}")


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of several values.

    Attributes:
        median: The median.
        lower: The first quartile.
        upper: The third quartile.
        times: The number of values.
    """

    median: float
    lower: float
    upper: float
    times: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        if len(values) < 2:
            return cls(_short(values[0]), _short(values[0]), _short(values[0]), 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(_short(median), _short(lower), _short(upper), len(values))


@dataclass(frozen=True)
class Figure:
    """One figure, and the limit that it has to meet.

    Attributes:
        what: What was measured.
        against: What it was compared with; empty for nothing.
        value: The figure and its spread; of a comparison, the median of one side by that of the other, with the
            quartiles of the ratio of each round.
        unit: `times`, `s`, `ms`, `MB`, ….
        limit: The most that the value may be; None for a figure without a limit.
        at_least: Whether the limit is the least that the value may be.
        sides: The spread of each side, by name.
        side_unit: The unit of the sides.
        load: The machine's load average of one minute at the begin and at the end.
        note: A note for readers.
    """

    what: str
    value: Spread
    unit: str
    limit: float | None = None
    against: str = ""
    at_least: bool = False
    sides: Mapping[str, Spread] = field(default_factory=dict)
    side_unit: str = "s"
    load: tuple[float, float] = (0.0, 0.0)
    note: str = ""

    @property
    def kept(self) -> bool:
        """Whether the limit, if there is one, is met."""
        if self.limit is None:
            return True
        return self.value.median >= self.limit if self.at_least else self.value.median <= self.limit


@dataclass(frozen=True)
class Growth:
    """How a cost grows with the work.

    Attributes:
        what: What was measured.
        of: What grows, such as `steps in a pipeline`.
        points: The cost of each size.
        unit: The unit of the cost.
        limit: The most that :attr:`steepest` may be: 1 is linear, plus a margin for noise.
        load: As in :class:`Figure`.
    """

    what: str
    of: str
    points: Mapping[int, Spread]
    unit: str = "s"
    limit: float = 1.1
    load: tuple[float, float] = (0.0, 0.0)

    @property
    def steepest(self) -> float:
        """The largest exponent of the size by which the cost grows between two neighbouring sizes."""
        found = sorted(self.points.items())
        return max(
            (
                math.log(after.median / before.median) / math.log(larger / smaller)
                for (smaller, before), (larger, after) in itertools.pairwise(found)
            ),
            default=0.0,
        )

    @property
    def kept(self) -> bool:
        """Whether the growth is within the limit."""
        return self.steepest <= self.limit


@dataclass
class Results:
    """The results of one subject.

    Attributes:
        machine: The machine and the versions with which it was measured.
        figures: The figures in the order in which they were measured.
        growths: The growths in the order in which they were measured.
        left_out: What could not be measured on the machine, and why.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the results as JSON, with whether each limit was met."""
        record = {
            "machine": self.machine,
            "figures": [{**asdict(one), "kept": one.kept} for one in self.figures],
            "growths": [{**asdict(one), "steepest": _short(one.steepest), "kept": one.kept} for one in self.growths],
            "left_out": self.left_out,
        }
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read results that :meth:`write` has written."""
        record = json.loads(path.read_text(encoding="utf-8"))
        figures = []
        for one in record["figures"]:
            del one["kept"]
            one |= {"value": Spread(**one["value"]), "load": tuple(one["load"])}
            one["sides"] = {name: Spread(**side) for name, side in one["sides"].items()}
            figures.append(Figure(**one))
        growths = []
        for one in record["growths"]:
            del one["kept"], one["steepest"]
            one["points"] = {int(size): Spread(**point) for size, point in one["points"].items()}
            growths.append(Growth(**{**one, "load": tuple(one["load"])}))
        return cls(record["machine"], figures, growths, record["left_out"])
