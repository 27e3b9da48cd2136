"""An admitted debugger: its connection, the connection to debugpy's adapter, and the data in between."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Dict, Optional, Tuple

from .dap_messages import (
    INITIALIZED,
    OPENING_BYTES,
    OpeningMessages,
    Progress,
    child_of,
    decode_request,
    encode_message,
)

#: Seconds that a debugger which sends nothing more before it has attached may keep others waiting.
GRACE_SECONDS = 2.0
#: Seconds that an attaching debugger may keep others waiting while debugpy does not answer.
ATTACHING_SECONDS = 30.0
#: Seconds that a debugger which makes progress may keep others waiting until it has attached.
OPENING_SECONDS = 5.0
#: Adapters that a debugger may be connected with, one after the other, before it has attached.
MOST_JOINS = 32
#: Bytes that are read at once, and buffered for a peer that does not read.
BUFFER_BYTES = 64 * 1024
#: Seconds that buffered data may take to be sent after one connection has ended.
FLUSH_SECONDS = 5.0
#: Seconds of the adapter's silence after which a session whose debugger has died is closed.
SILENCE_SECONDS = 0.2
#: The client id in the `initialize` of an agent's session. A debugger that is refused meanwhile gets its client name.
AGENT = "azureml-debug-agent"
#: Characters of the client name that are sent.
_MOST_CHARACTERS = 300


class Pair:
    """A debugger's connection and its connection to the adapter.

    Any number of debuggers may be connected until they request more than the adapter itself can answer. From then on a
    debugger is *released*: everything it sends reaches debugpy unchanged. Only one debugger may be released at a time,
    except for the sessions of child processes, because debugpy's adapter ends if two attach at once.
    """

    def __init__(
        self, client: socket.socket, adapter: socket.socket, number: int, first: bytes, greeting: bytes
    ) -> None:
        self.client, self.adapter = client, adapter
        #: The number of the adapter.
        self.number = number
        self.to_adapter, self.to_client = bytearray(), bytearray(greeting)
        self.closes_at: Optional[float] = None
        #: Whether the client has closed its connection, so that the adapter's messages are discarded.
        self.client_closed = False
        #: Whether the client has been sent the answer to its `attach`.
        self.answered = False
        #: Whether everything that the client sends reaches debugpy.
        self.released = False
        #: How far the session has come.
        self.progress = Progress()
        #: When it last made progress: it was connected, released or answered. Data it sends may never form a message.
        self.last_progress = time.monotonic()
        #: When it was released, or has detached.
        self._released_at: Optional[float] = None
        self._opening_messages = OpeningMessages()
        self._opening_messages.unread += first
        #: The debugger's `initialize`, once it has been sent to the adapter.
        self._initialize = b""
        #: After a change of adapter, its messages that the client has received before; None if there are none.
        self._known_messages: Optional[OpeningMessages] = None
        self._joins = 1
        #: The process id of the child that this session debugs; None for the program's own session.
        self.child: Optional[int] = None
        #: Whether the debugger attaches to announced children, unless its `attach` says otherwise.
        self.wants_children = True

    @property
    def is_session(self) -> bool:
        """Whether the debugger is attached."""
        return self.progress.attached and not self.progress.detached and not self.client_closed

    @property
    def is_orderly(self) -> bool:
        """Whether debugpy is unchanged for the next debugger."""
        return not self.released or (self.progress.detached and not self.progress.failed)

    @property
    def has_rejoined(self) -> bool:
        """Whether it was connected with another adapter before."""
        return self._joins > 1

    @property
    def has_pending_message(self) -> bool:
        """Whether it has sent a message that has not been handled."""
        return not self.released and self._opening_messages.next_message() is not None

    def can_read(self, end: socket.socket) -> bool:
        """Whether more may be read from this one of the two sockets."""
        if self.client_closed:
            return end is self.adapter
        return self.closes_at is None and (
            self._has_room() if end is self.client else len(self.to_client) < BUFFER_BYTES
        )

    def _has_room(self) -> bool:
        if self.released:
            return len(self.to_adapter) < BUFFER_BYTES
        return len(self._opening_messages.unread) < OPENING_BYTES + BUFFER_BYTES

    def on_received(self, end: socket.socket, data: bytes) -> None:
        """Handle data from one of the two sockets; empty data means that it has closed."""
        if end is self.client:
            self._on_client_data(data)
            if not data:
                self._on_client_closed()
        elif not data:
            self.closes_at = time.monotonic() + (0.0 if self.client_closed else FLUSH_SECONDS)
        elif self.client_closed:
            self.closes_at = time.monotonic() + SILENCE_SECONDS
        else:
            self._on_adapter_data(data)

    def _on_client_closed(self) -> None:
        """Handle that the client has closed; pending answers are still read from the adapter.

        As of debugpy 1.8.22 the adapter ends, and with it all debugging of this process,
        when it sends the answer to an `evaluate` to a closed connection.
        """
        self.client_closed = True
        self.closes_at = time.monotonic() + SILENCE_SECONDS
        del self.to_client[:]

    def send(self) -> None:
        """Send as much buffered data as the two sockets accept."""
        for end, _read, write in self.sockets_with_buffers():
            while write and not (self.client_closed and end is self.client):
                try:
                    sent = end.send(write)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    # It has closed; what it sent before still has to be delivered.
                    del write[:]
                    if end is self.client:
                        self._on_client_closed()
                    elif not self.released:
                        break  # The next read notices that, and the session may begin again with the next adapter.
                    self.closes_at = self.closes_at or time.monotonic() + FLUSH_SECONDS
                    break
                del write[:sent]

    @property
    def is_over(self) -> bool:
        """Whether everything has been sent, and no more data will come."""
        return self.closes_at is not None and not self.client_closed and not self.to_adapter and not self.to_client

    def _on_client_data(self, data: bytes) -> None:
        """Take data from the client."""
        if self.released:
            self.to_adapter += data
        else:
            self._opening_messages.unread += data

    def _on_adapter_data(self, data: bytes) -> None:
        """Take data from the adapter."""
        self.last_progress = time.monotonic()
        data = self._without_known(data)
        self.to_client += data
        was_session = self.is_session
        self.progress.on_adapter_data(data)
        if was_session and not self.is_session:
            self._released_at = self.last_progress

    def _without_known(self, data: bytes) -> bytes:
        """The part of this data that the client has not received before."""
        if self._known_messages is None:
            return data
        self._known_messages.unread += data
        while self._known_messages is not None:
            raw = self._known_messages.next_message()
            if raw is None:
                return b""
            self._known_messages.remove(raw)
            if INITIALIZED.search(raw):
                data, self._known_messages = bytes(self._known_messages.unread), None
        return data

    def may_rejoin(self) -> bool:
        """Whether its session can begin again with another adapter without the debugger noticing."""
        is_here = bool(self._opening_messages.unread) or time.monotonic() < self.last_progress + GRACE_SECONDS
        return not self.released and not self.client_closed and is_here and self._joins < MOST_JOINS

    def rejoin(self, adapter: socket.socket, number: int) -> None:
        """Continue with another adapter, since the previous one was ended because of another debugger."""
        self._joins += 1
        self.last_progress = time.monotonic()
        self.adapter, self.number = adapter, number
        self._known_messages = OpeningMessages() if self.progress.greeted else None
        self.progress = Progress()
        self.to_adapter[:] = self._initialize

    def proceed(self, others: "Tuple[Pair, ...]") -> bool:
        """Handle what the client has sent before it was released.

        Args:
            others: The other debuggers that are released.

        Returns:
            False if it has to be closed.
        """
        while not self.released:
            raw = self._opening_messages.next_message()
            if raw is None:
                return True
            request = decode_request(raw)
            if request is not None and request["command"] == "initialize" and not self._initialize:
                self._initialize = raw
                self.to_adapter += raw
                self._opening_messages.remove(raw)
            elif not others or (child_of(self._attach_request()) is not None):
                self._release()
            elif not any(other.is_session for other in others):
                return True  # Another debugger is attaching or leaving.
            elif request is None:
                return False
            else:
                self._opening_messages.remove(raw)
                self.to_client += encode_message(self._refusal(request, others))
                if request["command"] == "disconnect":
                    self.closes_at = time.monotonic() + GRACE_SECONDS
                    return True
        return True

    def _release(self) -> None:
        attach = self._attach_request()
        self.child = child_of(attach)
        self.wants_children = attach.get("subProcess") is not False
        self.released = True
        self.last_progress = self._released_at = time.monotonic()
        self.to_adapter += self._opening_messages.unread
        del self._opening_messages.unread[:]

    def _attach_request(self) -> Dict[str, Any]:
        """The arguments of the debugger's `attach`, if that is its next message; else empty."""
        request = decode_request(self._opening_messages.next_message() or b"")
        arguments = request.get("arguments") if request is not None and request["command"] == "attach" else None
        return arguments if isinstance(arguments, dict) else {}

    @property
    def agent(self) -> str:
        """An agent's description of its session, for people; empty for other debuggers."""
        request = decode_request(self._initialize) or {}
        arguments = request.get("arguments")
        if not isinstance(arguments, dict) or arguments.get("clientID") != AGENT:
            return ""
        return str(arguments.get("clientName"))[:_MOST_CHARACTERS]

    def _refusal(self, request: Dict[str, Any], others: "Tuple[Pair, ...]") -> Dict[str, Any]:
        """The answer to a request while another debugger is attached, with debugpy's message."""
        answer = {"seq": 2**30 + request["seq"] % 2**30, "type": "response", "request_seq": request["seq"]}
        answer.update(success=request["command"] == "disconnect", command=request["command"])
        if not answer["success"]:
            agent = next((other.agent for other in others if other.is_session and other.agent), "")
            message = "Server[pid={}] is already being debugged.".format(os.getpid())
            answer["message"] = "{} {}".format(message, agent).rstrip()
        return answer

    def has_just_answered(self) -> bool:
        """Whether the answer to the client's `attach` has just been sent completely; True only once."""
        if self.answered or not self.progress.attached or self.to_client:
            return False
        self.answered = True
        return True

    def blocks_until(self) -> float:
        """Until when others wait for this debugger, which has not attached."""
        grace, most = GRACE_SECONDS, OPENING_SECONDS
        if self.progress.attaching:
            grace = most = ATTACHING_SECONDS
        if self._released_at is None:
            return self.last_progress + grace
        return min(self.last_progress + grace, self._released_at + most)

    def sockets_with_buffers(self) -> Tuple[Tuple[socket.socket, bytearray, bytearray], ...]:
        """Each socket with the buffer read from it and the one to be written to it."""
        return (
            (self.client, self.to_adapter, self.to_client),
            (self.adapter, self.to_client, self.to_adapter),
        )
