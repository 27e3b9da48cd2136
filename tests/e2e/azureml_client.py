"""What the tests have the real SDK do, in a process of its own, with the server of `azureml_server` for Azure."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azureml_server import AzureMLServer, client_environment
from ready import run_lines

#: Before each test's own lines: short names for the SDK's parts, and `show` for what the test is to see.
PRELUDE = """
import json, os, sys, time
from azureml.core import Environment, Experiment, Model, Run, ScriptRunConfig, Workspace
from azureml.core.runconfig import MpiConfiguration, PyTorchConfiguration, RunConfiguration
from azureml.data.data_reference import DataReference
from azureml.pipeline.core import Pipeline, PipelineData, PipelineParameter
from azureml.pipeline.core._python_script_step_base import _PythonScriptStepBase

def step(name, script=None, arguments=(), configuration=None, **more):
    more.setdefault("compute_target", "cpu")
    return _PythonScriptStepBase(
        name=name, script_name=script, arguments=list(arguments), source_directory="src",
        runconfig=configuration or RunConfiguration(), allow_reuse=False, **more,
    )

def until(condition, seconds=150):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)

def ended(run):
    until(lambda: run.get_status() in ("Finished", "Completed", "Failed", "Canceled"))
    return run.get_status()

def text(run, name):
    import requests
    return requests.get(run.get_details()["logFiles"][name]).text

def show(**found):
    print("SHOWN " + json.dumps(found))

workspace = Workspace.from_config(".")
experiment = Experiment(workspace, "tests")
"""


@dataclass
class Client:
    """A person's folder, and the SDK at work in it.

    Attributes:
        server: What it takes for Azure.
        folder: Where it works: `config.json` and the folder `src`.
        python: The interpreter that has the SDK.
        environ: Further environment variables.
        token_seconds: For how long its token holds.
    """

    server: AzureMLServer
    folder: Path
    python: str
    environ: dict[str, str] = field(default_factory=dict)
    token_seconds: float = 3600

    def write(self, name: str, text: str) -> None:
        """A file of the source folder."""
        path = self.folder / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, code: str, seconds: float = 150) -> subprocess.CompletedProcess[str]:
        """Lines of Python after the prelude, however they end; the SDK is loaded already."""
        return run_lines(self.python, PRELUDE + code, self.folder, self.environment(), seconds)

    def environment(self) -> dict[str, str]:
        """The variables of a process whose SDK talks to the server."""
        return client_environment(
            self.server, self.folder / "home", {**os.environ, **self.environ}, token_seconds=self.token_seconds
        )

    def ok(self, code: str, seconds: float = 150) -> dict[str, Any]:
        """Lines that have to work; what they show."""
        done = self.run(code, seconds=seconds)
        assert done.returncode == 0, done.stderr + done.stdout
        lines = [line for line in done.stdout.splitlines() if line.startswith("SHOWN ")]
        found: dict[str, Any] = json.loads(lines[-1].removeprefix("SHOWN ")) if lines else {}
        return found
