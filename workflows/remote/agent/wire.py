"""Frames on two file descriptors, and the checks of values that come with a request."""

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
#: The most bytes of a message, and of another frame.
MESSAGE_BYTES, FRAME_BYTES = 64 << 20, 1 << 20
#: Seconds to wait for the next frame: the user may be answering a question.
IDLE_SECONDS = 3600

if sys.version_info < (3, 10):  # noqa: UP036
    raise SystemExit("Python 3.10 or later is needed")


class Failure(Exception):
    """An error that the user can fix: what is wrong, and what to do about it."""


class Wire:
    """Frames on two file descriptors. A thread reads them, so that messages arrive while a task runs."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        # What is printed to standard output must not get between the frames.
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
                # The other side is not this program.
                break
            payload = stream.read(length)
            if len(payload) < length:
                break
            self.inbox.put((kind, payload))
        self.inbox.put(None)

    def send_raw(self, data: bytes) -> None:
        """Send bytes that are complete frames."""
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[os.write(self._out, view) :]

    def send_frame(self, kind: bytes, payload: bytes) -> None:
        """Send a frame."""
        self.send_raw(HEADER.pack(kind, len(payload)) + payload)

    def send(self, **value: Any) -> None:
        """Send a message."""
        self.send_frame(b"J", json.dumps(value).encode())

    def next_frame(self) -> tuple[bytes, bytes] | None:
        """The next frame; None at the end of the input, or if none arrives within :data:`IDLE_SECONDS`."""
        try:
            got = self.inbox.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return None
        if got is None:
            # Keep the end of the input for the next call.
            self.inbox.put(None)
        return got

    def next_message(self) -> dict[str, Any] | None:
        """The next message; None at the end of the input."""
        while True:
            got = self.next_frame()
            if got is None:
                return None
            if got[0] == b"J":
                return parse_message(got[1])


# The same checks as in workflows/received.py, which the agent cannot import.


def parse_message(payload: bytes) -> dict[str, Any]:
    """The JSON object of a message.

    Raises:
        Failure: The message is not a JSON object.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise bad_request("a message that is not a JSON object")
    return value


def checked_path(path: Any) -> str:
    """A path below a folder, checked.

    Raises:
        Failure: It is not a path, or it leads out of the folder.
    """
    try:
        encoded = os.fsencode(path) if isinstance(path, str) else b""
    except UnicodeEncodeError:
        encoded = b""
    parts = encoded.split(b"/")
    if b"\0" in encoded or len(encoded) > 4096 or any(part in (b"", b".", b"..") or len(part) > 255 for part in parts):
        raise bad_request(f"{ascii(path)[:100]}, which is not a path in the project")
    return str(path)


def checked_name(name: Any) -> str:
    """The name of one file or folder, checked.

    Raises:
        Failure: It is not a name.
    """
    if "/" in checked_path(name):
        raise bad_request(f"{ascii(name)[:100]}, which is not a name")
    return str(name)


def checked_number(value: Any) -> int:
    """A number such as a count of bytes, checked.

    Raises:
        Failure: It is not a whole number from 0 to 2**63 - 1.
    """
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise bad_request(f"{ascii(value)[:100]}, which is not a number that can be")
    return int(value)


def bad_request(what: str) -> Failure:
    """The failure for a request that no version of the program sends."""
    return Failure(
        f"The remote machine was sent {what}.",
        "The two sides may be of different versions; else this is an error of the program: please report it.",
    )


def open_regular_file(path: str) -> Any:
    """Open a regular file for reading. A pipe or a device is refused, since reading it could block.

    Raises:
        OSError: It cannot be read, or is not a regular file.
    """
    file = open(path, "rb", opener=open_without_waiting)  # noqa: SIM115 - handed on
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file", path)
    return file


def open_without_waiting(path: str, flags: int) -> int:
    """An opener for :func:`open` that does not wait for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
