"""Typed places in source files, such as ``score.py:42``, and conditions of breakpoints."""

from __future__ import annotations

import os
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from workflows.errors import BadValue, UserError
from workflows.reading import read_bytes

#: Digits of a number of hits.
_MOST_DIGITS = 9
_FORM = "Write it as FILE:LINE, for example score.py:42."


@dataclass(frozen=True)
class Condition:
    """When a breakpoint stops the program.

    Attributes:
        when: A Python expression that has to be true; empty for always.
        hits: The hit, counted from 1, from which on it stops; 0 for every hit.
    """

    when: str = ""
    hits: int = 0


#: Stops every time.
ALWAYS = Condition()


def read_condition(when: str | None, hits: str | None) -> Condition:
    """Parse the values of ``--when`` and ``--hits``.

    Raises:
        BadValue: One of them cannot be parsed.
    """
    text = (when or "").strip()
    if when is not None:
        check_expression("--when", text)
    if hits is None:
        return Condition(text)
    if not hits.isascii() or not hits.isdigit() or len(hits) > _MOST_DIGITS or not int(hits):
        raise BadValue(f"--hits must be a whole number from 1 on, not {hits!r}.", "Correct it.")
    return Condition(text, int(hits))


def check_expression(flag: str, text: str) -> None:
    """Check that a text is a Python expression.

    Raises:
        BadValue: It is not.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text.strip(), f"<{flag}>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise BadValue(f"{flag} must be a Python expression, not {text!r}: {why}.", "Correct it.") from error


def parse_location(text: str) -> tuple[str, int]:
    """Read ``FILE:LINE``; the file may begin with a Windows drive letter.

    Returns:
        The file as typed, and the line, counted from 1.

    Raises:
        BadValue: It is not of that form.
    """
    # The last colon, since C:\\x\\score.py:3 has two.
    file, colon, number = text.strip().rpartition(":")
    if not colon or not file.strip():
        raise BadValue(f"{text!r} is not a place in a file", _FORM)
    # No file has more lines than nine digits; int() would refuse very long numbers with another error.
    if not (number.isascii() and number.isdigit() and len(number) <= 9) or int(number) < 1:
        raise BadValue(f"{number!r} in {text!r} is not a line number", _FORM)
    return file, int(number)


def resolve_source(file: str, *, cwd: Path, roots: Sequence[Path]) -> Path:
    """Find the file that a user has typed.

    Args:
        file: An absolute path, or one relative to ``cwd`` or to one of ``roots``; the first that exists.
        cwd: The current folder, absolute.
        roots: Folders of the code that is debugged, absolute.

    Returns:
        The absolute path. Symbolic links stay as they are, since path mappings compare the names.

    Raises:
        UserError: There is no such file; the remedy names the paths that were tried.
    """
    # Joining an absolute path returns that path, so all candidates are then the same.
    candidates = [Path(os.path.abspath(folder / file)) for folder in (cwd, *roots)]
    places = list(dict.fromkeys(candidates))
    for place in places:
        if place.is_file():
            return place
    folder = next((place for place in places if place.is_dir()), None)
    problem = f"{folder} is a folder" if folder else f"there is no file {file}"
    looked = ", ".join(str(place) for place in places)
    raise UserError(problem, f"Name a Python source file. Looked at: {looked}.")


def check_line(path: Path, line: int) -> None:
    """Refuse a line on which no breakpoint can stop.

    A file that the local interpreter cannot compile (another version's syntax, not Python) is accepted: the debugged
    program may be able to.

    Args:
        path: The source file.
        line: Counted from 1.

    Raises:
        UserError: The line holds no code; the remedy names the next one that does.
    """
    code = _compiled(path)
    if code is None:
        return
    lines = sorted({number for number in _lines(code) if number >= 1})
    if line in lines:
        return
    if not lines:
        raise UserError(
            f"{path.name} holds no code, so line {line} cannot be stopped at",
            "Choose another file.",
            file=path,
            line=line,
        )
    position = bisect_right(lines, line)
    if position < len(lines):
        remedy = f"The next line that does is {lines[position]}: {path.name}:{lines[position]}"
    else:
        remedy = f"The last line that does is {lines[-1]}: {path.name}:{lines[-1]}"
    raise UserError(f"Line {line} of {path.name} holds no code that runs", remedy, file=path, line=line)


def first_line(path: Path) -> int:
    """The first line of a file that holds code; 1 if it is not known."""
    code = _compiled(path)
    return min((number for number in _lines(code) if number >= 1), default=1) if code is not None else 1


def _compiled(path: Path) -> CodeType | None:
    try:
        source = read_bytes(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source, str(path), "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def _lines(code: CodeType) -> Iterator[int]:
    """The lines that hold instructions, of the code and of all that is defined inside it."""
    # See https://docs.python.org/3/reference/datamodel.html#codeobject.co_lines
    yield from (number for _, _, number in code.co_lines() if number is not None)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines(constant)
