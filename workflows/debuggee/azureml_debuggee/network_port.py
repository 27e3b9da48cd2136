"""Ports on the cluster's network that forward to gates which listen on 127.0.0.1 of this container only.

A port is opened only if the developer's side asks for it with the run's tag :data:`WANTED`: the network may work where
the relay does not. The tag ``azureml_debug.network.RANK`` then has the address. Connections through these ports reach
the gate, which requires the run's token.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

from . import run_history

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Tuple

#: The tag that requests network ports, and its value.
WANTED = ("azureml_debug.reach", "network")
#: Seconds between two reads of the run's tags: at first, and after `QUIET_SECONDS` without a request.
SHORT_POLL_SECONDS, LONG_POLL_SECONDS, QUIET_SECONDS = 3.0, 30.0, 600.0
_CHUNK = 65536
_BACKLOG = 16


class NetworkPorts:
    """Opens the ports when they are requested.

    Args:
        tags: The run's tags, which get the addresses.
        address: This node's address in the network.
        context: Returns the run; by default the run that this process's variables name.
    """

    def __init__(self, tags: Any, address: str, context: Optional[Callable[[], Any]] = None) -> None:
        self._tags, self._address, self._context = tags, address, context or run_history.this_run
        self._lock = threading.Lock()
        self._wanted = False
        #: The ports of the gates, by rank.
        self._gates: Dict[int, int] = {}
        self._open: Dict[Tuple[int, int], socket.socket] = {}
        self._closed = threading.Event()
        self._thread: Optional[threading.Thread] = None

    def add_event(self, event: Dict[str, Any]) -> None:
        """Handle one event that the debuggee has announced."""
        if event["event"] != "listening":
            return
        with self._lock:
            self._gates[int(event.get("rank") or 0)] = int(event["port"])
        if self._thread is None:
            self._thread = threading.Thread(target=self._wait_for_request, name="azureml-debuggee-network", daemon=True)
            self._thread.start()
        if self._wanted:
            self._open_all()

    def close(self) -> None:
        """Close the open ports and open no more."""
        self._closed.set()
        with self._lock:
            for listener in self._open.values():
                listener.close()

    def _wait_for_request(self) -> None:
        run, began = self._context(), time.monotonic()
        while run is not None and not self._closed.is_set():
            with contextlib.suppress(OSError, ValueError):
                # The service may be down for a while.
                if run.tags().get(WANTED[0]) == WANTED[1]:
                    self._wanted = True
                    self._open_all()
                    return
            self._closed.wait(SHORT_POLL_SECONDS if time.monotonic() - began < QUIET_SECONDS else LONG_POLL_SECONDS)

    def _open_all(self) -> None:
        with self._lock:
            for rank, port in self._gates.items():
                if (rank, port) in self._open or self._closed.is_set():
                    continue
                try:
                    listener = self._listen(port)
                except OSError as error:
                    _warn("the port cannot be opened on the network ({})".format(error.strerror or error))
                    continue
                self._open[rank, port] = listener
                threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
                place = "{}:{}".format(self._address, listener.getsockname()[1])
                self._tags.put({"azureml_debug.network.{}".format(rank): place})

    def _listen(self, wanted: int) -> socket.socket:
        """Listen on the node's address, on the gate's port number if that is free there."""
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        for port in (wanted, 0):
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self._address, port))
                listener.listen(_BACKLOG)
                return listener
            except OSError:
                listener.close()
                if port == 0:
                    raise
        raise AssertionError("unreachable")


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        try:
            peer, _address = listener.accept()
        except OSError:
            if listener.fileno() == -1:
                return
            time.sleep(0.05)
            continue
        threading.Thread(target=_forward, args=(peer, port), daemon=True).start()


def _forward(peer: socket.socket, port: int) -> None:
    """Forward bytes both ways until both ends have closed their direction."""
    try:
        inner = socket.create_connection(("127.0.0.1", port), 10)
    except OSError:
        peer.close()
        return
    inner.settimeout(None)
    with contextlib.suppress(OSError):
        for one in (peer, inner):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_copy, args=(inner, peer), daemon=True)
    back.start()
    _copy(peer, inner)
    back.join()
    peer.close()
    inner.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(_CHUNK)
            if not data:
                break
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _warn(line: str) -> None:
    with contextlib.suppress(Exception):
        sys.stderr.write("azureml_debug: {}\n".format(line))
        sys.stderr.flush()
