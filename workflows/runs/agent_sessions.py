"""The debug sessions that agents have, and how a user takes one over.

Each session of `mcp.serve` has a file in `agents` in the project's own folder. A second file beside it requests that
its server end it. The server removes both files when the session has ended.
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

#: Seconds that a server may take to end a session: waiting for the next stop, ending without one, and debugpy's time.
TAKING_SECONDS = 15.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class AgentSession:
    """A debug session of an agent.

    Attributes:
        path: Its file.
        client: The name that the agent's program gives itself.
        story: ``deploy``, ``pipeline`` or ``experiment``.
        run_id: The run; empty for a service.
        step: The step; an experiment's or the service's name.
        rank: The rank; None if there is one process.
        host: The host at which the debugger is attached.
        port: The port at which the debugger is attached.
        since: When it began, in seconds since the epoch.
        server: The identity of its server's process.
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
    def target(self) -> str:
        """The step and rank that it is attached to."""
        return f"{self.step}, rank {self.rank}" if self.rank is not None else self.step

    def as_json(self) -> dict[str, Any]:
        """The object that ``--json`` shows."""
        return {
            "client": self.client,
            "step": self.step,
            "rank": self.rank,
            "since": self.since,
            "pid": self.server.get("pid"),
        }

    def description(self, take_over: str) -> str:
        """One line about it for the console.

        Args:
            take_over: The command that takes it over.
        """
        began = time.strftime("%H:%M", time.localtime(self.since))
        return f"An agent ({self.client}) is attached to {self.target} since {began}; to take over: {take_over}"


def take_over_command(story: str, run: object = None) -> str:
    """The command that takes a session over.

    Args:
        story: ``deploy``, ``pipeline`` or ``experiment``.
        run: The run's number or id, where there is one.
    """
    if story == "deploy":
        return with_typed_command("inv deploy.attach-config --take-over")
    return with_typed_command(f"inv {story}.attach --take-over" + (f" --run {run}" if run else ""))


def _folder(project: Path) -> Path:
    return project / STATE_FOLDER / "agents"


def _takeover_request(path: Path) -> Path:
    return path.with_suffix(".take-over")


def announce(
    project: Path, client: str, story: str, run_id: str, step: str, rank: int | None, host: str, port: int
) -> AgentSession:
    """Write the file of a session that begins; see :class:`AgentSession` for the arguments.

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
    """Remove the files of a session that has ended."""
    for path in (session.path, _takeover_request(session.path)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def is_takeover_requested(session: AgentSession) -> bool:
    """Whether a user wants to take a session over."""
    return _takeover_request(session.path).exists()


def list_sessions(project: Path, run_id: str | None = None) -> list[AgentSession]:
    """List the sessions that agents have in a project. Files of servers that were killed are removed.

    Args:
        project: The project's folder.
        run_id: Only list those of this run; empty for the service's.
    """
    return [one for one in _live_sessions(project) if run_id is None or one.run_id == run_id]


def session_at_port(project: Path, port: int) -> AgentSession | None:
    """The session that is attached at a port of this machine, or None."""
    return next((one for one in _live_sessions(project) if one.port == port), None)


def _live_sessions(project: Path) -> Iterator[AgentSession]:
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
    """Have sessions end at their next stop, or without one if none comes for a while. The programs go on.

    Args:
        chosen: The sessions.
        seconds: How long their servers may take.

    Raises:
        UserError: One did not end in time.
    """
    for one in chosen:
        with contextlib.suppress(FileNotFoundError):
            touch(_takeover_request(one.path))
    deadline = time.monotonic() + seconds
    while left := [one for one in chosen if one.path.exists() and identity.is_alive(one.server)]:
        if time.monotonic() > deadline:
            one = left[0]
            raise UserError(
                f"The agent's session with {one.target} did not end within {seconds:g} s.",
                f"End its server, process {one.server.get('pid')}: the program goes on.",
            )
        time.sleep(_POLL_SECONDS)
    for one in chosen:
        withdraw(one)
