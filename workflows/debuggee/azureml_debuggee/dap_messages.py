"""Reads the messages of a debug session from the bytes that the gate forwards.

https://microsoft.github.io/debug-adapter-protocol/overview#base-protocol
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional

from . import imports

#: Bytes of each message that are inspected; debugpy writes the relevant fields first.
HEAD_BYTES = 256
#: Bytes of a message's header at most.
HEADER_BYTES = 4096
#: Bytes of a debugger's first messages at most.
OPENING_BYTES = 1024 * 1024

_LENGTH = re.compile(rb"content-length:\s*(\d{1,9})\s*\r?$", re.IGNORECASE | re.MULTILINE)
_ANSWER = re.compile(rb'"type":\s*"response".*?"success":\s*(true|false),\s*"command":\s*"(\w+)"', re.DOTALL)
#: The answer to `initialize`.
INITIALIZED = re.compile(rb'"type":\s*"response".{0,80}?"command":\s*"initialize"', re.DOTALL)
_EVENT = re.compile(rb'"type":\s*"event",\s*"event":\s*"(\w+)"')
#: Requests that never fail in an orderly session. Others do, such as an `evaluate` of an unknown name.
_ESSENTIAL = frozenset(
    b"attach configurationDone setBreakpoints setFunctionBreakpoints setExceptionBreakpoints disconnect".split()
)


class MessageHeads:
    """Extracts the beginnings of the messages from a stream of bytes, which may arrive in any pieces."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._head = bytearray()
        #: Bytes of the message's body that have not arrived; None while in a header.
        self._left: Optional[int] = None
        #: Whether the stream is not the protocol; the rest is ignored then.
        self._broken = False

    def feed(self, data: bytes) -> List[bytes]:
        """Take the next bytes, and return the heads of the messages that are complete now."""
        heads: List[bytes] = []
        position = 0
        while position < len(data) and not self._broken:
            if self._left is None:
                # The end of a header may be split between two pieces.
                kept = len(self._header)
                self._header += data[position : position + HEADER_BYTES]
                end = self._header.find(b"\r\n\r\n", max(0, kept - 3))
                if end < 0:
                    self._broken = len(self._header) >= HEADER_BYTES
                    position += len(self._header) - kept
                    continue
                length = _LENGTH.search(bytes(self._header[: end + 2]))
                position += end + 4 - kept
                self._broken = length is None
                self._left = int(length.group(1)) if length else 0
                del self._header[:], self._head[:]
            taken = data[position : position + self._left]
            self._head += taken[: HEAD_BYTES - len(self._head)]
            position += len(taken)
            self._left -= len(taken)
            if not self._left:
                self._left = None
                heads.append(bytes(self._head))
        return heads


class OpeningMessages:
    """The first messages of a debugger, each kept until it is complete."""

    def __init__(self) -> None:
        #: Bytes that have arrived and have not been handled.
        self.unread = bytearray()

    def next_message(self) -> Optional[bytes]:
        """The next complete message with its header, which stays in :attr:`unread`.

        Returns:
            None while it is not complete; all that has arrived if that is not the protocol.
        """
        end = self.unread.find(b"\r\n\r\n", 0, HEADER_BYTES)
        if end < 0:
            return bytes(self.unread) if len(self.unread) >= HEADER_BYTES else None
        length = _LENGTH.search(bytes(self.unread[: end + 2]))
        if length is None or int(length.group(1)) > OPENING_BYTES:
            return bytes(self.unread)
        length_with_header = end + 4 + int(length.group(1))
        return bytes(self.unread[:length_with_header]) if len(self.unread) >= length_with_header else None

    def remove(self, frame: bytes) -> None:
        """Remove the next message, which has been handled."""
        del self.unread[: len(frame)]


class Progress:
    """How far a debug session has got, as seen from the adapter's messages."""

    def __init__(self) -> None:
        self._heads = MessageHeads()
        #: Whether the debugger's `initialize` has been answered.
        self.greeted = False
        #: Whether the adapter and pydevd are handling an `attach`.
        self.attaching = False
        #: Whether the debugger may send its breakpoints (the event `initialized`).
        self.initialized = False
        #: Whether the adapter has answered `attach` with success, and did attach.
        self.attached = False
        #: Whether it has then answered `disconnect` with success.
        self.detached = False
        #: Whether a request has failed that never fails in an orderly session.
        self.failed = False

    def on_adapter_data(self, data: bytes) -> None:
        """Take bytes that the adapter has sent."""
        for head in self._heads.feed(data):
            event = _EVENT.search(head)
            if event:
                self.initialized = self.initialized or event.group(1) == b"initialized"
                self.attaching = event.group(1) == b"debugpyWaitingForServer" or (
                    self.attaching and not self.initialized
                )
                continue
            answer = _ANSWER.search(head)
            if not answer:
                continue
            command, success = answer.group(2), answer.group(1) == b"true"
            self.attaching = self.attaching and command != b"attach"
            if not success:
                self.failed = self.failed or command in _ESSENTIAL
            elif command == b"initialize":
                self.greeted = True
            elif command == b"attach":
                # It also answers with success if the child process in question has ended.
                self.attached = self.initialized
            elif command == b"disconnect":
                self.detached = self.attached


def encode_message(message: Dict[str, Any]) -> bytes:
    """A message with its header, as it is sent."""
    body: bytes = imports.standard_module("json").dumps(message).encode("utf-8")
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def decode_request(frame: bytes) -> Optional[Dict[str, Any]]:
    """The request in a complete message with its header; None if it is not a request."""
    _header, _blank, body = frame.partition(b"\r\n\r\n")
    try:
        message = imports.standard_module("json").loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("type") != "request" or type(message.get("seq")) is not int:
        return None
    return message if isinstance(message.get("command"), str) else None


def child_of(attach: Dict[str, Any]) -> Optional[int]:
    """The process id of the child that an `attach` with these arguments debugs; None if it is for the program itself.

    The attached debugger got the id with the event that announced the child.
    """
    child = attach.get("subProcessId")
    return child if type(child) is int else None
