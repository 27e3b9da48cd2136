"""An end without a traceback where nobody reads the output any more, or Ctrl-C comes while tasks are loaded.

`inv --list | head`: what prints there is Invoke itself, before and after any task.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

#: What the shell has for a program that Ctrl-C has ended.
INTERRUPTED = 130
#: What it has for one that has written where nobody reads any more: other tools end by SIGPIPE.
UNREAD = 141 if os.name == "posix" else 1
_NAMES = ("stdout", "stderr")


def install() -> None:
    """Have a reader that is gone end this process quietly; once in a process, before any other hook."""
    global _previous_hook
    if _previous_hook is None:
        _previous_hook = sys.excepthook
        sys.excepthook = _uncaught
        atexit.register(discard_unwritable)


def discard_unwritable() -> None:
    """Let what cannot be written go: not even at the end of the interpreter is it tried again."""
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


#: What shows other errors; None until this is installed.
_previous_hook: Callable[[type[BaseException], BaseException, TracebackType | None], object] | None = None


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, BrokenPipeError) and _previous_hook is not None:
        _previous_hook(kind, error, trace)
