"""Measures subjects: a module each, whose `main` is handed a :class:`Bench`.

A subject measures sides in turn (:meth:`Bench.measure`), says what came of it (:meth:`Bench.ratio`,
:meth:`Bench.figure`, :meth:`Bench.growth`), and raises :class:`~workflows.errors.UserError` where a side cannot run
or :class:`LeftOut` where this machine lacks what it takes.
"""

from __future__ import annotations

import compileall
import importlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from workflows.errors import UserError

from .figures import TIMES, Figure, Growth, Results, Spread
from .measure import Samples, alternate, load

HERE = Path(__file__).parent
ROOT = HERE.parent
INV = [sys.executable, "-m", "invoke"]


class LeftOut(Exception):
    """This machine lacks what it takes to measure something.

    Args:
        reason: What is missing.
        needed: Whether CI has to have it, where it is a failure then.
    """

    def __init__(self, reason: str, *, needed: bool = True) -> None:
        super().__init__(reason)
        self.needed = needed


class Bench:
    """Collects what one subject measures, and shows it.

    Args:
        quick: Whether all is only tried: one round of each, and the least work that goes the same way.
        show: Shows a line.
    """

    def __init__(self, quick: bool = False, show: Callable[[str], None] = print) -> None:
        self.quick = quick
        self._show = show
        self.results = Results(
            {"python": platform.python_version(), "cores": os.cpu_count(), "debugpy": version("debugpy")}
        )
        #: What could not run.
        self.failed: list[str] = []

    def times(self, times: int) -> int:
        """How many rounds there are of what is measured so many times; one where all is only tried."""
        return 1 if self.quick else times

    def measure(self, times: int, **sides: Callable[[], float]) -> Samples:
        """Measure several sides in turn.

        Args:
            times: Rounds; see :meth:`times`.
            sides: What gives one value of each, `ours` among them where there is something to compare.
        """
        return alternate(self.times(times), sides)

    def ratio(
        self,
        what: str,
        against: str,
        samples: Samples,
        limit: float | None,
        *,
        ours: str = "ours",
        theirs: str,
        inverse: bool = False,
        unit: str = "s",
        note: str = "",
    ) -> None:
        """Add a comparison of two of the sides that were measured.

        Args:
            what: What was measured.
            against: What it is compared with.
            samples: What was measured; other sides in it are left out.
            limit: The most that ours by theirs may be; None for a figure that is only told.
            ours: The name of our side.
            theirs: The name of the other one.
            inverse: Whether the figure is theirs by ours (the share of its speed), and the limit what that is at least.
            unit: The unit of the sides.
            note: What else there is to know.
        """
        above, below = (theirs, ours) if inverse else (ours, theirs)
        rounds = Spread.of(samples.ratios(above, below))
        sides = {name: Spread.of(samples.values[name]) for name in (ours, theirs)}
        middle = statistics.median(samples.values[above]) / statistics.median(samples.values[below])
        value = Spread(float(f"{middle:.4g}"), rounds.lower, rounds.upper, rounds.times)
        self._add(Figure(what, value, TIMES, limit, against, inverse, sides, unit, samples.load, note))

    def figure(
        self,
        what: str,
        values: Sequence[float] | Samples,
        unit: str,
        limit: float | None = None,
        *,
        side: str = "ours",
        at_least: bool = False,
        note: str = "",
    ) -> None:
        """Add a figure that is compared with nothing but its limit.

        Args:
            what: What was measured.
            values: What was measured; of samples, one side is taken.
            unit: Its unit.
            limit: The most that it may be.
            side: Which side of samples.
            at_least: Whether the limit is the least that it may be.
            note: What else there is to know.
        """
        now = load()
        around = values.load if isinstance(values, Samples) else (now, now)
        taken = values.values[side] if isinstance(values, Samples) else values
        self._add(Figure(what, Spread.of(taken), unit, limit, at_least=at_least, load=around, note=note))

    def growth(
        self,
        what: str,
        of: str,
        sizes: Sequence[int],
        measure: Callable[[int], float],
        *,
        times: int = 3,
        unit: str = "s",
        limit: float = 1.1,
    ) -> None:
        """Measure a cost for several sizes of the work, in turn.

        Args:
            what: What is measured.
            of: What grows.
            sizes: From the smallest on; only the two smallest are tried where all is only tried.
            measure: The cost of one size.
            times: Rounds; see :meth:`times`.
            unit: The unit of the cost.
            limit: See :class:`Growth`.
        """
        taken = list(sizes)[:2] if self.quick else list(sizes)
        sides: dict[str, Callable[[], float]] = {str(size): lambda size=size: measure(size) for size in taken}  # type: ignore[misc]
        samples = alternate(self.times(times), sides)
        points = {size: Spread.of(samples.values[str(size)]) for size in taken}
        found = Growth(what, of, points, unit, limit, samples.load)
        self.results.growths.append(found)
        mark = self._mark(found.kept, limit)
        costs = ", ".join(f"{size}: {point.median:g}" for size, point in points.items())
        self._show(f"{mark} {what}, by {of}: {costs} {unit}; power {found.steepest:.2f}, limit {limit:g}")

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """A part of a subject: if it is left out or cannot run, the others are measured all the same.

        Args:
            what: What it measures, for the message.
        """
        try:
            yield
        except LeftOut as error:
            self._show(f"left out: {what}: {error}")
            self.results.left_out.append(f"{what}: {error}")
            if error.needed and os.environ.get("CI"):
                self.failed.append(f"{what}: {error}")
        except UserError as error:
            for line in (*error.details, *f"{what}: {error}".splitlines()):
                self._show(line)
            self.failed.append(f"{what}: {error.problem}")
        except Exception as error:
            self._show(traceback.format_exc())
            self.failed.append(f"{what}: {type(error).__name__}: {error}")

    def _add(self, figure: Figure) -> None:
        self.results.figures.append(figure)
        sides = "  ".join(f"{name} {side.median:.4g} {figure.side_unit}" for name, side in figure.sides.items())
        against = f" / {figure.against}" if figure.against else ""
        limit = "" if figure.limit is None else f", at {'least' if figure.at_least else 'most'} {figure.limit:g}"
        value = f"{figure.value.median:.4g} {figure.unit}"
        tail = "; ".join(filter(None, (sides, figure.note)))
        self._show(f"{self._mark(figure.kept, figure.limit)} {figure.what}{against}: {value}{limit}  {tail}".rstrip())

    def _mark(self, kept: bool, limit: float | None) -> str:
        # One round says whether it can be measured, not how fast it is.
        if self.quick or limit is None:
            return "    "
        return "ok  " if kept else "MISS"


def measure(
    subjects: Mapping[str, str], *, quick: bool = False, folder: Path = HERE, show: Callable[[str], None] | None = None
) -> list[str]:
    """Measure subjects, each to its end whatever became of the others.

    Args:
        subjects: The module of each, by its name. Its `main` is handed a :class:`Bench`.
        quick: See :class:`Bench`; nothing is written then.
        folder: Where each subject's JSON file is written, named as its module, unless a part of it could not run.
        show: Shows a line.

    Returns:
        What could not run, a line each. Figures beyond their limits are not among it.
    """
    say = show or (lambda line: print(line, flush=True))
    failed = []
    # As pip leaves an installed program: where PYTHONDONTWRITEBYTECODE is set, each command would compile all of it.
    compileall.compile_dir(str(ROOT / "workflows"), quiet=2)
    for name, module in subjects.items():
        began = time.monotonic()
        bench = Bench(quick, say)
        say(f"== {name} (load {load():g})")
        with bench.part(name):
            importlib.import_module(module).main(bench)
        say(f"   {time.monotonic() - began:.0f} s")
        failed += bench.failed
        if not quick and not bench.failed:
            bench.results.write(folder / f"{module.rpartition('.')[2]}.json")
    return failed


#: Measures one subject in a process of its own; what could not run is the last line.
_ALONE = (
    "import json, sys; from benchmarks import harness\n"
    "print(json.dumps(harness.measure({sys.argv[1]: sys.argv[2]}, quick=True)))\n"
)


def attempt(subjects: Mapping[str, str], *, show: Callable[[str], None] = print) -> list[str]:
    """Try whether subjects can be measured, several at once, since no figure counts and most of them wait.

    Args:
        subjects: The module of each, by its name.
        show: Shows what one of them has said, when it is done.

    Returns:
        What could not run, a line each.
    """

    def one(name: str, module: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", _ALONE, name, module],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        said = done.stdout.rstrip()
        if done.returncode:
            show(said)
            return [f"{name}: its process ended with exit code {done.returncode}"]
        said, _, found = said.rpartition("\n")
        show(said)
        failed: list[str] = json.loads(found)
        return failed

    with ThreadPoolExecutor(1 + (os.cpu_count() or 1)) as pool:
        return [line for failed in pool.map(one, subjects, subjects.values()) for line in failed]


def docker() -> None:
    """Go on only with a Docker engine.

    Raises:
        LeftOut: No engine answers.
    """
    found = shutil.which("docker")
    if not found or subprocess.run([found, "info"], capture_output=True, check=False, timeout=30).returncode:
        raise LeftOut("no Docker engine answers")


def new_project(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """Make a project that uses this program's tasks.

    Args:
        folder: Where; it is made if it is not there.
        files: The text of each of its files, by path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tasks.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom workflows import namespace as ns\n"
    )
    for name, text in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
