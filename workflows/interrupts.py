"""Signals that end a command: handled while something goes on, or put off until it is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled(
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
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C, and the signals that end a command, until the block is done.

    Raises:
        KeyboardInterrupt: At the end, if one came meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with handled(lambda number, frame: came.append(number), "SIGINT", "SIGTERM", "SIGHUP"):
        yield
    if came:
        raise KeyboardInterrupt
