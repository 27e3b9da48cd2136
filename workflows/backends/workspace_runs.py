"""The follower and the services of one run in a workspace, and files that are kept in its folder here."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..azureml.connection import WorkspaceConnection
from ..azureml.run_location import RunLocation
from ..background import spawn
from ..pipelines.definition import Pipeline
from ..project import append_log
from ..runs import plan as plans
from ..runs import store
from ..runs.record import RunRecord

if TYPE_CHECKING:
    from ..azureml.history import RunHistory
    from ..azureml.service import PipelineService

FOLLOWER = "workflows.azureml.follower"


def single_file_outputs(run: RunRecord, step: str) -> set[str]:
    """The outputs of a step that are single files, where its plan is here."""
    with contextlib.suppress(ValueError):
        for planned in plans.load(run.folder).steps:
            if planned.name == step:
                return {name for name, is_file in planned.outputs.items() if is_file}
    return set()


def save_code(run: RunRecord, pipeline: Pipeline) -> None:
    """Save the code of the steps, so that they can be run again."""
    from ..runs.step_copies import keep_code

    for step in pipeline.steps:
        if step.code is not None:
            with contextlib.suppress(OSError):
                keep_code(step.code, run.step_folder(step.name))


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def run_service(workspace: WorkspaceConnection, place: RunLocation, steps: Sequence[str] = ()) -> PipelineService:
    """The service for a run in a workspace that is already connected.

    Args:
        workspace: The workspace.
        place: The run's location.
        steps: Names of its steps, where they are known.
    """
    from ..azureml.service import PipelineService

    single = place.single and bool(steps)
    end = partial(workspace.cancel, place.run_id)
    return PipelineService(run_history(workspace), place.run_id, end, steps, single=single)


def run_history(workspace: WorkspaceConnection) -> RunHistory:
    """The run history of a workspace that is already connected."""
    from ..azureml.access import RenewingAccess
    from ..azureml.history import RunHistory

    return RunHistory(RenewingAccess(None, workspace.access))


def start_follower(run: RunRecord, workspace: WorkspaceConnection) -> None:
    """Start a run's follower in the background, where it outlives this process and its terminal.

    It gets the token of this process, so it needs no SDK before that token expires.
    """
    access = workspace.access().to_json().encode()
    with append_log(run.folder / "runner.log") as log:
        pipe = subprocess.PIPE
        child = spawn(FOLLOWER, [str(run.folder)], cwd=run.folder, stdin=pipe, stdout=log, stderr=log)
    assert child.stdin is not None
    # If it has already ended, the next command that reads the run starts it again.
    with contextlib.suppress(OSError), child.stdin:
        child.stdin.write(access)
    # It outlives this command. With a return code set, Popen does not warn that it is still running.
    child.returncode = 0
    store.record_runner(run.folder, child.pid)
