"""How fast configuration files are read, in MB/s: ordinary files, and files made to take long."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from workflows.debugger import jsonc
from workflows.environments.conda_file import read_conda
from workflows.environments.requirements import PipLines, logical_lines, read_line
from workflows.errors import UserError
from workflows.experiments.runconfig import read as read_runconfig
from workflows.pipelines.expressions import Malformed, expressions
from workflows.pipelines.reader import load_pipeline
from workflows.pipelines.yaml_file import read_yaml
from workflows.settings import resolve
from workflows.yaml_nodes import compose

from .harness import ROOT, Bench
from .measure import run

BYTES = 1_000_000
TIMES = 10
STEP = """\
  step_{0}:
    command: >-
      python train.py --rate ${{{{inputs.rate}}}} --data ${{{{inputs.data}}}} $[[--resume ${{{{inputs.model}}}}]]
    code: .
    environment: azureml:AzureML-sklearn-1.5@latest
    inputs: {{rate: {0}, data: "x", model: "y"}}
"""
CONFIGURATION = """\
        {"name": "Attach %d", "type": "debugpy", "request": "attach", // mine
            "connect": {"host": "127.0.0.1", "port": 5678}, "justMyCode": true},
"""


def _filled(head: str, line: Callable[[int], str], tail: str = "") -> str:
    """A text of about a megabyte."""
    lines = list[str]()
    size = number = 0
    while size < BYTES:
        lines.append(line(number))
        size, number = size + len(lines[-1]), number + 1
    return head + "".join(lines) + tail


def _aliases() -> str:
    lines = ["a0: &a0 [" + "x, " * 10 + "]"]
    lines += [f"a{n}: &a{n} [" + f"*a{n - 1}, " * 10 + "]" for n in range(1, 9)]
    return "\n".join(lines) + "\n" + "# x\n" * (BYTES // 4)


def texts() -> dict[str, tuple[str, str]]:
    """The reader and the text of each file to read, by name."""
    pipeline = "type: pipeline\njobs:\n"
    return {
        "pipeline.yml": ("pipeline", _filled(pipeline, STEP.format)),
        "pipeline.yml, aliases of aliases": ("pipeline", _aliases()),
        "pipeline.yml, ${{": ("steps", _filled(pipeline + "  a: {command: '", lambda _: "${{", "'}\n")),
        "pipeline.yml, brackets": ("pipeline", "[" * BYTES),
        "pipeline.yml, its 4000 steps checked": ("steps", _filled(pipeline, STEP.format)),
        "run configuration": (
            "runconfig",
            _filled("script: x.py\nenvironmentVariables:\n", "  VALUE_{0}: some text\n".format),
        ),
        "conda.yml": ("conda", _filled("dependencies:\n- pip:\n", lambda n: f"  - package-{n}>=1.{n} # why\n")),
        "requirements.txt": ("requirements", _filled("", lambda n: f"package-{n}>=1.{n}  # why\n")),
        "requirements.txt, blanks": ("requirements", "a" + " " * BYTES + "b"),
        ".env": ("env", _filled("", "OTHER_{0}='some text' # why\n".format)[: BYTES // 4]),
        "launch.json": ("launch", _filled('{"configurations": [\n', lambda n: CONFIGURATION % n, "]}\n")),
        "launch.json, escaped quotes": ("launch", '{"a": "' + '\\"' * (BYTES // 2)),
        "launch.json, brackets": ("launch", "[" * BYTES),
        "a command, ${{": ("command", "${{" * (BYTES // 3)),
        "YAML by PyYAML itself": ("slow", _filled(pipeline, STEP.format)),
    }


def _readers(folder: Path) -> dict[str, Callable[[Path, str], object]]:
    def requirements(path: Path, _text: str) -> None:
        lines = PipLines()
        for number, line in logical_lines(path):
            read_line(lines, line, file=path, line=number, folder=folder)

    return {
        "pipeline": lambda path, _text: read_yaml(path, "pipeline file").mapping("It"),
        "steps": lambda path, _text: load_pipeline(path),
        "runconfig": lambda path, _text: read_runconfig(path),
        "conda": lambda path, _text: read_conda(path, PipLines()),
        "requirements": requirements,
        "env": lambda path, _text: resolve(path.parent, {}, environ={}),
        "launch": lambda path, _text: jsonc.parse(path.read_bytes()).has_comments(()),
        "command": lambda _path, text: expressions(text),
        "slow": lambda path, text: compose(text, path, yaml.SafeLoader),
    }


def measure(name: str, times: int) -> dict[str, Any]:
    """Read one text in this process; return the rates in MB/s, the outcome, and the peak memory in MB."""
    kind, text = texts()[name]
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as place:
        folder = Path(place)
        (folder / "train.py").write_text("")
        path = folder / (".env" if kind == "env" else "file.yml")
        path.write_text(text)
        before, seconds, outcome = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, list[float](), "read"
        for _ in range(times):
            start = time.process_time()
            with contextlib.suppress(KeyError):
                try:
                    _readers(folder)[kind](path, text)
                except (UserError, Malformed, jsonc.JsoncError) as error:
                    outcome = f"refused in line {getattr(error, 'line', 1)}"
            seconds.append(time.process_time() - start)
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"rates": [len(text.encode()) / 1e6 / one for one in seconds], "outcome": outcome, "memory": round(peak)}


def main(bench: Bench) -> None:
    """Measure every text in a process of its own."""
    for name in texts():
        command = [sys.executable, "-m", "benchmarks.reading", name, str(bench.times(TIMES))]
        found = json.loads(run(command, ROOT))
        note = f"{found['outcome']}, {found['memory']} MB of memory"
        bench.figure(f"reading a megabyte: {name}", found["rates"], "MB/s", note=note)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
