"""A step's working directory: its source folder as it is, but with `outputs` and `logs` of the run's own.

Links, not a copy: a source folder may hold gigabytes, and an edit between two steps counts. Azure ML
uploads what a script writes to `./outputs` and `./logs`; here both lead into the run's folder, so that
nothing appears beside the script and two runs do not mix.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ..project import STATE_FOLDER
from .steps import StepSpec

#: What a script writes to that belongs to the run.
RUN_FOLDERS = ("outputs", "logs")


def make_folders(spec: StepSpec) -> None:
    """Make the folders of a step's run."""
    for name in ("azureml-logs", "announce", "work", *RUN_FOLDERS):
        (spec.folder / name).mkdir(parents=True, exist_ok=True)
    for path, is_file in spec.outputs.values():
        (path.parent if is_file else path).mkdir(parents=True, exist_ok=True)


def make_work_folder(spec: StepSpec, code: str, run: str) -> None:
    """Fill ``work`` of a step's folder.

    Args:
        spec: The step.
        code: The source folder, or the folder of the source file, as the step sees it.
        run: The folder of ``outputs`` and ``logs`` as the step sees it.
    """
    work = spec.folder / "work"
    for name in RUN_FOLDERS:
        _link(f"{run}/{name}", work / name)
    if spec.code is None:
        return
    names = [entry.name for entry in os.scandir(spec.code)] if spec.code.is_dir() else [spec.code.name]
    for name in names:
        if name not in (*RUN_FOLDERS, STATE_FOLDER):
            _link(f"{code}/{name}", work / name)


def _link(target: str, link: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.symlink(target, link)


def input_name(path: Path) -> str:
    """The last part of an input's path as the command sees it: one word for a shell; a file keeps its suffix."""
    return re.sub(r"[^\w.+=@%,-]", "_", path.name)
