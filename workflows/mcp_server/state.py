"""The state of a server between calls: its debug sessions, started commands and posted requests."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import Console
from ..errors import UserError
from ..settings import Settings
from .secret_filter import SecretFilter

if TYPE_CHECKING:
    from .attached_session import AttachedSession
    from .commands import StartedCommand
    from .request_tools import Posted

#: Sessions, commands and answered requests that one server has at a time.
MOST_SESSIONS, MOST_COMMANDS, MOST_REQUESTS = 64, 16, 32


@dataclass
class State:
    """The server's state, which all tools use.

    Attributes:
        project: The project's folder.
        resolve: Resolves the settings, which the user may change while the server runs.
        read_only: Whether the user's code may not be run or changed.
        say: Writes a line to the server's log.
        client: The client's name.
    """

    project: Path
    resolve: Callable[[], Settings]
    read_only: bool
    say: Callable[[str], None]
    client: str = "an agent"
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _sessions: dict[str, AttachedSession] = field(default_factory=dict, init=False)
    _commands: dict[str, StartedCommand] = field(default_factory=dict, init=False)
    #: The posted requests by name; only the latest are kept.
    requests: dict[str, Posted] = field(default_factory=dict, init=False)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1), init=False)

    def __post_init__(self) -> None:
        self.secrets = SecretFilter(self.resolve().snapshot_redact or "")

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.resolve()

    def console(self) -> Console:
        """A console for flows, which writes to the server's log on standard error."""
        return Console(as_json=True)

    def log(self, text: str) -> None:
        """Write a line to the server's log, without secrets."""
        self.say(f"mcp.serve: {self.secrets.mask_text(text)}")

    # Sessions

    def add_session(self, session: AttachedSession) -> str:
        """Add a session; returns its name."""
        with self._lock:
            name = f"s{next(self._numbers)}"
            self._sessions[name] = session
            return name

    def check_session_limit(self) -> None:
        """Check that another session may begin.

        Raises:
            UserError: There are too many.
        """
        if sum(not one.is_over for one in self.sessions().values()) >= MOST_SESSIONS:
            raise UserError(f"This server has {MOST_SESSIONS} sessions.", "End one with detach.")

    def sessions(self) -> dict[str, AttachedSession]:
        """The sessions by name, including those that are over until that was reported."""
        with self._lock:
            return dict(self._sessions)

    def session(self, name: str) -> AttachedSession:
        """A session.

        Raises:
            UserError: There is none of that name.
        """
        known = self.sessions()
        if name not in known:
            there = ", ".join(known)
            raise UserError(
                f"There is no session {name[:100]!r}: it has ended, or never was.",
                f"Existing sessions: {there}." if there else "Begin one with attach.",
            )
        return known[name]

    def drop_session(self, name: str) -> None:
        """Drop a session that is over, once the agent knows."""
        with self._lock:
            self._sessions.pop(name, None)

    # Commands

    def add_command(self, commands: StartedCommand) -> str:
        """Add a started command; returns its name."""
        with self._lock:
            name = f"a{next(self._numbers)}"
            self._commands[name] = commands
            return name

    def check_command_limit(self) -> None:
        """Check that another command may be started.

        Raises:
            UserError: Too many are running.
        """
        if sum(one.is_at_work for one in self.commands().values()) >= MOST_COMMANDS:
            raise UserError(f"{MOST_COMMANDS} starts are at work already.", "Wait for one of them with wait.")

    def commands(self) -> dict[str, StartedCommand]:
        """The commands by name."""
        with self._lock:
            return dict(self._commands)

    def command(self, name: str) -> StartedCommand:
        """A started command by name.

        Raises:
            UserError: There is none of that name.
        """
        known = self.commands()
        if name not in known:
            raise UserError(f"There is no start {name[:100]!r}.", f"Existing ones: {', '.join(known) or 'none'}.")
        return known[name]

    def add_request(self, posted: Posted) -> str:
        """Add a posted request; returns its name."""
        with self._lock:
            name = f"r{next(self._numbers)}"
            for old in [key for key, one in self.requests.items() if one.done.is_set()][:-MOST_REQUESTS]:
                del self.requests[old]
            self.requests[name] = posted
            return name

    def close(self) -> None:
        """End all sessions; the debugged programs and running commands go on."""
        with self._lock:
            sessions, commands = list(self._sessions.values()), list(self._commands.values())
            self._sessions.clear()
            self._commands.clear()
        # All at once: each waits a moment until debugpy has dropped it.
        ending = [threading.Thread(target=one.end, args=("the client has left",), daemon=True) for one in sessions]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join(3.0)
        for one in commands:
            one.release()
