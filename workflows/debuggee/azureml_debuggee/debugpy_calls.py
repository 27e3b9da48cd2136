"""Answers the debugpy calls that a script already contains.

The published instructions put ``debugpy.listen(("0.0.0.0", 5678))`` and
``debugpy.wait_for_client()`` at a script's top. Under the debuggee the gate listens
already, on the configured address; a second listener would fail, and the published wait
has no limit. So this module answers the calls, and the script needs no change.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Tuple

if TYPE_CHECKING:
    from .session import Session


class _WaitForClient:
    """Stands in for ``debugpy.wait_for_client``, which has a ``cancel`` as well."""

    def __init__(self, session: "Session") -> None:
        self._session = session

    def __call__(self) -> None:
        # No debugger came in a hold of the full timeout; a second one would only take as long again.
        if not self._session.hold_expired:
            self._session.hold()

    def cancel(self) -> None:
        self._session.end_hold()


def answer_debugpy_calls(session: "Session") -> None:
    """Replace debugpy's entry points, and ``breakpoint()``, by ones that use the session's gate."""
    import debugpy

    def listen(address: Any = None, **_options: Any) -> Tuple[str, int]:
        return session.gate.reached_at

    def is_client_connected() -> bool:
        return session.debugger.is_attached()

    def stop_in_caller() -> None:
        if session.debugger.is_attached():
            session.debugger.stop_here(sys._getframe(1))

    def stop_by_builtin(*_args: Any, **_options: Any) -> None:
        # Python's own hook would start pdb, which reads a standard input that a step does not have.
        if session.debugger.is_attached():
            session.debugger.stop_here(sys._getframe(1))

    def only_if_attached(name: str) -> Callable[..., None]:
        """A version of a debugpy function that does nothing while no debugger is attached.

        The original would fail then, or slow the program down.
        """
        original = getattr(debugpy, name)

        def call_if_attached(*arguments: Any, **options: Any) -> None:
            if session.debugger.is_attached():
                original(*arguments, **options)

        return call_if_attached

    for name in ("debug_this_thread", "trace_this_thread"):
        setattr(debugpy, name, only_if_attached(name))
    debugpy.listen = listen
    debugpy.connect = listen
    debugpy.wait_for_client = _WaitForClient(session)
    debugpy.is_client_connected = is_client_connected
    debugpy.breakpoint = stop_in_caller
    sys.breakpointhook = stop_by_builtin
