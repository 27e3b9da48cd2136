"""F5: the command that VS Code runs before it attaches, and what it goes by when it does.

VS Code reads launch.json when F5 is pressed and not again after the task, so the debugger has to be where launch.json
said then. The task names the configuration in ``AZUREML_DEBUG_F5``.
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
#: The line on which the editor's problem matcher ends the wait; see :mod:`workflows.vscode.tasks_json`.
READY = "VS Code attaches now."

#: The configuration, and what launch.json said of it and of its members.
_known: dict[str, Any] = {}


def configuration_name() -> str:
    """The configuration, or compound, for which F5 was pressed; empty where a person has typed the command."""
    if "name" not in _known:
        # Not for what this command starts: it may go on long after.
        _known["name"] = os.environ.pop(VARIABLE, "")
    return str(_known["name"])


def remember_launch_json(project: Path) -> None:
    """Keep what VS Code has read, before anything is written."""
    if configuration_name():
        _known["project"], _known["read"] = project, _entries(project, configuration_name())


def debug_port() -> int | None:
    """The first port that launch.json names for the configuration; None where it names none."""
    ports = [entry["connect"].get("port") for entry in _read().values() if isinstance(entry.get("connect"), dict)]
    return next((port for port in ports if type(port) is int and 0 < port < 65536), None)


def report_ready(project: Path) -> None:
    """Tell the editor to attach, once launch.json is as it read it.

    Raises:
        UserError: It has changed since, so that the editor would go to another place.
    """
    if not configuration_name():
        return
    if not report.is_wanted():
        check_unchanged(project)
    from ..console import output_errors

    with output_errors(sys.stdout):
        print(READY, flush=True)


def check_unchanged(project: Path) -> None:
    """See that launch.json still says what VS Code has read.

    Raises:
        UserError: It does not.
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
    """An error as the editor's problem matcher reads it: always with a place."""
    if not configuration_name() or (error.file is not None and error.line is not None):
        return str(error)
    if isinstance(error, PortHeld) and error.port == debug_port():
        # No setting counts where launch.json names a port.
        place = f"{Path('.vscode', 'launch.json')}:{_line(_known['project'], configuration_name())}"
        return f"{place}: error: {error.problem}\nStop it, or write another port there."
    place = f"{error.file if error.file is not None else 'tasks.py'}:1"
    return f"{place}: error: {error.problem}\n{error.remedy}"


def print_bug(error: BaseException) -> None:
    """A line for the editor where the command ends in a traceback: without one it would attach to nothing."""
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
    """The configuration of a name, or a compound's members, as launch.json has them."""
    from ..debugger import launch_json

    found = launch_json.read_configurations(project)
    return {one: found[one] for one in launch_json.read_compound_members(project, wanted) or [wanted] if one in found}


def _line(project: Path, wanted: str) -> int:
    from ..debugger import launch_json

    return launch_json.find_line(project, wanted)


def _place(entry: Mapping[str, Any]) -> Any:
    return entry.get("connect")


def _roots(entry: Mapping[str, Any]) -> Any:
    """The first remote root of each local one: breakpoints go by that. Those of one run alone come behind."""
    found: dict[str, str] = {}
    mappings = entry.get("pathMappings")
    for mapping in mappings if isinstance(mappings, list) else []:
        if isinstance(mapping, dict):
            found.setdefault(str(mapping.get("localRoot")), str(mapping.get("remoteRoot")))
    return found
