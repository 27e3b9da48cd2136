"""Handles standard streams that are closed or cannot be written, such as ``>/dev/full`` or a file on a full disk."""

from __future__ import annotations

import os
import sys

from ..console import OutputLost, output_errors
from ..errors import UserError
from ._closed_output import discard_unwritable

__all__ = ["discard_unwritable", "explain_unwritable", "flush", "open_missing"]

_NAMES = ("stdout", "stderr")


def open_missing() -> None:
    """Open those of the three standard streams that were closed when the command was started (``<&-``).

    Otherwise the next file or socket that is opened would get the stream's number, and the stream's data.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def flush() -> None:
    """Flush both output streams, so that an error occurs while it can still be reported.

    Raises:
        OutputLost: A stream cannot be written.
    """
    for name in _NAMES:
        stream = getattr(sys, name)
        if stream is not None and not stream.closed:
            with output_errors(stream):
                stream.flush()


def explain_unwritable(error: OSError) -> UserError | None:
    """The error to show if a standard stream could not be written; None for any other file.

    Args:
        error: The exception that was raised.
    """
    if not isinstance(error, OutputLost):
        return None
    return UserError(
        f"{error.filename} cannot be written: {error.strerror or error}.",
        "Check where it is sent (a file on a full disk, /dev/full), then run this again.",
    )
