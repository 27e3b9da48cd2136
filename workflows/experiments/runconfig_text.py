"""The text of a run configuration: reads values with their lines, and changes values without changing the rest."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .. import process_identity as identity
from .. import storage
from ..errors import UserError
from ..paths import shown
from ..pipelines.yaml_file import Value, read_node, read_text, refuse
from ..reading import read_bytes
from ..yaml_nodes import compose
from .runconfig_yaml import (
    WHAT,
    as_scalars,
    block_lines,
    entry_lines,
    find_entry,
    is_null,
    nest,
    on_one_line,
    own_key_levels,
    own_key_levels_below,
    plain_data,
    quoted_text,
    read_values,
    scalar_text,
    with_value,
    without_value,
)

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node


class CannotChange(Exception):
    """The text is written in a way that does not allow the change."""


@dataclass(frozen=True)
class Document:
    """A file of YAML whose content is a mapping.

    Attributes:
        file: Absolute path.
        text: Its text without a byte order mark.
        has_bom: Whether the file begins with a byte order mark.
        root: The keys above its content, where the file is a part of a run configuration: ``("environment",)``.
    """

    file: Path
    text: str
    has_bom: bool = False
    root: tuple[str, ...] = ()

    @property
    def encoded(self) -> bytes:
        """The bytes for the file, always with a newline at the end."""
        return self._with_final_newline(self.text).encode("utf-8-sig" if self.has_bom else "utf-8")

    @cached_property
    def node(self) -> MappingNode:
        """The root node."""
        return cast("MappingNode", compose(self.text, self.file))

    @cached_property
    def value(self) -> Value:
        """The content: scalars as they are written, the SDK's keys in camelCase."""
        return Value(read_values(self.node, self.file, own_key_levels(self.root), {}), self.file, 1)

    def put(self, path: tuple[str, ...], value: Any) -> Document:
        """The document with a value changed or added.

        Args:
            path: Its keys, from the root of the run configuration.
            value: None, a bool, int or str, or lists and mappings of these.

        Raises:
            CannotChange: The text does not allow it.
        """
        value = as_scalars(value)
        names = self._relative_keys(path)
        expected = with_value(plain_data(self.node), names, value, self.root)
        try:
            return self._verified(expected, self._put(names, value))
        except CannotChange:
            # An indented comment after it would become part of a text of several lines.
            return self._verified(expected, self._put(names, on_one_line(value)))

    def remove(self, path: tuple[str, ...]) -> Document:
        """The document without an entry; unchanged where it has no such entry.

        Raises:
            CannotChange: The text does not allow it.
        """
        names = self._relative_keys(path)
        entries = self._entries(names)
        if len(entries) < len(names):
            return self
        parents: list[Any] = [self.node, *(item for _, item in entries[:-1])]
        flow_depth = next((index for index, item in enumerate(parents) if item.flow_style), None)
        expected = without_value(plain_data(self.node), names, self.root)
        if flow_depth is not None:
            remaining = expected
            for above, _ in entries[:flow_depth]:
                remaining = remaining[str(above.value)]
            return self._verified(expected, self._put(names[:flow_depth], remaining))
        if len(parents[-1].value) == 1:
            return self._verified(expected, self._put(names[:-1], {}))
        key, value = entries[-1]
        start = self.text.rfind("\n", 0, key.start_mark.index) + 1
        end = self._line_end(self._entry_end(key, value))
        return self._verified(expected, self.text[:start] + self.text[end:].removeprefix("\r").removeprefix("\n"))

    def _relative_keys(self, path: tuple[str, ...]) -> tuple[str, ...]:
        assert path[: len(self.root)] == self.root
        return path[len(self.root) :]

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _with_final_newline(self, text: str) -> str:
        return text if text.endswith("\n") else text + self._newline

    def _verified(self, expected: Any, text: str) -> Document:
        """The document with a new text, which has to contain exactly the expected data."""
        after = replace(self, text=self._with_final_newline(text))
        try:
            is_same = plain_data(after.node) == expected
        except UserError as error:
            raise CannotChange from error
        if not is_same:
            raise CannotChange
        return after

    def _entries(self, names: tuple[str, ...]) -> list[tuple[Node, Node]]:
        """Key and value of each name on a path, as far as they exist."""
        import yaml

        found = list[tuple["Node", "Node"]]()
        node: Node = self.node
        levels = own_key_levels(self.root)
        for name in names:
            if not isinstance(node, yaml.MappingNode):
                break
            entry = find_entry(node, name, levels)
            if entry is None:
                break
            found.append(entry)
            node, levels = entry[1], own_key_levels_below(name, levels)
        return found

    def _put(self, names: tuple[str, ...], value: Any) -> str:
        import yaml

        entries = self._entries(names)
        parents = [self.node, *(item for _, item in entries)]
        levels = [own_key_levels((*self.root, *names[:depth])) for depth in range(len(names) + 1)]
        in_place = (
            self._with_scalars_replaced(entries[-1][1], value) if entries and len(entries) == len(names) else None
        )
        if in_place is not None:
            return in_place
        for depth, node in enumerate(parents):
            remaining = names[depth:]
            if depth == len(names):
                return (
                    self._with_entry_replaced(entries[-1], value)
                    if entries
                    else self._newline.join(block_lines(value, 0))
                )
            if isinstance(node, yaml.MappingNode) and node.flow_style and node.value:
                # A line cannot be inserted into a mapping in braces, so it is rewritten with one line per entry.
                merged = with_value(plain_data(node), remaining, value, (*self.root, *names[:depth]))
                return self._put(names[:depth], merged)
            if not isinstance(node, yaml.MappingNode) or not node.value:
                if not isinstance(node, yaml.MappingNode) and not is_null(node):
                    raise CannotChange
                return self._put(names[:depth], nest(remaining, value))
            if find_entry(node, remaining[0], levels[depth]) is None:
                return self._with_entry_inserted(node, remaining[0], nest(remaining[1:], value))
        raise AssertionError(names)

    def _with_entry_replaced(self, entry: tuple[Node, Node], value: Any) -> str:
        key, node = entry
        text, colon = self.text, self._colon_end(key)
        start, end = node.start_mark.index, self._entry_end(key, node)
        line_end = self._line_end(colon)
        comments = ""
        if start >= end:  # nothing is written
            remaining, tail = text[colon:line_end], text[line_end:]
        elif start <= line_end:
            remaining, tail = text[end : self._line_end(end)], text[self._line_end(end) :]
        else:
            # Comments may stand between the key and its list or mapping.
            first = text.rfind("\n", 0, start)
            remaining, comments = text[colon:line_end], text[line_end:first].rstrip("\r\n")
            tail = text[self._line_end(end) :]
        first_line, lines = entry_lines(value, key.start_mark.column)
        added = "".join(self._newline + line for line in lines)
        return f"{text[:colon]}{' ' + first_line if first_line else ''}{remaining}{comments}{added}{tail}"

    def _with_scalars_replaced(self, node: Node, value: Any) -> str | None:
        """The text with a scalar, or each scalar of an equally long list, replaced in place; None if not possible."""
        import yaml

        is_list = isinstance(node, yaml.SequenceNode) and isinstance(value, list)
        items, values = (node.value, value) if is_list else ([node], [value])
        if len(items) != len(values):
            return None
        text, end = self.text, len(self.text)
        for item, new in reversed(list(zip(items, values, strict=True))):
            first, last = item.start_mark.index, item.end_mark.index
            is_line = isinstance(item, yaml.ScalarNode) and first < last <= end and "\n" not in self.text[first:last]
            if not is_line or not isinstance(new, str) or (not is_list and "\n" in new):
                return None
            if item.value != new or is_null(item):
                # Inside brackets, a comma would end the scalar.
                text = text[:first] + (quoted_text(new) if "," in new else scalar_text(new)) + text[last:]
            end = first
        return text

    def _with_entry_inserted(self, node: MappingNode, name: str, value: Any) -> str:
        key, last = node.value[-1]
        end = self._line_end(self._entry_end(key, last))
        column = node.value[0][0].start_mark.column
        first_line, lines = entry_lines(value, column)
        own = f"{' ' * column}{scalar_text(name)}:{' ' + first_line if first_line else ''}"
        return self.text[:end] + "".join(self._newline + line for line in (own, *lines)) + self.text[end:]

    def _colon_end(self, key: Node) -> int:
        found = re.compile(r"\s*:").match(self.text, key.end_mark.index)
        if found is None:
            raise CannotChange
        return found.end()

    def _entry_end(self, key: Node, node: Node) -> int:
        """The end of an entry's text. The parser's own end includes blank lines and comments after a block."""
        return max(self._node_end(node), self._colon_end(key))

    def _node_end(self, node: Node) -> int:
        import yaml

        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self._entry_end(*last) if isinstance(last, tuple) else self._node_end(last)
        start, end = node.start_mark.index, node.end_mark.index
        return start + len(self.text[start:end].rstrip())

    def _line_end(self, index: int) -> int:
        found = self.text.find("\n", index)
        if found == -1:
            return len(self.text)
        return found - 1 if found > index and self.text[found - 1] == "\r" else found


def open_documents(path: Path) -> tuple[Document, ...]:
    """Open a run configuration, and the file of its environment where it names one.

    Raises:
        UserError: One cannot be read, is not YAML, or is not a mapping; with the line.
    """
    path = Path(os.path.abspath(path))
    if not path.exists() and path.parent.is_dir():
        there = sorted(item.name for item in path.parent.glob("*.runconfig"))
        remedy = f"There are: {', '.join(there[:20])}." if there else f"There is none in {shown(path.parent)} yet."
        raise UserError(f"There is no {WHAT} {shown(path)}.", remedy)
    main = _open(path, None)
    named = main.value.get("environment")
    if named is None or not isinstance(named.data, str):
        return (main,)
    return main, _open(path.parent.parent / named.data, named)


def _open(path: Path, named: Value | None) -> Document:
    what = WHAT if named is None else "environment file"
    text = read_text(path, what, named)
    has_bom = read_bytes(path).startswith(b"\xef\xbb\xbf")
    document = Document(path, text, has_bom, ("environment",) if named is not None else ())
    node = compose(text, shown(path))
    read_node(node, path, what)  # it raises for what is not allowed
    # It fills the cached property, so that the text is not parsed again.
    document.__dict__["node"] = node
    return document


def save(path: Path, data: bytes) -> None:
    """Replace a file's content atomically and keep its mode. A link is followed.

    Raises:
        UserError: It cannot be written. The file is unchanged then, and no temporary file is left.
    """
    target = Path(os.path.realpath(path))
    made_folder = not target.parent.is_dir()
    partial = target.with_name(f".{target.name}.{identity.process_mark()}.tmp")
    try:
        for left in target.parent.glob(f".{target.name}.*.tmp"):
            if identity.is_leftover(left.name.split(".")[-2]):
                left.unlink(missing_ok=True)
        if made_folder:
            # Another command may make it at the same time.
            target.parent.mkdir(exist_ok=True)
        partial.write_bytes(data)
        with contextlib.suppress(FileNotFoundError):
            partial.chmod(stat.S_IMODE(target.stat().st_mode))
        os.replace(partial, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if made_folder:
            with contextlib.suppress(OSError):
                target.parent.rmdir()
        if not isinstance(error, OSError):
            raise
        disk_problem = storage.explain(error, target)
        raise UserError(
            f"{shown(path)} cannot be written: {error.strerror or error}.",
            f"{disk_problem.problem} Nothing was changed."
            if disk_problem is not None
            else "Make its folder writable for you; nothing was changed.",
        ) from error


def cannot_change(document: Document, path: tuple[str, ...]) -> UserError:
    """The error for a change that the text does not allow: the user has to edit the value."""
    value: Value = document.value
    for name in path[len(document.root) :]:
        value = value.get(name) or value
    name = ".".join(path)
    return refuse(value, f"`{name}` cannot be changed here as it is written.", "Change it in an editor (--edit).")
