"""Shows the result of an inspection, and reads the values of its flags."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import Console
from ..errors import BadValue
from ..reading import read_bytes
from ._values import shorten, show_value

if TYPE_CHECKING:
    from ..runs.record import RunRecord


def show(console: Console, result: Mapping[str, Any], code: Iterable[Path], *, all_code: bool = False) -> None:
    """Show where the program stopped, its stack, and its values.

    Args:
        console: Where to show it.
        result: The result of the inspection.
        code: Folders of the user's code. Their frames are shown, and those of the stopped file's folder.
        all_code: Whether all frames are shown.
    """
    from ..paths import shown

    stopped = result["stopped"]
    process = f", child process {result['child']}" if "child" in result else ""
    if "exception" in result:
        console.value(shorten(": ".join(filter(None, result["exception"].values()))))
    console.line(f"Stopped in {stopped['function']} at {shown(Path(stopped['file']))}:{stopped['line']}{process}")
    folders = [Path(stopped["file"]).parent, *code]
    others = 0
    for frame in result["stack"]:
        if not all_code and not _is_own(Path(frame["file"]), folders):
            others += 1
            continue
        console.line(f"  {frame['function']:<24} {shown(Path(frame['file']))}:{frame['line']}")
    if others:
        console.line(f"  ({others} frame{'s' if others > 1 else ''} of other code)")
    if result["locals"]:
        console.line("Locals")
        for name, value in result["locals"].items():
            show_value(console, name, value)
    if result["values"]:
        console.line("Values")
        for expression, value in result["values"].items():
            show_value(console, expression, value)


def show_response(console: Console, response: Mapping[str, Any]) -> None:
    """Show a service's response; of an error, the last lines."""
    from ..flows.service_inspection import answer_lines

    lines = answer_lines(response) if response["status"] >= 400 else []
    if len(lines) > 1:
        console.line(f"Response {response['status']}")
        for line in lines:
            console.value(f"  {line}")
        return
    body = response["body"]
    console.value(f"Response {response['status']}: {body if isinstance(body, str) else json.dumps(body)}")


def code_folders(run: RunRecord, project: Path) -> list[Path]:
    """The folders of the user's code: the project, and those of the code of a run's steps."""
    return [project, *(mapping.local_root for step in run.steps for mapping in step.path_mappings())]


def _is_own(file: Path, folders: Iterable[Path]) -> bool:
    """Whether a file is in one of the folders, and not in the packages of an environment there."""
    for folder in folders:
        for whole, place in ((folder, file), (folder.resolve(), file.resolve())):
            if place.is_relative_to(whole):
                return not {"site-packages", "dist-packages"} & set(place.relative_to(whole).parts)
    return False


def sample_line(script: Path) -> int | None:
    """A line for a first inspection: the last of ``run`` or ``main``, else the script's last; None if there is none."""
    import ast

    try:
        tree = ast.parse(read_bytes(script))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in ("run", "main"):
            return node.body[-1].lineno
    return tree.body[-1].lineno if tree.body else None


def quote_location(name: str, line: object) -> str:
    """FILE:LINE as an argument on the command line: quoted if necessary, and never read as a flag."""
    return shlex.quote(f"{'./' if name.startswith('-') else ''}{name}:{line}")


def read_timeout(text: str) -> float:
    """The seconds typed after ``--timeout``.

    Raises:
        BadValue: It is not a whole number from 1 on.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 7 or not int(text):
        raise BadValue(f"--timeout must be a whole number of seconds, not {text!r}.", "Correct it.")
    return float(text)


def read_failed(typed: object) -> int | None:
    """The number typed after ``--failed``: 0 if the flag has no value, None without the flag.

    Raises:
        BadValue: It is not a number from 1 on.
    """
    if typed is None or typed is False:
        return None
    if typed is True:
        return 0
    text = str(typed)
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not int(text):
        raise BadValue(f"--failed must be the number of a request, not {text!r}.", "List them: inv deploy.requests")
    return int(text)
