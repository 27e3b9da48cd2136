"""Keeps the debugger out of forked children from their start.

A forked child first runs the functions registered with `os.register_at_fork`, those of Python's own `random` and
`threading` before ours. A thread that was about to pause when it forked would pause in one of them, and no debugger
could resume it. From Python 3.12 on, pydevd also waits there for locks that other threads of the parent held. So a
thread is not traced while it forks.
"""

from __future__ import annotations

import _thread
import os
import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict

#: Python's own function: pydevd replaces it.
_set_trace = sys.settrace
#: Whether there is a debugger; it stays with the parent.
_active = False
#: By forking thread, the tracing state to restore in the parent.
_states: Dict[int, Any] = {}

#: The paths by which pydevd may know this file, which it must not trace, like its own files.
FILES = tuple({os.path.abspath(__file__), os.path.realpath(__file__)})


def untrace_children() -> None:
    """Have forked children not traced from now on: the debugger stays with the parent."""
    global _active
    _active = True


def _monitoring() -> Any:
    """The monitoring module of pydevd, from Python 3.12 on; None before, and without pydevd."""
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
