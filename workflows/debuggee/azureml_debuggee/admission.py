"""Who may debug this process: by what a peer sends first, and by whose it is.

The protocol's first bytes: https://microsoft.github.io/debug-adapter-protocol/overview#base-protocol
"""

from __future__ import annotations

import os
import re
import socket

# What hmac.compare_digest is; the module itself would take a while of every start.
from _operator import _compare_digest

# What hashlib.sha256 is at bottom; hashlib loads OpenSSL.
try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found]
except ImportError:
    from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]  # before Python 3.12
from typing import Optional, Set

from . import peers, stack_requests
from .announce import warn
from .dap_messages import HEADER_BYTES

#: Bytes that may come before the line feed after a token.
TOKEN_BYTES = 256
#: Users whose refusal is said.
_REFUSED_USERS = 8

_OPENING = b"content-length:"
_TOKEN = b"AUTH "
_ACCEPTED = b"OK\n"
_HEADER = re.compile(rb"content-length:\s*\d{1,9}\r\n(?:[a-z-]+:[^\r\n]*\r\n)*\r\n\{", re.IGNORECASE)


def is_welcome(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are a debugger's, or ask where the program stands; None while that is open."""
    asks = stack_requests.is_request(data)
    return speaks_dap(data) if asks is False else asks


def speaks_dap(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are a DAP message; None while that is open."""
    opening = data[: len(_OPENING)].lower()
    if not _OPENING.startswith(opening):
        return False
    if _HEADER.match(data):
        return True
    return None if len(data) < HEADER_BYTES else False


class Admission:
    """Decides who may come in.

    Args:
        token_digest: As :class:`azureml_debuggee.gate.Gate` takes it.
        open_to_owner: As the gate takes it.
    """

    def __init__(self, token_digest: Optional[str], open_to_owner: bool) -> None:
        self._token_digest = token_digest
        self._open_to_owner = open_to_owner
        #: Peers that have shown the token.
        self._proven: Set[socket.socket] = set()
        #: Users whose debuggers have been refused, each said once.
        self._refused: Set[int] = set()

    def decide(self, peer: socket.socket, data: bytearray) -> Optional[bool]:
        """Whether a peer may come in.

        Args:
            peer: Its connection.
            data: What it has sent so far; a token is taken out of it.

        Returns:
            None while that is open.
        """
        verdict = self._decide_by_bytes(peer, data)
        return self._is_entitled(peer) if verdict else verdict

    def drop(self, peer: socket.socket) -> None:
        """Nothing more is to be decided about this peer."""
        self._proven.discard(peer)

    def _decide_by_bytes(self, peer: socket.socket, data: bytearray) -> Optional[bool]:
        """Whether what a peer has sent is what a debugger sends, after the token; None while that is open."""
        if self._token_digest and peer not in self._proven:
            if self._open_to_owner and not _TOKEN.startswith(bytes(data[: len(_TOKEN)])):
                return is_welcome(bytes(data)) if peers.is_loopback(peer) else False
            end = data.find(b"\n")
            if end < 0:
                # Nothing is told of how much was right: one that is wrong so far waits as long as any other.
                return None if len(data) <= TOKEN_BYTES else False
            opening, token = bytes(data[: len(_TOKEN)]), bytes(data[len(_TOKEN) : end])
            if opening != _TOKEN or not _compare_digest(_sha256(token).hexdigest(), self._token_digest):
                return False
            # Said, so that whoever holds the token knows that it is this gate that answers.
            peer.send(_ACCEPTED)
            self._proven.add(peer)
            del data[: end + 1]
        return is_welcome(bytes(data))

    def _is_entitled(self, peer: socket.socket) -> bool:
        """Whether a peer that speaks the protocol may debug this process: its debugger runs code as this user."""
        if peer in self._proven or not peers.is_loopback(peer):
            # It had the token; or there is none, and whoever listens on a network without one has been told.
            return True
        if peers.is_allowed(peer):
            return True
        uid = peers.uid_of_peer(peer)
        if uid not in (None, peers.NOBODY) and uid not in self._refused and len(self._refused) < _REFUSED_USERS:
            self._refused.add(uid)
            warn("refused a debugger of the user {}: this process is of the user {}".format(uid, os.geteuid()))
        return False
