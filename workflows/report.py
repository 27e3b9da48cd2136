"""The report of a task that another machine runs here with ``--remote``.

``AZUREML_DEBUG_REPORT`` names its file, with one JSON object per line; background processes of the task inherit it.
Launch configurations go into the report, since the editor is on the other machine.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

VARIABLE = "AZUREML_DEBUG_REPORT"
#: Seconds that the other machine may take to open tunnels.
DONE_SECONDS = 60.0
#: The variable with the command as it was typed on that machine.
TYPED = "AZUREML_DEBUG_TYPED"


def is_wanted() -> bool:
    """Whether another machine runs this command with ``--remote``."""
    return bool(os.environ.get(VARIABLE))


def typed_command() -> str:
    """What was typed after ``inv``, here or on the other machine, without secrets."""
    from .redaction import scrub

    return scrub(os.environ.get(TYPED) or shlex.join(sys.argv[1:]))


def add(**value: Any) -> None:
    """Add a line to the report."""
    line = (json.dumps(value) + "\n").encode()
    descriptor = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # One write, so that two processes' lines do not mix.
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def wait_until_done() -> None:
    """Wait until the other machine has handled the report so far, since the next lines depend on it.

    At most :data:`DONE_SECONDS`: if the other machine is gone, the task goes on.
    """
    path = os.environ[VARIABLE]
    told, deadline = os.path.getsize(path), time.monotonic() + DONE_SECONDS
    while time.monotonic() < deadline:
        try:
            with open(f"{path}.done", encoding="ascii") as file:
                if int(file.read() or 0) >= told:
                    return
        except (OSError, ValueError):
            pass
        time.sleep(0.01)


def add_configurations(
    owner: Mapping[str, Any],
    what: str,
    configurations: Sequence[Mapping[str, Any]],
    compounds: Sequence[Mapping[str, Any]] = (),
    in_use: Sequence[str] | None = None,
    ports: Mapping[str, int] | None = None,
    also: Mapping[str, str] | None = None,
) -> None:
    """Report launch configurations, for an editor on the other machine.

    Args:
        owner: What they belong to: ``{"run": folder}`` or ``{"service": folder, "created": …}``.
        what: The owner's name, for messages.
        configurations: The configurations as they would be written here.
        compounds: The compounds as they would be written here.
        in_use: Names of the same family that are still valid; None to leave older ones alone.
        ports: Further ports on 127.0.0.1 to forward, by purpose.
        also: Other names of configurations that launch.json may have.
    """
    add(
        configurations={
            "owner": dict(owner),
            "what": what,
            "entries": [dict(entry) for entry in configurations],
            "compounds": [dict(entry) for entry in compounds],
            "in_use": None if in_use is None else list(in_use),
            "ports": dict(ports or {}),
            "also": dict(also or {}),
        }
    )
