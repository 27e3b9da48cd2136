"""A client of the Debug Adapter Protocol over TCP: what an editor does, without the editor.

Sources: https://microsoft.github.io/debug-adapter-protocol/specification for the messages;
debugpy 1.8.22 (``adapter/clients.py``) for their order, since it answers ``attach`` only after
``configurationDone`` and says ``initialized`` in between.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from workflows.debugger.dap_connection import (
    REQUEST_TIMEOUT,
    DapClosed,
    DapConnection,
    DapError,
    DapEvent,
    DapTimeout,
    DapUnreachable,
    Json,
    body_or_error,
)

__all__ = [
    "REQUEST_TIMEOUT",
    "DapClient",
    "DapClosed",
    "DapError",
    "DapEvent",
    "DapTimeout",
    "DapUnreachable",
    "Json",
]

_INITIALIZE: Json = {
    "clientID": "azureml-debug",
    "clientName": "inv inspect",
    "adapterID": "debugpy",
    "locale": "en-US",
    "linesStartAt1": True,
    "columnsStartAt1": True,
    "pathFormat": "path",
    "supportsVariableType": True,
    "supportsVariablePaging": True,
}

#: The client id by which the debuggee recognizes an agent's session (azureml_debuggee.pair).
AGENT = "azureml-debug-agent"
# Seconds: for the adapter to close its end after it has confirmed, and from then until it has tidied up.
_FAREWELL = 2.0
_GRACE = 0.05


class DapClient(DapConnection):
    """The developer's side of a debug session. Use as a context manager; any thread may call."""

    #: What others who try to attach are told about an agent's session; empty for a user's.
    agent: str = ""

    def attach(
        self,
        *,
        path_mappings: Iterable[Mapping[str, str]] = (),
        breakpoints: Mapping[str, Sequence[int | Json]] | None = None,
        exception_filters: Sequence[str] = (),
        before_start: Callable[[], None] = lambda: None,
        just_my_code: bool = True,
        sub_process: bool = False,
        sub_process_id: int | None = None,
        timeout: float,
    ) -> dict[str, list[Json]]:
        """Begin a debug session with the program behind the adapter.

        Args:
            path_mappings: ``localRoot`` and ``remoteRoot``, absolute; the first that matches wins.
            breakpoints: Lines, counted from 1, or the protocol's own breakpoints, by local path.
            exception_filters: debugpy's ``raised``, ``uncaught``, ``userUnhandled``.
            before_start: Called when breakpoints can be set, before a program that waits for a debugger goes on.
            just_my_code: Leave out libraries.
            sub_process: Announce children (``debugpyAttach``), which wait until someone attaches.
            sub_process_id: The process id of a child that was announced, in a session of its own.
            timeout: Seconds for the whole of it. A program that holds the GIL can need 30.

        Returns:
            The adapter's view of the breakpoints (``id``, ``verified``, ``line``, ``message``) by path.

        Raises:
            DapError: As :meth:`request`.
        """
        deadline = time.monotonic() + timeout

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        named = {"clientID": AGENT, "clientName": self.agent} if self.agent else {}
        self.request("initialize", {**_INITIALIZE, **named}, left())
        attaching = self.send(
            "attach",
            {
                "pathMappings": [dict(mapping) for mapping in path_mappings],
                "justMyCode": just_my_code,
                "subProcess": sub_process,
                # So that debugpy knows how to read the local paths.
                "clientOS": "windows" if os.name == "nt" else "unix",
                **({} if sub_process_id is None else {"subProcessId": sub_process_id}),
            },
        )
        self._wait_initialized(attaching, left())
        result: dict[str, list[Json]] = {}
        for path, lines in (breakpoints or {}).items():
            result[path] = self.set_breakpoints(path, lines, left())
        self.request("setExceptionBreakpoints", {"filters": list(exception_filters)}, left())
        before_start()
        self.request("configurationDone", None, left())
        self.wait_response(attaching, left())
        return result

    def set_breakpoints(self, path: str, lines: Sequence[int | Json], timeout: float = REQUEST_TIMEOUT) -> list[Json]:
        """Replace the breakpoints of one file; no lines remove them all. Raises as :meth:`request`."""
        wanted = [{"line": line} if isinstance(line, int) else line for line in lines]
        arguments = {"source": {"path": path}, "breakpoints": wanted}
        return list(self.request("setBreakpoints", arguments, timeout).get("breakpoints", []))

    def disconnect(self, terminate: bool = False, timeout: float = REQUEST_TIMEOUT) -> None:
        """End the session and close.

        Args:
            terminate: End the program too; otherwise it goes on, also when it was paused.
            timeout: Seconds.

        Raises:
            DapTimeout: The adapter did not confirm. The connection is closed all the same.
        """
        try:
            # An adapter that is gone, or closes in place of an answer, has disconnected.
            with contextlib.suppress(DapClosed):
                self.request("disconnect", {"terminateDebuggee": terminate}, timeout)
                self._leave_slowly()
        finally:
            self.close()

    def _leave_slowly(self) -> None:
        """Return only once debugpy's adapter has dropped this session.

        Seen with debugpy 1.8.22: it answers ``disconnect``, closes, and then removes the session. A client that
        connects before that is served, but the adapter's greeting also writes to the session that has just closed,
        which ends its accept thread: the next client after that is never answered
        (``adapter/clients.py``, ``sessions.report_sockets`` at the end of ``Client.__init__``).
        """
        self.wait_closed(_FAREWELL)
        time.sleep(_GRACE)

    def _wait_initialized(self, attaching: int, timeout: float) -> None:
        """Wait for ``initialized``, or for the answer to ``attach`` that refuses it instead."""

        def ready() -> bool | None:
            if attaching in self._responses:
                return True
            for event in self._events:
                if event.name == "initialized":
                    self._events.remove(event)
                    return True
            return None

        self._wait(ready, timeout, "event initialized after attach")
        with self._changed:
            response = self._responses.get(attaching)
        if response is not None:
            body_or_error(response, "attach")
