"""Lets a command that has started a run exit without delay.

A command that ends before it has exited by itself counts as killed, and the same command then replaces the run that it
has started. Python's shutdown takes a tenth of a second on a busy machine, although the command's work is done, and a
kill in that time would count. So such a process exits with :func:`os._exit` as soon as everything else is done.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from types import FrameType

from ..runs import active_markers
from ._closed_output import discard_unwritable

_COMMANDS = frozenset(("inv", "inv.exe", "invoke", "invoke.exe", "azureml-debug", "azureml-debug.exe", "__main__.py"))
#: The exit code of the process, once it is known.
_exit_codes: list[int] = []


def _count_other_functions() -> int:
    """The number of functions that others have registered for the interpreter's exit."""
    count: Callable[[], int] | None = getattr(atexit, "_ncallbacks", None)
    # One is of `begun`, one of `_closed_output`. This module does what the one of logging would do.
    return 1 if count is None else count() - 2 - ("logging" in sys.modules)


#: A user's tasks.py, or a tool such as coverage, may have registered a function: then Python exits as usual.
_NO_OTHER_FUNCTIONS = _count_other_functions() <= 0


def set_exit_code(code: int) -> None:
    """Set the exit code of the running task, if it is the only task on the command line."""
    if _is_only_task():
        _exit_codes[:] = [code]


def _is_only_task() -> bool:
    if os.path.basename(sys.argv[0]) not in _COMMANDS:
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        # Invoke does not tell a task whether there are other tasks on the command line.
        if frame.f_code.co_name == "execute" and frame.f_globals.get("__name__") == "invoke.executor":
            return len(frame.f_locals.get("calls") or ()) == 1
        frame = frame.f_back
    return False


def _leave() -> None:
    """Exit the process. It is called after all other exit functions, since it was registered first."""
    if active_markers.release_own() and _exit_codes and _NO_OTHER_FUNCTIONS:
        if "logging" in sys.modules:
            import logging

            logging.shutdown()
        discard_unwritable()
        os._exit(_exit_codes[0])


atexit.register(_leave)
