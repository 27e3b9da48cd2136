"""What the other machine may say: each message of :mod:`workflows.remote.there.agent` with its fields.

Whatever else comes is refused where it arrives (:mod:`workflows.received`), before anything is done with it.
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

#: Files of one project or run, tunnels of one run or service, and lines of one list, at the most.
FILES, TUNNELS, LINES = 1_000_000, 512, 10_000
#: Messages on the way to one answer: every line that a long build says is one.
MESSAGES = 200_000
#: How the names of this program's launch configurations begin. Others are the person's own.
FAMILY = "Azure Machine Learning "
_FOLDER = "${workspaceFolder}"


def configuration_name(value: Any, what: str) -> str:
    """The name of a launch configuration of this program."""
    found = one_line(value, what, 500)
    if not found.startswith(FAMILY):
        raise received.Refused(f"{what} that is none of this program's: {found[:80]}")
    return found


def _local_root(value: Any, what: str) -> str:
    """A folder as an editor on the other machine names it."""
    found = one_line(value, what, 4096)
    inside = found.removeprefix(_FOLDER) if found == _FOLDER or found.startswith(f"{_FOLDER}/") else None
    if inside is None:
        return absolute_path(found, what)
    if ".." in inside.split("/"):
        raise received.Refused(f"{what} that does not stay in the project: {found[:80]}")
    return found


def _engine(value: Any, what: str) -> str:
    """Where a Docker engine is."""
    found = one_line(value, what)
    if not re.fullmatch(r"(?:unix|tcp|npipe|ssh)://[^-\s]\S*", found):
        raise received.Refused(f"{what} that is none: {found[:80]}")
    return found


def _object(value: Any, what: str) -> Any:
    return anything(table(one_line, lambda one, _what: one, LINES)(value, what), what)


_MAPPING = fields({"localRoot": _local_root, "remoteRoot": absolute_path})
#: Only what attaches: nothing that starts a program, and no other name than ours.
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
#: What a task reports (see :mod:`workflows.report`). Where its files go is not for the other side to say.
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
#: Beside an answer: a line of progress, what went wrong, and why it cannot be done.
ASIDE: Mapping[str, Check] = {
    "line": display_text,
    "details": each(display_text, LINES),
    "failure": row(display_text, display_text),
    "mismatch": display_text,
}
#: The answers to requests, by what is asked for.
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
#: What stands before a file's content.
HEAD = fields({"size": size})
#: What a task says between its output.
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
#: What is said of what tunnels belong to.
WATCHED = fields(
    {"name": text}, {"over": flag, "number": number, "report": REPORT, "path": absolute_path, "offset": number}
)
#: The places in a task's result that a debugger is welcome at, for who prints them.
PLACE = fields(
    {"host": address, "port": port, "path_mappings": each(_MAPPING, LINES), "launch_configuration": configuration_name}
)
#: A container, for VS Code.
CONTAINER = fields(
    {"container": name, "folder": absolute_path, "docker": fields({}, {"context": name, "host": _engine})}
)
