"""The experiment story against a script started by hand under debugpy, both sides in one run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from workflows.runs import record as records
from workflows.runs import store
from workflows.runs.record import RunRecord, StepRecord

from .measure import Report, alternate, medians, run, seconds
from .pipeline import INV, ROOT, WORK, _await, _docker, _free_port, _training_python

TIMES, ROUNDS = 7, 15
FEW, MANY = 10, 1000


def main() -> None:
    """Measure and write benchmarks/experiment.json."""
    report = Report("experiment")
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project = Path(folder)
        _make_project(project)
        for engine in ("docker", "process") if _docker() else ("process",):
            until_waiting(report, project, {"AML_ENGINE": engine, "AML_DEBUG_PORT": "0"}, engine)
    listing(report)
    report.write()


def _make_project(project: Path) -> None:
    project.mkdir(exist_ok=True)
    (project / "tasks.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom workflows import namespace as ns\n"
    )
    (project / "work.py").write_text(WORK)


def until_waiting(report: Report, project: Path, environ: dict[str, str], engine: str) -> None:
    """From `experiment.debug` typed, with everything built, to the script waiting, against the same by hand."""
    debug = [*INV, "experiment.debug", "work", "--script", "work.py", "--", "10"]
    cancel = [*INV, "experiment.cancel"]
    run(debug, project, environ)
    run(cancel, project, environ)

    def ours() -> float:
        try:
            return seconds(lambda: run(debug, project, environ))
        finally:
            run(cancel, project, environ)

    def bare() -> float:
        started = time.perf_counter()
        with _by_hand(project, engine):
            took = time.perf_counter() - started
        # What every command of Invoke's costs before its task begins.
        return took + seconds(lambda: run([*INV, "--list"], project))

    found = medians(alternate(TIMES, ours=ours, bare=bare))
    hand = "docker run … python -m debugpy" if engine == "docker" else "python -m debugpy"
    report.row(
        f"warm experiment.debug until the script waits ({engine}) / {hand} by hand + inv",
        found["ours"] / found["bare"],
        "times",
        1.5,
        ours=found["ours"],
        by_hand=found["bare"],
    )


@contextlib.contextmanager
def _by_hand(project: Path, engine: str) -> Iterator[None]:
    """A script that waits for its debugger, in the same image or environment."""
    port = _free_port()
    debugpy = ["-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client", "work.py", "10"]
    if engine == "process":
        child = subprocess.Popen([str(_training_python()), *debugpy], cwd=project, stderr=subprocess.DEVNULL)
        _await({port})
        yield
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        return
    debugpy[3] = f"0.0.0.0:{port}"
    latest = max((project / ".azureml-debug" / "runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    image = _image_of(latest)
    mount = ["--mount", f"type=bind,source={project},target=/work", "-w", "/work"]
    published = ["-p", f"127.0.0.1:{port}:{port}"]
    container = run(["docker", "run", "-d", "--rm", *mount, *published, image, "python", *debugpy], project).strip()
    pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", container], project).strip()
    _await({port}, f"/proc/{pid}/net")
    yield
    run(["docker", "kill", container], project)


def _image_of(plan: Path) -> str:
    from workflows.runs import plan as plans

    return plans.load(plan.parent).steps[0].image.name


def listing(report: Report) -> None:
    """`experiment.list` of a project with 1,000 runs against that of one with 10."""
    folders = [Path(tempfile.mkdtemp(prefix="azureml-debug-bench-")) for _ in range(2)]
    try:
        for folder, count in zip(folders, (FEW, MANY), strict=True):
            _make_project(folder)
            _fill(folder, count)

        def listed(folder: Path) -> str:
            return run([*INV, "experiment.list"], folder)

        assert f"{MANY} runs" in listed(folders[1])
        found = medians(
            alternate(
                ROUNDS,
                few=lambda: seconds(lambda: listed(folders[0])),
                many=lambda: seconds(lambda: listed(folders[1])),
            )
        )
    finally:
        for folder in folders:
            shutil.rmtree(folder)
    report.row(
        f"experiment.list of {MANY} runs / of {FEW}",
        found["many"] / found["few"],
        "times",
        1.5,
        many=found["many"],
        few=found["few"],
    )


def _fill(project: Path, count: int) -> None:
    """Put finished runs into a project, with what their scripts have logged."""
    from workflows.experiments import catalog

    catalog.create(project, "work")
    first = store.new_run(project, "experiment", "work", "process")
    step = StepRecord("work", "", records.COMPLETED, exit_code=0, started=first.created, ended=first.created + 1)
    metrics = "".join(
        f'{{"event": "metric", "kind": "scalar", "name": "loss", "value": {1 / (step + 1)}}}\n' for step in range(100)
    )
    for number in range(1, count + 1):
        folder = first.folder.with_name(f"work-{number}-{number:06x}")
        folder.mkdir(exist_ok=True)
        done: RunRecord = replace(first, run_id=folder.name, number=number, folder=folder, steps=[step])
        done.status, done.ended, done.command = records.COMPLETED, first.created + 1, "work.py 10"
        records.save(done)
        (folder / "announce").mkdir()
        done.metrics.write_text(metrics)
    shutil.rmtree(first.folder)
