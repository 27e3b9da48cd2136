"""A value of the person's program, as people read it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..console import Console

#: Characters of a value that are shown.
SHOWN_CHARACTERS = 300
#: Lines of a value of several that are shown, and characters of each.
SHOWN_LINES, LINE_CHARACTERS = 16, 200
#: Columns that the lines of a value are moved in at most.
_FARTHEST = 24


def cut(value: str) -> str:
    """A value short enough to read among others."""
    if len(value) <= SHOWN_CHARACTERS:
        return value
    # debugpy leaves out the middle of a long text; the debuggee's side says how long it is then.
    whole, _, length = value.rpartition(" (")
    if whole and length.endswith(" characters)") and length.removesuffix(" characters)").isdigit():
        return f"{whole[:SHOWN_CHARACTERS]}… ({length}"
    return f"{value[:SHOWN_CHARACTERS]}… ({len(value)} characters; --json shows all)"


def show_value(console: Console, name: str, value: str) -> None:
    """Show a name and its value; the lines of one of several stand below each other.

    Args:
        console: Where to.
        name: The variable's name, or an expression.
        value: Its ``repr``, or a description.
    """
    first, *others = value.split("\n")
    if not others:
        console.value(f"  {name} = {cut(value)}")
        return
    # As far in as the first line begins, so that what is aligned in it stays so.
    margin = " " * min(len(name) + 5, _FARTHEST)
    console.value(f"  {name} = {_line(first)}")
    for line in others[: SHOWN_LINES - 1]:
        console.value(f"{margin}{_line(line)}")
    if len(others) >= SHOWN_LINES:
        console.value(f"{margin}… ({len(value)} characters; --json shows all)")


def _line(text: str) -> str:
    return text if len(text) <= LINE_CHARACTERS else f"{text[: LINE_CHARACTERS - 1]}…"
