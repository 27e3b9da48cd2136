"""Pipelines for the tests: three steps that pass data on, and sessions with them as an editor has them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects import LIMIT, ROOT, Project, until

from workflows.debugger.dap import DapClient

PREPARE = '''"""Takes every number twice."""
import argparse
import pathlib

from helpers.numbers_file import read

parser = argparse.ArgumentParser()
parser.add_argument("--data")
parser.add_argument("--doubled")
args = parser.parse_args()
numbers = read(args.data)
doubled = numbers + numbers
pathlib.Path(args.doubled, "doubled.txt").write_text(" ".join(map(str, doubled)))
pathlib.Path("outputs").mkdir(exist_ok=True)
pathlib.Path("outputs", "count.txt").write_text(str(len(doubled)))
print("doubled", doubled)
'''
#: The line of PREPARE at which `numbers` is known and `doubled` is not.
PREPARE_LINE = 12
READER = """def read(folder):
    import pathlib

    text = pathlib.Path(folder, "numbers.txt").read_text()
    words = text.split()
    return list(map(int, words))
"""
#: The line of READER at which `text` is known.
READER_LINE = 5
ADD = '''"""Adds numbers."""
import pathlib
import sys

folder, factor = sys.argv[1], int(sys.argv[2])
total = sum(map(int, pathlib.Path(folder, "doubled.txt").read_text().split()))
result = total * factor
pathlib.Path(sys.argv[3]).write_text(str(result))
print("total", total)
'''
#: The line of ADD at which `total` is known.
ADD_LINE = 7
TELL = '''"""Tells the result."""
import os
import pathlib

text = pathlib.Path(os.environ["RESULT"]).read_text()
print("the result is", text)
'''
#: The line of TELL at which `text` is known.
TELL_LINE = 6
#: What starts as many ranks of a script as it is told, as launchers do.
LAUNCHER = """
import os, subprocess, sys
count, script = int(sys.argv[1]), sys.argv[2]
ranks = [
    subprocess.Popen([sys.executable, script], env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count)})
    for rank in range(count)
]
sys.exit(max(rank.wait() for rank in ranks))
"""
PIPELINE = """\
$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json
type: pipeline
display_name: numbers
settings:
  default_compute: azureml:cpu-cluster
inputs:
  numbers:
    type: uri_folder
    path: "./some data"
  factor: 3
jobs:
  prepare:
    command: >-
      python prepare.py
      --data ${{inputs.data}}
      --doubled ${{outputs.doubled}}
    code: ./prepare
    environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest
    inputs:
      data: ${{parent.inputs.numbers}}
    outputs:
      doubled:
        type: uri_folder
  add:
    command: python add.py ${{inputs.numbers}} ${{inputs.factor}} ${{outputs.result}}
    code: ./add
    environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest
    inputs:
      numbers: ${{parent.jobs.prepare.outputs.doubled}}
      factor: ${{parent.inputs.factor}}
    outputs:
      result:
        type: uri_file
  tell:
    command: echo before && python tell.py; code=$?; echo after; exit $code
    code: ./tell
    environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest
    environment_variables:
      RESULT: ${{inputs.result}}
    inputs:
      result: ${{parent.jobs.add.outputs.result}}
"""
FAMILY = "Azure Machine Learning Compute: remote debug"


@dataclass
class PipelineProject(Project):
    """A project with a pipeline."""

    @property
    def pipeline(self) -> Path:
        return self.folder / "pipeline.yml"

    @property
    def runs(self) -> Path:
        return self.folder / ".azureml-debug" / "runs"

    def script(self, step: str) -> Path:
        return self.folder / step / f"{step}.py"

    def single(self, script: str, command: str = "python work.py", more: str = "", name: str = "work") -> None:
        """Make the pipeline one of a single step."""
        folder = self.folder / "work"
        folder.mkdir(exist_ok=True)
        (folder / "work.py").write_text(script)
        lines = "".join(f"      {line}\n" for line in command.splitlines())
        extra = "".join(f"    {line}\n" for line in more.splitlines())
        self.pipeline.write_text(
            f"type: pipeline\njobs:\n  {name}:\n    code: ./work\n    environment: azureml:any@latest\n"
            f"{extra}    command: |\n{lines}"
        )

    def status(self, run: str | None = None) -> dict[str, Any]:
        return self.ok("pipeline.status", "--json", *(["--run", run] if run else [])).json

    def step(self, name: str, run: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = next(entry for entry in self.status(run)["steps"] if entry["name"] == name)
        return found

    def record(self) -> dict[str, Any]:
        """The latest run's record as it lies on disk."""
        folders = sorted(self.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
        value: dict[str, Any] = json.loads(folders[-1].read_text())
        return value

    def until_final(self, seconds: float = LIMIT) -> dict[str, Any]:
        """The latest run's record once it is over."""

        def look() -> dict[str, Any] | None:
            found = self.record()
            return found if found["status"] in ("Completed", "Failed", "Canceled") else None

        ended: dict[str, Any] = until(look, "the end of the run", seconds)
        return ended

    def until_waiting(self, step: str, seconds: float = LIMIT) -> dict[str, Any]:
        """The endpoint of a step once it holds for its debugger."""

        def runs() -> bool:
            records = (json.loads(path.read_text()) for path in self.runs.glob("*/run.json"))
            return any(one["name"] == step and one["status"] == "Running" for run in records for one in run["steps"])

        def look() -> dict[str, Any] | None:
            # A command for each look takes the CPU time that the step needs to come so far.
            for endpoint in self.step(step)["endpoints"] if runs() else ():
                if endpoint["state"] == "waiting":
                    found: dict[str, Any] = endpoint
                    return found
            return None

        waiting: dict[str, Any] = until(look, f"{step} waiting", seconds, pause=0.15)
        return waiting

    def clean_up(self) -> None:
        """End what a test has left."""
        for path in self.runs.glob("*/run.json"):
            with contextlib.suppress(ValueError):
                if json.loads(path.read_text())["status"] in ("NotStarted", "Running"):
                    self.inv("pipeline.cancel", "--run", path.parent.name)
        super().clean_up()


def make_pipeline_project(folder: Path, engine: str) -> PipelineProject:
    """A person's own project with the pipeline of three steps, and spaces in its paths."""
    folder.mkdir(parents=True)
    (folder / "tasks.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom workflows import namespace as ns\n"
    )
    for step, text in {"prepare": PREPARE, "add": ADD, "tell": TELL}.items():
        (folder / step).mkdir()
        (folder / step / f"{step}.py").write_text(text)
    (folder / "prepare" / "helpers").mkdir()
    (folder / "prepare" / "helpers" / "numbers_file.py").write_text(READER)
    (folder / "some data").mkdir()
    (folder / "some data" / "numbers.txt").write_text("1 2 3\n")
    (folder / "pipeline.yml").write_text(PIPELINE)
    environ = {"AML_ENGINE": engine, "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}
    return PipelineProject(folder, environ)


@contextlib.contextmanager
def session(endpoint: Mapping[str, Any], breakpoints: Mapping[Path, list[int]]) -> Iterator[DapClient]:
    """Attach as an editor does; let go at the end."""
    client = DapClient.connect(endpoint["host"], endpoint["port"], 20)
    try:
        client.attach(
            path_mappings=endpoint["path_mappings"],
            breakpoints={str(path): lines for path, lines in breakpoints.items()},
            timeout=30,
        )
        yield client
    finally:
        with contextlib.suppress(Exception):
            client.disconnect()


def stop_of(client: DapClient, seconds: float = 30) -> dict[str, Any]:
    """The innermost frame at the next stop, with its thread and the reason."""
    event = client.wait_event("stopped", seconds)
    thread = event.body["threadId"]
    frames = client.request("stackTrace", {"threadId": thread}, 20)["stackFrames"]
    return {"thread": thread, "reason": event.body.get("reason"), **frames[0]}


def value_of(client: DapClient, frame: Mapping[str, Any], expression: str) -> str:
    """What an expression is worth in a frame."""
    return str(client.request("evaluate", {"expression": expression, "frameId": frame["id"]}, 20)["result"])


def go_on(client: DapClient, frame: Mapping[str, Any]) -> None:
    """Continue from a stop."""
    client.request("continue", {"threadId": frame["thread"]}, 20)


def running_marked(run_id: str) -> list[int]:
    """Processes that carry a run's mark."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("AZUREML_DEBUGGEE_RUN", "").startswith(run_id):
                found.append(process.pid)
    return found
