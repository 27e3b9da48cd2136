"""Keeps the debugger out of forked children, from their first moment on.

Among the first that runs in a child are the Python functions that `os.register_at_fork` has been given, those of
Python's own `random` and `threading` before ours. A thread that was about to pause when it forked would pause in one of
them, where nobody lets it go on; and from Python 3.12 on pydevd waits there for locks that other threads of the
parent's held. So the thread that forks is not traced while it does.
"""

from __future__ import annotations

import _thread
import os
import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict

#: Python's own: pydevd puts another one in its place.
_set_trace = sys.settrace
#: Whether there is a debugger, which stays with the parent.
_active = False
#: By the thread that is forking, what it goes on with.
_states: Dict[int, Any] = {}

#: This file as pydevd may know it. It is to leave it alone, as it does with its own.
FILES = tuple({os.path.abspath(__file__), os.path.realpath(__file__)})


def untrace_children() -> None:
    """From now on a forked child is not traced: its debugger stays with the parent."""
    global _active
    _active = True


def _monitoring() -> Any:
    """What pydevd works through from Python 3.12 on; None before, and where there is no pydevd."""
    return sys.modules.get("_pydevd_sys_monitoring.pydevd_sys_monitoring") if sys.version_info >= (3, 12) else None


def _before() -> None:
    if not _active:
        return
    thread, monitoring = _thread.get_ident(), _monitoring()
    if monitoring is None:
        _states[thread] = sys.gettrace()
        _set_trace(None)
    elif hasattr(monitoring, "suspend_current_thread_tracing"):
        _states[thread] = monitoring.suspend_current_thread_tracing()
    else:
        # Before debugpy 1.8.22. The first makes what the second writes to.
        monitoring.start_monitoring()
        monitoring.stop_monitoring()
        _states[thread] = True


def _after_in_parent() -> None:
    state = _states.pop(_thread.get_ident(), None)
    if not state:
        return
    monitoring = _monitoring()
    if monitoring is None:
        _set_trace(state)
    else:
        monitoring.start_monitoring()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_states.clear)
