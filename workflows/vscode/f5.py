"""F5: the command that VS Code runs before it attaches.

VS Code reads launch.json when F5 is pressed and not again after the task, so the debugger has to listen where
launch.json said then. The task passes the configuration's name in ``AZUREML_DEBUG_F5``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import report
from ..errors import PortHeld, UserError

VARIABLE = "AZUREML_DEBUG_F5"
#: The line at which the editor's problem matcher ends the wait; see :mod:`workflows.vscode.tasks_json`.
READY = "VS Code attaches now."

#: The configuration's name, and its entries in launch.json when F5 was pressed.
_known: dict[str, Any] = {}


def configuration_name() -> str:
    """The configuration or compound for which F5 was pressed; empty if the command was typed."""
    if "name" not in _known:
        # Popped, so that processes that this command starts, and that may outlive it, do not inherit it.
        _known["name"] = os.environ.pop(VARIABLE, "")
    return str(_known["name"])


def remember_launch_json(project: Path) -> None:
    """Remember what VS Code has read, before anything is written."""
    if configuration_name():
        _known["project"], _known["read"] = project, _entries(project, configuration_name())


def debug_port() -> int | None:
    """The first port of the configuration in launch.json; None if it has none."""
    ports = [entry["connect"].get("port") for entry in _read().values() if isinstance(entry.get("connect"), dict)]
    return next((port for port in ports if type(port) is int and 0 < port < 65536), None)


def report_ready(project: Path) -> None:
    """Print the line that makes the editor attach, if launch.json is still as the editor has read it.

    Raises:
        UserError: It has changed, so that the editor would connect elsewhere.
    """
    if not configuration_name():
        return
    if not report.is_wanted():
        check_unchanged(project)
    from ..console import output_errors

    with output_errors(sys.stdout):
        print(READY, flush=True)


def check_unchanged(project: Path) -> None:
    """Check that launch.json is still as VS Code has read it.

    Raises:
        UserError: It is not.
    """
    if not configuration_name():
        return
    now = _entries(project, configuration_name())
    for one, before in _read().items():
        for what, look in {"the debug port": _place, "the path mappings": _roots}.items():
            if one in now and look(now[one]) != look(before):
                raise UserError(
                    f"launch.json has changed since F5 was pressed: {what} of {one}.",
                    "Press F5 again: VS Code goes by what it has read.",
                    file=Path(".vscode", "launch.json"),
                    line=_line(project, one),
                )


def format_error(error: UserError) -> str:
    """An error in the form of the editor's problem matcher, which always needs a file and a line."""
    if not configuration_name() or (error.file is not None and error.line is not None):
        return str(error)
    if isinstance(error, PortHeld) and error.port == debug_port():
        # launch.json names the port, so no setting counts.
        place = f"{Path('.vscode', 'launch.json')}:{_line(_known['project'], configuration_name())}"
        return f"{place}: error: {error.problem}\nStop it, or write another port there."
    place = f"{error.file if error.file is not None else 'tasks.py'}:1"
    return f"{place}: error: {error.problem}\n{error.remedy}"


def print_bug(error: BaseException) -> None:
    """Print an error for the editor if the command ends in a traceback: without it, the editor would try to attach."""
    if configuration_name():
        from ..redaction import scrub
        from ..terminal import printable

        text = printable(" ".join(scrub(f"{type(error).__name__}: {error}").split()))
        print(
            f"tasks.py:1: error: {text}\nThis is a bug of the program: see the traceback.", file=sys.stderr, flush=True
        )


def _read() -> Mapping[str, dict[str, Any]]:
    found: Mapping[str, dict[str, Any]] = _known.get("read", {})
    return found


def _entries(project: Path, wanted: str) -> dict[str, dict[str, Any]]:
    """The configuration of a name, or a compound's members, from launch.json."""
    from ..debugger import launch_json

    found = launch_json.read_configurations(project)
    return {one: found[one] for one in launch_json.read_compound_members(project, wanted) or [wanted] if one in found}


def _line(project: Path, wanted: str) -> int:
    from ..debugger import launch_json

    return launch_json.find_line(project, wanted)


def _place(entry: Mapping[str, Any]) -> Any:
    return entry.get("connect")


def _roots(entry: Mapping[str, Any]) -> Any:
    """The first remote root of each local root, which breakpoints use; those of a single run come behind."""
    found: dict[str, str] = {}
    mappings = entry.get("pathMappings")
    for mapping in mappings if isinstance(mappings, list) else []:
        if isinstance(mapping, dict):
            found.setdefault(str(mapping.get("localRoot")), str(mapping.get("remoteRoot")))
    return found
