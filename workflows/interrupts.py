"""Signals that end a command: handled while something goes on, or put off until it is done."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds until a Ctrl-C that Python has lost is raised once more.
_CLEANED_SECONDS = 0.05


@contextmanager
def handling_signals(
    handler: Callable[[int, FrameType | None], object], *names: str, defaults_only: bool = False
) -> Iterator[None]:
    """Have a handler for signals during the block, for those that this platform has.

    Args:
        handler: Is called with the signal's number and the frame.
        names: The signals, such as ``SIGTERM``. One that is ignored stays so, as under nohup.
        defaults_only: Leave those alone that somebody else handles.
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
    """Have a Ctrl-C that comes while Python cleans up an object raised once more, behind that.

    Python shows what is raised in a finalizer, and goes on as if nothing had been.
    """
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            # By another thread, since at once it would be raised in here.
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
    """Raise Ctrl-C in the main thread, also where that waits for the system."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C, and the signals that end a command, until the block is done.

    Raises:
        KeyboardInterrupt: At the end, if one came meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with handling_signals(lambda number, frame: came.append(number), "SIGINT", "SIGTERM", "SIGHUP"):
        yield
    if came:
        raise KeyboardInterrupt
