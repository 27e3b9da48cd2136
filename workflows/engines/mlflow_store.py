"""A store in the run's folder for what a step logs by mlflow, so that mlflow needs neither a server nor an account.

Its layout is that of mlflow's file store, ``EXPERIMENT/RUN/{meta.yaml,metrics,params,tags}``
(mlflow/store/tracking/file_store.py, seen with 2.22 and 3.17). The run is there before the step starts, with the
id that MLFLOW_RUN_ID names, as in Azure ML: https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-cli-runs.
mlflow 3.13 and later take a file store only where MLFLOW_ALLOW_FILE_STORE says so.
"""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ..private import make_folder, open_file
from .steps import StepSpec

#: In a step's folder: what is mounted, the store in it, and a run's artifacts there.
FOLDER, STORE, ARTIFACTS = "mlflow", "store", "artifacts"
EXPERIMENT_ID = "0"
#: What says that the user logs elsewhere.
_THEIRS = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")
_NO_ID = re.compile(r"[^\w-]")


def prepare_store(spec: StepSpec, present: Mapping[str, str], seen: str) -> dict[str, str]:
    """Make a step's store and the run in it.

    Args:
        spec: The step.
        present: The variables that the step has already.
        seen: Where the step sees the folder :data:`FOLDER`.

    Returns:
        The variables by which mlflow finds it; none where the user has set their own.

    Raises:
        OSError: It cannot be made.
    """
    if spec.tracking is None or any(present.get(name) for name in _THEIRS):
        return {}
    experiment = present.get("MLFLOW_EXPERIMENT_NAME") or spec.tracking.experiment
    run_id = mlflow_run_id(spec.tracking.run_id)
    root = f"file://{quote(seen)}"
    now = int(time.time() * 1000)
    folder = spec.folder / FOLDER / STORE / EXPERIMENT_ID
    _write(
        folder / "meta.yaml",
        {
            "artifact_location": f"{root}/{STORE}/{EXPERIMENT_ID}",
            "creation_time": now,
            "experiment_id": EXPERIMENT_ID,
            "last_update_time": now,
            "lifecycle_stage": "active",
            "name": experiment,
        },
    )
    # mlflow 3 takes nothing for a run that lacks one of them.
    for name in ("metrics", "params", "tags", ARTIFACTS):
        make_folder(folder / run_id / name)
    make_folder(spec.folder / FOLDER / STORE / ".trash")
    _write(
        folder / run_id / "meta.yaml",
        {
            "artifact_uri": f"{root}/{STORE}/{EXPERIMENT_ID}/{run_id}/{ARTIFACTS}",
            "end_time": None,
            "entry_point_name": "",
            "experiment_id": EXPERIMENT_ID,
            "lifecycle_stage": "active",
            "run_id": run_id,
            "run_name": spec.step,
            # mlflow before 2.0 looks for it.
            "run_uuid": run_id,
            "source_name": "",
            "source_type": 4,
            "source_version": "",
            "start_time": now,
            "status": 1,
            "tags": [],
            "user_id": _user(),
        },
    )
    return {
        "MLFLOW_TRACKING_URI": f"{root}/{STORE}",
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_EXPERIMENT_ID": EXPERIMENT_ID,
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }


def mlflow_run_id(run_id: str) -> str:
    """A run's id as mlflow takes it: letters, digits, - and _."""
    return _NO_ID.sub("-", run_id)


def _write(path: Path, values: Mapping[str, object]) -> None:
    """Write a file of YAML; one that a step before has left stays."""
    make_folder(path.parent)
    if not path.exists():
        # JSON strings are YAML, and quote what has to be quoted.
        with open_file(path, "w", encoding="utf-8") as file:
            file.writelines(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return ""
