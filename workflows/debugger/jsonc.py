"""JSON with comments, changed by splicing: every byte that is not meant stays as it is.

``parse`` turns bytes into a :class:`Document`; its edits return a new one. Files are changed by
``jsonc_file``.
"""

from __future__ import annotations

import bisect
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tree_sitter

Keys = tuple[str | int, ...]
"""The way from the root to a value: keys of objects and indexes of arrays."""

_BOM = b"\xef\xbb\xbf"
_STRING = rb'"[^"\\\r\n]*(?:\\[^\r\n][^"\\\r\n]*)*"'
_TOKEN = re.compile(_STRING + rb"|//[^\r\n]*|/\*.*?\*/|\S", re.DOTALL)
_LEAF = re.compile(_STRING + rb"|-?\d[-+.\deE]*")
_Edit = tuple[int, int, bytes]


class JsoncError(ValueError):
    """The text is not JSON with comments.

    Args:
        message: What is wrong.
        line: Where, counted from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class _Item:
    """An element of an array, or a member of an object from its key to its value's end."""

    start: int
    node: _Node
    key: str | None = None
    comma: int | None = None

    @property
    def end(self) -> int:
        return self.node.end


@dataclass(frozen=True)
class _Node:
    """A value's place in the text, with what it contains."""

    start: int
    end: int
    kind: str
    items: tuple[_Item, ...] = ()

    def index(self, key: str | int) -> int | None:
        if isinstance(key, int):
            return key if self.kind == "array" and 0 <= key < len(self.items) else None
        # Of a key that occurs twice the last one counts, for VS Code as for Python.
        return next((i for i in reversed(range(len(self.items))) if self.items[i].key == key), None)


@dataclass(frozen=True)
class Document:
    """Text with the values in it. Edits leave it alone and return a new one.

    Attributes:
        data: The text as it is in the file.
        value: The root as plain Python; None for a text of only blanks and comments.
    """

    data: bytes
    value: Any
    _strict: bytes
    _root: _Node | None

    @property
    def is_empty(self) -> bool:
        """True when there is nothing but blanks and comments."""
        return self._root is None

    def line(self, keys: Keys = ()) -> int:
        """The line, counted from 1, on which the value at ``keys`` begins.

        Raises:
            KeyError: There is no such value.
        """
        return self.data.count(b"\n", 0, self._at(keys).start) + 1

    def has_comments(self, keys: Keys) -> bool:
        """Whether there is a comment inside the value at ``keys``.

        Raises:
            KeyError: There is no such value.
        """
        node = self._at(keys)
        tokens = _TOKEN.finditer(self.data, node.start, node.end)
        return any(token.group().startswith((b"//", b"/*")) for token in tokens)

    def set(self, keys: Keys, value: Any) -> Document:
        """Replace a value, or insert a key that is missing behind the others of its object.

        ``()`` means the root, which can only be set in an empty document. A value that is there already
        is left as it is written.

        Raises:
            KeyError: What should hold the value is not there.
        """
        if not keys:
            return self._set_root(value)
        container, key = self._at(keys[:-1]), keys[-1]
        index = container.index(key)
        if index is None:
            if container.kind != "object" or not isinstance(key, str):
                raise KeyError(keys)
            return self._insert(container, len(container.items), value=value, key=key)
        item = container.items[index]
        if same(self._strict_value(item.node), value):
            return self
        text = self._render(value, None if self._is_inline(container) else self._indent(item.start))
        return self._splice([(item.node.start, item.node.end, text)])

    def set_scalars(self, values: Mapping[Keys, str | int]) -> Document:
        """Replace texts and numbers that are there by others, all at once: each edit alone reads the file anew.

        Raises:
            KeyError: One of them is not there.
        """
        edits = []
        for keys, value in values.items():
            node = self._at(keys)
            if not same(self._strict_value(node), value):
                edits.append((node.start, node.end, _dump(value)))
        return self._splice(sorted(edits)) if edits else self

    def insert(self, keys: Keys, index: int, value: Any) -> Document:
        """Insert an element into the array at ``keys``, in front of the one at ``index``.

        Raises:
            KeyError: There is no such array.
        """
        return self._insert(self._array(keys), index, value=value)

    def append(self, keys: Keys, value: Any) -> Document:
        """Add an element to the end of the array at ``keys``.

        Raises:
            KeyError: There is no such array.
        """
        array = self._array(keys)
        return self._insert(array, len(array.items), value=value)

    def move(self, keys: Keys, source: int, target: int) -> Document:
        """Move an element of the array at ``keys`` as it is written from index to index.

        Raises:
            KeyError: There is no such array or element.
        """
        if source == target:
            return self
        node = self._at((*keys, source))
        without = self.delete((*keys, source))
        return without._insert(without._array(keys), target, text=self.data[node.start : node.end])

    def delete(self, keys: Keys) -> Document:
        """Take away a key with its value, or an element; comments stay.

        Raises:
            KeyError: There is nothing to take away.
        """
        container = self._at(keys[:-1]) if keys else None
        index = container.index(keys[-1]) if container else None
        if container is None or index is None:
            raise KeyError(keys)
        item, edits, end = container.items[index], [], container.items[index].end
        if item.comma is None:
            comma = container.items[index - 1].comma if index else None
        elif self.data[item.end : item.comma].strip():
            comma = item.comma
        else:
            comma, end = None, item.comma + 1
        if comma is not None:
            edits.append((comma, comma + 1, b""))
        left, right = self._indent_end(item.start), end + _blanks(self.data[end:])
        newline = re.compile(rb"\r?\n").match(self.data, right)
        if left == item.start and newline:
            edits.append((self._line_start(left), newline.end(), b""))
        elif item.comma is None and left != item.start:
            before = len(self.data[: item.start].rstrip(b" \t"))
            edits.append((before, end, b""))
        else:
            edits.append((item.start, right, b""))
        return self._splice(edits)

    def _at(self, keys: Keys) -> _Node:
        node = self._root
        for key in keys:
            index = node.index(key) if node else None
            if node is None or index is None:
                raise KeyError(keys)
            node = node.items[index].node
        if node is None:
            raise KeyError(keys)
        return node

    def _array(self, keys: Keys) -> _Node:
        node = self._at(keys)
        if node.kind != "array":
            raise KeyError(keys)
        return node

    def _strict_value(self, node: _Node) -> Any:
        return json.loads(self._strict[node.start : node.end], strict=False)

    def _set_root(self, value: Any) -> Document:
        if self._root is not None:
            raise KeyError(())
        text = self._render(value, b"") + self._newline
        if not self.data.removeprefix(_BOM).strip():
            return parse((_BOM if self.data.startswith(_BOM) else b"") + text)
        return parse(self.data + (b"" if self.data.endswith(b"\n") else self._newline) + text)

    def _insert(
        self,
        container: _Node,
        index: int,
        *,
        value: Any = None,
        key: str | None = None,
        text: bytes | None = None,
    ) -> Document:
        def written(base: bytes | None) -> bytes:
            if text is not None:
                return text
            label = b"" if key is None else _dump(key) + b": "
            return label + self._render(value, base)

        if index < len(container.items):
            return self._splice([self._in_front(container, index, written)])
        if container.items:
            return self._splice(self._behind(container, written))
        return self._splice([self._into_empty(container, written)])

    def _in_front(self, container: _Node, index: int, written: Callable[[bytes | None], bytes]) -> _Edit:
        item = container.items[index]
        previous = container.items[index - 1].comma if index else None
        place = container.start + 1 if previous is None else previous + 1
        # A comment on the same line belongs to what is in front of it, one on its own line to what follows.
        while self.data.startswith((b"//", b"/*"), at := place + _blanks(self.data[place:])):
            comment = _TOKEN.match(self.data, at)
            assert comment is not None
            place = comment.end()
        if at >= item.start:
            text = written(self._base_beside(item)) + b", "
            return item.start, item.start, text
        indent = self._indent(item.start)
        return place, place, self._newline + indent + written(indent) + b","

    def _behind(self, container: _Node, written: Callable[[bytes | None], bytes]) -> list[_Edit]:
        last = container.items[-1]
        tail = len(self.data[: container.end - 1].rstrip())
        edits = [(last.end, last.end, b",")] if last.comma is None else []
        comma = b"" if last.comma is None else b","
        if self._begins_line(last.start):
            indent = self._indent(last.start)
            text = self._newline + indent + written(indent)
        elif any(self.data[a:b].startswith(b"//") for a, b in _comments(self.data, last.end, tail)):
            indent = self._indent(container.start) + self._unit
            text = self._newline + indent + written(indent)
        else:
            text = b" " + written(self._base_beside(last))
        return [*edits, (tail, tail, text + comma)]

    def _into_empty(self, container: _Node, written: Callable[[bytes | None], bytes]) -> _Edit:
        closer = container.end - 1
        tail = len(self.data[:closer].rstrip())
        if self._is_inline(container):
            return tail, closer, (b"" if tail == container.start + 1 else b" ") + written(None)
        outer = self._indent(container.start)
        indent = outer + self._unit
        text = self._newline + indent + written(indent)
        if b"\n" in self.data[tail:closer]:
            return tail, tail, text
        return tail, closer, text + self._newline + outer

    def _base_beside(self, item: _Item) -> bytes | None:
        """Indentation for a value on the same line as ``item``; None to write it on one line, as that is."""
        return self._indent(item.end) if b"\n" in self.data[item.start : item.end] else None

    def _is_inline(self, container: _Node) -> bool:
        if container.items:
            return b"\n" not in self.data[container.start : container.end]
        parent = self._parent(container)
        return parent is not None and self._is_inline(parent)

    def _parent(self, node: _Node) -> _Node | None:
        return next((n for n in self._containers() if any(i.node is node for i in n.items)), None)

    def _containers(self) -> Iterator[_Node]:
        waiting = [self._root] if self._root else []
        while waiting:
            node = waiting.pop(0)
            yield node
            waiting += [item.node for item in node.items]

    def _render(self, value: Any, base: bytes | None) -> bytes:
        if base is None:
            return _dump(value)
        return _dump(value, self._unit.decode()).replace(b"\n", self._newline + base)

    @property
    def _newline(self) -> bytes:
        return b"\r\n" if self.data.count(b"\r\n") * 2 > self.data.count(b"\n") else b"\n"

    @functools.cached_property
    def _unit(self) -> bytes:
        """One step of the file's own indentation."""
        for node in self._containers():
            if node.items and self._begins_line(node.items[0].start):
                outer, inner = self._indent(node.start), self._indent(node.items[0].start)
                if inner.startswith(outer) and inner != outer:
                    return inner[len(outer) :]
        return b"    "

    def _line_start(self, offset: int) -> int:
        start = self.data.rfind(b"\n", 0, offset) + 1
        return len(_BOM) if start == 0 and self.data.startswith(_BOM) else start

    def _indent_end(self, offset: int) -> int:
        start = self._line_start(offset)
        return start + _blanks(self.data[start:offset])

    def _indent(self, offset: int) -> bytes:
        return self.data[self._line_start(offset) : self._indent_end(offset)]

    def _begins_line(self, offset: int) -> bool:
        return not self._strict[self._line_start(offset) : offset].strip()

    def _splice(self, edits: list[_Edit]) -> Document:
        parts, done = [], 0
        # Of two edits at one place the first listed comes first: sorting is stable.
        for start, end, text in sorted(edits, key=lambda edit: edit[:2]):
            parts += [self.data[done:start], text]
            done = end
        return parse(b"".join([*parts, self.data[done:]]))


def parse(data: bytes) -> Document:
    """Read JSON with comments; a byte order mark, CRLF and trailing commas are fine.

    Raises:
        JsoncError: Anything else is wrong with the text, with its line.
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise JsoncError("not UTF-8 text", data.count(b"\n", 0, error.start) + 1) from error
    strict, commas = _without_extras(data)
    if not strict.strip():
        return Document(data, None, strict, None)
    try:
        value = json.loads(strict.decode(), strict=False)
        root = _node(_syntax_tree(strict), strict, commas)
    except json.JSONDecodeError as error:
        raise JsoncError(error.msg[:1].lower() + error.msg[1:], error.lineno) from error
    except RecursionError as error:
        raise JsoncError("nested too deeply", 1) from error
    except JsoncError:
        raise
    except ValueError as error:
        raise JsoncError(str(error), 1) from error
    return Document(data, value, strict, root)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same JSON; unlike ``==`` it tells ``true`` from ``1``."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _without_extras(data: bytes) -> tuple[bytes, Sequence[int]]:
    """Strict JSON of the same length, comments and trailing commas blanked, and where those commas were."""
    strict = bytearray(data)
    if data.startswith(_BOM):
        strict[: len(_BOM)] = b" " * len(_BOM)
    commas: list[int] = []
    previous, pending = b"", None
    for match in _TOKEN.finditer(bytes(strict)):
        token = match.group()
        if token.startswith((b"//", b"/*")):
            strict[match.start() : match.end()] = re.sub(rb"[^\r\n]", b" ", token)
            continue
        if token in (b"]", b"}") and pending is not None:
            commas.append(pending)
            strict[pending : pending + 1] = b" "
        follows_value = previous not in (b"", b",", b":", b"[", b"{")
        pending = match.start() if token == b"," and follows_value else None
        previous = token
    return bytes(strict), commas


def _comments(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The comments in a stretch that holds only blanks, commas and comments."""
    return (m.span() for m in _TOKEN.finditer(data, start, end) if m.group() != b",")


def _syntax_tree(strict: bytes) -> tree_sitter.Node:
    # The json module has judged already. The grammar refuses some good leaves (1E+5, control characters in
    # strings), so it is given others of the same length: only their places matter.
    root = _parser().parse(_LEAF.sub(_stand_in, strict)).root_node
    if root.has_error:
        # What the json module lets pass: NaN, Infinity, and strings that run over the end of their line.
        bad = next(m for m in _TOKEN.finditer(strict) if m.group() in (b'"', b"N", b"I"))
        message = "unterminated string" if bad.group() == b'"' else "no such number in JSON"
        raise JsoncError(message, strict.count(b"\n", 0, bad.start()) + 1)
    return root.named_children[0]


def _stand_in(leaf: re.Match[bytes]) -> bytes:
    length = len(leaf.group())
    return b'"' + b"x" * (length - 2) + b'"' if leaf.group().startswith(b'"') else b"1" * length


@functools.cache
def _parser() -> tree_sitter.Parser:
    import tree_sitter
    import tree_sitter_json

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_json.language()))


def _node(source: tree_sitter.Node, strict: bytes, trailing: Sequence[int]) -> _Node:
    if source.type not in ("object", "array"):
        return _Node(source.start_byte, source.end_byte, "scalar")
    children = source.named_children
    separators = [c.start_byte for c in source.children if c.type == ","]
    if children:
        nearest = bisect.bisect(trailing, children[-1].end_byte - 1)
        separators += [at for at in trailing[nearest : nearest + 1] if at < source.end_byte]
    items = []
    for index, child in enumerate(children):
        comma = separators[index] if index < len(separators) else None
        if source.type == "array":
            items.append(_Item(child.start_byte, _node(child, strict, trailing), None, comma))
        else:
            name, content = child.child_by_field_name("key"), child.child_by_field_name("value")
            # For the type checker: the text has passed as JSON, so that a pair has both.
            assert name is not None
            assert content is not None
            key = json.loads(strict[name.start_byte : name.end_byte], strict=False)
            items.append(_Item(child.start_byte, _node(content, strict, trailing), key, comma))
    return _Node(source.start_byte, source.end_byte, source.type, tuple(items))


def _blanks(data: bytes) -> int:
    return len(data) - len(data.lstrip(b" \t"))


def _dump(value: Any, indent: str | None = None) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent).encode()
    except UnicodeEncodeError:
        # A file name that is no text (surrogates) survives as an escape.
        return json.dumps(value, indent=indent).encode()
