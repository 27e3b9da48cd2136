"""Expressions ``${{ … }}`` and optional parts ``$[[ … ]]``, in commands and in values of inputs and outputs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError
from ..formatting import shorten
from ..paths import shown

if TYPE_CHECKING:
    from .definition import Step

_SEGMENT = re.compile(r"""\s*(?:(?:\.\s*)?([A-Za-z0-9_-]+)|\[\s*(?:'([^']*)'|"([^"]*)")\s*\])\s*""")


@dataclass(frozen=True)
class _Match:
    """A ``${{ … }}`` in a text, whether or not it is valid.

    Attributes:
        start: Where it begins.
        end: The place after its ``}}``.
        text: As written, including the braces.
    """

    start: int
    end: int
    text: str

    @property
    def inner(self) -> str:
        return self.text[3:-2]


def _find_expressions(text: str) -> Iterator[_Match]:
    """Every ``${{`` up to the next ``}}``, in order."""
    end = 0
    while (start := text.find("${{", end)) != -1 and (close := text.find("}}", start + 3)) != -1:
        end = close + 2
        yield _Match(start, end, text[start:end])


def replace_expressions(text: str, stand_in: Callable[[str], str]) -> str:
    """Replace each ``${{ … }}`` of a text by the result of ``stand_in``, which gets it as it is written."""
    done, at = list[str](), 0
    for found in _find_expressions(text):
        done += [text[at : found.start], stand_in(found.text)]
        at = found.end
    return "".join([*done, text[at:]])


class Malformed(ValueError):
    """An expression that cannot be read; its text is the message."""


@dataclass(frozen=True)
class Expression:
    """One ``${{ … }}``.

    Attributes:
        text: As written, including the braces.
        path: ``("inputs", "x")`` for ``${{inputs.x}}`` and ``${{ inputs['x'] }}``.
        optional: Whether it is in a ``$[[ … ]]``.
    """

    text: str
    path: tuple[str, ...]
    optional: bool = False


def fill_in_run(text: str, name: str, started: str) -> str:
    """A literal for one run, with a schedule's expressions replaced: ``${{name}}`` and the time of the start.

    Source: https://learn.microsoft.com/azure/machine-learning/how-to-schedule-pipeline-job, "Expressions supported
    in schedule".

    Args:
        text: The literal.
        name: The run's name, for ``${{name}}``.
        started: When it was started, for ``${{creation_context.trigger_time}}``.
    """
    stands = {("name",): name, ("creation_context", "trigger_time"): started}
    return replace_expressions(text, lambda one: stands.get(tuple(one[3:-2].strip().split(".")), one))


def has_expression(text: str) -> bool:
    """Whether a text has an expression, or the beginning of one."""
    return "${{" in text


def parse_expression(text: str) -> Expression | None:
    """Parse a value that is a single expression; None for a text without one.

    Raises:
        Malformed: The expression is only a part of the text, or cannot be parsed.
    """
    if not has_expression(text):
        return None
    text = text.strip()
    found = next(_find_expressions(text), None)
    if found is None or found.text != text or "${{" in found.inner:
        raise Malformed(f"`{shorten(text)}` mixes an expression with other text, or does not end in `}}}}`")
    return Expression(found.text, _path(found.text))


def expressions(command: str) -> list[Expression]:
    """All expressions of a command, in order.

    Raises:
        Malformed: An expression cannot be parsed, or brackets do not match.
    """
    found: list[Expression] = []
    for part, optional in _parts(command):
        found += [Expression(one.text, _path(one.text), optional) for one in _find_expressions(part)]
    return found


def render_command(step: Step, values: Mapping[str, str]) -> str:
    """A step's command with all values filled in.

    Args:
        step: The step.
        values: Texts by ``inputs.x`` and ``outputs.x``, without those that are not given. They are inserted unchanged:
            not quoted, and expressions in them are not replaced.

    Raises:
        UserError: The command names a missing value outside ``$[[ … ]]``.
    """
    try:
        return substitute(step.command, values.get)
    except Malformed as error:
        raise UserError(
            f"The command of step `{step.name}` cannot be put together: {error}.",
            "Give it a value, or put it into `$[[ … ]]`.",
            file=shown(step.file),
            line=step.line,
        ) from error


def substitute(command: str, value_of: Callable[[str], str | None]) -> str:
    """Replace the expressions of a command, and keep or drop its optional parts.

    Args:
        command: The command.
        value_of: Returns the text for ``inputs.x``, or None.

    Raises:
        Malformed: An expression cannot be parsed, or has no value outside of an optional part.
    """
    done: list[str] = []
    for part, optional in _parts(command):
        names = [".".join(_path(one.text)) for one in _find_expressions(part)]
        missing = [name for name in names if value_of(name) is None]
        if missing and optional:
            continue
        if missing:
            raise Malformed(f"`{missing[0]}` has no value")
        done.append(replace_expressions(part, lambda text: value_of(".".join(_path(text))) or ""))
    return "".join(done)


@functools.lru_cache(maxsize=4096)  # a component's command is read for every step that it is used by
def _path(text: str) -> tuple[str, ...]:
    inner = text[3:-2]
    path: list[str] = []
    at = 0
    while at < len(inner):
        segment = _SEGMENT.match(inner, at)
        # Each name but the first follows a dot.
        if segment is None or (segment.group(1) and bool(path) != segment.group().lstrip().startswith(".")):
            break
        path.append(next(group for group in segment.groups() if group is not None))
        at = segment.end()
    if at < len(inner) or not path:
        raise Malformed(f"`{shorten(text)}` is not an expression such as `${{{{inputs.name}}}}`")
    return tuple(path)


def _parts(command: str) -> Iterator[tuple[str, bool]]:
    """Split a command at its ``$[[ … ]]``; yields each part, and whether it is optional."""
    at = 0
    while True:
        start = command.find("$[[", at)
        if start < 0:
            _check_closed(command[at:])
            yield command[at:], False
            return
        _check_closed(command[at:start])
        yield command[at:start], False
        end = _end_of_optional(command, start + 3)
        _check_closed(command[start + 3 : end])
        yield command[start + 3 : end], True
        at = end + 2


def _end_of_optional(command: str, start: int) -> int:
    at, end = start, -1
    another = command.find("$[[", start)
    while True:
        end = command.find("]]", at) if end < at else end
        if end < 0 or 0 <= another < end:
            raise Malformed(f"`$[[{' '.join(command[start : start + 30].split())}…` has no `]]`")
        # A quoted name may have brackets: ${{inputs['a[[0]]']}}.
        inside = command.find("${{", at, end)
        if inside < 0:
            return end
        close = command.find("}}", inside)
        # The expression is not closed before the optional part ends; that is reported next.
        if close < 0:
            return end
        at = close + 2


def _check_closed(part: str) -> None:
    if part.count("${{") != sum(1 for _ in _find_expressions(part)):
        start = part.rfind("${{")
        raise Malformed(f"`{' '.join(part[start : start + 30].split())}` has no `}}}}`, or holds another `${{{{`")
