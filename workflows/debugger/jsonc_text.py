"""The text of JSON with comments: its tokens, its strict form, and the tree of its values' positions.

:mod:`workflows.debugger.jsonc` edits by these positions.
"""

from __future__ import annotations

import contextlib
import gc
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from workflows.reading import line_at

BOM = b"\xef\xbb\xbf"
# Every text matches, even a truncated one, so that nothing is scanned twice.
TOKEN = re.compile(
    # A string, closed or not. The repetition is limited, since `re` saves a state for each escape.
    rb'"[^"\\\r\n]*(?:\\[^\r\n][^"\\\r\n]*){0,20000}(")?'
    rb"|//[^\r\n]*|/\*.*?(?:\*/|\Z)"
    rb'|[{}\[\]:,]|[^\s"{}\[\]:,/]+|\S',
    re.DOTALL,
)
LINE_END = re.compile(rb"\r\n?|\n")
_TO_BLANKS = bytes(byte if byte in b"\r\n" else 0x20 for byte in range(256))
QUOTE, COMMA = b'",'
#: Limits of nested objects and arrays, and of tokens (strings, numbers, brackets, commas) in one file.
MOST_LEVELS, MOST_TOKENS = 200, 500_000


class JsoncError(ValueError):
    """The text is not JSON with comments.

    Args:
        message: What is wrong.
        line: Where, counted from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(eq=False, slots=True)
class Node:
    """A value's position in the text, and its items."""

    start: int
    end: int
    kind: str
    parent: Node | None = None
    items: list[Item] = field(default_factory=list)

    def index(self, key: str | int) -> int | None:
        """The position of an item: of an object's key, or of an array's index; None if there is none."""
        if isinstance(key, int):
            return key if self.kind == "array" and 0 <= key < len(self.items) else None
        # Of a key that occurs twice the last one counts, for VS Code as for Python.
        return next((i for i in reversed(range(len(self.items))) if self.items[i].key == key), None)


@dataclass(eq=False, slots=True)
class Item:
    """An element of an array, or a member of an object (from its key to the end of its value)."""

    start: int
    node: Node
    key: str | None = None
    comma: int | None = None

    @property
    def end(self) -> int:
        """Where its value ends."""
        return self.node.end


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector, which would otherwise traverse all new values again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def strict_form(data: bytes) -> tuple[bytes, list[tuple[int, int]], int | None]:
    """The text as strict JSON of the same length: comments and trailing commas become blanks.

    Returns:
        That text; the span of each token except comments; the position of the first unterminated string.

    Raises:
        JsoncError: A comment has no end, or the text exceeds the limits.
    """
    strict = bytearray(data)
    if data.startswith(BOM):
        strict[: len(BOM)] = b" " * len(BOM)
    tokens: list[tuple[int, int]] = []
    broken: int | None = None
    previous, pending, depth = 0, None, 0
    for match in TOKEN.finditer(data, len(BOM) if data.startswith(BOM) else 0):
        start, end = match.span()
        first = data[start]
        if first == 0x2F and data.startswith((b"//", b"/*"), start):
            if data[start + 1] == 0x2A and (end - start < 4 or data[end - 2 : end] != b"*/"):
                raise JsoncError("comment without an end", line_at(data, start))
            strict[start:end] = data[start:end].translate(_TO_BLANKS)
            continue
        if first in b"]}":
            depth -= 1
            if pending is not None:
                strict[pending] = 0x20
        elif first in b"[{":
            depth += 1
            if depth > MOST_LEVELS:
                raise JsoncError(f"more than {MOST_LEVELS} brackets inside each other", line_at(data, start))
        elif first == QUOTE and match[1] is None:
            if data[end : end + 1] not in (b"", b"\r", b"\n") and data[end + 1 : end + 2] not in (b"", b"\r", b"\n"):
                raise JsoncError("a string with more than 20000 escapes", line_at(data, start))
            broken = start if broken is None else broken
        pending = start if first == COMMA and previous and previous not in b",:[{" else None
        previous = first
        tokens.append((start, end))
        if len(tokens) > MOST_TOKENS:
            raise JsoncError(f"more than {MOST_TOKENS} values, brackets and commas", line_at(data, start))
    return bytes(strict), tokens, broken


def comment_spans(data: bytes, start: int, end: int, commas: bool = False) -> Iterator[tuple[int, int]]:
    """The spans of comments (and commas) between two positions with only blanks, commas and comments between."""
    return (m.span() for m in TOKEN.finditer(data, start, end) if commas or m.group() != b",")


@collector_paused()
def read_tree(data: bytes, tokens: list[tuple[int, int]]) -> Node | None:
    """The tree of all values' positions in a text that the json module has parsed."""
    root: Node | None = None
    above: list[Node] = []
    key: tuple[int, str] | None = None
    for start, end in tokens:
        first = data[start]
        if first in b"]}":
            above.pop().end = end
            continue
        container = above[-1] if above else None
        if first == COMMA:
            assert container is not None
            container.items[-1].comma = start
            continue
        if first == 0x3A:
            continue
        if container is not None and container.kind == "object" and key is None:
            key = start, _key(data[start:end])
            continue
        kind = {0x7B: "object", 0x5B: "array"}.get(first, "scalar")
        node = Node(start, end, kind, container)
        if container is None:
            root = node
        else:
            container.items.append(Item(start if key is None else key[0], node, key[1] if key else None))
            key = None
        if kind != "scalar":
            above.append(node)
    return root


def _key(text: bytes) -> str:
    return str(json.loads(text, strict=False)) if b"\\" in text else text[1:-1].decode()
