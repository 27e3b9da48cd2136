"""Describes exceptions and their places, for events and messages."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, Optional, Sequence


def file_of(frame: Any) -> Optional[str]:
    """The file of a frame's code; None if it comes from no file.

    A function that was sent to another process by value, as joblib sends a script's functions to its workers, has its
    file only in its globals. "<string>" would count as a file in the current folder.
    """
    name: str = frame.f_code.co_filename
    if not name.startswith("<"):
        return name
    file = frame.f_globals.get("__file__")
    return file if isinstance(file, str) else None


def with_members(error: BaseException) -> Iterator[BaseException]:
    """An exception and, if it is a group, those of its members that have been raised themselves and so have frames."""
    yield error
    # Checked by name, since before Python 3.11 a package provides it.
    parts = getattr(error, "exceptions", ()) if type(error).__name__.endswith("ExceptionGroup") else ()
    for part in parts if isinstance(parts, tuple) else ():
        if isinstance(part, BaseException):
            yield from (one for one in with_members(part) if one.__traceback__ is not None)


def describe(error: BaseException, folders: Sequence[str], anywhere: bool = False) -> Dict[str, Any]:
    """An exception's ``type``, ``message``, ``file`` and ``line``.

    Args:
        error: The exception.
        folders: The folders of the user's own code; the innermost frame in them is the place.
        anywhere: If no frame is in them, take the innermost frame of all; by default there is no place then.
    """
    from . import imports

    file, line = None, None
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        file, line = error.filename, error.lineno
    else:
        places = [
            (file_of(frame), number)
            for frame, number in imports.standard_module("traceback").walk_tb(error.__traceback__)
        ]
        frames = [(path, number) for path, number in places if path is not None]
        roots = tuple(os.path.join(folder, "") for folder in folders)
        own = [
            place
            for place in frames
            if os.path.abspath(place[0]).startswith(roots) or os.path.realpath(place[0]).startswith(roots)
        ]
        chosen = own or (frames if anywhere else [])
        if chosen:
            file, line = chosen[-1]
    try:
        message = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:
        message = "(it cannot be shown as text)"
    return {"type": type(error).__name__, "message": message, "file": file, "line": line}
