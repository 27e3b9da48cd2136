"""A local tracking store for what a step logs with mlflow, so that mlflow needs neither a server nor an account.

Its layout is that of mlflow's file store, ``EXPERIMENT/RUN/{meta.yaml,metrics,params,tags}``
(mlflow/store/tracking/file_store.py, checked with 2.22 and 3.17). The run exists before the step starts, with the
id in MLFLOW_RUN_ID, as in Azure ML: https://learn.microsoft.com/azure/machine-learning/how-to-use-mlflow-cli-runs.
mlflow 3.13 and later accept a file store only where MLFLOW_ALLOW_FILE_STORE is set.
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

#: The mounted folder in a step's folder, the store in it, and the name of a run's artifact folder.
FOLDER, STORE, ARTIFACTS = "mlflow", "store", "artifacts"
EXPERIMENT_ID = "0"
#: Variables that say that the user logs to another store.
_THEIRS = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")
_NO_ID = re.compile(r"[^\w-]")


def prepare_store(spec: StepSpec, present: Mapping[str, str], step_path: str) -> dict[str, str]:
    """Create a step's store and its run.

    Args:
        spec: The step.
        present: The step's variables so far.
        step_path: The path of :data:`FOLDER` as the step sees it.

    Returns:
        The variables by which mlflow finds the store; none where the user's variables name another one.

    Raises:
        OSError: It cannot be created.
    """
    if spec.tracking is None or any(present.get(name) for name in _THEIRS):
        return {}
    experiment = present.get("MLFLOW_EXPERIMENT_NAME") or spec.tracking.experiment
    run_id = mlflow_run_id(spec.tracking.run_id)
    root = f"file://{quote(step_path)}"
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
    # mlflow 3 does not recognize a run that lacks one of these folders.
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
            # For mlflow before 2.0.
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
    """A run's id as mlflow accepts it: letters, digits, - and _."""
    return _NO_ID.sub("-", run_id)


def _write(path: Path, values: Mapping[str, object]) -> None:
    """Write a YAML file, unless an earlier attempt of the step has left one."""
    make_folder(path.parent)
    if not path.exists():
        # JSON values are valid YAML, with all necessary quotes.
        with open_file(path, "w", encoding="utf-8") as file:
            file.writelines(f"{name}: {json.dumps(value)}\n" for name, value in values.items())


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return ""
