"""One connection to a debug adapter: requests and their responses, events, and waits that end.

Message formats: https://microsoft.github.io/debug-adapter-protocol/specification.

Every wait has a limit, and a peer that closes wakes all waiters at once.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from workflows.debugger.dap_framing import FramingError, MessageReader, encode

Json = dict[str, Any]
T = TypeVar("T")
C = TypeVar("C", bound="DapConnection")

REQUEST_TIMEOUT = 15.0
"""The default limit of a request, in seconds."""

_SEND_TIMEOUT = 15.0
_MAX_EVENTS = 10_000
# On Windows a wait on a lock cannot be interrupted by Ctrl-C: wait in slices of this many seconds.
_SLICE = 0.5


class DapError(Exception):
    """The adapter refused a request; the text is the adapter's. The base of all errors of this module."""


class DapUnreachable(DapError):
    """No connection could be made."""


class DapTimeout(DapError):
    """No answer came in time; the text says what was waited for."""


class DapClosed(DapError):
    """The connection is gone, or the peer speaks another protocol.

    Args:
        reason: Why.
        waited_for: What was waited for, if anything was.
    """

    def __init__(self, reason: str, waited_for: str = "") -> None:
        super().__init__(f"{reason} (waited for {waited_for})" if waited_for else reason)
        self.reason = reason


@dataclass(frozen=True)
class DapEvent:
    """An event of the adapter."""

    name: str
    body: Json = field(default_factory=dict)


class DapConnection:
    """One connection to a debug adapter. Use as a context manager; methods may be called from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        # One limit for sending and receiving; the reader simply tries again, a sender gives up.
        self._socket.settimeout(_SEND_TIMEOUT)
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._pending: dict[int, str] = {}
        self._responses: dict[int, Json] = {}
        # Only the latest are needed; a program that floods us must not fill the memory.
        self._events: deque[DapEvent] = deque(maxlen=_MAX_EVENTS)
        self._closed: str | None = None
        self._reader = threading.Thread(target=self._read, name="dap-reader", daemon=True)
        self._reader.start()

    @classmethod
    def connect(cls: type[C], host: str, port: int, timeout: float) -> C:
        """Open a connection.

        Never connect to debugpy only to see whether it is there: a connection closed at once breaks
        its adapter for good (seen with debugpy 1.8.22). Go on to ``initialize`` and ``attach``.

        Args:
            host: Name or address.
            port: TCP port.
            timeout: Seconds.

        Raises:
            DapUnreachable: Nothing listens there, or the name does not resolve.
            DapTimeout: No answer at all within ``timeout``.
        """
        try:
            connection = socket.create_connection((host, port), timeout)
        except TimeoutError as error:
            raise DapTimeout(f"no connection to {host}:{port} within {timeout:g} s") from error
        except OSError as error:
            raise DapUnreachable(f"{host}:{port}: {error.strerror or error}") from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Requests

    def request(
        self, command: str, arguments: Mapping[str, Any] | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> Json:
        """Send a request and wait for its response.

        Args:
            command: The request's name, such as ``stackTrace``.
            arguments: Its arguments.
            timeout: Seconds.

        Returns:
            The response's body, empty where it has none.

        Raises:
            DapError: The adapter refused; its message is the text.
            DapTimeout: No response within ``timeout``.
            DapClosed: The connection is gone.
        """
        return self.wait_response(self.send(command, arguments), timeout)

    def send(self, command: str, arguments: Mapping[str, Any] | None = None) -> int:
        """Send a request without waiting. Returns its number for :meth:`wait_response`."""
        number = next(self._numbers)
        with self._changed:
            self._pending[number] = command
        message = {"seq": number, "type": "request", "command": command, "arguments": dict(arguments or {})}
        self._transmit(message)
        return number

    def wait_response(self, number: int, timeout: float) -> Json:
        """Wait for the response to request ``number``. Raises as :meth:`request` does."""
        command = self._pending.get(number, "?")
        try:
            response = self._wait(lambda: self._responses.pop(number, None), timeout, f"response to {command}")
        finally:
            with self._changed:
                self._pending.pop(number, None)
                self._responses.pop(number, None)
        return body_or_error(response, command)

    # Events

    def wait_event(
        self,
        name: str | Collection[str] | None,
        timeout: float,
        predicate: Callable[[DapEvent], bool] | None = None,
    ) -> DapEvent:
        """Wait for an event, which is then taken out of the queue; the others stay in it.

        Args:
            name: The event's name, or several of which any will do; None for every event.
            timeout: Seconds.
            predicate: Which of them; by default the first.

        Raises:
            DapTimeout: None came within ``timeout``.
            DapClosed: The connection is gone, and none had come before.
        """
        names = (name,) if isinstance(name, str) else tuple(name or ())

        def take() -> DapEvent | None:
            for event in self._events:
                if (name is None or event.name in names) and (predicate is None or predicate(event)):
                    self._events.remove(event)
                    return event
            return None

        return self._wait(take, timeout, f"event {' or '.join(names)}".strip())

    def post(self, event: DapEvent) -> None:
        """Put an event of the caller's into the queue, so that one wait covers both kinds."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def wait_closed(self, timeout: float) -> bool:
        """Wait for the connection to end. Returns whether it has, within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed is not None, timeout)

    def close(self) -> None:
        """Close the connection and end the reader. Pending waits raise DapClosed."""
        self._mark_closed("closed on this side")
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join(2.0)
        self._socket.close()

    # Inside

    def _wait(self, take: Callable[[], T | None], timeout: float, what: str) -> T:
        """Wait until ``take`` returns something; it is called with the lock held."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                found = take()
                if found is not None:
                    return found
                if self._closed is not None:
                    raise DapClosed(self._closed, what)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DapTimeout(f"no {what} within {timeout:.3g} s")
                self._changed.wait(min(left, _SLICE))

    def _transmit(self, message: Json) -> None:
        with self._changed:
            if self._closed is not None:
                raise DapClosed(self._closed)
        try:
            with self._sending:
                self._socket.sendall(encode(message))
        except TimeoutError as error:
            # Part of the message was sent, so the stream cannot be used any more.
            self._mark_closed("the peer stopped reading")
            raise DapTimeout(f"{message['command']} was not read within {_SEND_TIMEOUT:g} s") from error
        except OSError as error:
            reason = f"connection lost: {error.strerror or error}"
            self._mark_closed(reason)
            raise DapClosed(self._closed or reason) from error

    def _read(self) -> None:
        reader = MessageReader()
        reason = "the peer closed the connection"
        try:
            while self._closed is None:
                try:
                    data = self._socket.recv(256 * 1024)
                except TimeoutError:
                    continue
                if not data:
                    if reader.in_the_middle:
                        reason += " in the middle of a message"
                    break
                for message in reader.feed(data):
                    self._deliver(message)
        except FramingError as error:
            reason = f"the peer is not a debug adapter: {error}"
        except OSError as error:
            reason = f"connection lost: {error.strerror or error}"
        finally:
            self._mark_closed(reason)

    def _deliver(self, message: Json) -> None:
        kind = message.get("type")
        if kind == "event":
            self.post(DapEvent(str(message.get("event")), _as_object(message.get("body"))))
        elif kind == "response":
            number = message.get("request_seq")
            with self._changed:
                # A response that nobody waits for any more would be kept for ever.
                if isinstance(number, int) and number in self._pending:
                    self._responses[number] = message
                    self._changed.notify_all()
        elif kind == "request":
            self._refuse(message)

    def _refuse(self, message: Json) -> None:
        """Refuse a request of the adapter (such as ``runInTerminal``), so that it does not wait."""
        reply = {
            "seq": next(self._numbers),
            "type": "response",
            "request_seq": message.get("seq"),
            "command": message.get("command"),
            "success": False,
            "message": "not supported by this client",
        }
        with contextlib.suppress(DapClosed, DapTimeout):
            self._transmit(reply)

    def _mark_closed(self, reason: str) -> None:
        with self._changed:
            if self._closed is None:
                self._closed = reason
            self._changed.notify_all()


def body_or_error(response: Json, command: str) -> Json:
    """The body of a response, or :class:`DapError` with the adapter's message."""
    body = _as_object(response.get("body"))
    if response.get("success"):
        return body
    shown = _as_object(body.get("error")).get("format")
    raise DapError(str(response.get("message") or shown or f"{command} failed"))


def _as_object(value: Any) -> Json:
    """``value`` if it is a JSON object; anything else that a peer sends counts as empty."""
    return value if isinstance(value, dict) else {}
