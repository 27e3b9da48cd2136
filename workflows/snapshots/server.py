"""The background process that shows a snapshot to an editor: a debug adapter on 127.0.0.1.

``python -m workflows.snapshots.server`` reads its options as JSON from standard input. It ends with the session, or if
no client attaches. Its first line on standard output is a JSON object with the port, or with the error.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..background import log
from ..debuggee.azureml_debuggee.peers import is_allowed
from ..debugger.dap_framing import FramingError, MessageReader, encode
from ..errors import UserError
from ..loopback import listen
from ..models import PathMapping
from .model import Snapshot
from .session import Session
from .snapshot_file import read_snapshot
from .sources import Sources

#: Connections that the system keeps until they are accepted.
_BACKLOG = 16
MODULE = __name__ if __name__ != "__main__" else "workflows.snapshots.server"
#: Seconds within which a client has to attach.
WAIT_SECONDS = 300.0
#: Seconds within which a client has to send its first message.
_SEND_SECONDS, _GREETING_SECONDS = 30.0, 30.0
#: Clients at the same time, such as an editor and a test; more are refused.
_MOST_CLIENTS = 8
_CHUNK = 1 << 16
#: Seconds between two checks whether the sessions are over.
_SLICE = 0.2


class Server:
    """Serves one snapshot until the last session with it has ended.

    Args:
        snapshot: What is shown.
        sources: Creates, for each client, what finds the files on this machine.
        listener: A listening socket on 127.0.0.1.
        wait: Seconds within which a client has to attach.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        sources: Callable[[], Sources],
        listener: socket.socket,
        wait: float = WAIT_SECONDS,
    ) -> None:
        self._snapshot, self._sources, self._listener, self._wait = snapshot, sources, listener, wait
        self._lock = threading.Lock()
        self._clients = 0
        self._attached = 0
        self._over = threading.Event()

    def serve(self) -> bool:
        """Serve until the sessions are over; returns whether any client had attached."""
        threading.Thread(target=self._accept, name="snapshot-accept", daemon=True).start()
        deadline = time.monotonic() + self._wait
        try:
            while not self._over.wait(_SLICE):
                with self._lock:
                    if not self._attached and time.monotonic() > deadline:
                        return False
            return True
        finally:
            self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                full = self._clients >= _MOST_CLIENTS
                self._clients += 0 if full else 1
            if full:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), name="snapshot-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        session = Session(self._snapshot, self._sources())
        counted = False
        try:
            with client:
                # It shows values of the user's variables, so other users of this machine are refused.
                if not is_allowed(client):
                    return
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.settimeout(_GREETING_SECONDS)
                reader = MessageReader()
                while not session.over:
                    if session.stops_at is not None:
                        client.settimeout(max(0.001, session.stops_at - time.monotonic()))
                    try:
                        data = client.recv(_CHUNK)
                    except TimeoutError:
                        if session.stops_at is None:
                            raise
                        client.settimeout(None)
                        client.sendall(encode(session.stopped()))
                        continue
                    if not data:
                        break
                    for message in reader.feed(data):
                        for answer in session.take(message):
                            client.sendall(encode(answer))
                        if session.attached and not counted:
                            counted = True
                            # An attached client may take any time.
                            client.settimeout(None)
                            with self._lock:
                                self._attached += 1
                if session.over:
                    client.sendall(encode(session.ended()))
        except (OSError, FramingError) as error:
            log(f"a client is gone: {error}")
        except Exception as error:  # one client's message must not end the others' sessions
            log(f"a client's message was not understood: {type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._clients -= 1
                if counted:
                    self._attached -= 1
                    if not self._attached:
                        self._over.set()


def main() -> None:
    """Read the options, print the port, and serve."""
    told: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    try:
        snapshot = read_snapshot(Path(told["snapshot"]))
        listener = listen(int(told["port"]), _BACKLOG)
    except UserError as error:
        _say({"problem": error.problem, "remedy": error.remedy})
        return
    except OSError as error:
        _say({"held": error.strerror or str(error)})
        return
    mappings, guesses = (
        [PathMapping(Path(local), remote) for local, remote in told[key]] for key in ("mappings", "guesses")
    )
    _say({"port": listener.getsockname()[1]})
    # So that the reader goes on at once.
    with contextlib.suppress(OSError):
        sys.stdout.close()
    Server(snapshot, lambda: Sources(mappings, guesses), listener, float(told["wait"])).serve()


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
