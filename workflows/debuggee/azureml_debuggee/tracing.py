"""Has pydevd trace a program, and restores the program's full speed.

On Python 3.11 and earlier pydevd works through a trace function, which slows a program
down about ten times even when no debugger is attached. Removing it from every thread after a
detach restores full speed. From 3.12 on it uses sys.monitoring, which costs nothing
while there are no breakpoints, and nothing needs to be done.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from itertools import accumulate, chain, repeat, takewhile

#: Whether this Python is debugged through a trace function.
TRACES = sys.version_info < (3, 12)
#: Whether that function can be removed from every thread; Python 3.8 lacks the necessary C API.
CAN_UNTRACE = TRACES and sys.version_info >= (3, 9)


def trace() -> None:
    """Have the connected pydevd trace every thread."""
    import pydevd

    debugger = pydevd.get_global_debugger()
    debugger.patch_threads()
    debugger.enable_tracing(debugger.trace_dispatch, apply_to_all_threads=True)
    debugger.set_tracing_for_untraced_contexts()


def cancel_steps() -> None:
    """Cancel every thread's pending step."""
    from _pydevd_bundle import pydevd_thread_lifecycle

    pydevd_thread_lifecycle.resume_threads("*")


def untrace() -> None:
    """Remove the trace function from every thread."""
    import ctypes

    from _pydev_bundle import pydev_monkey

    # First keep new threads from starting with a trace function, then remove it from existing ones.
    threading.settrace(None)
    pydev_monkey.undo_patch_thread_modules()
    api = ctypes.pythonapi
    first = api.PyInterpreterState_ThreadHead
    first.restype, first.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    following = api.PyThreadState_Next
    following.restype, following.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    current = api.PyInterpreterState_Get
    current.restype = ctypes.c_void_p
    set_trace = api._PyEval_SetTrace
    set_trace.restype, set_trace.argtypes = ctypes.c_int, [ctypes.c_void_p] * 3
    # Between two lines of Python another thread may run and end, and its state is freed.
    # So the whole iteration is one call of C code, during which this thread keeps the
    # interpreter's lock: first(head), following(that), ... up to NULL, and set_trace on each.
    walk = accumulate(chain(map(first, [current()]), repeat(None)), following)
    deque(map(set_trace, takewhile(bool, walk), repeat(None), repeat(None)), maxlen=0)
