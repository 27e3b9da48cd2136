"""Paths in messages: errors are shown by it, so it knows no errors."""

from __future__ import annotations

from pathlib import Path

from . import report

#: The folder, in a project, for what the program keeps there.
STATE_FOLDER = ".azureml-debug"


def shown(path: Path) -> Path:
    """A path as people read it: relative where it lies below the current folder.

    For somebody on another machine a run's files are named in full: they are not there.
    """
    if report.is_wanted() and STATE_FOLDER in path.parts:
        return path
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path
