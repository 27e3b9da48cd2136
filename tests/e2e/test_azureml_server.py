"""The server that the tests of Azure ML talk to, through the real SDK: it runs what is submitted."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer, client_environment, write_configuration
from conftest import missing

SUBMIT = """
import json, sys, time
from azureml.core import Experiment, Workspace
from azureml.core.runconfig import RunConfiguration
from azureml.pipeline.core import Pipeline
from azureml.pipeline.core._python_script_step_base import _PythonScriptStepBase

workspace = Workspace.from_config(".")
step = _PythonScriptStepBase(
    name="train", script_name="train.py", arguments=["--epochs", 3], source_directory="src",
    compute_target=workspace.compute_targets["cpu"], runconfig=RunConfiguration(), allow_reuse=False,
)
run = Experiment(workspace, "tests").submit(Pipeline(workspace, steps=[step]))
if sys.argv[1] == "cancel":
    deadline = time.monotonic() + 60
    while not [child for child in run.get_children() if child.get_status() == "Running"]:
        assert time.monotonic() < deadline, "the step does not run"
        time.sleep(0.1)
    run.cancel()
deadline = time.monotonic() + 60
while run.get_status() not in ("Finished", "Failed", "Canceled"):
    assert time.monotonic() < deadline, run.get_status()
    time.sleep(0.1)
(child,) = run.get_children()
found = {"status": run.get_status(), "child": child.get_status(), "tags": child.get_tags()}
found["metrics"] = child.get_metrics()
found["logs"] = sorted(child.get_details()["logFiles"])
print(json.dumps(found))
"""
TRAIN = """
import os, pathlib, sys, time
from azureml.core import Run
run = Run.get_context()
run.tag("place", "127.0.0.1:5678")
run.log("loss", 0.5)
print("arguments", sys.argv[1:], flush=True)
pathlib.Path({pid!r}).write_text(str(os.getpid()))
time.sleep({seconds})
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AzureMLServer]:
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK", "")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK names no Python that has azureml-core and azureml-pipeline-core")
    (tmp_path / "src").mkdir()
    with AzureMLServer(python=python) as made:
        write_configuration(made, tmp_path)
        yield made


def submitted(server: AzureMLServer, folder: Path, seconds: float, how: str = "") -> dict[str, Any]:
    """A pipeline of one step, submitted by the SDK; what the SDK tells of it at its end."""
    (folder / "src" / "train.py").write_text(TRAIN.format(pid=str(folder / "pid"), seconds=seconds))
    done = subprocess.run(
        [os.environ["AZUREML_DEBUG_TEST_SDK"], "-c", SUBMIT, how or "wait"],
        cwd=folder, env=client_environment(server, folder / "home"), capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_submitted_step_is_really_run_and_its_context_is_a_submitted_run(
    server: AzureMLServer, tmp_path: Path
) -> None:
    found = submitted(server, tmp_path, 0)
    assert (found["status"], found["child"]) == ("Finished", "Finished")
    assert found["tags"]["place"] == "127.0.0.1:5678" and found["metrics"] == {"loss": 0.5}
    assert "azureml-logs/70_driver_log.txt" in found["logs"]
    assert server.unknown == []


def test_cancel_ends_the_process_of_a_step(server: AzureMLServer, tmp_path: Path) -> None:
    started = time.monotonic()
    found = submitted(server, tmp_path, 600, "cancel")
    assert found["status"] == "Canceled" and time.monotonic() - started < 120
    pid = tmp_path / "pid"
    assert not pid.exists() or not Path(f"/proc/{pid.read_text()}").exists()
