"""How the two sides talk on one SSH channel: frames of a kind, a length and that many bytes.

The other side has the same few lines in :mod:`workflows.remote.there.agent`, which cannot import anything.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

HEADER = struct.Struct(">cI")
#: A message (JSON), a task's standard output and error, what is typed into it, and the content of a file.
MESSAGE, OUTPUT, ERROR, TYPED, CONTENT = b"J", b"O", b"E", b"I", b"D"
#: The agent's first word, before its first frame.
GREETING = b"\0azureml-debug agent\n"
#: Bytes of a file's content in one frame at the most.
CHUNK = 256 * 1024


def frame(kind: bytes, payload: bytes) -> bytes:
    """One frame."""
    return HEADER.pack(kind, len(payload)) + payload


def message(value: Mapping[str, Any]) -> bytes:
    """A frame with a message."""
    return frame(MESSAGE, json.dumps(value).encode())


def read(payload: bytes) -> dict[str, Any]:
    """The message of a frame."""
    value: dict[str, Any] = json.loads(payload)
    return value
