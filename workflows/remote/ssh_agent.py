"""A client of an SSH agent: lists its keys and signs with them (draft-miller-ssh-agent).

paramiko's own client only supports the socket of SSH_AUTH_SOCK, and has no timeout.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from .key_files import ssh_string

#: Seconds for the list of keys, and for a signature, which the user may have to confirm.
ANSWER_SECONDS, SIGN_SECONDS = 10.0, 90.0
_LIST, _LISTED, _SIGN, _SIGNED = 11, 12, 13, 14
#: The flags that request an RSA signature algorithm.
_FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}
_MOST_BYTES = 1 << 20


class AgentError(Exception):
    """The agent does not answer, or refuses to sign."""


@dataclass(frozen=True)
class AgentKey:
    """A key of the agent.

    Attributes:
        blob: Its public key or certificate in the SSH wire format.
        comment: Its name in the agent.
    """

    blob: bytes
    comment: str


class Agent:
    """A connection to an agent.

    Args:
        path: Its socket.

    Raises:
        AgentError: There is no agent at the socket.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._end: Any = _connect(path)
        except OSError as error:
            raise AgentError(f"{path}: {error.strerror or error}") from error

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self._end.close()

    def keys(self) -> list[AgentKey]:
        """The agent's keys, in the agent's order.

        Raises:
            AgentError: The agent does not list them.
        """
        answer = self._request(bytes([_LIST]), ANSWER_SECONDS)
        if answer[:1] != bytes([_LISTED]):
            raise AgentError(f"{self.path} does not list its keys")
        found, rest = [], answer[5:]
        try:
            for _number in range(struct.unpack_from(">I", answer, 1)[0]):
                blob, rest = _split_string(rest)
                comment, rest = _split_string(rest)
                found.append(AgentKey(blob, comment.decode(errors="replace")))
        except struct.error as error:
            raise AgentError(f"{self.path} does not answer as an agent") from error
        return found

    def sign(self, blob: bytes, data: bytes, algorithm: str) -> bytes:
        """A signature in the SSH wire format.

        Args:
            blob: The public key or certificate.
            data: The data to sign.
            algorithm: The signature's algorithm; it matters for kinds of keys with several algorithms only.

        Raises:
            AgentError: The agent refuses to sign: the user did not confirm it, or the agent is locked.
        """
        flags = _FLAGS.get(algorithm.replace("-cert-v01@openssh.com", ""), 0)
        answer = self._request(
            bytes([_SIGN]) + ssh_string(blob) + ssh_string(data) + struct.pack(">I", flags), SIGN_SECONDS
        )
        if answer[:1] != bytes([_SIGNED]):
            raise AgentError("it refuses to sign")
        try:
            return _split_string(answer[1:])[0]
        except struct.error as error:
            raise AgentError("it does not answer as an agent") from error

    def _request(self, request: bytes, seconds: float) -> bytes:
        try:
            if hasattr(self._end, "settimeout"):
                self._end.settimeout(seconds)
            self._send(ssh_string(request))
            (size,) = struct.unpack(">I", self._receive(4))
            if size > _MOST_BYTES:
                raise AgentError("it does not answer as an agent")
            return self._receive(size)
        except TimeoutError as error:
            raise AgentError(f"it has not answered within {seconds:.0f} s") from error
        except OSError as error:
            raise AgentError(f"{self.path}: {error.strerror or error}") from error

    def _send(self, data: bytes) -> None:
        if isinstance(self._end, socket.socket):
            self._end.sendall(data)
        else:
            self._end.send(data)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._end.recv(size - len(data))
            if not more:
                raise AgentError("it has ended")
            data += more
        return data


def _split_string(data: bytes) -> tuple[bytes, bytes]:
    """The string at the start of the data, and the rest."""
    (size,) = struct.unpack_from(">I", data)
    if size > len(data) - 4:
        raise struct.error("too short")
    return data[4 : 4 + size], data[4 + size :]


def _connect(path: str) -> Any:
    if os.name == "nt":
        from paramiko import win_openssh

        # paramiko can open the named pipe of Windows' agent.
        return win_openssh.OpenSSHAgentConnection()
    end = socket.socket(socket.AF_UNIX)
    try:
        end.settimeout(ANSWER_SECONDS)
        end.connect(path)
    except OSError:
        end.close()
        raise
    return end
