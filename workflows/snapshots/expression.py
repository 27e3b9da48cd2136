"""Evaluating expressions on a snapshot: names, attributes, items and slices. No code is run."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from ..errors import BadValue
from . import arrays
from .arrays import Missing, format_items
from .model import SEQUENCES, Frame, Snapshot, Value

#: Limits: characters of an expression, and items of a slice.
MOST_LETTERS, MOST_ITEMS = 500, 1000
#: Kinds whose items are found by index; a set has no order.
_BY_NUMBER = SEQUENCES | {"str", "bytes"}


class Refused(BadValue):
    """An expression that a snapshot cannot answer, because code would have to run."""


class Evaluator:
    """Evaluates expressions in one frame.

    Args:
        snapshot: The snapshot.
        frame: The frame in which names are looked up first.
        stack: The frames of the same stack: the variables of its module's frame are the globals.
    """

    def __init__(self, snapshot: Snapshot, frame: Frame, stack: Sequence[int] = ()) -> None:
        self._snapshot, self._frame = snapshot, frame
        self._globals = next(
            (
                one
                for one in (snapshot.frames[place] for place in stack)
                if one.function == "<module>" and one.file == frame.file and one is not frame
            ),
            None,
        )

    def value(self, expression: str) -> Value:
        """The value of an expression.

        Raises:
            Refused: It has more than names, attributes, items and slices.
            Missing: It names something that was not recorded.
        """
        return self._of(parse(expression))

    def text(self, expression: str) -> str:
        """The text of the value, or a sentence that says what was not recorded. Raises Refused as :meth:`value`."""
        try:
            return self.value(expression).text
        except Missing as error:
            return str(error)

    def _of(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(self._of(node.value), node.attr)
        assert isinstance(node, ast.Subscript)
        of = self._of(node.value)
        if isinstance(node.slice, ast.Slice):
            return self._sliced(of, self._slice(node.slice))
        return self._item(of, self._key(node.slice))

    def _named(self, name: str) -> Value:
        for frame in (self._frame, self._globals):
            # An exec can make two variables of one name; the last counts.
            for known, place in reversed(frame.locals if frame is not None else ()):
                if known == name:
                    found = self._snapshot.value(place)
                    if found is None:
                        raise Missing(f"not recorded: {name} was left out of the snapshot")
                    return found
        raise Missing(f"not recorded: there is no {name} in this frame")

    def _attribute(self, of: Value, name: str) -> Value:
        for known, place in of.attributes:
            if known == name:
                found = self._snapshot.value(place)
                if found is None:
                    raise Missing(f"not recorded: {name} was left out of the snapshot")
                return found
        if name in of.facts:
            return fact_value(of.facts[name])
        raise Missing(f"not recorded: the attribute {name} of {_full(of)}")

    def _item(self, of: Value, key: Any) -> Value:
        if of.kind == "table" and (column := _column(of, key)) is not None:
            return self._of_column(of, column)
        if of.keyed:
            return self._under(of, key)
        if of.kind == "array":
            return arrays.array_item(self._snapshot, of, key)
        if of.kind == "dict" and not of.length:
            raise Missing(f"KeyError: {key!r}")
        if of.kind not in _BY_NUMBER:
            raise Missing(f"not recorded: the items of {_full(of)}")
        if type(key) not in (int, bool):
            raise Missing(f"TypeError: {_short(of)} indices must be integers, not {type(key).__name__}")
        length, have = _lengths(of)
        number = int(key) + length if key < 0 else int(key)
        if not 0 <= number < length:
            raise Missing(f"IndexError: {_short(of)} index out of range")
        if number >= have:
            raise Missing(f"not recorded: item {number:,} of {length:,}; the first {have:,} were kept")
        if of.kind in ("str", "bytes"):
            return _part(of, _content(of)[number : number + 1])
        return self._present(of.items[number][1])

    def _under(self, of: Value, key: Any) -> Value:
        """The item with a key."""
        for place, item in of.items:
            known = self._snapshot.value(place)
            if known is not None and _is_key(known, key):
                return self._present(item)
        if of.more or any(place is None for place, _item in of.items):
            raise Missing(f"not recorded: {key!r} is not among the {len(of.items):,} keys that were kept")
        raise Missing(f"KeyError: {key!r}")

    def _of_column(self, of: Value, column: int) -> Value:
        """A table's column, as far as it was recorded."""
        rows = [self._present(row) for _label, row in of.items]
        cells = [(None, row.items[column][1]) for row in rows if column < len(row.items)]
        more = max(0, _lengths(of)[0] - len(cells))
        return Value("", "list", self._listed("list", cells, more), length=len(cells) + more, items=cells, more=more)

    def _present(self, place: int | None) -> Value:
        found = self._snapshot.value(place)
        if found is None:
            raise Missing("not recorded: this item was left out of the snapshot")
        return found

    def _sliced(self, of: Value, wanted: slice) -> Value:
        if of.kind == "array" and len(of.facts.get("shape") or ()) != 1:
            return arrays.array_slice(self._snapshot, of, wanted)
        if of.kind not in _BY_NUMBER and of.kind != "table":
            raise Missing(f"TypeError: {_full(of)} has no slices")
        length, have = _lengths(of)
        try:
            numbers = range(length)[wanted]
        except (ValueError, OverflowError) as error:
            raise Missing(f"ValueError: {error}") from error
        kept = [number for number in numbers[:MOST_ITEMS] if number < have]
        if numbers and not kept:
            raise Missing(f"not recorded: items from {numbers[0]:,} of {length:,}; the first {have:,} were kept")
        if of.kind in ("str", "bytes"):
            content = _content(of)
            joined = content[:0].join(content[number : number + 1] for number in kept)
            return _part(of, joined, len(numbers))
        items = [of.items[number] for number in kept]
        more = len(numbers) - len(items)
        kind = of.kind if of.kind in ("tuple", "table") else "list"
        return Value(
            of.type, kind, self._listed(kind, items, more), length=len(numbers), items=items, more=more, facts=of.facts
        )

    def _listed(self, kind: str, items: Sequence[tuple[int | None, int | None]], more: int) -> str:
        """The text of some items."""
        return format_items(self._snapshot, [place for _key, place in items], more, "()" if kind == "tuple" else "[]")

    # The content of brackets

    def _key(self, node: ast.expr) -> Any:
        """A key or index: a literal, or the value of an expression."""
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, MemoryError, RecursionError):
            found = self._of(node)
            if not found.has_plain:
                raise Missing(f"not recorded: a key of the type {_full(found)}") from None
            if found.kind == "str" and found.length not in (None, len(str(found.plain))):
                raise Missing("not recorded: the whole of a text that is a key") from None
            return found.plain

    def _slice(self, node: ast.Slice) -> slice:
        parts = [None if one is None else self._key(one) for one in (node.lower, node.upper, node.step)]
        if any(one is not None and type(one) not in (int, bool) for one in parts):
            raise Missing("TypeError: slice indices must be integers or None")
        return slice(*parts)


def parse(expression: str) -> ast.expr:
    """Parse an expression that a snapshot can answer.

    Raises:
        Refused: It has more than names, attributes, items and slices, or is not an expression.
    """
    text = expression.strip()
    if not text or len(text) > MOST_LETTERS:
        raise Refused(f"{_cut(expression)!r} is not an expression.", _REMEDY)
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"{_cut(text)} is not an expression: {getattr(error, 'msg', None) or error}.", _REMEDY) from error
    # Without recursion: the text may have a thousand nested brackets.
    left: list[ast.expr] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.Attribute):
            left.append(node.value)
        elif isinstance(node, ast.Subscript):
            left.append(node.value)
            inside = node.slice
            parts = [inside.lower, inside.upper, inside.step] if isinstance(inside, ast.Slice) else [inside]
            left += [one for one in parts if one is not None and not _is_literal(one)]
        elif not isinstance(node, ast.Name):
            raise Refused(f"{_cut(text)} cannot be answered by a snapshot, in which nothing can be run.", _REMEDY)
    return tree


_REMEDY = (
    "Names, attributes, items and slices of what was recorded can be asked for, such as batch[0].shape or rows[:5]."
)


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _is_literal(node: ast.expr) -> bool:
    """Whether a node is a literal key or index: a constant, one with a sign, or a tuple of these."""
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub | ast.UAdd) and isinstance(node.operand, ast.Constant)
    if isinstance(node, ast.Tuple):
        return all(_is_literal(one) for one in node.elts)
    return isinstance(node, ast.Constant) and node.value is not Ellipsis


def _is_key(known: Value, key: Any) -> bool:
    if not known.has_plain:
        return known.text == repr(key)
    if isinstance(known.plain, str) and known.length is not None and known.length > len(known.plain):
        return False  # it was cut, so the rest is not known
    # A text never equals a number; in Python 1 == 1.0 == True.
    return isinstance(known.plain, str) == isinstance(key, str) and bool(known.plain == key)


def _lengths(of: Value) -> tuple[int, int]:
    """How many items a value had, and how many of the first were recorded."""
    have = len(_content(of)) if of.kind in ("str", "bytes") else len(of.items)
    return max(have, of.length if of.length is not None else have + of.more), have


def _column(of: Value, key: Any) -> int | None:
    """The index of a table's column; None if it has no such column."""
    columns, shape = of.facts.get("columns"), of.facts.get("shape")
    if not isinstance(columns, list) or not isinstance(shape, list) or len(shape) != 2:
        return None
    names = [one[0] if isinstance(one, list) and one else None for one in columns]
    wanted = key if isinstance(key, str) else repr(key)
    return names.index(wanted) if wanted in names else None


def _content(of: Value) -> Any:
    """The recorded part of a text, or of bytes."""
    if isinstance(of.plain, str) and of.kind == "str":
        return of.plain
    if of.kind == "bytes" and of.text[:2] in ("b'", 'b"') and len(of.text) <= 1 << 20:
        try:
            found = ast.literal_eval(of.text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return b""
        return found if isinstance(found, bytes) else b""
    return b"" if of.kind == "bytes" else ""


def _part(of: Value, content: Any, wanted: int | None = None) -> Value:
    """A part of a text, or of bytes; an item of bytes is a number."""
    if of.kind == "bytes" and wanted is None:
        return Value("builtins.int", "scalar", str(content[0]), content[0], True)
    more = (wanted or 0) - len(content)
    text = repr(content) + (f" ... {more:,} more" if more > 0 else "")
    length, is_text = max(len(content), wanted or 0), of.kind == "str"
    return Value(of.type, of.kind, text, content if is_text else None, is_text, length)


def fact_value(known: Any) -> Value:
    """A fact about an array, such as its shape, as a value."""
    if isinstance(known, list):
        inner = ", ".join(one if isinstance(one, str) else repr(one) for one in known[:MOST_ITEMS])
        return Value("", "opaque", f"({inner}{',' if len(known) == 1 else ''})")
    if isinstance(known, str):
        return Value("", "opaque", known)
    return Value("", "scalar", repr(known), known, not isinstance(known, dict))


def _full(of: Value) -> str:
    return of.type.removeprefix("builtins.") or of.kind


def _short(of: Value) -> str:
    return of.type.rpartition(".")[2] or of.kind
