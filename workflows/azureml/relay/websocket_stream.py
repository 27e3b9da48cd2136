"""A websocket as a socket: written bytes are sent as binary frames, and received frames are read as bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

#: Seconds for the relay to answer, and between two pings that keep proxies from ending a quiet connection.
ANSWER_SECONDS, PING_SECONDS = 20.0, 30.0
#: Milliseconds after which data that nobody acknowledges ends the connection.
_USER_TIMEOUT = 15_000
_CHUNK = 1 << 16
#: Variables that name a bundle of certificates, as requests and OpenSSL read them.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class RelayRefused(OSError):
    """The relay refused the connection.

    Args:
        reason: Why, in a few words.
        status: The HTTP status of its response; 0 where there was none.
    """

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


class NoService(RelayRefused):
    """The service behind the relay has failed and will not start."""


def connect(address: str, token: str, timeout: float = ANSWER_SECONDS) -> socket.socket:
    """Connect to a websocket.

    Args:
        address: Its address, ``wss://…``.
        token: The token that gives access.
        timeout: Seconds for it to answer.

    Returns:
        A socket. It ends with the websocket, and the other way round.

    Raises:
        RelayRefused: It answers something else, or nothing.
    """
    import websocket

    bundle = next((os.environ[name] for name in _BUNDLES if os.environ.get(name)), None)
    try:
        # The connection uses the proxy that HTTPS_PROXY names, except for hosts that NO_PROXY names.
        made = websocket.create_connection(
            address,
            timeout=timeout,
            header=[f"Authorization: Bearer {token}"],
            sslopt={"ca_certs": bundle} if bundle else {},
            sockopt=_options(),
            enable_multithread=True,
            skip_utf8_validation=True,
            redirect_limit=0,
        )
    except websocket.WebSocketBadStatusException as error:
        status = int(getattr(error, "status_code", 0) or 0)
        raise RelayRefused(f"{urlsplit(address).hostname} answers {status}", status) from error
    except websocket.WebSocketTimeoutException as error:
        raise RelayRefused(f"{urlsplit(address).hostname} has not answered for {timeout:.0f} s") from error
    except (websocket.WebSocketException, OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RelayRefused(f"{urlsplit(address).hostname} cannot be reached: {text}") from error
    return _Joined(made).ours


def _options() -> tuple[tuple[int, int, int], ...]:
    """Socket options that send small messages at once, and end a dead connection soon."""
    found: tuple[tuple[int, int, int], ...] = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        found += ((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT),)
    return found


class _Joined:
    """Joins a websocket and a pair of sockets of which one is handed out."""

    def __init__(self, made: Any) -> None:
        self._websocket = made
        made.settimeout(None)
        self.ours, self._theirs = socket.socketpair()
        self._over = threading.Event()
        for work in (self._out, self._in, self._ping):
            threading.Thread(target=work, daemon=True).start()

    def _out(self) -> None:
        with self._ending():
            while data := self._theirs.recv(_CHUNK):
                self._websocket.send_binary(data)

    def _in(self) -> None:
        with self._ending():
            while data := self._websocket.recv():
                self._theirs.sendall(data if isinstance(data, bytes) else data.encode())

    def _ping(self) -> None:
        with self._ending():
            while not self._over.wait(PING_SECONDS):
                self._websocket.ping()

    @contextlib.contextmanager
    def _ending(self) -> Any:
        """Close both directions when one of them ends."""
        from websocket import WebSocketException

        with contextlib.suppress(OSError, WebSocketException):
            yield
        if self._over.is_set():
            return
        self._over.set()
        with contextlib.suppress(OSError):
            # This wakes the readers on both sides.
            self._theirs.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, WebSocketException):
            self._websocket.close(timeout=1)
        with contextlib.suppress(OSError, WebSocketException):
            self._websocket.shutdown()
        self._theirs.close()
