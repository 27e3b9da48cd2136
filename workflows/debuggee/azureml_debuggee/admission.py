"""Decides which peers may debug this process, by what a peer sends first and by its user.

The protocol's first bytes: https://microsoft.github.io/debug-adapter-protocol/overview#base-protocol
"""

from __future__ import annotations

import os
import re
import socket

# This is hmac.compare_digest; importing hmac would slow down every start.
from _operator import _compare_digest

# This is what hashlib.sha256 is based on; hashlib itself loads OpenSSL.
try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found]
except ImportError:
    from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]  # before Python 3.12
from typing import Optional, Set

from . import peers, stack_requests
from .announce import warn
from .dap_messages import HEADER_BYTES

#: Bytes of a token line at most.
TOKEN_BYTES = 256
#: Users whose refusal is reported at most.
_REFUSED_USERS = 8

_OPENING = b"content-length:"
_TOKEN = b"AUTH "
_ACCEPTED = b"OK\n"
_HEADER = re.compile(rb"content-length:\s*\d{1,9}\r\n(?:[a-z-]+:[^\r\n]*\r\n)*\r\n\{", re.IGNORECASE)


def is_welcome(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are a debugger's or a request for stacks; None while that is undecided."""
    is_request = stack_requests.is_request(data)
    return speaks_dap(data) if is_request is False else is_request


def speaks_dap(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are a DAP message; None while that is undecided."""
    opening = data[: len(_OPENING)].lower()
    if not _OPENING.startswith(opening):
        return False
    if _HEADER.match(data):
        return True
    return None if len(data) < HEADER_BYTES else False


class Admission:
    """Decides which peers are admitted.

    Args:
        token_digest: See :class:`azureml_debuggee.gate.Gate`.
        open_to_owner: See :class:`azureml_debuggee.gate.Gate`.
    """

    def __init__(self, token_digest: Optional[str], open_to_owner: bool) -> None:
        self._token_digest = token_digest
        self._open_to_owner = open_to_owner
        #: Peers that have sent the token.
        self._authenticated: Set[socket.socket] = set()
        #: Users whose debuggers have been refused; each is reported once.
        self._refused: Set[int] = set()

    def decide(self, peer: socket.socket, data: bytearray) -> Optional[bool]:
        """Decide whether a peer is admitted.

        Args:
            peer: Its connection.
            data: What it has sent so far; a token is removed from it.

        Returns:
            None while that is undecided.
        """
        verdict = self._decide_by_bytes(peer, data)
        return self._is_entitled(peer) if verdict else verdict

    def drop(self, peer: socket.socket) -> None:
        """Drop what is known about this peer."""
        self._authenticated.discard(peer)

    def _decide_by_bytes(self, peer: socket.socket, data: bytearray) -> Optional[bool]:
        """Whether a peer has sent the token and then a debugger's first bytes; None while that is undecided."""
        if self._token_digest and peer not in self._authenticated:
            if self._open_to_owner and not _TOKEN.startswith(bytes(data[: len(_TOKEN)])):
                return is_welcome(bytes(data)) if peers.is_loopback(peer) else False
            end = data.find(b"\n")
            if end < 0:
                # A wrong beginning is not refused early, so that a peer cannot find out how much of it was right.
                return None if len(data) <= TOKEN_BYTES else False
            opening, token = bytes(data[: len(_TOKEN)]), bytes(data[len(_TOKEN) : end])
            if opening != _TOKEN or not _compare_digest(_sha256(token).hexdigest(), self._token_digest):
                return False
            # Confirm the token, so that the peer knows that it is connected to the right gate.
            peer.send(_ACCEPTED)
            self._authenticated.add(peer)
            del data[: end + 1]
        return is_welcome(bytes(data))

    def _is_entitled(self, peer: socket.socket) -> bool:
        """Whether a peer that speaks the protocol may debug this process, and so run code as its user."""
        if peer in self._authenticated or not peers.is_loopback(peer):
            # It has sent the token, or none is required; the user is warned of listening on a network without a token.
            return True
        if peers.is_allowed(peer):
            return True
        uid = peers.uid_of_peer(peer)
        if uid not in (None, peers.NOBODY) and uid not in self._refused and len(self._refused) < _REFUSED_USERS:
            self._refused.add(uid)
            warn("refused a debugger of the user {}: this process belongs to the user {}".format(uid, os.geteuid()))
        return False
