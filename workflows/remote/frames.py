"""The protocol on the SSH channel: frames of a kind, a length and that many bytes.

The agent has the same definitions in :mod:`workflows.remote.agent.wire`, which cannot import this module.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from .. import received

HEADER = struct.Struct(">cI")
#: A message (JSON), a task's standard output and standard error, input for the task, and the content of a file.
MESSAGE, OUTPUT, ERROR, TYPED, CONTENT = b"J", b"O", b"E", b"I", b"D"
#: The agent's greeting, before its first frame.
GREETING = b"\0azureml-debug agent\n"
#: The most bytes of a file's content in one frame.
CHUNK = 256 * 1024
#: The most bytes of a message and of another frame. The longest messages list the files of a large project.
MESSAGE_BYTES, FRAME_BYTES = 64 << 20, 1 << 20


def frame(kind: bytes, payload: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(payload)) + payload


def message(value: Mapping[str, Any]) -> bytes:
    """A frame with a message."""
    return frame(MESSAGE, json.dumps(value).encode())


def length(kind: bytes, size: int) -> int:
    """The length of an announced frame, checked.

    Raises:
        Refused: The kind is unknown, or the frame is too long.
    """
    if kind not in (MESSAGE, OUTPUT, ERROR, CONTENT):
        raise received.Refused(f"a frame of an unknown kind, {kind!r}")
    return received.number(size, "a frame with a length", 0, MESSAGE_BYTES if kind == MESSAGE else FRAME_BYTES)


def read(payload: bytes) -> dict[str, Any]:
    """The message of a frame.

    Raises:
        Refused: It is not a valid message.
    """
    return received.message(payload)
