"""Numbers, cells and columns as texts, aligned."""

from __future__ import annotations

from . import snapshot_types
from .snapshot_types import is_exactly
from .summary_numbers import number_text

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, List, Sequence

#: Rows and columns of the corner that is shown; elements of an array of one dimension.
ROWS, COLUMNS, ELEMENTS = 5, 6, 8
#: Characters of a text in a cell, and bits of a whole number.
_CHARACTERS, _BITS = 20, 200
#: Libraries whose values say of themselves what they are, by code that is theirs.
_LIBRARIES = ("numpy", "pandas", "datetime", "decimal", "uuid")


class Summary:
    """A value's description.

    Attributes:
        head: Type, shape, kind of elements and what has been computed, in one line.
        corner: Rows of cells; the first cell of a row is its label where there are labels.
        brief: The corner's beginning, for one line.
    """

    def __init__(self, head: str, corner: Sequence[Sequence[str]] = (), brief: str = "") -> None:
        self.head, self.corner, self.brief = head, corner, brief

    def line(self) -> str:
        """All of it in one line."""
        return "{} {}".format(self.head, self.brief) if self.brief else self.head

    def text(self) -> str:
        """All of it, the corner's columns below each other."""
        return "\n".join([self.head, *aligned(self.corner)])


def cell(value: Any) -> str:
    """An element as a short text; no code of the program's runs for it."""
    kind = type(value)
    if kind is str or kind is bytes:
        return repr(value) if len(value) <= _CHARACTERS else "{}…".format(repr(value[:_CHARACTERS]))
    if kind is int and value.bit_length() > _BITS:
        return "<int of {:,} bits>".format(value.bit_length())
    if is_exactly(value, float, complex, int):
        return number_text(value)
    if value is None or kind is bool:
        return str(value)
    if kind is tuple:
        return "({})".format(", ".join(cell(one) for one in value[:COLUMNS]))
    if snapshot_types.module_name(kind).partition(".")[0] in _LIBRARIES:
        return number_text(value) if hasattr(value, "dtype") else str(value)[: 2 * _CHARACTERS]
    return "<{}>".format(snapshot_types.short_name(kind))


def label(value: Any) -> str:
    """A row's or column's label; texts without quotes."""
    text = value if type(value) is str else cell(value)
    text = text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
    # One that holds a line break, or a terminal's control characters.
    return text if text.isprintable() else repr(text)


def aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    """Rows of cells as lines, each column as wide as its widest cell and flush right."""
    widths = [0] * max((len(row) for row in rows), default=0)
    for row in rows:
        for number, text in enumerate(row):
            widths[number] = max(widths[number], len(text))
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths)).rstrip() for row in rows]


def listed(texts: Sequence[str], more: bool) -> str:
    """Texts in brackets, in one line."""
    return "[{}]".format(", ".join([*texts, "…"] if more else texts))
