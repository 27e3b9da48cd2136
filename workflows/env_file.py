"""Files of `NAME=value` lines: `.env`, and files with a service's environment variables."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UserError
from .paths import shown
from .reading import line_at, read_text

#: Real files are a thousand times smaller. python-dotenv takes a hundred times the file's size of memory.
_MOST_BYTES = 256 * 1024
_MOST_BLANKS = 1000
_BLANKS = re.compile(rf"[^\S\r\n]{{{_MOST_BLANKS + 1}}}")

#: A line whose value begins with a quote that is not closed on it.
_OPEN_QUOTE = re.compile(
    r"""\s*(?:export[^\S\r\n]+)?[^=#\s'"]+[^\S\r\n]*=[^\S\r\n]*(["'])(?!(?:\\.|(?!\1)[^\\\r\n])*\1)"""
)


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        name: The variable.
        value: Its value, which is not in the ``repr``; None for a name alone.
        line: Counted from 1.
    """

    name: str
    value: str | None = field(repr=False)
    line: int


def read(path: Path, what: str, *, bare: bool = False) -> list[Entry]:
    """Read the file's lines; values of variables with a secret's name are registered as secrets.

    Args:
        path: The file.
        what: What is in it, for messages: ``settings`` or ``variables``.
        bare: Whether a line may be a name alone.

    Raises:
        UserError: It cannot be read, or a line is not of this shape; with the line.
    """
    from io import StringIO

    from dotenv.parser import parse_stream

    from .redaction import keep_variables

    try:
        text = read_text(path, "utf-8-sig", most=_MOST_BYTES)
    except UnicodeDecodeError as error:
        line = line_at(error.object, error.start)
        raise UserError(f"{path.name} is not UTF-8.", "Save it as UTF-8.", file=shown(path), line=line) from error
    except OSError as error:
        problem = f"{path.name} cannot be read: {error.strerror or error}."
        raise UserError(problem, _remedy(path, what, error), file=shown(path)) from error
    if (blanks := _BLANKS.search(text)) is not None:
        # python-dotenv's time grows with the square of their number.
        problem = f"This line has more than {_MOST_BLANKS} blanks in a row."
        raise UserError(problem, "Take them out.", file=shown(path), line=line_at(text, blanks.start()))
    found: list[Entry] = []
    for binding in parse_stream(StringIO(text)):
        # A binding includes the blank lines before it.
        lead = len(binding.original.string) - len(binding.original.string.lstrip())
        line = binding.original.line + line_at(binding.original.string, lead) - 1
        if binding.error or (binding.key is not None and binding.value is None and not bare):
            # Not the line itself: it may be a secret.
            problem, remedy = "This line is not NAME=value.", "Write NAME=value, or # in front of a comment."
            if binding.error and (begun := _OPEN_QUOTE.match(binding.original.string)) is not None:
                problem, remedy = "The quote is not closed.", f"Write {begun[1]} at the end of the value, too."
            raise UserError(problem, remedy, file=shown(path), line=line)
        if binding.key is not None:
            keep_variables({binding.key: binding.value or ""})
            found.append(Entry(binding.key, binding.value, line))
    return found


def _remedy(path: Path, what: str, error: OSError) -> str:
    """What to do about a file that cannot be read."""
    if error.errno == errno.ENOENT:
        return "Correct the path, or make the file."
    if error.errno == errno.EFBIG:
        return f"Leave only {what} in it, and move all else to another file."
    if path.is_file():
        return "Give yourself permission to read it."
    return f"Rename it, or remove it, and write the {what} to a plain file of that name."
