"""Watches errors of the user's function in a worker, which passes them on to the process that requested the result.

Process pools and data loaders run a function in another process, catch whatever it raises, and send the text of its
traceback; the frames stay in the worker and end. This module does not know libraries by name. What counts is that an
error is formatted after it has left the last frame of the user's own code in a child process.
"""

from __future__ import annotations

import os
import sys

from . import import_hooks
from .errors import file_of

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Sequence

#: Functions that format a traceback, which libraries call to send or log it.
_FORMATTING = ("format_exception", "print_exception")


class OwnCode:
    """Recognizes the user's own code.

    Args:
        folders: The folders with the code.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._roots = tuple(os.path.join(folder, "") for folder in folders)
        prefix = os.path.join(os.path.realpath(sys.prefix), "")
        #: An environment inside these folders: packages installed there are not the user's own code.
        self._installed = prefix if prefix.startswith(self._roots) else None

    def has_frame(self, frame: Any) -> bool:
        """Whether a frame runs this code."""
        file = file_of(frame)
        if file is None:
            return False
        file, real = os.path.abspath(file), os.path.realpath(file)
        if self._installed is not None and real.startswith(self._installed):
            return False
        return file.startswith(self._roots) or real.startswith(self._roots)

    def was_left_by(self, trace: Any) -> bool:
        """Whether an error was raised in this code, or in code that it called."""
        while trace is not None:
            if self.has_frame(trace.tb_frame):
                return True
            trace = trace.tb_next
        return False


def has_left(trace: Any, code: OwnCode) -> bool:
    """Whether an error that is being handled in a child process has left the user's code, which does not catch it.

    Frames outside the function by which multiprocessing starts a process, or `threading` a thread, do not count: in a
    forked child they are the parent's.
    """
    frame = trace.tb_frame
    while frame is not None and frame.f_code.co_name != "_bootstrap":
        name = str(frame.f_globals.get("__name__", ""))
        # An error in an expression that was typed into a debugger does not count.
        if code.has_frame(frame) or name.startswith(("pydevd", "_pydevd", "debugpy")):
            return False
        frame = frame.f_back
    return code.was_left_by(trace)


def watch(code: OwnCode, is_child: Callable[[], bool], examine: Callable[[Any, Any, Any], None]) -> None:
    """Have such errors examined.

    Args:
        code: The user's own code.
        is_child: Whether this process is a child; a forked child inherits the watch.
        examine: Called with the values of `sys.exc_info`, once the error has been formatted.
    """

    def with_examination(show: Callable[..., Any]) -> Callable[..., Any]:
        import functools

        @functools.wraps(show)
        def show_and_examine(*arguments: Any, **options: Any) -> Any:
            result = show(*arguments, **options)
            if is_child():
                kind, value, trace = sys.exc_info()
                if trace is not None and has_left(trace, code):
                    examine(kind, value, trace)
            return result

        return show_and_examine

    def change(module: Any) -> None:
        for name in _FORMATTING:
            setattr(module, name, with_examination(getattr(module, name)))

    import_hooks.change_when_imported("traceback", change)


def was_raised_in_child(error: BaseException, raised: Sequence[Dict[str, Any]], code: OwnCode) -> bool:
    """Whether a child process has already held at this error, which a library has now raised again here.

    Args:
        error: The error.
        raised: The events ``raised`` of this step.
        code: The user's own code.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or code.has_frame(trace.tb_frame):
        return False
    text = "{}: {}".format(type(error).__name__, error)
    return any(
        "process" in event and event["pid"] != os.getpid() and event["type"] in text and event["message"] in text
        for event in raised
    )
