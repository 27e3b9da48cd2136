"""``${{ … }}`` and ``$[[ … ]]``, as they stand in commands and as values of inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..errors import UserError
from ..paths import shown
from .definition import Step

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_SEGMENT = re.compile(r"""\s*(?:\.?\s*([A-Za-z0-9_-]+)|\[\s*(?:'([^']*)'|"([^"]*)")\s*\])\s*""")


class Malformed(ValueError):
    """An expression that cannot be read; its text is the message."""


@dataclass(frozen=True)
class Expression:
    """One ``${{ … }}``.

    Attributes:
        text: As written, braces included.
        path: ``("inputs", "x")`` for ``${{inputs.x}}`` and ``${{ inputs['x'] }}``.
        optional: Whether it stands in a ``$[[ … ]]``.
    """

    text: str
    path: tuple[str, ...]
    optional: bool = False


def has_expression(text: str) -> bool:
    """Whether there is an expression, or the beginning of one, in a text."""
    return "${{" in text


def whole(text: str) -> Expression | None:
    """The expression that a value consists of; None for a text without one.

    Raises:
        Malformed: An expression that is not the whole text, or cannot be read.
    """
    if not has_expression(text):
        return None
    found = _EXPRESSION.fullmatch(text.strip())
    if found is None or "${{" in found.group(1):
        raise Malformed(f"`{text.strip()}` mixes an expression with other text, or does not end in `}}}}`")
    return Expression(found.group(), _path(found))


def expressions(command: str) -> list[Expression]:
    """All expressions of a command, in order.

    Raises:
        Malformed: One that cannot be read, or brackets that do not match.
    """
    found: list[Expression] = []
    for part, optional in _parts(command):
        found += [Expression(match.group(), _path(match), optional) for match in _EXPRESSION.finditer(part)]
    return found


def render_command(step: Step, values: Mapping[str, str]) -> str:
    """A step's command with everything put in.

    Args:
        step: The step.
        values: Texts by ``inputs.x`` and ``outputs.x``; what is not given is not there. They go in as they are,
            neither quoted nor read again.

    Raises:
        UserError: The command names a value outside ``$[[ … ]]`` that is not there.
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
    """A command with its expressions replaced and its optional parts kept or dropped.

    Args:
        command: The command.
        value_of: The text for ``inputs.x``; None where there is none.

    Raises:
        Malformed: Something cannot be read, or has no value outside of an optional part.
    """
    done: list[str] = []
    for part, optional in _parts(command):
        names = [".".join(_path(match)) for match in _EXPRESSION.finditer(part)]
        missing = [name for name in names if value_of(name) is None]
        if missing and optional:
            continue
        if missing:
            raise Malformed(f"`{missing[0]}` has no value")
        done.append(_EXPRESSION.sub(lambda match: value_of(".".join(_path(match))) or "", part))
    return "".join(done)


def _path(match: re.Match[str]) -> tuple[str, ...]:
    inner = match.group(1)
    path: list[str] = []
    at = 0
    while at < len(inner):
        segment = _SEGMENT.match(inner, at)
        # A name follows a point, except for the first.
        if segment is None or (segment.group(1) and bool(path) != segment.group().lstrip().startswith(".")):
            break
        path.append(next(group for group in segment.groups() if group is not None))
        at = segment.end()
    if at < len(inner) or not path:
        raise Malformed(f"`{match.group()}` is not an expression such as `${{{{inputs.name}}}}`")
    return tuple(path)


def _parts(command: str) -> Iterator[tuple[str, bool]]:
    """The command cut at its ``$[[ … ]]``: text, and whether it is optional."""
    at = 0
    while True:
        start = command.find("$[[", at)
        if start < 0:
            _balanced(command[at:])
            yield command[at:], False
            return
        _balanced(command[at:start])
        yield command[at:start], False
        end = _end_of_optional(command, start + 3)
        _balanced(command[start + 3 : end])
        yield command[start + 3 : end], True
        at = end + 2


def _end_of_optional(command: str, start: int) -> int:
    at = start
    while True:
        end = command.find("]]", at)
        if end < 0 or 0 <= command.find("$[[", start) < end:
            raise Malformed(f"`$[[{' '.join(command[start : start + 30].split())}…` has no `]]`")
        inside = command.rfind("${{", at, end)
        close = command.find("}}", inside) if inside >= 0 else -1
        if inside < 0 or (0 <= close < end):
            return end
        at = end + 1


def _balanced(part: str) -> None:
    rest = _EXPRESSION.sub("", part)
    opened = part.count("${{") != len(_EXPRESSION.findall(part)) or "${{" in rest
    if opened:
        start = part.rfind("${{")
        raise Malformed(f"`{' '.join(part[start : start + 30].split())}` has no `}}}}`, or holds another `${{{{`")
