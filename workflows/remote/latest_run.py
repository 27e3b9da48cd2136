"""Records that the newest run of a project is on the remote machine, so that local commands can point to it."""

from __future__ import annotations

import time
from pathlib import Path

from .. import report
from ..console import Console
from ..project import STATE_FOLDER, read_json, state_folder, write_json
from .address import Address

_NAME = "latest.json"


def record(project: Path, story: str, address: Address) -> None:
    """Record that a run has just been started on the remote machine."""
    path = state_folder(project, "remote") / _NAME
    write_json(path, {**(read_json(path) or {}), story: {"created": time.time(), "address": str(address)}})


def print_if_newer(console: Console, project: Path, story: str, task: str, created: float) -> None:
    """Print a note if the remote machine has a newer run than the one that is shown as the newest.

    Args:
        console: Where to print it.
        project: The project's folder.
        story: ``pipeline`` or ``experiment``.
        task: The task that shows the newest run.
        created: The start of the shown run, in seconds since the epoch.
    """
    known = (read_json(project / STATE_FOLDER / "remote" / _NAME) or {}).get(story)
    if known and known["created"] > created and not report.is_wanted():
        console.line(f"note: the newest run is on {known['address']}: inv {task} --remote")
