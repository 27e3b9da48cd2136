"""A stop, as people read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..console import Console
from ..errors import BadValue


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Show where the program stopped, its stack, its values, and the response."""
    from ..paths import shown

    stopped = result["stopped"]
    console.line(f"Stopped in {stopped['function']} at {shown(Path(stopped['file']))}:{stopped['line']}")
    folder = Path(stopped["file"]).parent
    others = 0
    for frame in result["stack"]:
        if not Path(frame["file"]).is_relative_to(folder):
            others += 1
            continue
        console.line(f"  {frame['function']:<24} {shown(Path(frame['file']))}:{frame['line']}")
    if others:
        console.line(f"  ({others} frames of other code)")
    if result["locals"]:
        console.line("Locals")
        for name, value in result["locals"].items():
            console.line(f"  {name} = {value}")
    if result["values"]:
        console.line("Values")
        for expression, value in result["values"].items():
            console.line(f"  {expression} = {value}")
    response = result.get("response")
    if response is not None:
        body = response["body"]
        console.line(f"Response {response['status']}: {body if isinstance(body, str) else json.dumps(body)}")


def read_timeout(text: str) -> float:
    """Seconds typed after ``--timeout``.

    Raises:
        BadValue: It is no such number.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 7 or not int(text):
        raise BadValue(f"--timeout must be a whole number of seconds, not {text!r}.", "Correct it.")
    return float(text)
