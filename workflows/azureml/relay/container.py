"""Keeps an SSH connection to a node's container, with the interface of an SSH transport for forwarded ports."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from ...remote import keepalive
from .websocket_stream import NoService, RelayRefused, connect

#: The user of a job's container and of a compute instance.
USER = "azureuser"
#: The path below a service's address at which the relay opens websockets.
PATH = "/nbip/v1.0/ws-tcp"
_OTHER_KEY = "what answers is not the job's container: its host key is a different one"
#: Seconds for SSH's own greeting and login.
LOGIN_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
#: A program that copies bytes between its streams and a port, for containers whose sshd does not forward ports.
_PIPE = """\
import os, socket, sys, threading
end = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def back():
    while True:
        data = end.recv(65536)
        if not data:
            os._exit(0)
        while data:
            data = data[os.write(1, data):]
threading.Thread(target=back, daemon=True).start()
while True:
    data = os.read(0, 65536)
    if not data:
        break
    end.sendall(data)
end.shutdown(socket.SHUT_WR)
threading.Event().wait(3600)
"""


def address_of(endpoint: str, node: int) -> str:
    """The websocket of a node.

    Args:
        endpoint: ``ProxyEndpoint`` of a service's instance, with ``<nodeIndex>`` in place of the node's index.
        node: The node, counted from 0.
    """
    return as_websocket(endpoint.replace("<nodeIndex>", str(node))) + PATH


def as_websocket(address: str) -> str:
    """An address with a websocket's scheme, without a slash at its end."""
    text = address.rstrip("/")
    for plain, other in (("https://", "wss://"), ("http://", "ws://")):
        if text.startswith(plain):
            return other + text[len(plain) :]
    return text


def fingerprint(key: bytes) -> str:
    """A public key's fingerprint, as ``ssh-keygen -l`` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


class Container:
    """The connection to one node's container. Several ranks in the container share it.

    Args:
        endpoint: Returns the relay's current address from the service; None while there is no such service.
        node: The node, counted from 0.
        token: Returns a valid token for Azure's resource manager, other than the refused one that it is passed.
        key: The run's private key.
        host_keys: Returns the fingerprints of the host keys that the container has announced; empty where none.

    Attributes:
        trouble: Why there is no connection now, in a few words; empty where there is one, or none was requested.
        hopeless: Whether further attempts are pointless.
    """

    def __init__(
        self,
        endpoint: Callable[[], str | None],
        node: int,
        token: Callable[[str], str],
        key: Any,
        host_keys: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self.trouble, self.hopeless = "", False
        self._endpoint, self._node, self._token, self._key, self._host_keys = endpoint, node, token, key, host_keys
        self._lock = threading.Lock()
        self._transport: Any = None
        #: The token that the relay has refused.
        self._refused = ""
        #: The fingerprint of the key that the other side has shown.
        self._shown = ""
        self._forwards = True
        self._closed = False
        self._not_before, self._pause = 0.0, _FIRST_PAUSE

    def __call__(self, patience: float) -> Container | None:
        """Wait until there is a connection, for so many seconds; None where none comes."""
        until = time.monotonic() + patience
        while not self._closed:
            with self._lock:
                if self._transport is not None and self._transport.is_active() and self._is_its_own():
                    return self
                if time.monotonic() >= self._not_before and self._try():
                    return self
            if time.monotonic() >= until:
                return None
            time.sleep(0.1)
        return None

    def _is_its_own(self) -> bool:
        """Whether what answered is the container, as far as that has announced its keys by now."""
        expected = self._host_keys()
        if not expected or self._shown in expected:
            return True
        self._transport.close()
        self.trouble = _OTHER_KEY
        return False

    def _try(self) -> bool:
        """Connect once. After a failure, the pause before the next attempt grows."""
        try:
            self._transport = self._connect()
        except (RelayRefused, OSError, EOFError) as error:
            closed = "the relay has closed the connection at once" if isinstance(error, EOFError) else ""
            self.trouble = closed or getattr(error, "reason", None) or str(error) or type(error).__name__
            self.hopeless = isinstance(error, NoService)
        except Exception as error:
            if not type(error).__module__.startswith("paramiko"):
                raise
            self.trouble = f"SSH through the relay failed: {error}"
        else:
            self.trouble, self.hopeless = "", False
            self._pause, self._not_before = _FIRST_PAUSE, 0.0
            return True
        self._not_before = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return False

    def _connect(self) -> Any:
        import paramiko

        endpoint = self._endpoint()
        if endpoint is None:
            raise RelayRefused("the job's ssh service does not run yet")
        token = self._token(self._refused)
        try:
            stream = connect(address_of(endpoint, self._node), token)
        except RelayRefused as error:
            # The token may have expired by the relay's clock, or was revoked.
            self._refused = token if error.status == 401 else ""
            raise
        self._refused = ""
        try:
            made = paramiko.Transport(stream)
            made.banner_timeout = made.auth_timeout = LOGIN_SECONDS
            made.start_client(timeout=LOGIN_SECONDS)
            expected, self._shown = self._host_keys(), fingerprint(made.get_remote_server_key().asbytes())
            if expected and self._shown not in expected:
                raise RelayRefused(_OTHER_KEY)
            made.auth_publickey(USER, self._key)
            keepalive.watch(made)
        except BaseException:
            stream.close()
            raise
        return made

    def open_channel(self, kind: str, address: tuple[str, int], peer: Any, timeout: float) -> Any:
        """A connection to a port of the container.

        Raises:
            Exception: What paramiko raises where nothing listens there or the connection is lost.
        """
        import paramiko

        transport = self._transport
        if self._forwards:
            try:
                return transport.open_channel(kind, address, peer, timeout=timeout)
            except paramiko.ChannelException as error:
                # RFC 4254, section 5.1: 1 is "administratively prohibited".
                if error.code != 1:
                    raise
                self._forwards = False
        import shlex

        channel = transport.open_session(timeout=timeout)
        # -I: nothing is imported from the folder in which the session begins.
        channel.exec_command(f"python3 -I -c {shlex.quote(_PIPE)} {int(address[1])}")
        return channel

    def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        with self._lock, contextlib.suppress(Exception):
            if self._transport is not None:
                self._transport.close()
