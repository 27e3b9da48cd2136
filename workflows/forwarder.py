"""The background process that leads from a service's debug port to the gate in its container.

``python -m workflows.forwarder``, told on standard input what to do. The debug port is its listener on 127.0.0.1;
the container's own is published at another one, where nobody gets in without the token that this process supplies.
It ends with its container. One runs beside each service, so it loads nothing but the standard library.
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
#: Seconds that a container may be at rest before this process counts it as ended: it may be on its way up again.
REST_SECONDS = 10.0
#: Seconds that an engine may not answer, being restarted for one.
SILENCE_SECONDS = 60.0
#: Seconds between two looks, where the engine does not say by itself that something has changed.
LOOK_SECONDS = 0.25
SLOW_LOOK_SECONDS = 2.0
#: Bytes of an engine's answer that are read: what it knows of one container.
_ANSWER_BYTES = 4_000_000

RUNS, RESTS, GONE, SILENT = "runs", "rests", "gone", "silent"


class _Socket:
    """The engine behind a Unix socket, asked without its SDK.

    Args:
        path: The socket.
        container: The container's id.
    """

    def __init__(self, path: str, container: str) -> None:
        self._path, self._container = path, container

    def state(self) -> str:
        """What the container is at."""
        status, body = self._request("GET", "json", 10.0)
        if status == 404:
            return GONE
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return _word(json.loads(body)["State"])
        return SILENT

    def wait(self) -> None:
        """Return when the running container has ended, or the connection has."""
        if self._request("POST", "wait", None)[0] != 200:
            time.sleep(LOOK_SECONDS)

    def _request(self, method: str, what: str, patience: float | None) -> tuple[int, bytes]:
        """One request: the answer's status and body; zero where none came."""
        return request(self._path, method, f"/containers/{self._container}/{what}", patience, _ANSWER_BYTES)


class _Sdk:
    """Any other engine: over TCP, SSH, or a pipe of Windows; it does not say by itself that something has changed."""

    def __init__(self, container: str) -> None:
        from .engines.docker_client import StateReader

        self._reader = StateReader(container)

    def state(self) -> str:
        """What the container is at."""
        found = self._reader.read()
        return SILENT if found is None else _word(found) if found else GONE

    def wait(self) -> None:
        """Return when it is time for another look."""
        time.sleep(SLOW_LOOK_SECONDS)


def _word(state: Mapping[str, Any]) -> str:
    return RUNS if state.get("Running") or state.get("Restarting") else RESTS


def _stay(engine: _Socket | _Sdk) -> None:
    """Return when the container has ended for good."""
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


def main(told: Mapping[str, Any]) -> None:
    """Forward until the container has ended.

    Args:
        told: ``port`` to listen on, or ``listener``, the number of a socket that does; ``gate``, the published port;
            ``token``; ``container``; ``socket``, the engine's, empty where it has none.
    """
    if told.get("listener") is not None:
        listener = socket.socket(fileno=int(told["listener"]))
    else:
        listener = socket.create_server(("127.0.0.1", int(told["port"])))
    container = str(told["container"])
    Forward("debugger", "127.0.0.1", int(told["gate"]), 0, NetworkTransport(str(told["token"])), listener=listener)
    _stay(_Socket(str(told["socket"]), container) if told["socket"] else _Sdk(container))


if __name__ == "__main__":
    given = sys.stdin.buffer.read()
    # Empty: who started it has been killed just then.
    if given:
        main(json.loads(given))
