"""The experiment story compared with a script started by hand under debugpy."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from workflows.models import ImageRef
from workflows.runs import record as records
from workflows.runs import store
from workflows.runs.record import RunRecord, StepRecord

from .harness import INV, Bench, docker, new_project
from .listeners import await_ports, free_port, program, training_python, with_debugpy
from .measure import run, seconds
from .pipeline import WORK

TIMES, ROUNDS = 10, 15
FEW, MANY = 10, 1000


def main(bench: Bench) -> None:
    """Measure waiting, and the list of runs."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project = new_project(Path(folder), {"work.py": WORK})
        for engine in ("docker", "process"):
            with bench.part(f"until the script waits ({engine})"):
                if engine == "docker":
                    docker()
                until_waiting(bench, project, {"AML_ENGINE": engine, "AML_DEBUG_PORT": "0"}, engine)
    with bench.part("the list of runs"):
        listing(bench)


def until_waiting(bench: Bench, project: Path, environ: dict[str, str], engine: str) -> None:
    """Measure the time from `experiment.debug`, with everything built, to the waiting script; and the same by hand."""
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
        # The time that Invoke needs before a task begins.
        return took + seconds(lambda: run([*INV, "--list"], project))

    found = bench.measure(TIMES, ours=ours, by_hand=bare)
    hand = "docker run … python -m debugpy" if engine == "docker" else "python -m debugpy"
    bench.ratio(
        f"warm inv experiment.debug until the script waits ({engine})",
        f"{hand} by hand and Invoke's start",
        found,
        1.25,
        theirs="by_hand",
    )


@contextlib.contextmanager
def _by_hand(project: Path, engine: str) -> Iterator[None]:
    """Run a script that waits for its debugger, in the same image or environment."""
    port = free_port()
    debugpy = ["-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client", "work.py", "10"]
    if engine == "process":
        with program([str(training_python()), *debugpy], project, with_debugpy()):
            await_ports({port})
            yield
        return
    debugpy[3] = f"0.0.0.0:{port}"
    latest = max((project / ".azureml-debug" / "runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    image = _image_of(latest)
    mount = ["--mount", f"type=bind,source={project},target=/work", "-w", "/work"]
    mount += ["--mount", f"type=bind,source={image.debugpy},target=/debugpy,readonly", "-e", "PYTHONPATH=/debugpy"]
    published = ["-p", f"127.0.0.1:{port}:{port}"]
    command = ["docker", "run", "-d", "--rm", *mount, *published, image.name, "python", *debugpy]
    container = run(command, project).strip()
    pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", container], project).strip()
    await_ports({port}, f"/proc/{pid}/net")
    yield
    run(["docker", "kill", container], project)


def _image_of(plan: Path) -> ImageRef:
    from workflows.runs import plan as plans

    return plans.load(plan.parent).steps[0].image


def listing(bench: Bench) -> None:
    """Compare `experiment.list` in a project with 1,000 runs with one with 10."""
    folders = [Path(tempfile.mkdtemp(prefix="azureml-debug-bench-")) for _ in range(2)]
    try:
        for folder, count in zip(folders, (FEW, MANY), strict=True):
            new_project(folder)
            fill(folder, count)

        def listed(folder: Path) -> str:
            return run([*INV, "experiment.list"], folder)

        assert f"{MANY} runs" in listed(folders[1])
        found = bench.measure(
            ROUNDS, few=lambda: seconds(lambda: listed(folders[0])), ours=lambda: seconds(lambda: listed(folders[1]))
        )
    finally:
        for folder in folders:
            shutil.rmtree(folder)
    bench.ratio(f"inv experiment.list of {MANY} runs", f"of {FEW} runs", found, 1.5, theirs="few")


def fill(project: Path, count: int) -> None:
    """Create finished runs in a project, with logged metrics."""
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
