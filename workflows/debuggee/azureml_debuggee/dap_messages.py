"""What can be seen of a debug session from the bytes that pass: the beginnings of its messages.

https://microsoft.github.io/debug-adapter-protocol/overview#base-protocol
"""

from __future__ import annotations

import re
from typing import Any, Dict, List, Optional

from . import imports

#: Bytes of each message that are looked at; debugpy writes what matters first.
HEAD_BYTES = 256
#: Bytes that may come before a message.
HEADER_BYTES = 4096
#: Bytes that a debugger's first messages may have.
OPENING_BYTES = 1024 * 1024

_LENGTH = re.compile(rb"content-length:\s*(\d{1,9})\s*\r?$", re.IGNORECASE | re.MULTILINE)
_ANSWER = re.compile(rb'"type":\s*"response".*?"success":\s*(true|false),\s*"command":\s*"(\w+)"', re.DOTALL)
#: The answer to `initialize`.
INITIALIZED = re.compile(rb'"type":\s*"response".{0,80}?"command":\s*"initialize"', re.DOTALL)
_EVENT = re.compile(rb'"type":\s*"event",\s*"event":\s*"(\w+)"')
#: Requests that fail in no orderly session; others do, as an `evaluate` of a name that is not there.
_ESSENTIAL = frozenset(
    b"attach configurationDone setBreakpoints setFunctionBreakpoints setExceptionBreakpoints disconnect".split()
)


class Heads:
    """The beginnings of the messages in a stream of bytes, which may come in any pieces."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._head = bytearray()
        #: Bytes of the message's body that are still to come; None while in a header.
        self._left: Optional[int] = None
        #: Whether what came is not the protocol; nothing is looked at from then on.
        self._broken = False

    def feed(self, data: bytes) -> List[bytes]:
        """Take the next bytes, and return the heads of the messages that have become whole."""
        heads: List[bytes] = []
        at = 0
        while at < len(data) and not self._broken:
            if self._left is None:
                # The end of a header may be cut in two.
                kept = len(self._header)
                self._header += data[at : at + HEADER_BYTES]
                end = self._header.find(b"\r\n\r\n", max(0, kept - 3))
                if end < 0:
                    self._broken = len(self._header) >= HEADER_BYTES
                    at += len(self._header) - kept
                    continue
                length = _LENGTH.search(bytes(self._header[: end + 2]))
                at += end + 4 - kept
                self._broken = length is None
                self._left = int(length.group(1)) if length else 0
                del self._header[:], self._head[:]
            taken = data[at : at + self._left]
            self._head += taken[: HEAD_BYTES - len(self._head)]
            at += len(taken)
            self._left -= len(taken)
            if not self._left:
                self._left = None
                heads.append(bytes(self._head))
        return heads


class Opening:
    """The first messages of a debugger, each kept until it is whole."""

    def __init__(self) -> None:
        #: What has come and has not been taken.
        self.unread = bytearray()

    def next(self) -> Optional[bytes]:
        """The next whole message with its header, which stays unread.

        Returns:
            None while it is not whole; nothing but what has come where that is not the protocol.
        """
        end = self.unread.find(b"\r\n\r\n", 0, HEADER_BYTES)
        if end < 0:
            return bytes(self.unread) if len(self.unread) >= HEADER_BYTES else None
        length = _LENGTH.search(bytes(self.unread[: end + 2]))
        if length is None or int(length.group(1)) > OPENING_BYTES:
            return bytes(self.unread)
        whole = end + 4 + int(length.group(1))
        return bytes(self.unread[:whole]) if len(self.unread) >= whole else None

    def take(self, frame: bytes) -> None:
        """The next message has been dealt with."""
        del self.unread[: len(frame)]


class Conversation:
    """How far a debug session has come, by what the adapter says."""

    def __init__(self) -> None:
        self._heads = Heads()
        #: Whether the debugger's `initialize` has been answered.
        self.greeted = False
        #: Whether the adapter and pydevd are at work on an `attach`.
        self.attaching = False
        #: Whether the debugger has been told that it may send its breakpoints.
        self.initialized = False
        #: Whether the adapter has said yes to `attach`, and did attach.
        self.attached = False
        #: Whether it has said yes to `disconnect`, after that.
        self.detached = False
        #: Whether it has refused something that is refused in no orderly session.
        self.failed = False

    def said(self, data: bytes) -> None:
        """The adapter has sent these bytes."""
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
                # It also says yes where the child that is meant has ended.
                self.attached = self.initialized
            elif command == b"disconnect":
                self.detached = self.attached


def frame(message: Dict[str, Any]) -> bytes:
    """A message as it goes over the wire."""
    body: bytes = imports.get("json").dumps(message).encode("utf-8")
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def message_in(frame: bytes) -> Optional[Dict[str, Any]]:
    """The request in a whole message with its header; None where there is none."""
    _header, _blank, body = frame.partition(b"\r\n\r\n")
    try:
        message = imports.get("json").loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("type") != "request" or type(message.get("seq")) is not int:
        return None
    return message if isinstance(message.get("command"), str) else None


def child_of(attach: Dict[str, Any]) -> Optional[int]:
    """The process id of the child whose session an `attach` with these arguments begins; None where it is no child's.

    An attached debugger has been told of it.
    """
    child = attach.get("subProcessId")
    return child if type(child) is int else None
