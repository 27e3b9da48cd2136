"""The server for agents in ``.vscode/mcp.json``: ours is kept up to date, all else is the user's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .. import command_name
from ..debugger import entries
from ..debugger.entries import Result
from ..debugger.jsonc import Document
from ..debugger.jsonc_file import edit_file
from ..errors import UserError
from .tasks_json import FOLDER, interpreter

#: The server's name there.
NAME = "azureml-debug"
_SERVERS = "servers"


def server_entry(project: Path) -> dict[str, Any]:
    """The server's entry in mcp.json (https://code.visualstudio.com/docs/copilot/reference/mcp-configuration).

    VS Code does not document the folder in which it starts a server, so the arguments name the project's.
    """
    own = {"linux": "linux", "darwin": "osx", "win32": "windows"}.get(sys.platform, "linux")
    command = interpreter(project)[own]["command"]
    arguments = ["--search-root", FOLDER, "mcp.serve"]
    if command_name.is_own():
        arguments = ["mcp.serve", "--project", FOLDER]
    arguments = ["-m", command_name.module_name(), *arguments]
    return {"type": "stdio", "command": command, "args": arguments}


def _file(project: Path) -> Path:
    return project / ".vscode" / "mcp.json"


def check_mcp_json(project: Path) -> None:
    """Check that mcp.json can be edited.

    Raises:
        UserError: As :func:`write_server`.
    """
    entries.check_file(_file(project))


def write_server(project: Path) -> Result:
    """Write the server to the project's mcp.json; other servers, keys and comments stay.

    Raises:
        UserError: mcp.json cannot be read, parsed or written; it is not changed then.
    """
    file = _file(project)
    ours = server_entry(project)
    was = ""

    def change(document: Document) -> Document:
        nonlocal was
        document = entries.with_root(document, file, {_SERVERS: {}})
        there = document.value.get(_SERVERS)
        if there is None:
            document, there = document.set((_SERVERS,), {}), {}
        if not isinstance(there, dict):
            raise UserError(
                f'"{_SERVERS}" must be an object',
                f'Write "{_SERVERS}": {{ … }} there; the file was not changed.',
                file=file,
                line=document.line((_SERVERS,)),
            )
        known = there.get(NAME)
        if not isinstance(known, dict):
            was = "added"
            return document.set((_SERVERS, NAME), ours)
        arguments = known.get("args")
        for key, value in ours.items():
            # Arguments that the user has added, such as --read-only, stay.
            if key == "args" and isinstance(arguments, list) and arguments[: len(value)] == value:
                continue
            document = document.set((_SERVERS, NAME, key), value)
        return document

    changed = edit_file(file, change)
    if was:
        return "added"
    return "updated" if changed else "unchanged"
