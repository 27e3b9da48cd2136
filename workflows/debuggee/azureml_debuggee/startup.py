"""Functions for the start of a debuggee: hold before the first line, or report why that is not possible."""

from __future__ import annotations

import sys

from .ranks import rank_of

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, MutableMapping


def report_failure(settings: MutableMapping[str, str], error: Exception) -> None:
    """Report why no debugger can attach; the program runs on."""
    from .announce import Announcer

    if isinstance(error, ImportError):
        message = "debugpy cannot be used in this environment: {}".format(error)
    else:
        message = "{}: {}".format(type(error).__name__, error)
    Announcer(settings.get("AZUREML_DEBUGGEE_EVENTS"), rank_of(settings))("gate-failed", message=message)
    warn(message)


class outside_site:
    """A context in which other threads can import `site` although this thread is importing it."""

    def __enter__(self) -> None:
        site: Any = sys.modules.get("site")
        self._spec: Any = getattr(site, "__spec__", None) or site
        self._is_importing = bool(getattr(self._spec, "_initializing", False))
        if self._is_importing:
            # The debugger's threads import it, too, and would wait until this import ends.
            self._spec._initializing = False

    def __exit__(self, *_: Any) -> None:
        if self._is_importing:
            self._spec._initializing = True


def hold(session: Any) -> bool:
    """Hold before the program's first line, so that signals end the process as they would in the program."""
    from . import imports

    signal = imports.standard_module("signal")
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        # A KeyboardInterrupt here would print a message about the import of `site`.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with outside_site():
            attached = bool(session.hold())
    finally:
        if interrupt is signal.default_int_handler:
            signal.signal(signal.SIGINT, interrupt)
    session.hold_expired = not attached
    return attached


def warn(message: str) -> None:
    """Write one line to the program's standard error; never raises."""
    try:
        sys.stderr.write("azureml_debuggee: {}\n".format(" ".join(message.split())))
        sys.stderr.flush()
    except Exception:
        pass
