"""What needs the SDK while a run is followed: ``python -m workflows.azureml.sdk_process FOLDER access|cancel``.

It signs in as the run's submission did, does what is asked for, and writes the access that it had to standard output,
which is a pipe to the follower; or why it could not, as JSON with exit code 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..background import log
from ..errors import UserError
from ..runs import record as records
from .access import Access
from .errors import SIGNING_IN, attempt, passes
from .place import load_place


def cancel(workspace: Any, run_id: str) -> None:
    """Ask the service to end a pipeline's run, by SDK v1.

    Args:
        workspace: The SDK's workspace.
        run_id: The run's id.
    """
    from azureml.pipeline.core import PipelineRun

    PipelineRun(workspace.get_run(run_id).experiment, run_id).cancel()


def _answer(told: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")


def main(folder: Path, what: str) -> int:
    """Do it; the exit code."""
    from ..settings import resolve

    run, place = records.load(folder), load_place(folder)
    if run is None or place is None:
        _answer({"problem": f"{folder} is the folder of no run in a workspace."})
        return 1
    try:
        settings = place.settings(resolve(run.project))
        if place.sdk == "v2":
            from .v2.workspace import connect

            found = connect(settings, log)
            access, end = found.access, lambda: found.cancel(place.run_id)
        else:
            from .workspace import connect as connect_v1

            workspace = connect_v1(settings, log)
            access, end = lambda: Access.of(workspace), lambda: cancel(workspace, place.run_id)
        if what == "cancel":
            attempt(end, "canceling the run", log)
        sys.stdout.write(attempt(access, SIGNING_IN, log).to_json() + "\n")
    except UserError as error:
        cause = error.__cause__
        told = {
            "problem": error.problem,
            "remedy": error.remedy,
            "kind": type(error).__name__,
            "passes": cause is not None and passes(cause),
        }
        _answer(told)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
