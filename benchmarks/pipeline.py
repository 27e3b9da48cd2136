"""The pipeline story compared with scripts started by hand under debugpy."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .harness import INV, Bench, docker, new_project
from .listeners import await_ports, free_port, program, training_python, with_debugpy
from .measure import run, seconds

TIMES, ROUNDS = 10, 10
#: Rounds for the speed of a step: the same loop takes up to 20 % more or less from one process to the next.
SPEED_ROUNDS = 40
#: The steps of a complete run, and the calls that each makes: some seconds of work.
STEPS, CALLS = 3, 60_000_000
#: The number of nested pipelines in the one that is read, and the steps of each.
NESTED, INSIDE = 10, 20
WORK = """\
total = 0
def twice(number):
    return number * 2
import sys, time
started = time.perf_counter()
for number in range(int(sys.argv[1])):
    total += twice(number)
print("took", time.perf_counter() - started)
"""


def main(bench: Bench) -> None:
    """Measure the time until a step waits, and steps that are not debugged."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project = new_project(Path(folder), {"work/work.py": WORK})
        _write_pipeline(project, "python work.py 10")
        for engine in ("process", "docker"):
            with bench.part(f"until the first step waits ({engine})"):
                if engine == "docker":
                    docker()
                environ = {"AML_ENGINE": engine, "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}
                run([*INV, "pipeline.submit", "--no-debug", "--follow"], project, environ)
                until_waiting(bench, project, environ, engine)
        environ = {"AML_ENGINE": "process", "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}
        with bench.part("a step that is not debugged"):
            plain_speed(bench, project, environ)
        with bench.part("a whole run"):
            whole_run(bench, project, environ)
    with bench.part("reading"), tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        nested(bench, Path(folder))


def _write_pipeline(project: Path, command: str) -> None:
    (project / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  work:\n    code: ./work\n    environment: azureml:any@latest\n"
        f"    command: {command}\n"
    )


def until_waiting(bench: Bench, project: Path, environ: dict[str, str], engine: str) -> None:
    """Compare the time from `pipeline.debug` to the waiting first step with the same by hand."""

    def ours() -> float:
        try:
            return seconds(lambda: run([*INV, "pipeline.debug"], project, environ))
        finally:
            run([*INV, "pipeline.cancel"], project, environ)

    @contextlib.contextmanager
    def by_hand() -> Iterator[None]:
        port = free_port()
        debugpy = ["-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client", "work.py", "10"]
        if engine == "process":
            quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
            with program([str(training_python()), *debugpy], project / "work", {**quiet, **with_debugpy()}):
                await_ports({port})
                yield
            return
        debugpy[3] = f"0.0.0.0:{port}"
        plans = sorted((project / ".azureml-debug" / "runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
        image = json.loads(plans[-1].read_text())["steps"][0]["image"]
        mount = f"type=bind,source={project / 'work'},target=/work"
        container = run(
            [
                "docker",
                "run",
                "-d",
                "--rm",
                "-w",
                "/work",
                "--mount",
                mount,
                "-p",
                f"127.0.0.1:{port}:{port}",
                "--mount",
                f"type=bind,source={image['debugpy']},target=/debugpy,readonly",
                "-e",
                "PYTHONPATH=/debugpy",
                image["name"],
                "python",
                *debugpy,
            ],
            project,
        ).strip()
        pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", container], project).strip()
        await_ports({port}, f"/proc/{pid}/net")
        yield
        run(["docker", "kill", container], project)

    def bare() -> float:
        started = time.perf_counter()
        with by_hand():
            took = time.perf_counter() - started
        # The time that Invoke needs before a task begins.
        return took + seconds(lambda: run([*INV, "--list"], project))

    found = bench.measure(TIMES, ours=ours, by_hand=bare)
    bench.ratio(
        f"warm inv pipeline.debug until the first step waits ({engine})",
        "python -m debugpy by hand and Invoke's start",
        found,
        1.25,
        theirs="by_hand",
    )
    # From the announcement in the step's log to launch.json.
    gaps = []
    for _ in range(bench.times(TIMES)):
        (project / ".vscode" / "launch.json").unlink(missing_ok=True)
        text = run([*INV, "pipeline.debug", "--json"], project, environ)
        result = json.loads(text.splitlines()[-1])
        events = Path(result["endpoints"][0]["log"]).parents[1] / "announce" / "events.jsonl"
        waiting = next(e for e in map(json.loads, events.read_text().splitlines()) if e["event"] == "waiting")
        gaps.append((project / ".vscode" / "launch.json").stat().st_mtime - waiting["time"])
        run([*INV, "pipeline.cancel"], project, environ)
    bench.figure(f"from a step's announcement to its launch configuration on disk ({engine})", gaps, "s", 0.1)


def plain_speed(bench: Bench, project: Path, environ: dict[str, str]) -> None:
    """Compare a step that is not debugged with the bare script in the same environment."""
    count = "6000000"
    _write_pipeline(project, f"python work.py {count}")

    def took(text: str) -> float:
        return float(next(line for line in text.splitlines() if "took" in line).split()[-1])

    def ours() -> float:
        return took(run([*INV, "pipeline.submit", "--no-debug", "--follow"], project, environ))

    def bare() -> float:
        return took(run([str(training_python()), "work.py", count], project / "work"))

    found = bench.measure(SPEED_ROUNDS, ours=ours, bare=bare)
    bench.ratio("the work of a step that is not debugged", "the bare script", found, 1.03, theirs="bare")


def whole_run(bench: Bench, project: Path, environ: dict[str, str]) -> None:
    """Compare a run whose steps can be debugged, but are not, with its scripts in a shell script."""
    calls = CALLS // 100 if bench.quick else CALLS
    jobs = ""
    for number in range(STEPS):
        before = f"    inputs: {{before: '${{{{parent.jobs.step{number - 1}.outputs.done}}}}'}}\n" if number else ""
        jobs += (
            f"  step{number}:\n    code: ./work\n    environment: azureml:any@latest\n    outputs: {{done: }}\n{before}"
            f"    command: python work.py {calls}{' ${{inputs.before}}' if number else ''}\n"
        )
    (project / "pipeline.yml").write_text(f"type: pipeline\njobs:\n{jobs}")
    script = project / "run.sh"
    script.write_text("set -e\ncd work\n" + f"{training_python()} work.py {calls}\n" * STEPS)
    found = bench.measure(
        ROUNDS,
        ours=lambda: seconds(lambda: run([*INV, "pipeline.submit", "--no-wait", "--follow"], project, environ)),
        shell=lambda: seconds(lambda: run(["sh", str(script)], project)),
    )
    note = f"{STEPS} steps, one after the other; with Invoke's start"
    bench.ratio("a run in which nobody debugs", "its scripts in a shell script", found, 1.05, theirs="shell", note=note)


def nested(bench: Bench, folder: Path) -> None:
    """Measure reading a pipeline with nested pipelines, whose steps depend on each other in a chain."""
    from workflows.pipelines.reader import load_pipeline

    for name in ("src", "data"):
        (folder / name).mkdir()
    (folder / "src" / "fit.py").write_text("")
    (folder / "fit.yml").write_text(
        "type: command\nname: fit\nversion: 1\ncode: ./src\nenvironment: azureml:any@latest\n"
        "inputs: {data: {type: uri_folder}, number: {type: integer, default: 3, min: 1, max: 99}}\n"
        "outputs: {model: {type: uri_folder}}\n"
        "command: python fit.py ${{inputs.data}} ${{inputs.number}} ${{outputs.model}}\n"
    )
    (folder / "inner.yml").write_text(
        "type: pipeline\ninputs: {data: {type: uri_folder}, number: {type: integer}}\n"
        f"outputs: {{model: {{type: uri_folder}}}}\njobs:\n{_chain(INSIDE, 'fit.yml', 'parent.outputs.model')}"
    )
    (folder / "outer.yml").write_text(
        "type: pipeline\ninputs: {data: {type: uri_folder, path: ./data}, number: 5}\njobs:\n"
        + _chain(NESTED, "inner.yml")
    )
    steps = len(load_pipeline(folder / "outer.yml").steps)
    taken = [seconds(lambda: load_pipeline(folder / "outer.yml")) for _ in range(bench.times(TIMES))]
    bench.figure(f"reading a pipeline of {steps} steps nested in {NESTED} others", taken, "s", 0.05)


def _chain(count: int, component: str, last: str = "") -> str:
    """Jobs of one component; each has the output of the previous one as its input."""
    jobs = ""
    for number in range(count):
        before = f"parent.jobs.s{number - 1}.outputs.model" if number else "parent.inputs.data"
        jobs += f"  s{number}:\n    component: ./{component}\n    inputs:\n      data: ${{{{{before}}}}}\n"
        jobs += "      number: ${{parent.inputs.number}}\n"
        if last and number == count - 1:
            jobs += f"    outputs: {{model: '${{{{{last}}}}}'}}\n"
    return jobs
