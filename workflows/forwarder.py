"""The background process that forwards a service's debug port to the gate in its container.

``python -m workflows.forwarder`` reads its options as JSON from standard input. It listens on the debug port of
127.0.0.1. The container's own port is published at another one, which asks for the token that this process sends.
It ends with its container. One runs beside each service, so it loads only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from .azureml.forwarding import NetworkTransport
from .remote.forwarding import Forward
from .unix_http import request

MODULE = __name__ if __name__ != "__main__" else "workflows.forwarder"
#: Seconds after which a container that does not run counts as ended: until then it may be restarting.
REST_SECONDS = 10.0
#: Seconds that the engine may take without an answer: it may be restarting.
SILENCE_SECONDS = 60.0
#: Seconds between two queries of the state, where the engine sends no notice of changes.
LOOK_SECONDS = 0.25
SLOW_LOOK_SECONDS = 2.0
#: Bytes that are read of the engine's answer about one container.
_ANSWER_BYTES = 4_000_000

RUNS, RESTS, GONE, SILENT = "runs", "rests", "gone", "silent"


class _Socket:
    """The engine behind a Unix socket, queried without its SDK.

    Args:
        path: The socket.
        container: The container's id.
    """

    def __init__(self, path: str, container: str) -> None:
        self._path, self._container = path, container

    def state(self) -> str:
        """The container's state: one of the four constants above."""
        status, body = self._request("GET", "json", 10.0)
        if status == 404:
            return GONE
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return _state_name(json.loads(body)["State"])
        return SILENT

    def wait(self) -> None:
        """Block until the running container, or the connection to the engine, has ended."""
        if self._request("POST", "wait", None)[0] != 200:
            time.sleep(LOOK_SECONDS)

    def _request(self, method: str, what: str, patience: float | None) -> tuple[int, bytes]:
        """Send a request; returns the answer's status and body, 0 if none came."""
        return request(self._path, method, f"/containers/{self._container}/{what}", patience, _ANSWER_BYTES)


class _Sdk:
    """Any other engine, over TCP, SSH or a named pipe of Windows, whose state is polled through its SDK."""

    def __init__(self, container: str) -> None:
        from .engines.docker_client import StateReader

        self._reader = StateReader(container)

    def state(self) -> str:
        """The container's state: one of the four constants above."""
        found = self._reader.read()
        return SILENT if found is None else _state_name(found) if found else GONE

    def wait(self) -> None:
        """Sleep until the next query."""
        time.sleep(SLOW_LOOK_SECONDS)


def _state_name(state: Mapping[str, Any]) -> str:
    return RUNS if state.get("Running") or state.get("Restarting") else RESTS


def _wait_until_ended(engine: _Socket | _Sdk) -> None:
    """Block until the container has ended for good."""
    patience = {RESTS: REST_SECONDS, SILENT: SILENCE_SECONDS}
    since, before = time.monotonic(), RUNS
    while (state := engine.state()) != GONE:
        if state != before:
            since, before = time.monotonic(), state
        if state == RUNS:
            engine.wait()
            continue
        if time.monotonic() - since > patience[state]:
            return
        time.sleep(LOOK_SECONDS)


def main(options: Mapping[str, Any]) -> None:
    """Forward until the container has ended.

    Args:
        options: ``port`` to listen on, or ``listener``, the number of a socket that does; ``gate``, the published port;
            ``token``; ``container``; ``socket``, the engine's, empty where it has none.
    """
    if options.get("listener") is not None:
        listener = socket.socket(fileno=int(options["listener"]))
    else:
        listener = socket.create_server(("127.0.0.1", int(options["port"])))
    container = str(options["container"])
    Forward(
        "debugger", "127.0.0.1", int(options["gate"]), 0, NetworkTransport(str(options["token"])), listener=listener
    )
    _wait_until_ended(_Socket(str(options["socket"]), container) if options["socket"] else _Sdk(container))


if __name__ == "__main__":
    given = sys.stdin.buffer.read()
    # Empty if the command that started this process was killed at that moment.
    if given:
        main(json.loads(given))
