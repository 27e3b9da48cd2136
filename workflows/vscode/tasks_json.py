"""The tasks in ``.vscode/tasks.json``: ours are kept up to date, all else is the user's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import command_name
from ..debugger import entries
from ..debugger.entries import Result
from ..debugger.jsonc import Document, Keys, parse
from ..debugger.jsonc_file import MOST_BYTES, edit_file
from ..reading import read_bytes
from .f5 import READY, VARIABLE

#: Keys that are updated; the rest, such as ``presentation``, is the user's once it is written.
_OURS = ("type", "command", "args", "linux", "osx", "windows", "isBackground", "problemMatcher")
#: VS Code's Python extension inserts the interpreter, for systems on which this program does not know it.
_ASK = "${command:python.interpreterPath}"
FOLDER = "${workspaceFolder}"


@dataclass(frozen=True)
class EditorTask:
    """A task that VS Code runs before it attaches, or after the session.

    Attributes:
        label: Its name in VS Code.
        argv: What follows ``inv``, or ``azureml-debug``.
        configuration: The launch configuration, or compound, that it belongs to.
        stays: Whether it keeps running after it is ready, following a log.
    """

    label: str
    argv: Sequence[str]
    configuration: str
    stays: bool = False

    def entry(self, project: Path) -> dict[str, Any]:
        """The task's entry in tasks.json."""
        found: dict[str, Any] = {
            "label": self.label,
            "detail": f"azureml-debug: what F5 runs, as {command_name.typed()} vscode.setup writes it",
            "type": "process",
            **interpreter(project),
            "args": ["-m", command_name.module_name(), *self.argv],
            "options": {"cwd": FOLDER, "env": {VARIABLE: self.configuration}},
            "problemMatcher": _matcher(self.stays),
            "presentation": {"reveal": "always", "panel": "dedicated", "clear": True, "showReuseMessage": False},
        }
        if self.stays:
            found["isBackground"] = True
        return found


def interpreter(project: Path, prefix: str = sys.prefix, executable: str = sys.executable) -> dict[str, Any]:
    """The Python to start on each system, whether or not the environment is activated.

    An environment in the project has the same path on every system; one elsewhere is known on this system only.
    """
    # The project's path may contain a link, and the environment may itself be one.
    found = Path(os.path.realpath(os.path.dirname(prefix)), os.path.basename(prefix))
    try:
        inside = found.relative_to(os.path.realpath(project))
    except ValueError:
        own = {"linux": "linux", "darwin": "osx", "win32": "windows"}.get(sys.platform, "linux")
        commands = {system: executable if system == own else _ASK for system in ("linux", "osx", "windows")}
    else:
        posix = "/".join([FOLDER, *inside.parts, "bin", "python"])
        # On Windows, conda's Python is in the environment's folder itself (vscode-python-environments, condaUtils.ts).
        scripts = () if Path(prefix, "conda-meta").is_dir() else ("Scripts",)
        windows = "\\".join([FOLDER, *inside.parts, *scripts, "python.exe"])
        commands = {"linux": posix, "osx": posix, "windows": windows}
    return {"command": commands["linux"], **{system: {"command": text} for system, text in commands.items()}}


#: How the two kinds of paths are read, and what matches one.
_ROOT = r"(?:/|\\\\|[A-Za-z]:[\\/])"
_PLACES: tuple[tuple[Any, str], ...] = ((["relative", FOLDER], rf"(?!{_ROOT})(\S.*?)"), ("absolute", rf"({_ROOT}.*?)"))


def _error(path: str) -> list[dict[str, Any]]:
    """The two lines of an error; the second says what to do about it, and becomes the message's second line."""
    return [
        {
            "regexp": rf"^(?:\^C)*{path}:(\d+)(?::(\d+))?: (error|warning): (.*)$",
            "file": 1,
            "line": 2,
            "column": 3,
            "severity": 4,
            "message": 5,
        },
        {"regexp": "^(.+)$", "message": 1},
    ]


def _matcher(stays: bool) -> list[dict[str, Any]]:
    """The problem matchers for our errors, and for errors of Python and Invoke before our code runs.

    A background task that ends without a matched error counts as ready, and VS Code would try to attach.
    """
    # VS Code asks the file system for what "autoDetect" may mean, and loses the error of a task that ends meanwhile
    # (StartStopProblemCollector delivers nothing after `done`): relative and absolute paths are told apart here.
    inside, outside = ({"fileLocation": place, "pattern": _error(path)} for place, path in _PLACES)
    if stays:
        inside["background"] = {"activeOnStart": True, "beginsPattern": r"^build\b", "endsPattern": f"^{READY}$"}
    # tasks.py cannot be loaded: the line number, and the line itself.
    loading: dict[str, Any] = {
        "fileLocation": "absolute",
        "pattern": [
            {"regexp": r'^  File "(.*[/\\]tasks\.py)", line (\d+)', "file": 1, "line": 2},
            {"regexp": r"^\s+(.*)$", "message": 1},
        ],
    }
    # This Python has no Invoke; Invoke finds no tasks.py, or no such task or flag in it.
    starting: dict[str, Any] = {
        "fileLocation": ["autoDetect", FOLDER],
        "pattern": {
            "kind": "file",
            "regexp": r"^(?:No idea what '|Can't find any collection named '"
            r"|(?=.*python[\d.]*(?:\.exe)?: No module named ))(.+?)(?:' is!|'!|: No module named .+)$",
            "file": 1,
            "message": 0,
        },
    }
    common = {"owner": "azureml-debug", "source": "azureml-debug", "severity": "error"}
    return [{**common, **one} for one in (inside, outside, loading, starting)]


def read_own_tasks(folder: Path) -> dict[str, str]:
    """Read the configurations of our tasks by label; empty if tasks.json cannot be read."""
    return {label: name for label, name in _configurations(folder).items() if name}


def read_user_labels(folder: Path) -> set[str]:
    """Read the labels of the user's own tasks."""
    return {label for label, name in _configurations(folder).items() if not name}


def _configurations(folder: Path) -> dict[str, str]:
    """The configuration that each task passes to its command, by label; empty for the user's own tasks."""
    found = {}
    for entry in entries.read_entries(folder / ".vscode" / "tasks.json", "tasks"):
        options = entry.get("options")
        env = options.get("env") if isinstance(options, dict) else None
        if isinstance(label := entry.get("label"), str):
            found[label] = str(env.get(VARIABLE, "")) if isinstance(env, dict) else ""
    return found


def read_content(folder: Path) -> bytes | None:
    """The content of tasks.json; None if it cannot be read, which is reported when it is edited."""
    try:
        return read_bytes(folder / ".vscode" / "tasks.json", MOST_BYTES)
    except OSError:
        return None


def restore_content(folder: Path, before: bytes | None) -> None:
    """Restore the content of tasks.json; None removes the file."""
    file = folder / ".vscode" / "tasks.json"
    if before is None:
        file.unlink(missing_ok=True)
    else:
        edit_file(file, lambda document: parse(before))


def check_tasks_json(folder: Path) -> None:
    """Check that tasks.json can be edited.

    Raises:
        UserError: As :func:`write_tasks`.
    """
    entries.check_file(folder / ".vscode" / "tasks.json", "tasks", name="label")


def write_tasks(folder: Path, tasks: Sequence[EditorTask]) -> Result:
    """Write tasks to the project's tasks.json.

    A task of the same label is updated key by key, and only where a value differs. The user's keys, comments and other
    tasks stay.

    Args:
        folder: The project's folder, which holds ``.vscode``.
        tasks: The tasks.

    Raises:
        UserError: tasks.json cannot be read, parsed or written; it is not changed then.
    """
    file = folder / ".vscode" / "tasks.json"
    added = False

    def change(document: Document) -> Document:
        nonlocal added
        document = entries.with_root(document, file, {"version": "2.0.0", "tasks": []})
        entries.require_array(document, file, "tasks", "label")
        for task in tasks:
            document, new = entries.put_entry(document, "tasks", task.entry(folder), _update, name="label")
            added |= new
        return document

    changed = edit_file(file, change)
    if added:
        return "added"
    return "updated" if changed else "unchanged"


def _update(document: Document, at: Keys, entry: Mapping[str, Any]) -> Document:
    present = entries.value_at(document, at)
    for key in _OURS:
        if key in entry:
            document = document.set((*at, key), entry[key])
        elif key == "isBackground" and key in present:
            document = document.delete((*at, key))
    options = present.get("options")
    if not isinstance(options, dict):
        document = document.set((*at, "options"), entry["options"])
    elif not isinstance(options.get("env"), dict):
        document = document.set((*at, "options", "env"), entry["options"]["env"])
    else:
        document = document.set((*at, "options", "env", VARIABLE), entry["options"]["env"][VARIABLE])
    for key, value in entry.items():
        if key not in entries.value_at(document, at):
            document = document.set((*at, key), value)
    return document
