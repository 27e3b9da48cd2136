"""Pages of variables for an agent: bounded, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..debugger.frames import Frame, Variable
from ..debugger.sessions import DebugSession, Stop
from .secret_filter import LEFT_OUT, SecretFilter

#: Limits: variables of one page, levels that are opened, characters of one value.
MOST_COUNT, MOST_DEPTH, MOST_CHARACTERS = 200, 3, 20_000
#: Characters of the complete answer: a longer one would only fill the agent's context.
_MOST_ANSWER = 60_000


def read_variable_page(
    secrets: SecretFilter,
    debug: DebugSession,
    stop: Stop,
    frame: Frame,
    path: Sequence[str],
    start: int,
    count: int,
    depth: int,
    characters: int,
) -> dict[str, Any]:
    """Read a page of variables; an answer that is too long is opened less deep, then cut.

    Args:
        secrets: Masks the values that an agent must not see.
        debug: The session.
        stop: The stop.
        frame: The frame.
        path: Names that lead into containers.
        start: How many to skip.
        count: How many at most, here and in each container.
        depth: How many levels of containers are opened.
        characters: How many characters of each value.

    Raises:
        UserError: There is no such name.
    """
    secret = next((name for name in path if secrets.is_secret(name)), None)
    if secret is not None:
        return {"variables": [], "left_out": f"{secret}: {LEFT_OUT}"}
    while True:
        # The complete text is needed to mask secrets in it, which could otherwise be cut off.
        found = debug.variables(
            stop, frame, path=path, start=start, count=count + 1, depth=depth, characters=MOST_CHARACTERS
        )
        shown = [_shown(secrets, one, count, characters) for one in found[:count]]
        told: dict[str, Any] = {"variables": shown, "start": start, "more": len(found) > count}
        size = len(json.dumps(told, ensure_ascii=False))
        if size <= _MOST_ANSWER:
            return told
        if depth > 0:
            depth -= 1
        elif characters > 200:
            characters = 200
        elif count > 1:
            count //= 2
        else:
            return told


def _shown(secrets: SecretFilter, one: Variable, count: int, characters: int) -> dict[str, Any]:
    value = secrets.mask_value(one.name, one.value)
    if value == LEFT_OUT:
        return {"name": one.name, "type": one.type, "value": LEFT_OUT}
    found: dict[str, Any] = {"name": secrets.mask_text(one.name), "type": one.type, "value": value[:characters]}
    if max(one.length, len(value)) > characters:
        found["length"] = one.length
    if one.children:
        found["children"] = [_shown(secrets, child, count, characters) for child in one.children[:count]]
        found["total"] = one.total
    elif one.is_container:
        found["opens"] = True
    return found
