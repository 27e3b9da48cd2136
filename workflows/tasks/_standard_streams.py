"""Standard output and standard error that cannot be written, such as ``>/dev/full`` or a file on a full disk."""

from __future__ import annotations

import os
import sys

from ..console import OutputLost, output_errors
from ..errors import UserError
from ._closed_output import discard_unwritable

__all__ = ["discard_unwritable", "explain_unwritable", "flush", "open_missing"]

_NAMES = ("stdout", "stderr")


def open_missing() -> None:
    """Have all three standard streams, also where a command was started with one of them closed (``<&-``).

    Else the next file or socket that is opened takes its number, and gets what is meant for the stream.
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
    """Write what is still kept back, so that an error comes while it can be told.

    Raises:
        OutputLost: It cannot be written.
    """
    for name in _NAMES:
        stream = getattr(sys, name)
        if stream is not None and not stream.closed:
            with output_errors(stream):
                stream.flush()


def explain_unwritable(error: OSError) -> UserError | None:
    """The error in two lines where it is a standard stream that could not be written; None for any other file.

    Args:
        error: What was raised.
    """
    if not isinstance(error, OutputLost):
        return None
    return UserError(
        f"{error.filename} cannot be written: {error.strerror or error}.",
        "Check where it is sent (a file on a full disk, /dev/full), then run this again.",
    )
