"""The terminal here while a task runs on the other machine: its Ctrl-C, its input and its size are passed on."""

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

#: How often Ctrl-C is passed on before this command gives up on the task.
_PATIENCE = 3
_CTRL_C = b"\x03"


class LocalTerminal:
    """Passes on what is typed here.

    Args:
        session: The other machine.
        terminal: What :func:`terminal` has told of this one when the task was started.
        types: Whether the task is one that a person talks to.

    Attributes:
        session: The same; another one after the connection was lost.
    """

    def __init__(self, session: Session, terminal: dict[str, Any] | None, types: bool) -> None:
        self.session = session
        self._terminal = terminal
        self._types = types
        self._interrupts = self._passed = 0
        #: Nobody is there who could be told: Ctrl-C is meant for this command.
        self._disconnected = False

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Have Ctrl-C stop the task there instead of this command, and what is typed go there."""
        with self._signals(), self._typing():
            yield

    @contextlib.contextmanager
    def disconnected(self) -> Iterator[None]:
        """While there is no connection: Ctrl-C interrupts at once.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, also where it had not been passed on before.
        """
        self._disconnected = True
        try:
            if self._interrupts > self._passed:
                raise KeyboardInterrupt
            yield
        finally:
            self._disconnected = False

    def pass_on(self) -> None:
        """Tell the task what has happened since the last time.

        Raises:
            Lost: The connection is gone.
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
                    # In its raw mode the terminal makes no signal of it.
                    typed = b""
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                # The rest is for the task, once it is there again.
                continue
            if typed:
                with contextlib.suppress(ConnectionLost):
                    self.session.send_raw(frames.frame(frames.TYPED, typed))
                    typed = b""


def can_type() -> bool:
    """Whether what is typed here can be handed to a task."""
    return sys.stdin.isatty() and os.name != "nt"


def terminal() -> dict[str, Any] | None:
    """The terminal that the task is shown on; None where its output goes somewhere else."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return None
    # The terminal's own word: COLUMNS and LINES, where a shell has exported them, do not follow the window.
    size = os.get_terminal_size(sys.stdout.fileno())
    return {"columns": size.columns, "lines": size.lines, "term": os.environ.get("TERM", "xterm")}
