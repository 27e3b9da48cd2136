"""Errors in two lines: what is wrong, and what to do about it.

Everything a user can cause is a :class:`UserError`; the task wrapper prints it without
a traceback. Any other exception is a bug of this program and keeps its full traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: Characters of one line of a message.
_LONGEST = 4000


class UserError(Exception):
    """Something that a user can cause and fix. Secrets are masked in both lines.

    Args:
        problem: One line that says what is wrong.
        remedy: One line that says what to do about it.
        file: The file the problem lies in, if it lies in one.
        line: The line in ``file``, counted from 1.
        column: Where in that line, counted from 1, where it is worth saying.
        details: Lines shown above the two, such as the end of a build's log.
        exit_code: What the command exits with.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        column: int | None = None,
        details: Sequence[str] = (),
    ) -> None:
        from .redaction import scrub

        # Before anything is cut: the lines go to the screen, to logs and into records.
        problem, remedy = scrub(problem), scrub(remedy)
        super().__init__(problem, remedy)
        self.problem = _sentence(_one_line(problem))
        self.remedy = _one_line(remedy)
        self.file = file
        self.line = line
        self.column = column
        self.details = tuple(details)

    def __str__(self) -> str:
        """The two lines, with the place in front in the form editors recognise."""
        where = ""
        if self.file is not None:
            from .path_text import shown

            place = shown(Path(self.file))
            numbers = [str(number) for number in (self.line, self.column) if number]
            where = f"{':'.join([str(place), *numbers])}: "
        return f"{where}error: {self.problem}\n{self.remedy}"


def _sentence(text: str) -> str:
    """A message with a full stop; one that ends with another program's message may lack it."""
    return text if text.endswith((".", "!", "?", "…", ":")) or not text else f"{text}."


def _one_line(text: str) -> str:
    """A text on one line; a very long one is reduced to its beginning and its end."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 500]} … {line[-500:]}"


class PortHeld(UserError):
    """A port of 127.0.0.1 that another program listens on.

    Args:
        port: The port.
        problem: As for :class:`UserError`.
        remedy: As for :class:`UserError`.
    """

    def __init__(self, port: int, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.port = port


class NameTaken(UserError):
    """Another container has taken the name since it was last checked."""


class Interrupted(UserError):
    """Ctrl-C, or a signal that ends a command like Ctrl-C, came before the command was done."""

    exit_code = 130


class BadValue(UserError):
    """A value on the command line that cannot be parsed."""

    exit_code = 2
