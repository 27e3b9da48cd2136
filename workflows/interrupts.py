"""Signals that end a command: handled during a block, or deferred until its end."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds after which a Ctrl-C that Python has lost is raised again.
_CLEANED_SECONDS = 0.05


@contextmanager
def handling_signals(
    handler: Callable[[int, FrameType | None], object], *names: str, defaults_only: bool = False
) -> Iterator[None]:
    """Handle signals with a function during the block; signals that this platform lacks are skipped.

    Args:
        handler: Called with the signal's number and the frame.
        names: The signals, such as ``SIGTERM``. Ignored ones stay ignored, as under nohup.
        defaults_only: Skip signals that already have a handler.
    """
    before = {}
    for name in names:
        number = getattr(signal, name, None)
        if number is None:
            continue
        found = signal.getsignal(number)
        # A handler that was not set from Python reads as None, and could not be set again.
        if found is signal.SIG_DFL if defaults_only else found not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, one in before.items():
            signal.signal(number, one)


@contextmanager
def reraising_lost_interrupts() -> Iterator[None]:
    """Raise a Ctrl-C again that came while Python ran a finalizer.

    Python only prints what a finalizer raises, and goes on.
    """
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            # From another thread and later: raised now, it would be lost in this hook.
            again = threading.Timer(_CLEANED_SECONDS, _interrupt_main)
            again.daemon = True
            again.start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_main() -> None:
    """Raise Ctrl-C in the main thread, even while it waits in a system call."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C, and the signals that end a command, until the end of the block.

    Raises:
        KeyboardInterrupt: At the end of the block, if one came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with handling_signals(lambda number, frame: came.append(number), "SIGINT", "SIGTERM", "SIGHUP"):
        yield
    if came:
        raise KeyboardInterrupt
