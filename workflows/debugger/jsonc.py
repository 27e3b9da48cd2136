"""JSON with comments, edited by splicing: all other bytes stay as they are.

``parse`` turns bytes into a :class:`Document`; its edits return a new one. Files are changed by
``jsonc_file``.
"""

from __future__ import annotations

import functools
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from workflows.debugger.jsonc_text import (
    BOM,
    LINE_END,
    QUOTE,
    TOKEN,
    Item,
    Node,
    collector_paused,
    comment_spans,
    read_tree,
    strict_form,
)
from workflows.debugger.jsonc_text import JsoncError as JsoncError
from workflows.reading import line_at
from workflows.terminal import escaped

Keys = tuple[str | int, ...]
"""The path from the root to a value: keys of objects and indexes of arrays."""

_BLANKS = re.compile(rb"[ \t]*")
_Edit = tuple[int, int, bytes]


@dataclass(frozen=True)
class Document:
    """A text and its values. It is immutable; edits return a new document.

    Attributes:
        data: The text as it is in the file.
        value: The root as plain Python; None if there are only blanks and comments.
    """

    data: bytes
    value: Any
    _strict: bytes
    _tokens: list[tuple[int, int]]

    @property
    def is_empty(self) -> bool:
        """Whether there are only blanks and comments."""
        return not self._tokens

    @functools.cached_property
    def _root(self) -> Node | None:
        return read_tree(self.data, self._tokens)

    def line(self, keys: Keys = ()) -> int:
        """The line, counted from 1, on which the value at ``keys`` begins.

        Raises:
            KeyError: There is no such value.
        """
        return line_at(self.data, self._at(keys).start)

    def has_comments(self, keys: Keys) -> bool:
        """Whether there is a comment inside the value at ``keys``.

        Raises:
            KeyError: There is no such value.
        """
        node = self._at(keys)
        tokens = TOKEN.finditer(self.data, node.start, node.end)
        return any(token.group().startswith((b"//", b"/*")) for token in tokens)

    def set(self, keys: Keys, value: Any) -> Document:
        """Replace a value, or append a missing key to its object.

        ``()`` is the root, which can only be set in an empty document. An equal value keeps its formatting.

        Raises:
            KeyError: The object or array does not exist.
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
        """Replace several texts and numbers at once, since every single edit parses the text again.

        Raises:
            KeyError: One of them does not exist.
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
        """Append an element to the array at ``keys``.

        Raises:
            KeyError: There is no such array.
        """
        array = self._array(keys)
        return self._insert(array, len(array.items), value=value)

    def extend(self, keys: Keys, values: Sequence[Any]) -> Document:
        """Append several elements to the array at ``keys`` at once, since every single edit parses the text again.

        Raises:
            KeyError: There is no such array.
        """
        array = self._array(keys)
        if not array.items and len(values) > 1:
            # The first one decides how the others are written.
            return self.append(keys, values[0]).extend(keys, values[1:])
        if len(values) < 2:
            return self.append(keys, values[0]) if values else self

        def writer(value: Any) -> Callable[[bytes | None], bytes]:
            return lambda base: self._render(value, base)

        return self._splice(self._behind(array, [writer(value) for value in values]))

    def move(self, keys: Keys, source: int, target: int) -> Document:
        """Move an element of the array at ``keys``, with its formatting, from index to index.

        Raises:
            KeyError: There is no such array or element.
        """
        if source == target:
            return self
        node = self._at((*keys, source))
        without = self.delete((*keys, source))
        return without._insert(without._array(keys), target, text=self.data[node.start : node.end])

    def delete(self, keys: Keys) -> Document:
        """Delete a key with its value, or an element; comments stay.

        Raises:
            KeyError: It does not exist.
        """
        container = self._at(keys[:-1]) if keys else None
        index = container.index(keys[-1]) if container else None
        if container is None or index is None:
            raise KeyError(keys)
        return self._splice(self._deletion(container, index, {index}))

    def delete_items(self, keys: Keys, indexes: Collection[int]) -> Document:
        """Delete several elements of the array at ``keys`` at once, since every single edit parses the text again.

        Raises:
            KeyError: There is no such array or element.
        """
        array, gone = self._array(keys), set(indexes)
        if not gone:
            return self
        if not gone <= set(range(len(array.items))):
            raise KeyError(keys)
        return self._splice([edit for index in sorted(gone) for edit in self._deletion(array, index, gone)])

    def _deletion(self, container: Node, index: int, gone: Collection[int]) -> list[_Edit]:
        """The edits that delete an item, if the items in ``gone`` are all deleted."""
        item, edits, end = container.items[index], list[_Edit](), container.items[index].end
        if item.comma is None:
            # It was the last: the item that is now the last loses its comma.
            kept = index - 1
            while kept in gone:
                kept -= 1
            comma = container.items[kept].comma if kept >= 0 else None
        elif self.data[item.end : item.comma].strip():
            comma = item.comma
        else:
            comma, end = None, item.comma + 1
        if comma is not None:
            edits.append((comma, comma + 1, b""))
        left, right = self._indent_end(item.start), self._after_blanks(end)
        newline = LINE_END.match(self.data, right)
        if left == item.start and newline:
            edits.append((self._line_start(left), newline.end(), b""))
        elif item.comma is None and left != item.start:
            before = len(self.data[: item.start].rstrip(b" \t"))
            edits.append((before, end, b""))
        else:
            edits.append((item.start, right, b""))
        return edits

    def _at(self, keys: Keys) -> Node:
        node = self._root
        for key in keys:
            index = node.index(key) if node else None
            if node is None or index is None:
                raise KeyError(keys)
            node = node.items[index].node
        if node is None:
            raise KeyError(keys)
        return node

    def _array(self, keys: Keys) -> Node:
        node = self._at(keys)
        if node.kind != "array":
            raise KeyError(keys)
        return node

    def _strict_value(self, node: Node) -> Any:
        return json.loads(self._strict[node.start : node.end], strict=False)

    def _set_root(self, value: Any) -> Document:
        if self._root is not None:
            raise KeyError(())
        text = self._render(value, b"") + self._newline
        if not self.data.removeprefix(BOM).strip():
            return parse((BOM if self.data.startswith(BOM) else b"") + text)
        return parse(self.data + (b"" if self.data.endswith((b"\n", b"\r")) else self._newline) + text)

    def _insert(
        self,
        container: Node,
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
            return self._splice(self._behind(container, [written]))
        return self._splice([self._into_empty(container, written)])

    def _in_front(self, container: Node, index: int, written: Callable[[bytes | None], bytes]) -> _Edit:
        item = container.items[index]
        previous = container.items[index - 1].comma if index else None
        place = container.start + 1 if previous is None else previous + 1
        # A comment on the same line belongs to what precedes it, one on its own line to what follows.
        while self.data.startswith((b"//", b"/*"), at := self._after_blanks(place)):
            comment = TOKEN.match(self.data, at)
            assert comment is not None
            place = comment.end()
        if at >= item.start:
            text = written(self._base_beside(item)) + b", "
            return item.start, item.start, text
        place = self._line_end(place)
        indent = self._indent(item.start)
        return place, place, self._newline + indent + written(indent) + b","

    def _behind(self, container: Node, written: Sequence[Callable[[bytes | None], bytes]]) -> list[_Edit]:
        last = container.items[-1]
        tail = self._tail(container, last.end)
        edits = [(last.end, last.end, b",")] if last.comma is None else []
        comma = b"" if last.comma is None else b","
        indent: bytes | None
        if self._begins_line(last.start):
            tail, indent = self._line_end(tail), self._indent(last.start)
            lead = self._newline + indent
        elif any(self.data[a:b].startswith(b"//") for a, b in comment_spans(self.data, last.end, tail)):
            tail, indent = self._line_end(tail), self._indent(container.start) + self._unit
            lead = self._newline + indent
        else:
            lead, indent = b" ", self._base_beside(last)
        text = b",".join(lead + one(indent) for one in written)
        return [*edits, (tail, tail, text + comma)]

    def _into_empty(self, container: Node, written: Callable[[bytes | None], bytes]) -> _Edit:
        closer = container.end - 1
        tail = self._tail(container, container.start + 1)
        if self._is_inline(container):
            return tail, closer, (b"" if tail == container.start + 1 else b" ") + written(None)
        outer = self._indent(container.start)
        indent = outer + self._unit
        text = self._newline + indent + written(indent)
        if LINE_END.search(self.data, tail, closer):
            tail = self._line_end(tail)
            return tail, tail, text
        return tail, closer, text + self._newline + outer

    def _base_beside(self, item: Item) -> bytes | None:
        """Indentation for a value on the same line as ``item``; None to write it on one line, like ``item``."""
        return self._indent(item.end) if LINE_END.search(self.data, item.start, item.end) else None

    def _is_inline(self, container: Node) -> bool:
        node: Node | None = container
        while node is not None and not node.items:
            node = node.parent
        return node is not None and not LINE_END.search(self.data, node.start, node.end)

    def _containers(self) -> Iterator[Node]:
        waiting = deque([self._root] if self._root else [])
        while waiting:
            node = waiting.popleft()
            yield node
            waiting.extend(item.node for item in node.items)

    def _tail(self, container: Node, start: int) -> int:
        """The position behind the last comment or comma between ``start`` and the container's end."""
        ends = [end for _, end in comment_spans(self.data, start, container.end - 1, commas=True)]
        return ends[-1] if ends else start

    def _render(self, value: Any, base: bytes | None) -> bytes:
        if base is None:
            return _dump(value)
        return _dump(value, self._unit.decode()).replace(b"\n", self._newline + base)

    @property
    def _newline(self) -> bytes:
        both, lf, cr = (self.data.count(end) for end in (b"\r\n", b"\n", b"\r"))
        if both * 2 > lf:
            return b"\r\n"
        return b"\r" if cr - both > lf else b"\n"

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
        start = max(self.data.rfind(b"\n", 0, offset), self.data.rfind(b"\r", 0, offset)) + 1
        return len(BOM) if start == 0 and self.data.startswith(BOM) else start

    def _indent_end(self, offset: int) -> int:
        return min(self._after_blanks(self._line_start(offset)), offset)

    def _after_blanks(self, offset: int) -> int:
        blanks = _BLANKS.match(self.data, offset)
        return blanks.end() if blanks else offset

    def _line_end(self, offset: int) -> int:
        """The end of the line, if only blanks follow; else the offset itself."""
        end = self._after_blanks(offset)
        return end if LINE_END.match(self.data, end) else offset

    def _indent(self, offset: int) -> bytes:
        return self.data[self._line_start(offset) : self._indent_end(offset)]

    def _begins_line(self, offset: int) -> bool:
        return not self._strict[self._line_start(offset) : offset].strip()

    def _splice(self, edits: list[_Edit]) -> Document:
        parts, done = [], 0
        # Edits at the same place keep their order: sorting is stable.
        for start, end, text in sorted(edits, key=lambda edit: edit[:2]):
            parts += [self.data[done:start], text]
            done = max(done, end)
        return parse(b"".join([*parts, self.data[done:]]))


@collector_paused()
def parse(data: bytes) -> Document:
    """Parse JSON with comments; a byte order mark, CRLF and trailing commas are accepted.

    Raises:
        JsoncError: The text is not valid; with the line.
    """
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise JsoncError("not UTF-8 text", line_at(data, error.start)) from error
    strict, tokens, broken = strict_form(data)
    if not tokens:
        return Document(data, None, strict, tokens)
    text = strict.decode()
    try:
        value = json.loads(text, strict=False, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsoncError(error.msg[:1].lower() + error.msg[1:], line_at(text, error.pos)) from error
    except RecursionError as error:
        raise JsoncError("nested too deeply", 1) from error
    except ValueError as error:
        # NaN or Infinity, or a number with thousands of digits.
        bad = next((one for one in tokens if _is_odd_number(data, *one)), (0, 0))
        raise JsoncError("no such number in JSON", line_at(data, bad[0])) from error
    if broken is not None:
        # With strict=False, the json module accepts a string that runs over the end of its line.
        raise JsoncError("unterminated string", line_at(data, broken))
    return Document(data, value, strict, tokens)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _is_odd_number(data: bytes, start: int, end: int) -> bool:
    return data[start] in b"NI" or data[start : start + 2] == b"-I" or (data[start] != QUOTE and end - start > 4000)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same JSON; unlike ``==``, it distinguishes ``true`` from ``1``."""
    return canonical(one) == canonical(other)


def canonical(value: Any) -> str:
    """A plain value as canonical JSON text."""
    return json.dumps(value, sort_keys=True)


def _dump(value: Any, indent: str | None = None) -> bytes:
    # Control characters and undecodable bytes of file names (surrogates) are escaped.
    return escaped(json.dumps(value, ensure_ascii=False, indent=indent)).encode()
