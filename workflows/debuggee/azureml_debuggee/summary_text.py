"""Formats cells, labels and aligned columns as text."""

from __future__ import annotations

from . import snapshot_types
from .snapshot_types import is_exactly
from .summary_numbers import number_text

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, List, Sequence

#: Rows and columns of the corner that is shown, and elements of an array with one dimension.
ROWS, COLUMNS, ELEMENTS = 5, 6, 8
#: Characters of a text and bits of an integer in a cell at most.
_CHARACTERS, _BITS = 20, 200
#: Libraries whose values are formatted by their own code.
_LIBRARIES = ("numpy", "pandas", "datetime", "decimal", "uuid")


class Summary:
    """A value's description.

    Attributes:
        head: Type, shape, element type and computed numbers, in one line.
        corner: Rows of cells; the first cell of a row is its label if there are labels.
        brief: The beginning of the corner, for the version in one line.
    """

    def __init__(self, head: str, corner: Sequence[Sequence[str]] = (), brief: str = "") -> None:
        self.head, self.corner, self.brief = head, corner, brief

    def line(self) -> str:
        """The summary in one line."""
        return "{} {}".format(self.head, self.brief) if self.brief else self.head

    def text(self) -> str:
        """The summary with the corner as aligned columns."""
        return "\n".join([self.head, *align(self.corner)])


def cell(value: Any) -> str:
    """An element as a short text; none of the program's code runs for it."""
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
    """A row's or column's label as text; texts have no quotes."""
    text = value if type(value) is str else cell(value)
    text = text if len(text) <= _CHARACTERS else text[: _CHARACTERS - 1] + "…"
    # Quoted if it contains a line break or a terminal's control characters.
    return text if text.isprintable() else repr(text)


def align(rows: Sequence[Sequence[str]]) -> List[str]:
    """Format rows of cells as lines; each column is as wide as its widest cell and aligned to the right."""
    widths = [0] * max((len(row) for row in rows), default=0)
    for row in rows:
        for number, text in enumerate(row):
            widths[number] = max(widths[number], len(text))
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths)).rstrip() for row in rows]


def in_brackets(texts: Sequence[str], more: bool) -> str:
    """Texts in brackets, in one line."""
    return "[{}]".format(", ".join([*texts, "…"] if more else texts))
