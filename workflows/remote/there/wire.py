"""Frames on two descriptors, and what of a request can be relied on."""

from __future__ import annotations

import errno
import json
import os
import queue
import stat
import struct
import sys
import threading
from typing import Any

HEADER = struct.Struct(">cI")
#: Bytes of a message, and of another frame, at the most.
MESSAGE_BYTES, FRAME_BYTES = 64 << 20, 1 << 20
#: The same while nothing goes on, and a person may be asked something.
IDLE_SECONDS = 3600

if sys.version_info < (3, 10):  # noqa: UP036
    raise SystemExit("Python 3.10 or later is needed")


class Failure(Exception):
    """Something that the person at the other end can mend: what is wrong, and what to do."""


class Wire:
    """Frames on two file descriptors. A reader thread takes them in, so that a task can be talked to."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        # Whatever prints by itself must not get between the frames.
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self.inbox: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue(maxsize=64)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        stream = sys.stdin.buffer
        while True:
            header = stream.read(HEADER.size)
            if len(header) < HEADER.size:
                break
            kind, length = HEADER.unpack(header)
            if kind not in (b"J", b"I", b"D") or length > (MESSAGE_BYTES if kind == b"J" else FRAME_BYTES):
                # Whoever talks so does not mean this program.
                break
            payload = stream.read(length)
            if len(payload) < length:
                break
            self.inbox.put((kind, payload))
        self.inbox.put(None)

    def raw(self, data: bytes) -> None:
        """Send bytes that are frames already."""
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[os.write(self._out, view) :]

    def frame(self, kind: bytes, payload: bytes) -> None:
        """Send a frame."""
        self.raw(HEADER.pack(kind, len(payload)) + payload)

    def say(self, **value: Any) -> None:
        """Send a message."""
        self.frame(b"J", json.dumps(value).encode())

    def take(self) -> tuple[bytes, bytes] | None:
        """The next frame; None at the end, or where none comes for very long."""
        try:
            got = self.inbox.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return None
        if got is None:
            # The end stays the end for whoever asks next.
            self.inbox.put(None)
        return got

    def message(self) -> dict[str, Any] | None:
        """The next message; None at the end."""
        while True:
            got = self.take()
            if got is None:
                return None
            if got[0] == b"J":
                return parsed(got[1])


# As in workflows/received.py, which is not here.


def parsed(payload: bytes) -> dict[str, Any]:
    """The JSON object of a message.

    Raises:
        Failure: It is none.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise not_understood("a message that is no JSON object")
    return value


def inside(path: Any) -> str:
    """A path below a folder.

    Raises:
        Failure: It is none, or leads out of it.
    """
    try:
        encoded = os.fsencode(path) if isinstance(path, str) else b""
    except UnicodeEncodeError:
        encoded = b""
    parts = encoded.split(b"/")
    if b"\0" in encoded or len(encoded) > 4096 or any(part in (b"", b".", b"..") or len(part) > 255 for part in parts):
        raise not_understood(f"{ascii(path)[:100]}, which is not a path in the project")
    return str(path)


def one_part(name: Any) -> str:
    """The name of one file or folder.

    Raises:
        Failure: It is none.
    """
    if "/" in inside(name):
        raise not_understood(f"{ascii(name)[:100]}, which is not a name")
    return str(name)


def whole(value: Any) -> int:
    """A number of bytes or the like.

    Raises:
        Failure: It is none.
    """
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise not_understood(f"{ascii(value)[:100]}, which is not a number that can be")
    return int(value)


def not_understood(what: str) -> Failure:
    """What is said to a request that no version of the program makes."""
    return Failure(
        f"The remote machine was sent {what}.",
        "The two sides may be of different versions; else this is an error of the program: please report it.",
    )


def open_plain(path: str) -> Any:
    """Open a file to be read; never a pipe or a device, which would keep everybody waiting.

    Raises:
        OSError: It cannot be read, or is no plain file.
    """
    file = open(path, "rb", opener=at_once)  # noqa: SIM115 - handed on
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file", path)
    return file


def at_once(path: str, flags: int) -> int:
    """Opens a pipe without waiting for somebody at its other end."""
    return os.open(path, flags | os.O_NONBLOCK)
