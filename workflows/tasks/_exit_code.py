"""The last moment of a command that has begun a run.

Until it has ended by itself, a command counts as killed: the same one then replaces what it has begun. To take down
a Python with all that was loaded takes a tenth of a second on a busy machine, in which nothing happens any more and a
kill would still count the other way. So such a process leaves at once when everything else is done.
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
#: What the process exits with, once that is settled.
_exit_codes: list[int] = []


def _count_other_functions() -> int:
    """How many functions of others are to be called at the interpreter's end, after those of this program."""
    count: Callable[[], int] | None = getattr(atexit, "_ncallbacks", None)
    # One is of `begun`, one of `_closed_output`; of that of logging this module takes care.
    return 1 if count is None else count() - 2 - ("logging" in sys.modules)


#: A person's tasks.py, or a tool such as coverage, may have something to do at the end: then Python ends as usual.
_NO_OTHER_FUNCTIONS = _count_other_functions() <= 0


def set_exit_code(code: int) -> None:
    """Note what the task that is being run ends with, where it is all that Invoke was asked for."""
    if _is_only_task():
        _exit_codes[:] = [code]


def _is_only_task() -> bool:
    if os.path.basename(sys.argv[0]) not in _COMMANDS:
        return False
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        # Invoke does not tell a task what else it was asked for.
        if frame.f_code.co_name == "execute" and frame.f_globals.get("__name__") == "invoke.executor":
            return len(frame.f_locals.get("calls") or ()) == 1
        frame = frame.f_back
    return False


def _leave() -> None:
    """The last of what is done at the interpreter's end, since it was registered first."""
    if active_markers.release_own() and _exit_codes and _NO_OTHER_FUNCTIONS:
        if "logging" in sys.modules:
            import logging

            logging.shutdown()
        discard_unwritable()
        os._exit(_exit_codes[0])


atexit.register(_leave)
