"""Shows values of the user's program in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..console import Console

#: The most characters of a value that are shown.
SHOWN_CHARACTERS = 300
#: The most lines of a multi-line value that are shown, and the most characters of each.
SHOWN_LINES, LINE_CHARACTERS = 16, 200
#: The most columns by which the lines of a value are indented.
_FARTHEST = 24


def shorten(value: str) -> str:
    """A value short enough to read among others."""
    if len(value) <= SHOWN_CHARACTERS:
        return value
    # debugpy omits the middle of a long text, and the debuggee appends the text's length.
    whole, _, length = value.rpartition(" (")
    if whole and length.endswith(" characters)") and length.removesuffix(" characters)").isdigit():
        return f"{whole[:SHOWN_CHARACTERS]}… ({length}"
    return f"{value[:SHOWN_CHARACTERS]}… ({len(value)} characters; --json shows all)"


def show_value(console: Console, name: str, value: str) -> None:
    """Show a name and its value. The lines of a multi-line value are aligned.

    Args:
        console: Where to show it.
        name: The variable's name, or an expression.
        value: Its ``repr``, or a description.
    """
    first, *others = value.split("\n")
    if not others:
        console.value(f"  {name} = {shorten(value)}")
        return
    # All lines get the indentation of the first one, so that columns stay aligned.
    margin = " " * min(len(name) + 5, _FARTHEST)
    console.value(f"  {name} = {_line(first)}")
    for line in others[: SHOWN_LINES - 1]:
        console.value(f"{margin}{_line(line)}")
    if len(others) >= SHOWN_LINES:
        console.value(f"{margin}… ({len(value)} characters; --json shows all)")


def _line(text: str) -> str:
    return text if len(text) <= LINE_CHARACTERS else f"{text[: LINE_CHARACTERS - 1]}…"
