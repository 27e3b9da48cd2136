"""The base protocol of the Debug Adapter Protocol: bytes to messages and back, no sockets.

Source: https://microsoft.github.io/debug-adapter-protocol/overview#base-protocol, which has
HTTP-like headers, of which only ``Content-Length`` is defined, a blank line, and UTF-8 JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MAX_HEADER = 16 * 1024
"""Bytes of headers before a peer counts as something other than a debug adapter."""

MAX_BODY = 100 * 1024 * 1024
"""Bytes of one message's body; a larger claim is a fault or an attack, not a debugger."""

_END_OF_HEADERS = b"\r\n\r\n"


class FramingError(ValueError):
    """The bytes are not the Debug Adapter Protocol."""


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as the bytes that go over the wire."""
    # Escaped to ASCII, so that file names that are not valid UTF-8 (lone surrogates) survive as well.
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class MessageReader:
    """Cuts a stream of bytes into messages, however the network has split or merged them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._body_length: int | None = None

    @property
    def in_the_middle(self) -> bool:
        """True when a message has begun and is not complete."""
        return bool(self._buffer) or self._body_length is not None

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Add received bytes and yield each message that they complete.

        Raises:
            FramingError: The stream is not the protocol. It cannot be used any further.
        """
        self._buffer += data
        while True:
            if self._body_length is None and not self._take_headers():
                return
            length = self._body_length
            if length is None or len(self._buffer) < length:
                return
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._body_length = None
            yield _decode(body)

    def _take_headers(self) -> bool:
        """Move complete headers from the buffer into the body's length."""
        end = self._buffer.find(_END_OF_HEADERS, self._searched)
        # The separator may itself be split over two packets, so its last three bytes are looked at again.
        self._searched = max(0, len(self._buffer) - len(_END_OF_HEADERS) + 1)
        if max(end, 0) > MAX_HEADER or (end < 0 and len(self._buffer) > MAX_HEADER):
            raise FramingError(f"more than {MAX_HEADER} bytes of headers")
        if end < 0:
            return False
        self._body_length = _content_length(bytes(self._buffer[:end]))
        del self._buffer[: end + len(_END_OF_HEADERS)]
        self._searched = 0
        return True


def _content_length(headers: bytes) -> int:
    """The body's length in bytes as the headers announce it."""
    length: int | None = None
    for line in headers.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            raise FramingError(f"not a header: {line[:60]!r}")
        if name.strip().lower() == b"content-length":
            text = value.strip()
            # isdigit on bytes is ASCII only; ten digits hold every length below the limit.
            if not text.isdigit() or len(text) > 10:
                raise FramingError(f"not a length: {text[:60]!r}")
            length = int(text)
    if length is None:
        raise FramingError(f"no Content-Length in {headers[:60]!r}")
    if length > MAX_BODY:
        raise FramingError(f"a message of {length} bytes, more than {MAX_BODY}")
    return length


def _decode(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FramingError(f"not JSON: {body[:60]!r}") from error
    if not isinstance(message, dict):
        raise FramingError(f"not a message: {body[:60]!r}")
    return message
