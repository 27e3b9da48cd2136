"""The environment variables that a service gets: only those that are named, the same on every engine."""

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

#: The variable that transfers them to the same task on another machine, which has neither this shell nor this file.
TRANSFER_VARIABLE = "AZUREML_DEBUG_SERVICE_VARIABLES"
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_RESERVED = "AZUREML_DEBUGGEE_"


@dataclass(frozen=True)
class ServiceVariables:
    """Variables for a service, with notes.

    Attributes:
        values: The values by name; not part of the repr.
        notes: Notes on variables that are not set as requested.
    """

    values: Mapping[str, str] = field(repr=False)
    notes: tuple[str, ...] = ()


def collect_variables(
    settings: Settings,
    typed: Sequence[str],
    environ: Mapping[str, str] | None = None,
    described: Mapping[str, str] | None = None,
) -> ServiceVariables:
    """Collect the variables for a service.

    The deployment file comes first, then the server's own variables, AML_SERVICE_ENV, and ``--env``; later ones win.

    Args:
        settings: The settings.
        typed: The values of ``--env``: ``NAME=value``, or ``NAME``, whose value is taken from ``environ``.
        environ: The environment variables; by default those of this process.
        described: The variables of the deployment file.

    Raises:
        BadValue: A value of ``--env`` cannot be read.
        UserError: A variable in the file cannot be read, or is reserved for this program.
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
    """Encode them as the value of :data:`TRANSFER_VARIABLE`."""
    return json.dumps({"values": dict(found.values), "notes": list(found.notes)})


def notes_on_overridden(values: Mapping[str, str], said: Mapping[str, str] | None = None) -> list[str]:
    """Notes on variables that this program overrides while a service is debugged.

    Args:
        values: The variables.
        said: Variables that have been noted already.
    """
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
            ".env holds this program's settings; variables of a service are not read from it.",
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
    """Why a service cannot have a variable of that name; empty if it can."""
    if not _NAME.fullmatch(name):
        # The text is not shown: it may be a secret value that was meant for another variable.
        return "this is not the name of a variable"
    return f"{name} is the program's own" if name.startswith(_RESERVED) else ""
