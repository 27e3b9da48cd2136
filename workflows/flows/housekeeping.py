"""Lists services and removes unused images and environments, for all projects of this machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from .. import engines, environment_uses, sessions
from ..console import Console
from ..debugger.readiness import read_events
from ..engines.base import Engine, Unused
from ..errors import UserError
from ..models import Service


def _answering_engines() -> list[Engine]:
    from ..engines.docker_client import engine_answers

    found = [engines.load("process")]
    if engine_answers():
        # An engine that does not answer has nothing to list.
        with contextlib.suppress(UserError):
            found.append(engines.load("docker"))
    return found


def services(here: Path) -> list[dict[str, str]]:
    """List every service of this program on this machine, one row each.

    Args:
        here: The project of the command, which may have been moved since it was last used.
    """
    rows: list[dict[str, str]] = []
    known: set[str] = set()
    answering = {engine.name: engine for engine in _answering_engines()}
    for project in dict.fromkeys([*environment_uses.find_projects(), here]):
        service = sessions.load(project)
        if service is None:
            continue
        engine = answering.get(service.engine)
        state = "unknown" if engine is None else "running" if engine.is_alive(service) else "ended"
        if engine is not None and state == "running":
            # If another program has taken its port, the commands that need the port report it.
            with contextlib.suppress(UserError):
                engine.ensure_forwarder(service)
            state = _state(service)
        known.add(service.handle)
        rows.append(
            {
                "name": service.name,
                "engine": service.engine,
                "state": state,
                "project": str(project),
                "ports": f"scoring {service.scoring_port}, debug {service.debug_port}",
                "since": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(service.created)),
            }
        )
    for engine in answering.values():
        rows += [row for row in engine.list_services() if row.pop("handle", "") not in known]
    return rows


def _state(service: Service) -> str:
    """The state of a service that the engine runs, from its last event."""
    if not service.started:
        return "created"
    seen = [event["event"] for event in read_events(service.events)]
    if seen[-1:] in (["failed"], ["exited"]):
        return "down"
    return "holding" if seen[-1:] == ["waiting"] else "running"


def prune(console: Console, here: Path, tag: str, dry_run: bool) -> list[dict[str, object]]:
    """Remove images and environments that no project uses any more, and leftovers of killed runs and deleted projects.

    Args:
        console: Where progress is shown.
        here: The project of the command.
        tag: The tag of this project's image.
        dry_run: Only show what would be removed.

    Returns:
        What was, or would be, removed: name and bytes.
    """
    projects = dict.fromkeys([*environment_uses.find_projects(), here])
    known = [service for project in projects if (service := sessions.load(project)) is not None]
    keep = environment_uses.find_digests_in_use() | {service.digest for service in known}
    handles = frozenset(service.handle for service in known)
    removed: list[dict[str, object]] = []
    total = 0

    def looks(engine: Engine) -> list[Callable[[], list[Unused]]]:
        # In this order: an image may become unused when its container is removed.
        return [lambda: engine.list_abandoned(handles), lambda: engine.list_unused(keep, tag)]

    for engine in _answering_engines():
        for name, size, remove in (entry for look in looks(engine) for entry in look()):
            if not dry_run:
                remove()
            console.line(f"{'would remove' if dry_run else 'removed'}  {size / 1e6:9.1f} MB  {name}")
            removed.append({"name": name, "bytes": size})
            total += size
    verb = "would be" if dry_run else "was"
    console.line(f"{total / 1e6:.1f} MB {verb} given back." if removed else "Nothing is unused.")
    return removed


def make_base(console: Console, name: str) -> None:
    """Build a base image from Debian packages."""
    from ..engines.docker import DockerEngine

    with console.step("base") as step:
        size = DockerEngine().make_base(name, step.detail)
        step.text = f"{name}, {size / 1e6:.0f} MB"
