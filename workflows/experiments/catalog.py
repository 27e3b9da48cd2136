"""Lists and creates a project's experiments: those that were created here, and those with a run configuration."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..project import read_json, state_folder, write_json
from .runconfig import FOLDERS

#: As in azureml-core (_valid_experiment_name), and short enough for a folder's name with a number after it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def check_name(name: str) -> None:
    """Check that a name is valid for an experiment.

    Raises:
        UserError: It is not.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be an experiment's name.",
            "Use letters, digits, - and _, at most 100 of them, beginning with a letter or digit.",
        )


def runconfig_path(project: Path, name: str) -> Path:
    """The path of an experiment's run configuration, where the SDK looks for it."""
    for folder in reversed(FOLDERS):
        path = project / folder / f"{name}.runconfig"
        if path.exists():
            return path
    return project / FOLDERS[0] / f"{name}.runconfig"


def _folder(project: Path, *, reading: bool = False) -> Path:
    return state_folder(project, "experiments", reading=reading)


def list_experiments(project: Path) -> list[str]:
    """The names of the project's experiments."""
    noted = {path.stem for path in _folder(project, reading=True).glob("*.json")}
    configured = {path.stem for folder in FOLDERS for path in (project / folder).glob("*.runconfig")}
    return sorted(name for name in noted | configured if _NAME.fullmatch(name))


def exists(project: Path, name: str) -> bool:
    """Whether there is an experiment of that name."""
    return name in list_experiments(project)


def create(project: Path, name: str) -> None:
    """Create an experiment.

    Raises:
        UserError: There is one of that name already, or the name is not valid.
    """
    check_name(name)
    for other in list_experiments(project):
        if other.lower() == name.lower():
            # Two names that differ only in case would share a folder on macOS and Windows.
            raise UserError(
                f"There is an experiment {other} already.", f"Run it: inv experiment.run {other} --script train.py"
            )
    _save(project, name, {})


def remove(project: Path, name: str) -> None:
    """Remove an experiment that has no runs, as if it had not been created."""
    (_folder(project, reading=True) / f"{name}.json").unlink(missing_ok=True)


def require(project: Path, name: str) -> None:
    """Check that an experiment exists.

    Raises:
        UserError: It does not; the error names those that do.
    """
    check_name(name)
    names = list_experiments(project)
    if name not in names:
        there = f"Existing ones: {', '.join(names)}. Or: " if names else "First: "
        raise UserError(f"There is no experiment {name}.", f"{there}inv experiment.create {name}")


def creation_time(project: Path, name: str) -> float | None:
    """When an experiment was created here, in seconds since the epoch."""
    found = _load(project, name).get("created")
    return float(found) if isinstance(found, int | float) else None


def debugged_run_id(project: Path, name: str) -> str | None:
    """The id of the run that was debugged last, the only one that can still be debugged."""
    found = _load(project, name).get("session")
    return found if isinstance(found, str) else None


def record_run(project: Path, name: str, debugged: str | None) -> None:
    """Record that an experiment has a run, so that it is listed even without its run configuration.

    Args:
        project: The project's folder.
        name: The experiment.
        debugged: The run's id if it is debugged, else None.
    """
    if debugged is not None or not _load(project, name):
        _save(project, name, {"session": debugged} if debugged is not None else {})


def _load(project: Path, name: str) -> dict[str, Any]:
    return read_json(_folder(project, reading=True) / f"{name}.json") or {}


def _save(project: Path, name: str, values: Mapping[str, Any]) -> None:
    before = {"name": name, "created": time.time(), **_load(project, name)}
    write_json(_folder(project) / f"{name}.json", {**before, **values})
