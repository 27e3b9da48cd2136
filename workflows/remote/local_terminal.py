"""The local terminal while a task runs on the remote machine: passes on Ctrl-C, input and the terminal's size."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from ..interrupts import handling_signals
from . import frames
from .session import ConnectionLost, Session

#: The Ctrl-C at which this command stops instead of passing it on.
_PATIENCE = 3
_CTRL_C = b"\x03"


class LocalTerminal:
    """Passes on what the user does in the local terminal.

    Args:
        session: The session with the remote machine.
        terminal: The result of :func:`terminal` when the task was started.
        types: Whether the task is interactive.

    Attributes:
        session: The current session; a new one after the connection was lost.
    """

    def __init__(self, session: Session, terminal: dict[str, Any] | None, types: bool) -> None:
        self.session = session
        self._terminal = terminal
        self._types = types
        self._interrupts = self._passed = 0
        #: Whether the connection is lost: then Ctrl-C stops this command.
        self._disconnected = False

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Send Ctrl-C and the input to the remote task instead of to this command."""
        with self._signals(), self._typing():
            yield

    @contextlib.contextmanager
    def disconnected(self) -> Iterator[None]:
        """While there is no connection, let Ctrl-C interrupt this command at once.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, now or before without having been passed on.
        """
        self._disconnected = True
        try:
            if self._interrupts > self._passed:
                raise KeyboardInterrupt
            yield
        finally:
            self._disconnected = False

    def pass_on(self) -> None:
        """Send the interrupts and the new size of the terminal since the last call.

        Raises:
            ConnectionLost: The connection is gone.
        """
        while self._passed < self._interrupts:
            self.session.send(signal="INT")
            self._passed += 1
        size = terminal() if self._terminal else None
        if size and size != self._terminal:
            self._terminal = size
            self.session.send(columns=size["columns"], lines=size["lines"])

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def interrupt(number: int, frame: object) -> None:
            self._interrupts += 1
            if self._disconnected or self._interrupts >= _PATIENCE:
                raise KeyboardInterrupt

        with handling_signals(interrupt, "SIGINT", "SIGTERM", "SIGHUP"):
            yield

    @contextlib.contextmanager
    def _typing(self) -> Iterator[None]:
        if not self._types:
            yield
            return
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        over = threading.Event()
        thread = threading.Thread(target=self._read, args=(descriptor, over), daemon=True)
        tty.setraw(descriptor)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    def _read(self, descriptor: int, over: threading.Event) -> None:
        import select

        typed, ended = b"", False
        while not over.is_set():
            if ended:
                over.wait(0.1)
            elif select.select([descriptor], [], [], 0.1)[0]:
                data = os.read(descriptor, 4096)
                ended = not data
                typed += data
            if self._disconnected:
                if _CTRL_C in typed:
                    # In raw mode the terminal does not turn Ctrl-C into a signal.
                    typed = b""
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                # The rest is sent to the task after the connection is restored.
                continue
            if typed:
                with contextlib.suppress(ConnectionLost):
                    self.session.send_raw(frames.frame(frames.TYPED, typed))
                    typed = b""


def can_type() -> bool:
    """Whether input typed here can be passed to a task."""
    return sys.stdin.isatty() and os.name != "nt"


def terminal() -> dict[str, Any] | None:
    """The size and type of the terminal; None if the output goes somewhere else."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return None
    # Asked of the terminal itself: exported COLUMNS and LINES do not follow the window's size.
    size = os.get_terminal_size(sys.stdout.fileno())
    return {"columns": size.columns, "lines": size.lines, "term": os.environ.get("TERM", "xterm")}
