"""Requesting the stacks of debugged programs, without attaching and without stopping them.

The debuggee's side, and the format of the messages, is in debuggee/azureml_debuggee/stack_requests.py.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from typing import Any

from ..errors import BadValue
from ..models import DebugEndpoint, PathMapping

#: Seconds after which an interpreter counts as held by C code.
ANSWER_SECONDS = 2.0
#: Seconds for the connection; a tunnel or a relay may have to be opened first.
CONNECT_SECONDS = 10.0
#: Bytes of all expressions together; the debuggee refuses longer requests.
MOST_EXPRESSIONS = 60 * 1024
#: Bytes of an answer.
MOST_BYTES = 64 * 1024 * 1024


class NoAnswer(Exception):
    """A program has not sent its stacks; the text says why."""


class Silent(NoAnswer):
    """The program listens but does not answer: C code holds its interpreter."""


def check_expressions(expressions: Sequence[str]) -> None:
    """Check that expressions can be sent.

    Raises:
        BadValue: One is empty, or they are too long.
    """
    if not all(one.strip() for one in expressions):
        raise BadValue("--eval is empty.", "Give it an expression, such as: --eval step")
    size = len(json.dumps(list(expressions)))
    if size > MOST_EXPRESSIONS:
        raise BadValue(f"--eval is too long: {size} bytes; {MOST_EXPRESSIONS} are taken.", "Ask for less at a time.")


def request_stacks(
    endpoint: DebugEndpoint, expressions: Sequence[str], seconds: float = ANSWER_SECONDS
) -> dict[str, Any]:
    """Request the stacks of one program.

    Args:
        endpoint: The program's address for debuggers.
        expressions: Evaluated in its innermost frame of the user's code.
        seconds: How long the answer may take, besides one second for the expressions.

    Returns:
        ``processes`` (the program's own first, then its child processes) and ``silent`` (ids of child processes that
        did not answer). A frame's ``file`` is the local one where the path mappings say which that is.

    Raises:
        Silent: It did not answer in time.
        NoAnswer: It cannot be reached, or has ended meanwhile.
    """
    where = f"{endpoint.host}:{endpoint.port}"
    try:
        connection = socket.create_connection((endpoint.host, endpoint.port), CONNECT_SECONDS)
    except OSError as error:
        raise NoAnswer(f"nothing listens on {where} any more ({error.strerror or error})") from error
    request = b"STACKS " + json.dumps({"expressions": list(expressions)}).encode("ascii") + b"\n"
    deadline = time.monotonic() + seconds + (1.0 if expressions else 0.0)
    with connection:
        try:
            connection.sendall(request)
            text = _read(connection, deadline)
        except TimeoutError as error:
            raise Silent(f"no answer within {seconds:g} s: C code holds the interpreter") from error
        except OSError as error:
            raise NoAnswer(f"the program has just ended ({error.strerror or error})") from error
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise NoAnswer("the program has just ended, or was started by an older version") from error
    if not isinstance(answer, dict) or not isinstance(answer.get("processes"), list):
        raise NoAnswer(f"what answers on {where} is not a debugged program")
    for process in answer["processes"]:
        for stack in (*process["threads"], *process["tasks"]):
            for frame in stack["frames"]:
                frame["file"] = to_local(frame["file"], endpoint.path_mappings)
    return answer


def _read(connection: socket.socket, deadline: float) -> bytes:
    """Read until the other side closes.

    Raises:
        TimeoutError: Nothing has come by then.
        OSError: The connection is gone.
    """
    pieces = list[bytes]()
    size = 0
    while size < MOST_BYTES:
        # An answer that has begun may take as long as the connection needs.
        left = deadline - time.monotonic() if not pieces else CONNECT_SECONDS
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(65536)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def to_local(file: str, mappings: Sequence[PathMapping]) -> str:
    """The local path of a program's file; the path itself if no mapping covers it."""
    best = max(
        (one for one in mappings if file == one.remote_root or file.startswith(one.remote_root.rstrip("/") + "/")),
        key=lambda one: len(one.remote_root),
        default=None,
    )
    if best is None:
        return file
    rest = file[len(best.remote_root.rstrip("/")) :].lstrip("/")
    return str(best.local_root / rest) if rest else str(best.local_root)
