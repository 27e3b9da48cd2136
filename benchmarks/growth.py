"""How costs grow with the work, over three orders of magnitude. No cost may grow faster than linearly."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .deployment import Server, inference_environment
from .experiment import fill
from .harness import INV, ROOT, Bench, LeftOut, new_project
from .measure import run, seconds

STEPS, RANKS = (1, 10, 100, 1000), (1, 8, 64, 512)
FILES, RUNS = (10, 100, 1000, 10_000), (10, 100, 1000, 10_000)
KILOBYTES = (100, 1000, 10_000, 100_000)
CONFIGURATIONS = (10, 100, 1000, 10_000)
REQUESTS = (20, 200, 2000, 20_000)
#: The most seconds for one command with the most work; reached only if something is broken.
LIMIT = 900
JOB = "    code: ./work\n    environment: azureml:any@latest\n"
PIPELINE = {"AML_ENGINE": "process", "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}
SUBMIT = ["pipeline.submit", "--no-debug", "--follow"]


def main(bench: Bench) -> None:
    """Measure costs that grow with a project, with a run, and with the requests to a service."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as name:
        folder = Path(name)
        # The remote machine's user is another one, who has to read the folder.
        os.chmod(folder, 0o755)
        parts: Mapping[str, Callable[[Bench, Path], None]] = {
            "steps": steps,
            "ranks": ranks,
            "files in a step's folder": mounted,
            "files sent": sent,
            "a log": log,
            "runs": runs,
            "launch.json": launch_json,
            "requests": requests,
        }
        for what, part in parts.items():
            with bench.part(what):
                (folder / what).mkdir()
                part(bench, folder / what)


def _each(make: Callable[[Path, int], None], folder: Path) -> Callable[[int], Path]:
    """A function that returns the project of a size, and creates it at its first use."""

    def project(size: int) -> Path:
        place = folder / str(size)
        if not place.exists():
            new_project(place)
            make(place, size)
        return place

    return project


def _took(project: Path, *typed: str, environ: Mapping[str, str] = PIPELINE) -> float:
    return seconds(lambda: run([*INV, *typed], project, environ, timeout=LIMIT))


def _pipeline(project: Path, jobs: str) -> None:
    (project / "work").mkdir(exist_ok=True)
    (project / "work/work.py").write_text("")
    (project / "pipeline.yml").write_text(f"type: pipeline\njobs:\n{jobs}")


def steps(bench: Bench, folder: Path) -> None:
    """Measure a pipeline's run from submission to end; its steps do nothing and run one after the other."""

    def make(project: Path, count: int) -> None:
        jobs = ""
        for number in range(count):
            jobs += f"  step-{number}:\n{JOB}    outputs: {{done: }}\n"
            if number:
                before = f"${{{{parent.jobs.step-{number - 1}.outputs.done}}}}"
                jobs += f"    inputs: {{before: '{before}'}}\n    command: 'true ${{{{inputs.before}}}}'\n"
            else:
                jobs += "    command: 'true'\n"
        _pipeline(project, jobs)

    project = _each(make, folder)
    bench.growth("a pipeline's run, submitted and followed", "steps", STEPS, lambda size: _took(project(size), *SUBMIT))


def ranks(bench: Bench, folder: Path) -> None:
    """Measure `pipeline.debug` until every rank of a step waits for its debugger."""

    def make(project: Path, count: int) -> None:
        layout = f"    distribution: {{type: pytorch, process_count_per_instance: {count}}}\n"
        _pipeline(project, f"  work:\n{JOB}{layout}    command: python work.py\n")

    project = _each(make, folder)

    def measure(size: int) -> float:
        try:
            return _took(project(size), "pipeline.debug", "--rank", "all")
        finally:
            run([*INV, "pipeline.cancel"], project(size), PIPELINE, timeout=LIMIT)

    bench.growth("pipeline.debug until all ranks wait", "ranks", RANKS, measure)


def mounted(bench: Bench, folder: Path) -> None:
    """Measure a step's run with a source folder of many files."""

    def make(project: Path, count: int) -> None:
        _pipeline(project, f"  work:\n{JOB}    command: 'true'\n")
        _files(project / "work", count)

    project = _each(make, folder)
    measure = lambda size: _took(project(size), *SUBMIT)  # noqa: E731
    bench.growth("a step's run", "files in its source folder", FILES, measure)


def _files(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"file {number}.txt").write_text(f"{number}\n")


def sent(bench: Bench, folder: Path) -> None:
    """Measure the first `remote.sync` of a project, and that of one changed file."""
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    from hosts import Hosts, what_is_missing

    if reason := what_is_missing():
        raise LeftOut(reason)
    hosts = Hosts(folder / "cache")
    try:
        environ = {**hosts.laptop.environment(hosts.loopback), "PYTHONPATH": str(ROOT), "AML_ENGINE": "process"}
        fresh = iter(range(1000))

        def make(project: Path, count: int) -> None:
            _files(project, count)

        def first(size: int) -> float:
            project = _each(make, folder / f"first-{next(fresh)}")(size)
            try:
                return _took(project, "remote.sync", environ=environ)
            finally:
                shutil.rmtree(project)

        kept = _each(make, folder)

        def again(size: int) -> float:
            project = kept(size)
            if not (project / ".azureml-debug").exists():
                _took(project, "remote.sync", environ=environ)
            with (project / "file 3.txt").open("a") as file:
                file.write("more\n")
            return _took(project, "remote.sync", environ=environ)

        # The first connection also sends the program itself.
        first(1)
        bench.growth("remote.sync, all of it", "files of the project", FILES, first)
        bench.growth("remote.sync, one changed", "files of the project", FILES, again)
    finally:
        hosts.close()


def log(bench: Bench, folder: Path) -> None:
    """Measure `pipeline.tail-log` of a run that has ended."""
    line = b"step 12345 loss 0.69314 0.69314 0.69314 0.69314 0.69314\n"

    def make(project: Path, kilobytes: int) -> None:
        _pipeline(project, f"  work:\n{JOB}    command: 'true'\n")
        _took(project, *SUBMIT)
        (found,) = (project / ".azureml-debug/runs").glob("*/steps/work/azureml-logs/70_driver_log.txt")
        found.write_bytes(line * (kilobytes * 1000 // len(line)))

    project = _each(make, folder)
    measure = lambda size: _took(project(size), "pipeline.tail-log")  # noqa: E731
    bench.growth("pipeline.tail-log of a run that is over", "kilobytes of its log", KILOBYTES, measure)


def runs(bench: Bench, folder: Path) -> None:
    """Measure commands in a project with many runs."""

    def make(project: Path, count: int) -> None:
        _pipeline(project, f"  work:\n{JOB}    command: 'true'\n")
        fill(project, count)

    project = _each(make, folder)
    commands: Mapping[str, Sequence[str]] = {
        "experiment.list": ["experiment.list"],
        "experiment.show of the latest run": ["experiment.show"],
        "the run of a step that does nothing": SUBMIT,
    }
    for what, typed in commands.items():
        bench.growth(what, "runs on disk", RUNS, lambda size, typed=typed: _took(project(size), *typed))  # type: ignore[misc]


def launch_json(bench: Bench, folder: Path) -> None:
    """Measure writing one configuration to a launch.json with many of them and with comments."""
    from workflows.debugger.launch_json import write_configurations

    def entry(number: int, port: int) -> dict[str, Any]:
        connect = {"host": "127.0.0.1", "port": port}
        return {"name": f"Attach {number}", "type": "debugpy", "request": "attach", "connect": connect}

    def make(project: Path, count: int) -> None:
        write_configurations(project, [entry(number, 5678) for number in range(count)])
        path = project / ".vscode/launch.json"
        path.write_text("// mine\n" + path.read_text().replace('"type"', '/* its type */ "type"'))

    project = _each(make, folder)
    ports = iter(range(6000, 60000))

    def measure(size: int) -> float:
        place, changed = project(size), entry(size // 2, next(ports))
        return seconds(lambda: write_configurations(place, [changed]))

    bench.growth("a configuration written to launch.json", "configurations in it", CONFIGURATIONS, measure)


def requests(bench: Bench, folder: Path) -> None:
    """Measure requests to a service to which no debugger has attached."""
    server = Server(folder, inference_environment(f"{sys.version_info[0]}.{sys.version_info[1]}"), True)
    try:
        server.time(1)

        def measure(size: int) -> float:
            return seconds(lambda: [server.time(1) for _ in range(size)])

        bench.growth("requests to a service with its gate", "requests", REQUESTS, measure)
    finally:
        server.stop()
