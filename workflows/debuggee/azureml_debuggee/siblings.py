"""Further processes of a step's script beside one that is debugged already, as launchers start them.

The port belongs to the first process. A further process is debugged as if it were a child of the first: in a session of
its own through the same port.
"""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Mapping, Optional

from . import child, imports
from .gate import ENDING_SECONDS, Gate
from .program import OWNER
from .startup import outside_site

#: Seconds between checks whether the first process still holds.
POLL_SECONDS = 0.05
#: Seconds that a rank without a port of its own waits for rank 0 to listen.
FIRST_SECONDS = 10.0


def join_sibling(gate: Gate, settings: Mapping[str, str]) -> bool:
    """Become a child of the process that listens at this one's port, if there is one; hold as long as it does.

    Args:
        gate: This process's own gate, which has been started.
        settings: Configuration, as for a session.

    Returns:
        Whether there is such a process.
    """
    # A process that is just ending may also hold the port.
    if gate.bind_done.is_set() or gate.bind_done.wait(ENDING_SECONDS):
        return False
    port = settings.get("AZUREML_DEBUGGEE_PORT", "")
    first = find_listening(settings, int(port)) if port.isdigit() else None
    if first is None or not first.get("children"):
        return False
    try:
        # The process may have ended without its parent having noticed.
        child.Link(first["children"][0]).close()
    except OSError:
        return False
    gate.is_cancelled = True
    _become_child(first, settings)
    return True


def join_first_rank(settings: Mapping[str, str]) -> bool:
    """Become a child of the process that listens at the step's port, once there is one; hold as long as it does.

    Args:
        settings: Configuration, as for a session.
    """
    port = settings.get("AZUREML_DEBUGGEE_PORT", "")
    deadline = time.monotonic() + FIRST_SECONDS
    while port.isdigit() and time.monotonic() < deadline:
        first = find_listening(settings, int(port))
        if first is not None and first.get("children"):
            _become_child(first, settings)
            return True
        time.sleep(POLL_SECONDS)
    return False


def _become_child(first: Dict[str, Any], settings: Mapping[str, str]) -> None:
    os.environ[child.SOCKET_VARIABLE], os.environ[child.ATTENDED_VARIABLE] = first["children"]
    os.environ[OWNER] = str(first["pid"])
    if settings.get("AZUREML_DEBUGGEE_WAIT") == "1":
        _wait_with_first(settings, int(first["pid"]))
    if child.register_child():
        from . import child_session

        with outside_site():
            child_session.wait_for_debugger()


def read_events(settings: Mapping[str, str]) -> List[Dict[str, Any]]:
    """The events that the processes of this step have announced so far."""
    try:
        with open(settings["AZUREML_DEBUGGEE_EVENTS"], encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (KeyError, OSError, ValueError):
        return []
    loads, found = imports.standard_module("json").loads, []
    for line in lines:
        try:
            found.append(loads(line))
        except ValueError:
            continue
    return found


def find_listening(settings: Mapping[str, str], port: int) -> Optional[Dict[str, Any]]:
    """The event ``listening`` of another running process of this step at this port; None if there is none."""
    found = [event for event in read_events(settings) if event["event"] == "listening" and event["port"] == port]
    if not found or found[-1]["pid"] == os.getpid() or not _is_running(found[-1]["pid"]):
        return None
    return found[-1]


def is_held(port: int) -> bool:
    """Whether another running process of the step listens at a port."""
    return find_listening(os.environ, port) is not None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _wait_with_first(settings: Mapping[str, str], pid: int) -> None:
    """Wait as long as the first process waits for a debugger."""
    from .session import read_number

    deadline = time.monotonic() + read_number(settings, "AZUREML_DEBUGGEE_TIMEOUT", 300.0)
    while time.monotonic() < deadline and _is_running(pid):
        if any(
            event["pid"] == pid and event["event"] in ("attached", "not-attached") for event in read_events(settings)
        ):
            return
        time.sleep(POLL_SECONDS)
