"""Ends the process without a traceback when the reader of its output is gone.

In `inv --list | head`, Invoke itself prints, before and after any task.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

TYPE_CHECKING = False  # Type checkers know this name, and typing need not be imported.
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: The exit code of a program that Ctrl-C has ended.
INTERRUPTED = 130
#: The exit code of a program whose reader is gone: other tools end by SIGPIPE.
UNREAD = 141 if os.name == "posix" else 1
_NAMES = ("stdout", "stderr")


def install() -> None:
    """End the process quietly when its reader is gone. Called once in a process, before any other hook is set."""
    global _previous_hook
    if _previous_hook is None:
        _previous_hook = sys.excepthook
        sys.excepthook = _uncaught
        atexit.register(discard_unwritable)


def discard_unwritable() -> None:
    """Discard output that cannot be written, so that the interpreter does not try again at its exit."""
    for name in _NAMES:
        stream = getattr(sys, name)
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
                stream.flush()


#: The hook for other errors; None until :func:`install` is called.
_previous_hook: Callable[[type[BaseException], BaseException, TracebackType | None], object] | None = None


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, BrokenPipeError) and _previous_hook is not None:
        _previous_hook(kind, error, trace)
