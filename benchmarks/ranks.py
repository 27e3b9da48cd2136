"""The time until the ranks of a distributed step wait for debuggers, compared with as many bare debugpy.listen."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path

from workflows.engines.ports import is_free

from .harness import INV, Bench, new_project
from .listeners import await_ports, program, training_python, with_debugpy
from .measure import run

RANKS, TIMES = (1, 4, 16, 64), 10
ENVIRON = {"AML_ENGINE": "process", "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}
PIPELINE = """\
type: pipeline
jobs:
  work:
    code: ./work
    environment: azureml:any@latest
    distribution: {{type: pytorch, process_count_per_instance: {ranks}}}
    command: python work.py
"""


def main(bench: Bench) -> None:
    """Measure each number of ranks."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        for ranks in RANKS[:2] if bench.quick else RANKS:
            project = new_project(
                Path(folder) / str(ranks), {"work/work.py": "", "pipeline.yml": PIPELINE.format(ranks=ranks)}
            )
            run([*INV, "pipeline.submit", "--no-debug", "--follow"], project, ENVIRON)
            with bench.part(f"{ranks} ranks"):
                many(bench, project, ranks)


def many(bench: Bench, project: Path, ranks: int) -> None:
    """Measure one number of ranks."""
    commands: list[float] = []

    def ours() -> float:
        began = time.time()
        try:
            typed = [*INV, "pipeline.debug", "--rank", "all", "--json"]
            result = json.loads(run(typed, project, ENVIRON).splitlines()[-1])
            commands.append(time.time() - began)
            step = project / ".azureml-debug" / "runs" / result["run_id"]
            started = json.loads((step / "run.json").read_text())["steps"][0]["started"]
            announced = Path(result["endpoints"][0]["log"]).parents[1] / "announce" / "events.jsonl"
            events = [json.loads(line) for line in announced.read_text().splitlines()]
            waiting = [float(event["time"]) for event in events if event["event"] == "waiting"]
            assert len(waiting) == ranks, f"{len(waiting)} of {ranks} ranks wait"
            return max(waiting) - float(started)
        finally:
            run([*INV, "pipeline.cancel"], project, ENVIRON)

    def bare() -> float:
        python = str(training_python())
        # Below the ports that the system chooses itself, such as for the adapters.
        bases = range(10000, 30000, ranks)
        base = next(base for base in bases if all(is_free(base + rank) for rank in range(ranks)))
        with contextlib.ExitStack() as children:
            started = time.perf_counter()
            for rank in range(ranks):
                code = f"import debugpy, time; debugpy.listen(('127.0.0.1', {base + rank})); time.sleep(600)"
                children.enter_context(program([python, "-c", code], environ=with_debugpy()))
            await_ports({base + rank for rank in range(ranks)})
            return time.perf_counter() - started

    found = bench.measure(TIMES, ours=ours, bare=bare)
    what = "a rank waits" if ranks == 1 else f"{ranks} ranks wait"
    against = "bare debugpy.listen" if ranks == 1 else f"{ranks} times bare debugpy.listen"
    bench.ratio(f"from the step's start until {what}", against, found, 0.3, theirs="bare")
    bench.figure(f"inv pipeline.debug until {what}, the whole command", commands, "s")
