"""The files that an experiment's run has written: its logs and its outputs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..engines.work_folder import RUN_FOLDERS
from ..errors import UserError
from ..paths import shown
from ..runs.record import RunRecord


def control_log(run: RunRecord) -> Path:
    """The log of the environment's build, at Azure's path."""
    if run.in_workspace:
        return run.build_log(run.steps[0])
    return run.folder / "azureml-logs" / "60_control_log.txt"


def outputs(run: RunRecord) -> list[tuple[str, Path]]:
    """List the files that a run's script has written: each with its name in the run and its path."""
    from ..experiments.mlflow_reader import artifacts

    places = [*((name, run.folder / name) for name in RUN_FOLDERS), *artifacts(run.folder, run.run_id)]
    return [(f"{name}/{path.relative_to(place).as_posix()}", path) for name, place in places for path in _files(place)]


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The files below a folder, following links to folders; a link to a folder above is listed itself."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    above = (*above, Path(os.path.realpath(folder)))
    below = []
    for entry in entries:
        path = Path(entry.path)
        real = Path(os.path.realpath(path))
        if path.is_dir() and not (path.is_symlink() and any(one.is_relative_to(real) for one in above)):
            below.append(path)
        else:
            yield path
    for path in below:
        yield from _files(path, above)


def find_output(run: RunRecord, wanted: str) -> Path:
    """Find a file that a run's script has written, by its name in the run or below ``outputs`` or ``artifacts``.

    Raises:
        UserError: There is none.
    """
    found = dict(outputs(run))
    for name in (wanted, f"outputs/{wanted}", f"artifacts/{wanted}"):
        if name in found:
            return found[name]
    there = ", ".join(list(found)[:10]) or "none"
    raise UserError(f"The run {run.run_id} has no file {wanted}.", f"Existing ones: {there}")


def copy_outputs(run: RunRecord, folder: Path) -> int:
    """Copy the files that a run's script has written; returns how many.

    Raises:
        UserError: One of them exists in the folder, or cannot be written. Nothing is overwritten.
    """
    found = outputs(run)
    try:
        _copy_all(found, folder)
    except FileExistsError as error:
        raise UserError(f"{shown(folder)} is not a folder.", "Name a folder; it may exist or not.") from error
    except (OSError, shutil.Error) as error:
        place = getattr(error, "filename", None) or folder
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{place} cannot be copied: {reason}.", "Check it, or name another folder.") from error
    return len(found)


def _copy_all(found: Sequence[tuple[str, Path]], folder: Path) -> None:
    there = [name for name, _path in found if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{shown(folder / there[0])}{more} is there already.", "Copy into another folder.")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(str(folder))
    for name, path in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            # Copied as a link: its target may not exist, or be outside.
            (folder / name).symlink_to(os.readlink(path))
        elif path.is_file():
            shutil.copy2(path, folder / name)
