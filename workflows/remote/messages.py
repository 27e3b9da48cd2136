"""The messages that the remote machine may send: those of :mod:`workflows.remote.agent.server`, with their fields.

Anything else is refused on arrival (:mod:`workflows.received`), before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import received
from ..received import (
    Check,
    absolute_path,
    address,
    anything,
    between,
    digest,
    display_text,
    each,
    fields,
    flag,
    name,
    number,
    one_line,
    one_of,
    optional,
    port,
    real,
    relative_path,
    row,
    size,
    table,
    text,
)

#: The most files of one project or run, tunnels of one run or service, and lines of one list.
FILES, TUNNELS, LINES = 1_000_000, 512, 10_000
#: The most messages before the answer to a request: each line of a long build's output is one.
MESSAGES = 200_000
#: The prefix of the names of this program's launch configurations. Others belong to the user.
FAMILY = "Azure Machine Learning "
_FOLDER = "${workspaceFolder}"


def configuration_name(value: Any, what: str) -> str:
    """The name of a launch configuration of this program."""
    found = one_line(value, what, 500)
    if not found.startswith(FAMILY):
        raise received.Refused(f"{what} that is not one of this program's: {found[:80]}")
    return found


def _local_root(value: Any, what: str) -> str:
    """A folder as an editor on the remote machine would name it."""
    found = one_line(value, what, 4096)
    inside = found.removeprefix(_FOLDER) if found == _FOLDER or found.startswith(f"{_FOLDER}/") else None
    if inside is None:
        return absolute_path(found, what)
    if ".." in inside.split("/"):
        raise received.Refused(f"{what} that does not stay in the project: {found[:80]}")
    return found


def _engine(value: Any, what: str) -> str:
    """The address of a Docker engine."""
    found = one_line(value, what)
    if not re.fullmatch(r"(?:unix|tcp|npipe|ssh)://[^-\s]\S*", found):
        raise received.Refused(f"{what} that is none: {found[:80]}")
    return found


def _object(value: Any, what: str) -> Any:
    return anything(table(one_line, lambda one, _what: one, LINES)(value, what), what)


_MAPPING = fields({"localRoot": _local_root, "remoteRoot": absolute_path})
#: Only configurations that attach, with this program's names: none may start a program.
_ENTRY = fields(
    {
        "name": configuration_name,
        "type": one_of("debugpy"),
        "request": one_of("attach"),
        "connect": fields({"host": address, "port": port}),
        "pathMappings": each(_MAPPING, LINES),
    },
    {"justMyCode": flag},
)
_COMPOUND = fields({"name": configuration_name, "configurations": each(configuration_name, TUNNELS)}, {"stopAll": flag})
CONFIGURATIONS = fields(
    {
        "owner": fields({}, {"run": absolute_path, "service": absolute_path, "created": real}),
        "what": one_line,
        "entries": each(_ENTRY, TUNNELS),
        "compounds": each(_COMPOUND, TUNNELS),
        "in_use": optional(each(configuration_name, LINES)),
        "ports": table(one_line, port, 8),
    },
    {"also": table(configuration_name, configuration_name, TUNNELS)},
)
#: A task's report (see :mod:`workflows.report`). The other side does not decide where fetched files are written.
REPORT = fields(
    {},
    {
        "result": _object,
        "fetch": each(row(relative_path, text), FILES),
        "run_id": name,
        "configurations": CONFIGURATIONS,
        "snapshot": fields(
            {
                "path": absolute_path,
                "configuration": configuration_name,
                "mappings": each(_MAPPING, LINES),
                "guesses": each(_MAPPING, LINES),
            }
        ),
    },
)

HELLO = fields(
    {
        "python": row(number, number, number),
        "executable": display_text,
        "home": display_text,
        "node": display_text,
        "time": real,
        "system": display_text,
    }
)
#: Messages before an answer or in place of it: a line of progress, details of a failure, the failure.
ASIDE: Mapping[str, Check] = {
    "line": display_text,
    "details": each(display_text, LINES),
    "failure": row(display_text, display_text),
    "mismatch": display_text,
}
#: The answers, by request.
ANSWERS: Mapping[str, Check] = {
    "open": fields(
        {"root": absolute_path, "sync": one_line, "named": each(text, LINES), "drifted": each(text, FILES)},
        {"files": table(text, each(number, 5, 3), FILES)},
    ),
    "program": fields({"root": absolute_path, "there": flag}),
    "files": fields({"sync": one_line, "kept": each(display_text, FILES)}),
    "close": fields({}),
    "environment": fields({"python": absolute_path}),
    "facts": fields(
        {
            "free": size,
            "total": size,
            "place": display_text,
            "venv": flag,
            "docker": fields(
                {"state": one_of("missing", "silent", "refused", "answers")},
                {"version": display_text, "word": display_text},
            ),
            "sdk": display_text,
        },
        {"writable": flag, "git": flag, "pythons": display_text},
    ),
    "task": fields({}),
    "resume": fields({}),
    "get": fields({}),
    "digests": fields({"digests": table(relative_path, digest, LINES)}),
    "try": fields({}),
}
#: The message before a file's content.
HEAD = fields({"size": size})
#: The messages between a task's output.
TASK = fields(
    {},
    {
        "exit": between(-255, 255),
        "failure": row(display_text, display_text),
        "started": absolute_path,
        "boot": one_line,
        "report": REPORT,
        "offset": number,
        "done": flag,
    },
)
#: The messages about the owners of tunnels.
WATCHED = fields(
    {"name": text}, {"over": flag, "number": number, "report": REPORT, "path": absolute_path, "offset": number}
)
#: An endpoint for a debugger in a task's result.
PLACE = fields(
    {"host": address, "port": port, "path_mappings": each(_MAPPING, LINES), "launch_configuration": configuration_name}
)
#: A container, for VS Code.
CONTAINER = fields(
    {"container": name, "folder": absolute_path, "docker": fields({}, {"context": name, "host": _engine})}
)
