"""Experiments for the tests: a project with a training script, and what lies in its runs' folders."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects import LIMIT, ROOT, Project, until

TRAIN = '''"""Adds numbers up."""
import argparse
import os
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--numbers", default="")
parser.add_argument("--note", default="")
args = parser.parse_args()
text = pathlib.Path(args.numbers, "numbers.txt").read_text() if args.numbers else "1 2 3"
numbers = list(map(int, text.split()))
total = sum(numbers)
for folder in ("outputs", "logs"):
    pathlib.Path(folder).mkdir(exist_ok=True)
    pathlib.Path(folder, "total.txt").write_text(str(total))
print("total", total, "note", repr(args.note), "colour", os.environ.get("COLOUR"))
'''
#: The line of TRAIN at which `numbers` is known and `total` is not.
TRAIN_LINE = 12
#: Computes until it is ended.
BUSY = """import time
print("computing", flush=True)
count = 0
while True:
    count += 1
"""
TITLE = "Azure Machine Learning Experiment"


@dataclass
class ExperimentProject(Project):
    """A project with a training script."""

    @property
    def script(self) -> Path:
        return self.folder / "train.py"

    @property
    def runs(self) -> Path:
        return self.folder / ".azureml-debug" / "runs"

    def configuration(self, name: str = "sums") -> Path:
        return self.folder / ".azureml" / f"{name}.runconfig"

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def debug(self, *arguments: str, **more: str) -> dict[str, Any]:
        """`experiment.debug --json`, which has to work."""
        return self.ok("experiment.debug", "--json", *arguments, **more).json

    def run(self, *arguments: str, **more: str) -> dict[str, Any]:
        """`experiment.run --json --follow`, which has to work; the record once it is over."""
        if arguments[0] not in self.known():
            self.ok("experiment.create", arguments[0])
        result = self.ok("experiment.run", "--json", "--follow", *arguments, **more)
        lines = [line for line in result.out.splitlines() if line.startswith("{")]
        return self.record(json.loads(lines[-1])["run_id"])

    def known(self) -> list[str]:
        """The names of the experiments."""
        kept = (self.folder / ".azureml-debug" / "experiments").glob("*.json")
        return [path.stem for path in [*kept, *(self.folder / ".azureml").glob("*.runconfig")]]

    def record(self, run_id: str | None = None) -> dict[str, Any]:
        """A run's record as it lies on disk; by default the latest run's."""
        folders = sorted(self.runs.glob("*/run.json"), key=lambda path: int(path.parent.name.split("-")[-2]))
        path = self.runs / run_id / "run.json" if run_id else folders[-1]
        value: dict[str, Any] = json.loads(path.read_text())
        return value

    def log(self, run_id: str | None = None, name: str = "70_driver_log.txt") -> str:
        return (Path(self.record(run_id)["folder"]) / "azureml-logs" / name).read_text()

    def until_final(self, run_id: str | None = None, seconds: float = LIMIT) -> dict[str, Any]:
        """A run's record once it is over."""

        def look() -> dict[str, Any] | None:
            found = self.record(run_id)
            return found if found["status"] in ("Completed", "Failed", "Canceled", "Interrupted") else None

        ended: dict[str, Any] = until(look, "the end of the run", seconds)
        return ended

    def slow_environment(self) -> Path:
        """An environment whose build takes ten minutes; a file that is there once it has begun."""
        begun = self.folder.parent / "build has begun"
        text = f"import time\nopen({str(begun)!r}, 'w').close()\ntime.sleep(600)\n"
        self.write("env/slow/package/setup.py", text)
        self.write("env/slow/requirements.txt", "./package\n")
        return begun

    def clean_up(self) -> None:
        """End what a test has left."""
        for path in self.runs.glob("*/run.json"):
            with contextlib.suppress(ValueError):
                if json.loads(path.read_text())["status"] in ("NotStarted", "Preparing", "Running"):
                    self.inv("experiment.cancel", "--run", path.parent.name)
        super().clean_up()


def make_experiment_project(folder: Path, engine: str) -> ExperimentProject:
    """A person's own project with a training script, and spaces in its paths."""
    folder.mkdir(parents=True)
    (folder / "tasks.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom workflows import namespace as ns\n"
    )
    (folder / "train.py").write_text(TRAIN)
    (folder / "some data").mkdir()
    (folder / "some data" / "numbers.txt").write_text("10 20 30\n")
    return ExperimentProject(folder, {"AML_ENGINE": engine, "AML_DEBUG_PORT": "0"})
