"""Writes logs to standard output."""

from __future__ import annotations

from collections.abc import Iterable

from invoke import Exit

from ..console import Console, output_errors
from ._closed_output import INTERRUPTED


def write(console: Console, data: bytes) -> None:
    """Write a piece of a log. On a terminal, colours are kept and other escape sequences are removed.

    An incomplete escape sequence at the end of the log is not shown.
    """
    stream = console.stream
    if console.terminal:
        data = console.programs.take(data)
    buffer = getattr(stream, "buffer", None)
    with output_errors(stream):
        if buffer is None:
            stream.write(data.decode("utf-8", "replace"))
            stream.flush()
            return
        stream.flush()
        buffer.write(data)
        buffer.flush()


def stream(console: Console, pieces: Iterable[bytes]) -> None:
    """Write a log piece by piece until it ends or the user presses Ctrl-C.

    Raises:
        Exit: The user has pressed Ctrl-C. The program that writes the log goes on.
    """
    try:
        for piece in pieces:
            write(console, piece)
    except KeyboardInterrupt:
        console.line()
        raise Exit(code=INTERRUPTED) from None
