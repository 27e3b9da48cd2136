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

from ..runs import begun
from ._quiet import give_up

_PROGRAMS = frozenset(("inv", "inv.exe", "invoke", "invoke.exe", "azureml-debug", "azureml-debug.exe", "__main__.py"))
#: What the process exits with, once that is settled.
_settled: list[int] = []


def _others() -> int:
    """How many functions of others are to be called at the interpreter's end, after those of this program."""
    count: Callable[[], int] | None = getattr(atexit, "_ncallbacks", None)
    # One is of `begun`, one of `_quiet`; of that of logging this module takes care.
    return 1 if count is None else count() - 2 - ("logging" in sys.modules)


#: A person's tasks.py, or a tool such as coverage, may have something to do at the end: then Python ends as usual.
_ALONE_AT_THE_END = _others() <= 0


def settle(code: int) -> None:
    """Note what the task that is being run ends with, where it is all that Invoke was asked for."""
    if _is_alone():
        _settled[:] = [code]


def _is_alone() -> bool:
    if os.path.basename(sys.argv[0]) not in _PROGRAMS:
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
    if begun.leave() and _settled and _ALONE_AT_THE_END:
        if "logging" in sys.modules:
            import logging

            logging.shutdown()
        give_up()
        os._exit(_settled[0])


atexit.register(_leave)
