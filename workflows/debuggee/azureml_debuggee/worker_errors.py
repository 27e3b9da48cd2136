"""Errors that leave a person's function in a worker, and that the worker hands to the process which has asked for it.

Pools of processes and loaders of data run a function in a process of its own, catch whatever it raises, and send the
text of its traceback along; the frames themselves stay there and end. No library is known by name: it is enough that
one turns into text an error that has left the last frame of the person's own code in a child process.
"""

from __future__ import annotations

import os
import sys

from . import import_hooks
from .errors import file_of

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Sequence

#: What makes a traceback a text, for those who send it on or log it.
_SHOWING = ("format_exception", "print_exception")


class OwnCode:
    """The person's own code.

    Args:
        folders: Where it lies.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._roots = tuple(os.path.join(folder, "") for folder in folders)
        prefix = os.path.join(os.path.realpath(sys.prefix), "")
        #: An environment that lies among the code: what is installed there is not the person's.
        self._installed = prefix if prefix.startswith(self._roots) else None

    def has(self, frame: Any) -> bool:
        """Whether a frame is one of it."""
        file = file_of(frame)
        if file is None:
            return False
        file, real = os.path.abspath(file), os.path.realpath(file)
        if self._installed is not None and real.startswith(self._installed):
            return False
        return file.startswith(self._roots) or real.startswith(self._roots)

    def was_left_by(self, trace: Any) -> bool:
        """Whether an error was raised in it, or in what it has called."""
        while trace is not None:
            if self.has(trace.tb_frame):
                return True
            trace = trace.tb_next
        return False


def has_left(trace: Any, code: OwnCode) -> bool:
    """Whether an error that is being handled has left the person's code for good, in a child process.

    Below the function by which multiprocessing begins a process, or `threading` a thread, a forked child has frames of
    its parent's.
    """
    frame = trace.tb_frame
    while frame is not None and frame.f_code.co_name != "_bootstrap":
        name = str(frame.f_globals.get("__name__", ""))
        # What somebody has typed into a debugger is nobody's error.
        if code.has(frame) or name.startswith(("pydevd", "_pydevd", "debugpy")):
            return False
        frame = frame.f_back
    return code.was_left_by(trace)


def watch(code: OwnCode, is_child: Callable[[], bool], examine: Callable[[Any, Any, Any], None]) -> None:
    """Have such errors looked at.

    Args:
        code: The person's own.
        is_child: Whether this process is a child by now: whoever has been forked has this as well.
        examine: Called with what `sys.exc_info` gives, once the error has been made a text.
    """

    def seen(show: Callable[..., Any]) -> Callable[..., Any]:
        import functools

        @functools.wraps(show)
        def show_and_see(*arguments: Any, **options: Any) -> Any:
            shown = show(*arguments, **options)
            if is_child():
                kind, value, trace = sys.exc_info()
                if trace is not None and has_left(trace, code):
                    examine(kind, value, trace)
            return shown

        return show_and_see

    def change(module: Any) -> None:
        for name in _SHOWING:
            setattr(module, name, seen(getattr(module, name)))

    import_hooks.change_when_imported("traceback", change)


def is_of_a_child(error: BaseException, raised: Sequence[Dict[str, Any]], code: OwnCode) -> bool:
    """Whether an error is one that a child process has held at before, and that a library has raised here once more.

    Args:
        error: The error.
        raised: The events ``raised`` of this step.
        code: The person's own.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or code.has(trace.tb_frame):
        return False
    text = "{}: {}".format(type(error).__name__, error)
    return any(
        "process" in event and event["pid"] != os.getpid() and event["type"] in text and event["message"] in text
        for event in raised
    )
