"""How a step of SDK v2 ends and what it writes: with a debugger in it as without one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer
from pipelines import PipelineProject, go_on, session, stop_of
from workspaces import make_v2_project, workspace_of_v2

#: Writes to both streams, in turn, and ends as it is told.
SCRIPT = """\
import os, signal, sys
for number in range(3):
    print("out", number, flush=True)
    print("err", number, file=sys.stderr, flush=True)
if sys.argv[1] != "0":
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
"""
#: The line of SCRIPT that is gone through before it writes.
FIRST_LINE = 2


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with workspace_of_v2() as made:
        yield made


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_v2_project(tmp_path / "a project", server, tmp_path / "home")
    made.single(SCRIPT)
    yield made
    made.clean_up()


def ended(server: AzureMLServer, project: PipelineProject) -> tuple[Any, ...]:
    """Status and error of the latest run, and what its command has written."""
    status = project.until_final()["status"]
    *_, run = (run for run in server.state.runs.values() if run.parent is None)
    log = server.state.artifact(run, "user_logs/std_log.txt").read_text()
    lines = (re.sub(r"(line 1:) +\d+ ", r"\1 PID ", line) for line in log.splitlines())
    own = [line for line in lines if re.match(r"out|err|.*(Terminated|Segmentation|Killed)", line)]
    code = re.search(r"exit code: (-?\d+)", json.dumps(run.error))
    return run.status, status, code[1] if code else None, own


@pytest.mark.parametrize(
    "command",
    [
        # A shell that has its end to do tells of it as 128 + the signal's number.
        "python work.py SIGSEGV; exit $?",
        # The only command takes the shell's place: the signal is the step's own end.
        "python work.py SIGKILL",
    ],
)
def test_status_exit_code_and_both_streams_are_as_without_a_debugger(
    server: AzureMLServer, project: PipelineProject, command: str
) -> None:
    job = {"type": "command", "command": command, "code": "./work", "environment": {"image": "python"}}
    file = project.folder / "job.yml"
    file.write_text(json.dumps({**job, "compute": "azureml:cpu"}))
    project.inv("pipeline.submit", "--no-debug", "--file", str(file))
    bare = ended(server, project)
    (endpoint,) = project.ok("pipeline.debug", "--json", "--file", str(file)).json["endpoints"]
    with session(endpoint, {project.folder / "work" / "work.py": [FIRST_LINE]}) as client:
        go_on(client, stop_of(client))
    debugged = ended(server, project)
    assert bare[3][:6] == ["out 0", "err 0", "out 1", "err 1", "out 2", "err 2"]
    assert debugged == bare
