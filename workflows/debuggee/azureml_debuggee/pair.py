"""A debugger that has been let in: its connection, the one to debugpy's adapter, and what is on its way."""

from __future__ import annotations

import os
import socket
import time
from typing import Any, Dict, Optional, Tuple

from .dap_messages import INITIALIZED, OPENING_BYTES, Conversation, Opening, child_of, frame, message_in

#: Seconds that one who has been let in, but says nothing more before it has attached, may keep others waiting.
GRACE_SECONDS = 2.0
#: Seconds that one who is attaching may keep others waiting if it is debugpy that does not answer.
ATTACHING_SECONDS = 30.0
#: Seconds that one who does go on, step by step, may keep others waiting until it has attached.
OPENING_SECONDS = 5.0
#: Adapters that a debugger may be handed to before it has attached.
JOINS = 32
#: Bytes that are read at once, and kept for one who does not read.
BUFFER_BYTES = 64 * 1024
#: Seconds that what has been said may take to be sent, once the connection ends.
FLUSH_SECONDS = 5.0
#: Seconds of the adapter's silence after which a session whose debugger has died is closed.
SILENCE_SECONDS = 0.2
#: How an agent's session calls itself in its `initialize`: what it says of itself is told to others then.
AGENT = "azureml-debug-agent"
#: Characters of that.
_MOST_SAID = 300


class Pair:
    """A debugger's connection and the one to the adapter.

    Until it asks for more than what the adapter can do, a debugger does not touch pydevd, and any number may be
    connected. From then on it is released: all that it sends reaches debugpy as it is, and only one may do so at
    a time, but for the sessions of child processes. debugpy's adapter ends of two that attach at once.
    """

    def __init__(
        self, client: socket.socket, adapter: socket.socket, number: int, first: bytes, greeting: bytes
    ) -> None:
        self.client, self.adapter = client, adapter
        #: Which adapter that is.
        self.number = number
        self.to_adapter, self.to_client = bytearray(), bytearray(greeting)
        self.closing: Optional[float] = None
        #: Whether the client has closed, so that what the adapter says goes nowhere.
        self.deserted = False
        #: Whether the client has been sent the answer to its `attach`.
        self.answered = False
        #: Whether what the client sends reaches debugpy.
        self.released = False
        #: How far the session has come.
        self.conversation = Conversation()
        #: When it got any further last: it was connected, let in or answered. What it sends may never make a message.
        self.last = time.monotonic()
        #: When it was let in to what only one may do at a time, or had detached.
        self._released_at: Optional[float] = None
        self._opening = Opening()
        self._opening.unread += first
        #: The debugger's `initialize`, once the adapter has been sent it.
        self._initialize = b""
        #: What the adapter says that the client knows already; None where there is no such thing.
        self._known: Optional[Opening] = None
        self._joins = 1
        #: The process id of the child whose session this is; None for the program's own.
        self.child: Optional[int] = None
        #: Whether the debugger attaches to children that it is told of, as far as it has said.
        self.wants_children = True

    @property
    def is_session(self) -> bool:
        """Whether somebody is attached."""
        return self.conversation.attached and not self.conversation.detached and not self.deserted

    @property
    def is_orderly(self) -> bool:
        """Whether whoever comes next finds debugpy as it was before."""
        return not self.released or (self.conversation.detached and not self.conversation.failed)

    @property
    def is_back(self) -> bool:
        """Whether it was connected before, with another adapter."""
        return self._joins > 1

    @property
    def waits(self) -> bool:
        """Whether it has sent a message that has not been dealt with."""
        return not self.released and self._opening.next() is not None

    def reads(self, end: socket.socket) -> bool:
        """Whether more may be read from this one of the two."""
        if self.deserted:
            return end is self.adapter
        return self.closing is None and (self._has_room() if end is self.client else len(self.to_client) < BUFFER_BYTES)

    def _has_room(self) -> bool:
        if self.released:
            return len(self.to_adapter) < BUFFER_BYTES
        return len(self._opening.unread) < OPENING_BYTES + BUFFER_BYTES

    def received(self, end: socket.socket, data: bytes) -> None:
        """One of the two has sent this; nothing where it has closed."""
        if end is self.client:
            self._take(data)
            if not data:
                self._desert()
        elif not data:
            self.closing = time.monotonic() + (0.0 if self.deserted else FLUSH_SECONDS)
        elif self.deserted:
            self.closing = time.monotonic() + SILENCE_SECONDS
        else:
            self._answer(data)

    def _desert(self) -> None:
        """The client has closed; its answers that are on their way are still taken from the adapter.

        As of debugpy 1.8.22 the adapter ends, and with it all debugging of this process,
        when the answer to an `evaluate` finds the connection closed.
        """
        self.deserted = True
        self.closing = time.monotonic() + SILENCE_SECONDS
        del self.to_client[:]

    def send(self) -> None:
        """Send what the two can take."""
        for end, _read, write in self.ends():
            while write and not (self.deserted and end is self.client):
                try:
                    sent = end.send(write)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    # Gone; what it has said before is still to be delivered.
                    del write[:]
                    if end is self.client:
                        self._desert()
                    elif not self.released:
                        break  # That is read next, and the session may begin anew with the next adapter.
                    self.closing = self.closing or time.monotonic() + FLUSH_SECONDS
                    break
                del write[:sent]

    @property
    def is_over(self) -> bool:
        """Whether all has been sent, and nothing more is to come."""
        return self.closing is not None and not self.deserted and not self.to_adapter and not self.to_client

    def _take(self, data: bytes) -> None:
        """The client has sent this."""
        if self.released:
            self.to_adapter += data
        else:
            self._opening.unread += data

    def _answer(self, data: bytes) -> None:
        """The adapter has sent this, for the client."""
        self.last = time.monotonic()
        data = self._unknown(data)
        self.to_client += data
        was_session = self.is_session
        self.conversation.said(data)
        if was_session and not self.is_session:
            self._released_at = self.last

    def _unknown(self, data: bytes) -> bytes:
        """What of this the client does not know already."""
        if self._known is None:
            return data
        self._known.unread += data
        while self._known is not None:
            raw = self._known.next()
            if raw is None:
                return b""
            self._known.take(raw)
            if INITIALIZED.search(raw):
                data, self._known = bytes(self._known.unread), None
        return data

    def may_rejoin(self) -> bool:
        """Whether its session can begin anew with another adapter, without the debugger's noticing."""
        is_here = bool(self._opening.unread) or time.monotonic() < self.last + GRACE_SECONDS
        return not self.released and not self.deserted and is_here and self._joins < JOINS

    def rejoin(self, adapter: socket.socket, number: int) -> None:
        """Go on with another adapter, since the one before was ended for what somebody else had sent."""
        self._joins += 1
        self.last = time.monotonic()
        self.adapter, self.number = adapter, number
        self._known = Opening() if self.conversation.greeted else None
        self.conversation = Conversation()
        self.to_adapter[:] = self._initialize

    def proceed(self, others: "Tuple[Pair, ...]") -> bool:
        """Deal with what the client has sent before it was released.

        Args:
            others: Those that are released.

        Returns:
            False where it has to be closed.
        """
        while not self.released:
            raw = self._opening.next()
            if raw is None:
                return True
            request = message_in(raw)
            if request is not None and request["command"] == "initialize" and not self._initialize:
                self._initialize = raw
                self.to_adapter += raw
                self._opening.take(raw)
            elif not others or (child_of(self._attach_request()) is not None):
                self._release()
            elif not any(other.is_session for other in others):
                return True  # Somebody else is attaching or leaving.
            elif request is None:
                return False
            else:
                self._opening.take(raw)
                self.to_client += frame(self._refusal(request, others))
                if request["command"] == "disconnect":
                    self.closing = time.monotonic() + GRACE_SECONDS
                    return True
        return True

    def _release(self) -> None:
        attach = self._attach_request()
        self.child = child_of(attach)
        self.wants_children = attach.get("subProcess") is not False
        self.released = True
        self.last = self._released_at = time.monotonic()
        self.to_adapter += self._opening.unread
        del self._opening.unread[:]

    def _attach_request(self) -> Dict[str, Any]:
        """The arguments of the debugger's `attach`, where that is the next that it has sent."""
        request = message_in(self._opening.next() or b"")
        arguments = request.get("arguments") if request is not None and request["command"] == "attach" else None
        return arguments if isinstance(arguments, dict) else {}

    @property
    def agent(self) -> str:
        """What an agent's session has said of itself, for people; empty where it is another debugger's."""
        request = message_in(self._initialize) or {}
        arguments = request.get("arguments")
        if not isinstance(arguments, dict) or arguments.get("clientID") != AGENT:
            return ""
        return str(arguments.get("clientName"))[:_MOST_SAID]

    def _refusal(self, request: Dict[str, Any], others: "Tuple[Pair, ...]") -> Dict[str, Any]:
        """The answer to a request while another debugger is attached, in debugpy's words."""
        answer = {"seq": 2**30 + request["seq"] % 2**30, "type": "response", "request_seq": request["seq"]}
        answer.update(success=request["command"] == "disconnect", command=request["command"])
        if not answer["success"]:
            agent = next((other.agent for other in others if other.is_session and other.agent), "")
            said = "Server[pid={}] is already being debugged.".format(os.getpid())
            answer["message"] = "{} {}".format(said, agent).rstrip()
        return answer

    def sends_answer(self) -> bool:
        """Whether, with what has just been sent, the client has got its answer."""
        if self.answered or not self.conversation.attached or self.to_client:
            return False
        self.answered = True
        return True

    def blocks_until(self) -> float:
        """Until when others wait for this one, which has not attached."""
        grace, most = GRACE_SECONDS, OPENING_SECONDS
        if self.conversation.attaching:
            grace = most = ATTACHING_SECONDS
        if self._released_at is None:
            return self.last + grace
        return min(self.last + grace, self._released_at + most)

    def ends(self) -> Tuple[Tuple[socket.socket, bytearray, bytearray], ...]:
        """Each socket with the buffer read from it and the one to be written to it."""
        return (
            (self.client, self.to_adapter, self.to_client),
            (self.adapter, self.to_client, self.to_adapter),
        )
