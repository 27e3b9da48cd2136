"""Measures subjects. A subject is a module whose `main` gets a :class:`Bench`.

A subject measures several sides in turn (:meth:`Bench.measure`) and adds results (:meth:`Bench.ratio`,
:meth:`Bench.figure`, :meth:`Bench.growth`). It raises :class:`~workflows.errors.UserError` if a side cannot run, and
:class:`LeftOut` if this machine lacks something that it needs.
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
    """This machine lacks something that a measurement needs.

    Args:
        reason: What is missing.
        needed: Whether CI has to have it. There, it is a failure then.
    """

    def __init__(self, reason: str, *, needed: bool = True) -> None:
        super().__init__(reason)
        self.needed = needed


class Bench:
    """Collects and shows the results of one subject.

    Args:
        quick: Whether to try only whether everything can be measured: one round, with the least work.
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
        """The number of rounds: as given, or one if ``quick``."""
        return 1 if self.quick else times

    def measure(self, times: int, **sides: Callable[[], float]) -> Samples:
        """Measure several sides in turn.

        Args:
            times: The number of rounds; see :meth:`times`.
            sides: For each side, a function that measures one value; this program's side is `ours`.
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
        """Add a comparison of two sides.

        Args:
            what: What was measured.
            against: What it is compared with.
            samples: The measured values; other sides in them are ignored.
            limit: The most that ours divided by theirs may be; None for a figure without a limit.
            ours: The name of our side.
            theirs: The name of the other side.
            inverse: Whether the figure is theirs divided by ours (a share of speed), and the limit its least value.
            unit: The unit of the sides.
            note: A note for readers.
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
        """Add a figure that is compared only with its limit.

        Args:
            what: What was measured.
            values: The measured values; of samples, one side is used.
            unit: Their unit.
            limit: The most that the median may be.
            side: The side of samples.
            at_least: Whether the limit is the least that the median may be.
            note: A note for readers.
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
            sizes: The sizes in ascending order; if ``quick``, only the two smallest are measured.
            measure: Measures the cost of one size.
            times: The number of rounds; see :meth:`times`.
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
        """A part of a subject. If it is left out or cannot run, the other parts are still measured.

        Args:
            what: What it measures, for messages.
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
        # One round shows whether it can be measured, not how fast it is.
        if self.quick or limit is None:
            return "    "
        return "ok  " if kept else "MISS"


def measure(
    subjects: Mapping[str, str], *, quick: bool = False, folder: Path = HERE, show: Callable[[str], None] | None = None
) -> list[str]:
    """Measure subjects. If one fails, the others are still measured.

    Args:
        subjects: The module of each subject, by name. Its `main` gets a :class:`Bench`.
        quick: See :class:`Bench`; nothing is written then.
        folder: The folder for each subject's JSON file, which is not written if a part of the subject could not run.
        show: Shows a line.

    Returns:
        What could not run, a line each. Missed limits are not included.
    """
    say = show or (lambda line: print(line, flush=True))
    failed = []
    # As pip does on installation. If PYTHONDONTWRITEBYTECODE is set, each command would compile everything.
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


#: Measures one subject in a process of its own; the last line of output lists what could not run.
_ALONE = (
    "import json, sys; from benchmarks import harness\n"
    "print(json.dumps(harness.measure({sys.argv[1]: sys.argv[2]}, quick=True)))\n"
)


def attempt(subjects: Mapping[str, str], *, show: Callable[[str], None] = print) -> list[str]:
    """Try whether subjects can be measured. They run in parallel, since their figures do not count.

    Args:
        subjects: The module of each subject, by name.
        show: Shows the output of a subject when it is done.

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
        output = done.stdout.rstrip()
        if done.returncode:
            show(output)
            return [f"{name}: its process ended with exit code {done.returncode}"]
        output, _, found = output.rpartition("\n")
        show(output)
        failed: list[str] = json.loads(found)
        return failed

    with ThreadPoolExecutor(1 + (os.cpu_count() or 1)) as pool:
        return [line for failed in pool.map(one, subjects, subjects.values()) for line in failed]


def docker() -> None:
    """Check that a Docker engine answers.

    Raises:
        LeftOut: No engine answers.
    """
    found = shutil.which("docker")
    if not found or subprocess.run([found, "info"], capture_output=True, check=False, timeout=30).returncode:
        raise LeftOut("no Docker engine answers")


def new_project(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """Create a project that uses this program's tasks, and return its folder.

    Args:
        folder: The project's folder, which need not exist.
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
