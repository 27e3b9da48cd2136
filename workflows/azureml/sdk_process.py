"""A process that uses the SDK for a run's follower: ``python -m workflows.azureml.sdk_process FOLDER access|cancel``.

It signs in as the submission of the run did, does its task, and writes the access to standard output, a pipe to the
follower. Where it fails, it writes the reason as JSON and exits with code 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ..background import log
from ..errors import UserError
from ..runs import record as records
from .connection import connect
from .errors import SIGNING_IN, attempt, is_transient
from .run_location import load_location


def _print_failure(details: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(details) + "\n")


def main(folder: Path, what: str) -> int:
    """Do the task; returns the exit code."""
    from ..settings import resolve

    run, place = records.load(folder), load_location(folder)
    if run is None or place is None:
        _print_failure({"problem": f"{folder} is the folder of no run in a workspace."})
        return 1
    try:
        workspace = connect(resolve(run.project), place, log)
        if what == "cancel":
            attempt(lambda: workspace.cancel(place.run_id), "canceling the run", log)
        sys.stdout.write(attempt(workspace.access, SIGNING_IN, log).to_json() + "\n")
    except UserError as error:
        cause = error.__cause__
        details = {
            "problem": error.problem,
            "remedy": error.remedy,
            "kind": type(error).__name__,
            "passes": cause is not None and is_transient(cause),
        }
        _print_failure(details)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
