"""The environment variables that a service gets: those that were named, the same on every engine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .. import env_file
from ..errors import BadValue, UserError
from ..paths import shown
from ..redaction import keep_variables
from ..server_variables import OURS, SERVER_VARIABLES
from ..settings import Settings

#: What hands them to the same task on another machine, where neither this shell nor this file is.
TRANSFER_VARIABLE = "AZUREML_DEBUG_SERVICE_VARIABLES"
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_RESERVED = "AZUREML_DEBUGGEE_"


@dataclass(frozen=True)
class ServiceVariables:
    """Variables, and what there is to say of them.

    Attributes:
        values: By name; left out of what is shown of this.
        notes: On those that are not as they were named.
    """

    values: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()


def collect_variables(
    settings: Settings,
    typed: Sequence[str],
    environ: Mapping[str, str] | None = None,
    described: Mapping[str, str] | None = None,
) -> ServiceVariables:
    """The variables for a service: its file's, the server's own, then AML_SERVICE_ENV's, then those of ``--env``.

    Args:
        settings: The settings.
        typed: What came after each ``--env``: ``NAME=value``, or ``NAME``, whose value is taken from here.
        environ: The environment variables.
        described: Those that a deployment's file names.

    Raises:
        BadValue: One of ``--env`` cannot be read.
        UserError: One in the file cannot be read, or is not for a person to set.
    """
    environ = os.environ if environ is None else environ
    if environ.get(TRANSFER_VARIABLE):
        encode_variables = json.loads(environ[TRANSFER_VARIABLE])
        keep_variables(encode_variables["values"])
        values = {**(described or {}), **encode_variables["values"]}
        return ServiceVariables(
            values, (*encode_variables["notes"], *notes_on_overridden(values, encode_variables["values"]))
        )
    values, unset = {**(described or {}), **_server_variables(settings, environ)}, []
    for name, value in [*_file_variables(settings), *map(_parse_typed, typed)]:
        if value is not None:
            values[name] = value
        elif name in environ:
            values[name] = environ[name]
        else:
            unset.append(name)
    keep_variables(values)
    notes = [f"{name} is named without a value and is not set here, so the service has none" for name in unset]
    return ServiceVariables(values, (*notes, *notes_on_overridden(values)))


def encode_variables(found: ServiceVariables) -> str:
    """The same as a text for :data:`HANDED`."""
    return json.dumps({"values": dict(found.values), "notes": list(found.notes)})


def notes_on_overridden(values: Mapping[str, str], said: Mapping[str, str] | None = None) -> list[str]:
    """Notes on variables that this program sets itself while a service is debugged; none on those that were said."""
    names = sorted((OURS & values.keys()) - (said or {}).keys())
    return [f"{', '.join(names)} of yours: the program's own counts while a service is debugged"] if names else []


def _server_variables(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    path = settings.project / ".env"
    stored = env_file.read(path, "settings") if path.exists() else []
    found = {one.name: one.value for one in stored if one.name in SERVER_VARIABLES and one.value is not None}
    return found | {name: environ[name] for name in SERVER_VARIABLES if name in environ}


def _file_variables(settings: Settings) -> list[tuple[str, str | None]]:
    path = settings.service_env
    if path is None:
        return []
    if path == settings.project / ".env":
        raise UserError(
            ".env is for this program's settings, and no variables of a service are read from it.",
            "Put them into another file, such as service.env: AML_SERVICE_ENV=service.env",
        )
    found = env_file.read(path, "variables", bare=True)
    for one in found:
        wrong = name_problem(one.name)
        if wrong:
            raise UserError(f"{wrong}.", "Rename it, or take it out.", file=shown(path), line=one.line)
    return [(one.name, one.value) for one in found]


def _parse_typed(text: str) -> tuple[str, str | None]:
    name, given, value = text.partition("=")
    wrong = name_problem(name)
    if wrong:
        raise BadValue(f"--env: {wrong}.", "Write --env NAME=value, or --env NAME for its value here.")
    if "\0" in value:
        raise BadValue(f"--env: the value of {name} has a NUL in it.", "Correct the value.")
    return name, value if given else None


def name_problem(name: str) -> str:
    """Why a name is none for a variable of a service; empty where it is one."""
    if not _NAME.fullmatch(name):
        # It may be a value that was meant for another variable.
        return "this is not the name of a variable"
    return f"{name} is the program's own" if name.startswith(_RESERVED) else ""
