"""Remembers that the newest run of a project was started on the other machine, for who asks for the newest one here."""

from __future__ import annotations

import time
from pathlib import Path

from .. import report
from ..console import Console
from ..project import STATE_FOLDER, read_json, state_folder, write_json
from .address import Address

_NAME = "latest.json"


def record(project: Path, story: str, address: Address) -> None:
    """Note that a run of a story has just been started there."""
    path = state_folder(project, "remote") / _NAME
    write_json(path, {**(read_json(path) or {}), story: {"created": time.time(), "address": str(address)}})


def print_if_newer(console: Console, project: Path, story: str, task: str, created: float) -> None:
    """Say in a line that a run which is shown as the newest one is older than one there.

    Args:
        console: Where to say it.
        project: The project's folder.
        story: ``pipeline`` or ``experiment``.
        task: The task that shows the newest one.
        created: When the one that is shown was started, in seconds since the epoch.
    """
    known = (read_json(project / STATE_FOLDER / "remote" / _NAME) or {}).get(story)
    if known and known["created"] > created and not report.is_wanted():
        console.line(f"note: the newest run is on {known['address']}: inv {task} --remote")
