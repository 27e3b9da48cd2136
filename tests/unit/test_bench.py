"""The measurements' own machinery: statistics, files, table, plots, and what makes `inv bench` fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from pages import ROOT

from benchmarks import harness, page
from benchmarks.figures import Figure, Growth, Results, Spread
from benchmarks.harness import Bench, LeftOut
from benchmarks.listeners import await_ports, free_port, listening_ports, program
from benchmarks.measure import Samples, alternate, concatenate, run
from benchmarks.plot import LETTERS, growths, side_by_side
from benchmarks.tasks import APART, SUBJECTS
from workflows.errors import UserError

SVG = "{http://www.w3.org/2000/svg}"


def silent(_line: str) -> None:
    pass


@pytest.fixture
def subject() -> Iterator[Callable[..., dict[str, str]]]:
    """Makes a subject of a function."""
    made = []

    def make(main: Callable[[Bench], None], name: str = "subject_of_a_test") -> dict[str, str]:
        module = ModuleType(name)
        module.main = main  # type: ignore[attr-defined]
        sys.modules[name] = module
        made.append(name)
        return {name: name}

    yield make
    for name in made:
        del sys.modules[name]


def some_results() -> Results:
    side = Spread(0.5, 0.4, 0.6, 10)
    return Results(
        {"python": "3.11.7"},
        [
            Figure("a thing", Spread(0.05, 0.04, 0.07, 10), "times", 0.1, "another", sides={"ours": side, "x": side}),
            Figure("speed | share", Spread(0.9, 0.8, 1.0, 10), "times", 0.95, "bare", at_least=True, load=(0.1, 2.0)),
            Figure("told only", Spread(3.0, 2.0, 4.0, 3), "MB/s", note="refused in line 3"),
        ],
        [Growth("listing", "runs on disk", {n: Spread(n / 50, n / 60, n / 40, 3) for n in (1, 10, 100, 1000)})],
        ["the other thing: no engine"],
    )


# Statistics -----------------------------------------------------------------------------------------


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


def test_sides_are_measured_in_turn_and_every_other_round_backwards() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[], float]:
        return lambda: float(order.append(name) or len(order))  # type: ignore[func-returns-value]

    found = alternate(3, {"a": side("a"), "b": side("b")})
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found.values == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}
    assert all(one >= 0 for one in found.load)


def test_a_comparison_is_of_the_medians_and_its_quartiles_are_of_the_rounds() -> None:
    bench = Bench(show=silent)
    samples = Samples({"ours": [1.0, 2.0, 3.0], "bare": [2.0, 4.0, 30.0], "other": [1.0, 1.0, 1.0]}, (0.5, 0.7))
    bench.ratio("a thing", "another", samples, 0.5, theirs="bare")
    bench.ratio("its speed", "another", samples, 2.5, theirs="bare", inverse=True)
    less, speed = bench.results.figures
    assert (less.value, less.kept) == (Spread(0.5, 0.3, 0.5, 3), True)
    assert (speed.value.median, speed.kept) == (2.0, False)
    assert list(less.sides) == ["ours", "bare"] and less.load == (0.5, 0.7)


def test_rounds_of_several_are_joined_and_subtracted_round_by_round() -> None:
    one, two = Samples({"a": [1.0], "b": [3.0]}, (0.0, 1.0)), Samples({"a": [2.0], "b": [8.0]}, (2.0, 3.0))
    both = concatenate([one, two])
    assert both == Samples({"a": [1.0, 2.0], "b": [3.0, 8.0]}, (0.0, 3.0))
    assert both.differences("b", "a").values == {"ours": [2.0, 6.0]}


@pytest.mark.parametrize(("power", "kept"), [(0.5, True), (1.0, True), (1.5, False)])
def test_what_grows_faster_than_the_work_is_found(power: float, kept: bool) -> None:
    bench = Bench(show=silent)
    bench.growth("a cost", "things", (1, 10, 100), lambda size: size**power)
    (found,) = bench.results.growths
    assert found.steepest == pytest.approx(power, abs=0.01) and found.kept is kept


def test_a_step_that_only_the_largest_sizes_take_is_found() -> None:
    points = {1: 1.0, 10: 1.0, 100: 1.0, 1000: 100.0}
    found = Growth("a cost", "things", {size: Spread(cost, cost, cost, 1) for size, cost in points.items()})
    assert not found.kept


# Files ----------------------------------------------------------------------------------------------


def test_results_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    results = some_results()
    results.write(tmp_path / "a.json")
    assert Results.read(tmp_path / "a.json") == results
    record = json.loads((tmp_path / "a.json").read_text())
    assert [one["kept"] for one in record["figures"]] == [True, False, True]
    assert record["figures"][0]["sides"]["ours"] == {"median": 0.5, "lower": 0.4, "upper": 0.6, "times": 10}
    assert record["growths"][0]["kept"] is True


def test_the_table_shows_each_figure_with_its_spread_limit_and_load() -> None:
    text = page.page({"things": some_results()})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    half = "500 ms (400 ms to 600 ms)"
    assert f"| a thing | another | {half} | {half} | 0.05 (0.04 to 0.07) | ≤ 0.1 | yes | 10 | 0 → 0 |" in rows
    assert "| speed \\| share | bare |  |  | 0.9 (0.8 to 1) | ≥ 0.95 | **no** | 10 | 0.1 → 2 |" in rows
    assert any("told only (refused in line 3)" in row and "3 MB/s" in row for row in rows)
    assert any(
        row.startswith("| listing | runs on disk | 1: 20 ms, 10: 200 ms, 100: 2 s, 1,000: 20 s |") for row in rows
    )
    assert "Left out: the other thing: no engine" in text


@pytest.mark.parametrize("plot", ["side by side", "growths"])
def test_a_plot_is_well_formed_the_same_each_time_and_inside_its_frame(plot: str) -> None:
    results = some_results()
    long = Figure("word " * 40, Spread(2e-4, 1e-4, 30.0, 3), "times", 1.0, '<&">' * 30)
    figures = [*results.figures, long]
    grown = results.growths * 4
    text, again = (side_by_side(figures) if plot == "side by side" else growths(grown) for _ in range(2))
    assert text == again
    root = ElementTree.fromstring(text)
    assert root.tag == SVG + "svg"
    _x, _y, width, height = map(float, root.attrib["viewBox"].split())
    for one in root.iter():
        for name in ("x", "x1", "x2", "cx"):
            assert -1 <= float(one.get(name, 0)) <= width
        for name in ("y", "y1", "y2", "cy"):
            assert -1 <= float(one.get(name, 0)) <= height
    dots = root.findall(f".//{SVG}circle")
    assert len(dots) == (2 if plot == "side by side" else 16)
    if plot == "side by side":
        labels = [one.text or "" for one in root.iter(SVG + "text") if one.get("x") == "16.0"][2:]
        assert labels[0] == "a thing" and all(len(label) <= LETTERS for label in labels)


def test_the_page_and_the_plots_are_what_the_results_say() -> None:
    folder = ROOT / "benchmarks"
    made = page.render(folder, [module for module, _doc in (*SUBJECTS.values(), *APART.values())])
    stale = [name for name, text in made.items() if (folder / name).read_text(encoding="utf-8") != text]
    assert stale == [], "stale: run `inv bench.page`"


# What makes it fail ---------------------------------------------------------------------------------


def test_a_side_that_cannot_run_fails_and_what_comes_after_it_is_measured(
    subject: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    lines: list[str] = []

    def broken(bench: Bench) -> None:
        with bench.part("the first part"):
            bench.measure(10, ours=lambda: float(run([sys.executable, "-c", "print('x'); 1/0"], tmp_path)))
        bench.figure("the second part", [1.0], "s")

    def sound(bench: Bench) -> None:
        bench.figure("a slow thing", [9.0], "s", 1.0)

    subjects = {**subject(broken, "broken_of_a_test"), **subject(sound)}
    failed = harness.measure(subjects, folder=tmp_path, show=lines.append)
    assert len(failed) == 1 and failed[0].startswith("the first part: It ended with 1: ")
    assert any("ZeroDivisionError" in line for line in lines)
    assert any("the second part" in line for line in lines)
    # A limit that is not kept is a figure, not a failure; half of a subject is no result.
    assert [path.name for path in tmp_path.glob("*.json")] == ["subject_of_a_test.json"]
    assert any(line.startswith("MISS a slow thing: 9 s, at most 1") for line in lines)


def test_quick_takes_one_round_of_each_judges_nothing_and_writes_nothing(
    subject: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    lines: list[str] = []
    rounds = []

    def main(bench: Bench) -> None:
        found = bench.measure(10, ours=lambda: float(rounds.append("ours") or 9))  # type: ignore[func-returns-value]
        bench.figure("a slow thing", found, "s", 1.0)
        bench.growth("a cost", "things", (1, 10, 100), lambda size: float(rounds.append(size) or size**3))  # type: ignore[func-returns-value, arg-type]

    assert harness.measure(subject(main), quick=True, folder=tmp_path, show=lines.append) == []
    assert rounds == ["ours", 1, 10]
    assert not any("MISS" in line for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_what_is_only_tried_is_tried_several_at_once_and_each_is_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # Two that wait for each other, one that cannot run, one that ends its process.
    waiting = "import pathlib, time\nhere = pathlib.Path(__file__).parent\ndef main(bench):\n"
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}_of_a_test.py").write_text(
            f"{waiting}    (here / '{name}').touch()\n    until = time.monotonic() + 60\n"
            f"    while not (here / '{other}').exists():\n        assert time.monotonic() < until\n"
            "        time.sleep(0.01)\n    bench.figure(f'it was tried {bench.quick}', [1.0], 's')\n"
        )
    (tmp_path / "broken_of_a_test.py").write_text("def main(bench):\n    1 / 0\n")
    (tmp_path / "ending_of_a_test.py").write_text("import os\ndef main(bench):\n    os._exit(3)\n")
    told: list[str] = []
    names = ("one", "two", "broken", "ending")
    failed = harness.attempt({name: f"{name}_of_a_test" for name in names}, show=told.append)
    assert failed == ["broken: ZeroDivisionError: division by zero", "ending: its process ended with exit code 3"]
    for name in ("one", "two"):
        (said,) = [said for said in told if said.startswith(f"== {name} ")]
        assert "it was tried True: 1 s" in said
    assert any("ZeroDivisionError" in said for said in told) and len(told) == 4


@pytest.mark.parametrize(("ci", "needed", "fails"), [("", True, False), ("true", True, True), ("true", False, False)])
def test_what_a_machine_lacks_is_left_out_with_its_reason_and_fails_only_where_everything_is_there(
    ci: str, needed: bool, fails: bool, subject: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)

    def main(_bench: Bench) -> None:
        raise LeftOut("no engine answers", needed=needed)

    lines: list[str] = []
    failed = harness.measure(subject(main), quick=True, show=lines.append)
    assert (failed != []) is fails
    assert "left out: subject_of_a_test: no engine answers" in lines


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ([sys.executable, "-c", "import time; time.sleep(60)"], "It took more than 0.5 s"),
        (["/no/such/program"], "/no/such/program cannot be started"),
    ],
)
def test_a_command_that_does_not_come_back_or_is_not_there_says_so(
    command: list[str], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        run(command, tmp_path, timeout=0.5)
    assert caught.value.problem.startswith(problem)


def test_the_command_ends_with_1_where_a_subject_cannot_run_and_leaves_the_checkout_alone(tmp_path: Path) -> None:
    """Through Invoke, with a real subject whose Python cannot start what it measures."""
    (tmp_path / "tasks.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from invoke import Collection\n"
        "from benchmarks import reading, tasks\n"
        "reading.sys = type('Broken', (), {'executable': '/no/such/python'})\n"
        "ns = Collection(bench=tasks.ns)\n"
    )
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "benchmarks").iterdir() if path.is_file()}
    typed = [sys.executable, "-m", "invoke", "bench.reading", "--quick"]
    done = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "reading: /no/such/python cannot be started" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    after = {path: path.stat().st_mtime_ns for path in (ROOT / "benchmarks").iterdir() if path.is_file()}
    assert after == before


def test_nothing_of_a_program_outlives_it_though_debugpys_adapter_leaves_its_session(tmp_path: Path) -> None:
    script = tmp_path / "nothing.py"
    script.write_text("")
    port = free_port()
    waiting = [sys.executable, "-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client", str(script)]
    with program(waiting):
        await_ports({port})
    assert not listening_ports({port})
