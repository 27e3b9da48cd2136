"""Which debug sessions an agent has at the moment, and how a person takes one over.

Each session of `mcp.serve` has a file in `agents` of the project's own folder. Another file beside it asks its server
to end it; the server takes both away when it has.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import process_identity as identity
from ..command_name import with_typed_command
from ..errors import UserError
from ..private import touch
from ..project import STATE_FOLDER, read_json, state_folder, write_json

#: Seconds that a server may take to end a session: those until it does so without a stop, and those for debugpy.
TAKING_SECONDS = 15.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class AgentSession:
    """A debug session of an agent.

    Attributes:
        path: Its file.
        client: What the agent's program calls itself.
        story: ``deploy``, ``pipeline`` or ``experiment``.
        run_id: The run; empty for a service.
        step: The step; an experiment's or the service's name.
        rank: The rank; None where there is one process.
        host: Where the debugger is attached.
        port: Where the debugger is attached.
        since: Seconds since the epoch.
        server: What tells its server's process from every other one.
    """

    path: Path
    client: str
    story: str
    run_id: str
    step: str
    rank: int | None
    host: str
    port: int
    since: float
    server: dict[str, Any]

    @property
    def what(self) -> str:
        """What it is attached to, in words."""
        return f"{self.step}, rank {self.rank}" if self.rank is not None else self.step

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` shows of it."""
        return {
            "client": self.client,
            "step": self.step,
            "rank": self.rank,
            "since": self.since,
            "pid": self.server.get("pid"),
        }

    def line(self, take_over: str) -> str:
        """The line that shows it.

        Args:
            take_over: The command that ends it.
        """
        began = time.strftime("%H:%M", time.localtime(self.since))
        return f"An agent ({self.client}) is attached to {self.what} since {began}; to take over: {take_over}"


def take_over_command(story: str, run: object = None) -> str:
    """What is typed to take a session over.

    Args:
        story: ``deploy``, ``pipeline`` or ``experiment``.
        run: The run's number or id, where there is one.
    """
    if story == "deploy":
        return with_typed_command("inv deploy.attach-config --take-over")
    return with_typed_command(f"inv {story}.attach --take-over" + (f" --run {run}" if run else ""))


def _folder(project: Path) -> Path:
    return project / STATE_FOLDER / "agents"


def _asking(path: Path) -> Path:
    return path.with_suffix(".take-over")


def announce(
    project: Path, client: str, story: str, run_id: str, step: str, rank: int | None, host: str, port: int
) -> AgentSession:
    """Tell that a session has begun; see :class:`AgentSession` for the arguments.

    Raises:
        UserError: The folder cannot be made.
        OSError: The file cannot be written.
    """
    folder = state_folder(project, "agents")
    path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    server = identity.identify(os.getpid()) or {"pid": os.getpid()}
    session = AgentSession(path, client, story, run_id, step, rank, host, port, time.time(), server)
    write_json(path, {name: value for name, value in vars(session).items() if name != "path"})
    return session


def withdraw(session: AgentSession) -> None:
    """Tell that a session has ended."""
    for path in (session.path, _asking(session.path)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def is_asked_for(session: AgentSession) -> bool:
    """Whether a person wants to take a session over."""
    return _asking(session.path).exists()


def sessions(project: Path, run_id: str | None = None) -> list[AgentSession]:
    """The sessions that agents have in a project; files of servers that were killed are taken away.

    Args:
        project: The project's folder.
        run_id: Those of this run alone; empty for the service's.
    """
    return [one for one in _all(project) if run_id is None or one.run_id == run_id]


def at(project: Path, port: int) -> AgentSession | None:
    """The session that is attached at a port of this machine."""
    return next((one for one in _all(project) if one.port == port), None)


def _all(project: Path) -> Iterator[AgentSession]:
    try:
        names = sorted(entry.name for entry in os.scandir(_folder(project)) if entry.name.endswith(".json"))
    except OSError:
        return
    for name in names:
        path = _folder(project) / name
        values = read_json(path)
        try:
            found = AgentSession(path=path, **(values or {}))
            alive = identity.is_alive(found.server)
        except (TypeError, ValueError, AttributeError):
            continue
        if alive:
            yield found
        else:
            withdraw(found)


def take_over(chosen: Sequence[AgentSession], seconds: float = TAKING_SECONDS) -> None:
    """Have sessions end: at their next stop, or where none comes for a while, without one. What runs goes on.

    Args:
        chosen: The sessions.
        seconds: How long their servers may take.

    Raises:
        UserError: One has not ended in time.
    """
    for one in chosen:
        with contextlib.suppress(FileNotFoundError):
            touch(_asking(one.path))
    deadline = time.monotonic() + seconds
    while left := [one for one in chosen if one.path.exists() and identity.is_alive(one.server)]:
        if time.monotonic() > deadline:
            one = left[0]
            raise UserError(
                f"The agent's session with {one.what} did not end within {seconds:g} s.",
                f"End its server, process {one.server.get('pid')}: the program goes on.",
            )
        time.sleep(_LOOK_SECONDS)
    for one in chosen:
        withdraw(one)
