"""Paths in messages. :mod:`workflows.errors` imports it, so it imports no errors."""

from __future__ import annotations

from pathlib import Path

from . import report

#: The name of the program's own folder in a project.
STATE_FOLDER = ".azureml-debug"


def shown(path: Path) -> Path:
    """A path for messages: relative if it is below the current folder.

    Files of the program's own folder stay absolute if the command was run from another machine, which has none of them.
    """
    if report.is_wanted() and STATE_FOLDER in path.parts:
        return path
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path
