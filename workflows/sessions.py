"""A project's only deployment session, kept in a file between commands."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import asdict, fields
from pathlib import Path

from .models import Check, Ended, Service
from .private import make_folder
from .project import read_json, state_folder, write_bytes, write_json
from .redaction import keep_variables

#: The file names of a service's snapshots.
SNAPSHOTS = "snapshot-*.json"


def session_folder(project: Path, *, reading: bool = False) -> Path:
    """The folder of the project's deployment session; see :func:`workflows.project.state_folder`."""
    return state_folder(project, "deployment", reading=reading)


def save(service: Service) -> None:
    """Write a service to session.json, for later commands."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(service).items()}
    write_json(service.session / "session.json", values)


def load(project: Path) -> Service | None:
    """Read the project's service; None if there is none.

    If a project was copied, the service belongs to the original. If it was moved, it keeps the service,
    so that you can stop it; `project` is then the folder in which it was started.
    """
    values = read_json(session_folder(project, reading=True) / "session.json")
    if values is None or {entry.name for entry in fields(Service)} != set(values):
        return None
    if isinstance(values["variables"], dict):
        keep_variables(values["variables"])
    for name in ("project", "session", "score_script", "source"):
        values[name] = Path(values[name])
    try:
        values |= {name: Check(**values[name]) for name in ("ready", "alive")}
    except TypeError:
        return None
    if values["project"] != project:
        if values["project"].is_dir():
            return None
        values["session"] = session_folder(project, reading=True)
    return Service(**values)


def remove(service: Service, ended: Ended) -> OSError | None:
    """Remove a stopped service's files, but keep its last log and exit code for `logs`.

    Returns:
        Why the log could not be kept; None if it was.
    """
    why = None
    try:
        _keep_last(service, ended)
    except OSError:
        # The disk may be full, perhaps by the service's own log. The service has ended all the same.
        shutil.rmtree(service.session / "announce", ignore_errors=True)
        shutil.rmtree(service.session / "last", ignore_errors=True)
        try:
            _keep_last(service, ended)
        except OSError as error:
            # A partial log would be taken for the complete one.
            shutil.rmtree(service.session / "last", ignore_errors=True)
            why = error
    _keep_snapshots(service)
    shutil.rmtree(service.session / "announce", ignore_errors=True)
    (service.session / "session.json").unlink(missing_ok=True)
    return why


def snapshot_folder(project: Path, service: Service | None) -> Path:
    """The folder with a service's snapshots; without a service, those of the one that ended last."""
    return session_folder(project, reading=True) / "last" if service is None else service.session / "announce"


def _keep_snapshots(service: Service) -> None:
    """Move the service's snapshots to ``last``, in place of those of the service before it."""
    last = service.session / "last"
    for path in last.glob(SNAPSHOTS):
        path.unlink(missing_ok=True)
    for path in (service.session / "announce").glob(SNAPSHOTS):
        with contextlib.suppress(OSError):
            path.replace(last / path.name)


def _keep_last(service: Service, ended: Ended) -> None:
    last = service.session / "last"
    make_folder(last)
    write_bytes(last / "service.log", ended.log, private=True)
    write_json(
        last / "ended.json",
        {
            "exit_code": ended.exit_code,
            "name": service.name,
            "engine": service.engine,
            "tag": service.tag,
            # For its snapshots.
            "path_mappings": [mapping.as_json() for mapping in service.path_mappings],
        },
    )


def last_log(project: Path) -> tuple[bytes, int | None] | None:
    """The log and exit code of the service that was stopped last; None if they were not kept."""
    last = session_folder(project, reading=True) / "last"
    ended = read_json(last / "ended.json")
    if ended is None:
        return None
    try:
        return (last / "service.log").read_bytes(), ended.get("exit_code")
    except OSError:
        return None
