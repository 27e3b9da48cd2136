"""What a task tells the machine from which it was asked for, with ``--remote``.

There is a file for it in ``AZUREML_DEBUG_REPORT`` then, one JSON object a line; background processes that the task
starts inherit it. What would be written for an editor here belongs there.
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
#: What was typed on that machine.
TYPED = "AZUREML_DEBUG_TYPED"


def is_wanted() -> bool:
    """Whether this command was asked for from another machine."""
    return bool(os.environ.get(VARIABLE))


def typed_command() -> str:
    """What was typed after ``inv``, on whichever machine that was, without secrets."""
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
    """Wait until the other machine has done what was told: what is said next builds on it.

    Not for long: it may be gone, and the task goes on all the same.
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
        what: The same for people.
        configurations: As they would be written here.
        compounds: Likewise.
        in_use: Names of the same family that still lead somewhere; None where older ones are left alone.
        ports: Further ports on 127.0.0.1 that are to be reached, by what they are for.
        also: Other names by which an editor may know a configuration.
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
