"""Tracebacks without secrets: an exception's text may be an address, and a line of code may hold a password."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import traceback
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .terminal import printable

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def formatted(error: BaseException) -> str:
    """The complete traceback of an exception and its causes, safe to be shown or logged."""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # the __str__ of a library's exception may fail
        text = "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__ + "\n"
    return _clean(text)


def _clean(text: str) -> str:
    from .redaction import scrub

    return printable(scrub(text), lines=True)


def install() -> None:
    """Mask secrets in what Python itself prints in this process: tracebacks, warnings, libraries' log records."""
    sys.excepthook = _uncaught
    threading.excepthook = _in_thread
    sys.unraisablehook = _unraisable
    warnings.formatwarning = _warning
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())


class _Formatter(logging.Formatter):
    """For records of libraries that have no handler."""

    def format(self, record: logging.LogRecord) -> str:
        return _clean(super().format(record))


_format_warning = warnings.formatwarning


def _warning(*told: Any, **more: Any) -> str:
    return _clean(_format_warning(*told, **more))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _print(formatted(error.with_traceback(trace)))


def _in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        name = told.thread.name if told.thread is not None else "?"
        _print(f"Exception in thread {printable(name)}:\n{formatted(told.exc_value)}")


def _unraisable(told: UnraisableHookArgs) -> None:
    if told.exc_value is not None:
        what = _clean(f"{told.err_msg or 'Exception ignored in'}: {told.object!r}")
        _print(f"{what}\n{formatted(told.exc_value)}")


def _print(text: str) -> None:
    # At the interpreter's exit, standard error may be gone.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()
