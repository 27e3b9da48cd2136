"""Pipeline steps of the tests, with the debuggee in them."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from debuggee_harness import LIMIT, Child, compile_debuggee

from workflows.debuggee import FOLDER
from workflows.debugger.dap import Json

INJECT = str(Path(FOLDER) / "inject")
#: Pythons that start no thread once the main thread's program is over.
NO_LATE_THREADS = ("3.12.0", "3.12.1")
LAUNCHER = str(Path(INJECT) / "launch.py")


def lay_out(folder: Path, files: Mapping[str, str]) -> Path:
    """The step's code, in a folder that the paths of two runs share."""
    code = folder / "code"
    for name, source in files.items():
        file = code / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source))
    return code


def step_variables(code: Path, **more: str) -> dict[str, str]:
    """What an engine sets for a step."""
    return {
        "PYTHONPATH": INJECT,
        "AZUREML_DEBUGGEE_CODE": str(code),
        "AZUREML_DEBUGGEE_PORT": "0",
        **{"AZUREML_DEBUGGEE_" + name: value for name, value in more.items()},
    }


class Step(Child):
    """A step of the code in a folder, or of one script written there."""

    def __init__(
        self, folder: Path, command: str, python: str = sys.executable, source: str | None = None, **more: str
    ) -> None:
        self.code = lay_out(folder, {} if source is None else {"train.py": source})
        self.code.mkdir(exist_ok=True)
        self.script = self.code / "train.py"
        plain = {name: more.pop(name) for name in [*more] if name in ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")}
        path = more.pop("PATHS", "")
        variables = {**step_variables(self.code, **more), **plain}
        if path:
            variables["PYTHONPATH"] += os.pathsep + path
        text = f"cd {shlex.quote(str(self.code))}\n" + command.format(python=python, launcher=LAUNCHER)
        super().__init__(folder, python, variables=variables, command=text)


def run(
    code: Path, command: str, python: str, variables: Mapping[str, str], stdin: str = ""
) -> tuple[int, list[str], str]:
    """A command in the step's folder: exit code, standard output, standard error."""
    compile_debuggee(python)
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "PYDEV", "DEBUGPY", "RANK"))}
    done = subprocess.run(
        ["bash", "-c", command.format(python=python, launcher=LAUNCHER)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
        check=False,
        cwd=code,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", **variables},
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def announced(file: Path, name: str) -> list[Json]:
    """What has been announced under this name."""
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [record for record in records if record["event"] == name]


@functools.cache
def debugpy_of(python: str) -> str:
    """The folder that holds the debugpy of an interpreter."""
    question = "import debugpy, os; print(os.path.dirname(os.path.dirname(debugpy.__file__)))"
    asked = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True, timeout=LIMIT, cwd="/")
    return asked.stdout.strip()


REPORT = "import os, sys; print(sys.argv[0], 'azureml_debuggee.session' in sys.modules, flush=True)\n"


LOOP = """
    import sys, time
    first = 1  # LINE first
    print("begun", flush=True)
    def turn(number):
        return number  # LINE turn
    number = 0
    while True:
        number += 1
        turn(number)
        time.sleep(0.005)
"""
ON_ERROR = {"ON_ERROR": "1"}


@functools.cache
def version(python: str) -> str:
    """As in 3.12.1."""
    question = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(question, capture_output=True, text=True, check=True, timeout=LIMIT).stdout.strip()
