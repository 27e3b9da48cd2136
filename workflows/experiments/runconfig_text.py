"""The text of a run configuration: values with their places, and changes that leave the rest as it is."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Mapping
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

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

WHAT = "run configuration"
#: Keys whose entries' own keys are the person's: the SDK spells every other key in camelCase, snake_case or TitleCase.
_NAMES_BELOW = ("environmentVariables", "data", "dataReferences", "outputData", "applicationEndpoints", "configuration")
#: The same, however deep.
_NAMES_BELOW_ALL = ("condaDependencies", "properties", "options", "tags")
_DEEP = 1000
# What no version of YAML takes for anything but a text, and what needs no quotes.
_SAFE = re.compile(r"(?:-{0,2}[A-Za-z_/]|\.{1,2}/)(?:[\w./=+,%~^@<>!*-]|:(?=[\w./-]))*", re.ASCII)
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_PLAIN_LINES = re.compile(r"(?:[!-~][ -~]*)(?:\n(?:[ -~]*[!-~])?)*\n?")


class Plain(str):
    """A scalar that is written without quotes, such as ``true`` or ``2``."""

    __slots__ = ()


class CannotChange(Exception):
    """The text is written in a way that a change cannot be fitted into."""


@dataclass(frozen=True)
class Document:
    """A file of YAML whose content is a mapping.

    Attributes:
        file: Absolute path.
        text: Its text without a byte order mark.
        mark: Whether it begins with one.
        root: The keys above its own, where it holds a part: ``("environment",)``.
    """

    file: Path
    text: str
    mark: bool = False
    root: tuple[str, ...] = ()

    @property
    def encoded(self) -> bytes:
        """What is written to disk: always with a newline at the end."""
        return self._ended(self.text).encode("utf-8-sig" if self.mark else "utf-8")

    @cached_property
    def node(self) -> MappingNode:
        """The root node."""
        return cast("MappingNode", compose(self.text, self.file))

    @cached_property
    def value(self) -> Value:
        """The content: scalars as they are written, keys that are not the person's in camelCase."""
        return Value(_values(self.node, self.file, _kept(self.root), {}), self.file, 1)

    def put(self, path: tuple[str, ...], value: Any) -> Document:
        """The document with a value changed or added.

        Args:
            path: Its keys, from the root of the run configuration.
            value: None, a bool, int or str, or lists and mappings of these.

        Raises:
            CannotChange: How the text is written does not let it.
        """
        value = _scalars(value)
        names = self._within(path)
        expected = _put(_plain(self.node), names, value, self.root)
        try:
            return self._checked(expected, self._put(names, value))
        except CannotChange:
            # An indented comment that follows would become part of a text of several lines.
            return self._checked(expected, self._put(names, _in_one_line(value)))

    def remove(self, path: tuple[str, ...]) -> Document:
        """The document without an entry; the same where it has none.

        Raises:
            CannotChange: How the text is written does not let it.
        """
        names = self._within(path)
        entries = self._entries(names)
        if len(entries) < len(names):
            return self
        parents: list[Any] = [self.node, *(item for _, item in entries[:-1])]
        flow = next((index for index, item in enumerate(parents) if item.flow_style), None)
        expected = _remove(_plain(self.node), names, self.root)
        if flow is not None:
            rest = expected
            for above, _ in entries[:flow]:
                rest = rest[str(above.value)]
            return self._checked(expected, self._put(names[:flow], rest))
        if len(parents[-1].value) == 1:
            return self._checked(expected, self._put(names[:-1], {}))
        key, value = entries[-1]
        start = self.text.rfind("\n", 0, key.start_mark.index) + 1
        end = self._line_end(self._last(key, value))
        return self._checked(expected, self.text[:start] + self.text[end:].removeprefix("\r").removeprefix("\n"))

    def _within(self, path: tuple[str, ...]) -> tuple[str, ...]:
        assert path[: len(self.root)] == self.root
        return path[len(self.root) :]

    @property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _ended(self, text: str) -> str:
        return text if text.endswith("\n") else text + self._newline

    def _checked(self, expected: Any, text: str) -> Document:
        """The document with a new text, which has to say what is expected and else what the old one said."""
        after = replace(self, text=self._ended(text))
        try:
            is_same = _plain(after.node) == expected
        except UserError as error:
            raise CannotChange from error
        if not is_same:
            raise CannotChange
        return after

    def _entries(self, names: tuple[str, ...]) -> list[tuple[Node, Node]]:
        """Key and value of each name on the way, as far as they are there."""
        import yaml

        found = list[tuple["Node", "Node"]]()
        node: Node = self.node
        kept = _kept(self.root)
        for name in names:
            if not isinstance(node, yaml.MappingNode):
                break
            entry = _find(node, name, kept)
            if entry is None:
                break
            found.append(entry)
            node, kept = entry[1], _below(name, kept)
        return found

    def _put(self, names: tuple[str, ...], value: Any) -> str:
        import yaml

        entries = self._entries(names)
        parents = [self.node, *(item for _, item in entries)]
        kept = [_kept((*self.root, *names[:depth])) for depth in range(len(names) + 1)]
        in_place = self._in_place(entries[-1][1], value) if entries and len(entries) == len(names) else None
        if in_place is not None:
            return in_place
        for depth, node in enumerate(parents):
            rest = names[depth:]
            if depth == len(names):
                return self._replaced(entries[-1], value) if entries else self._newline.join(_block(value, 0))
            if isinstance(node, yaml.MappingNode) and node.flow_style and node.value:
                # In a mapping in braces nothing can be added line by line: it becomes one of lines.
                whole = _put(_plain(node), rest, value, (*self.root, *names[:depth]))
                return self._put(names[:depth], whole)
            if not isinstance(node, yaml.MappingNode) or not node.value:
                if not isinstance(node, yaml.MappingNode) and not _is_null(node):
                    raise CannotChange
                return self._put(names[:depth], _nested(rest, value))
            if _find(node, rest[0], kept[depth]) is None:
                return self._inserted(node, rest[0], _nested(rest[1:], value))
        raise AssertionError(names)

    def _replaced(self, entry: tuple[Node, Node], value: Any) -> str:
        key, node = entry
        text, colon = self.text, self._colon(key)
        start, end = node.start_mark.index, self._last(key, node)
        line_end = self._line_end(colon)
        comments = ""
        if start >= end:  # nothing is written
            rest, tail = text[colon:line_end], text[line_end:]
        elif start <= line_end:
            rest, tail = text[end : self._line_end(end)], text[self._line_end(end) :]
        else:
            # Comments may stand between the key and its list or mapping.
            first = text.rfind("\n", 0, start)
            rest, comments = text[colon:line_end], text[line_end:first].rstrip("\r\n")
            tail = text[self._line_end(end) :]
        first_line, lines = _entry(value, key.start_mark.column)
        added = "".join(self._newline + line for line in lines)
        return f"{text[:colon]}{' ' + first_line if first_line else ''}{rest}{comments}{added}{tail}"

    def _in_place(self, node: Node, value: Any) -> str | None:
        """A scalar in the place of a scalar, also in a list of as many, so that all around it stays."""
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
            if item.value != new or _is_null(item):
                # A comma may end it where it stands in brackets.
                text = text[:first] + (_quoted(new) if "," in new else _scalar(new)) + text[last:]
            end = first
        return text

    def _inserted(self, node: MappingNode, name: str, value: Any) -> str:
        key, last = node.value[-1]
        end = self._line_end(self._last(key, last))
        column = node.value[0][0].start_mark.column
        first_line, lines = _entry(value, column)
        own = f"{' ' * column}{_scalar(name)}:{' ' + first_line if first_line else ''}"
        return self.text[:end] + "".join(self._newline + line for line in (own, *lines)) + self.text[end:]

    def _colon(self, key: Node) -> int:
        found = re.compile(r"\s*:").match(self.text, key.end_mark.index)
        if found is None:
            raise CannotChange
        return found.end()

    def _last(self, key: Node, node: Node) -> int:
        """Where the last character of an entry is; the parser counts blank lines and comments after a block in."""
        return max(self._end(node), self._colon(key))

    def _end(self, node: Node) -> int:
        import yaml

        if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
            last = node.value[-1]
            return self._last(*last) if isinstance(last, tuple) else self._end(last)
        start, end = node.start_mark.index, node.end_mark.index
        return start + len(self.text[start:end].rstrip())

    def _line_end(self, index: int) -> int:
        found = self.text.find("\n", index)
        if found == -1:
            return len(self.text)
        return found - 1 if found > index and self.text[found - 1] == "\r" else found


def open_files(path: Path) -> tuple[Document, ...]:
    """A run configuration, and the file of its environment where it names one.

    Raises:
        UserError: One cannot be read, is not YAML, or not a mapping; with the line.
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
    mark = read_bytes(path).startswith(b"\xef\xbb\xbf")
    document = Document(path, text, mark, ("environment",) if named is not None else ())
    node = compose(text, shown(path))
    read_node(node, path, what)  # for what it refuses
    # The same text need not be parsed again.
    document.__dict__["node"] = node
    return document


def save(path: Path, data: bytes) -> None:
    """Put the content in the place of a file at one stroke, keeping its mode; a link is followed.

    Raises:
        UserError: It cannot be written. Nothing is left then, and the file is as it was.
    """
    target = Path(os.path.realpath(path))
    made_folder = not target.parent.is_dir()
    partial = target.with_name(f".{target.name}.{identity.process_mark()}.tmp")
    try:
        for left in target.parent.glob(f".{target.name}.*.tmp"):
            if identity.is_leftover(left.name.split(".")[-2]):
                left.unlink(missing_ok=True)
        if made_folder:
            target.parent.mkdir()
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
        told = storage.explain(error, target)
        raise UserError(
            f"{shown(path)} cannot be written: {error.strerror or error}.",
            f"{told.problem} Nothing was changed."
            if told is not None
            else "Make its folder writable for you; nothing was changed.",
        ) from error


def cannot_change(document: Document, path: tuple[str, ...]) -> UserError:
    """What a person is told where a change cannot be fitted in: the value to be edited by hand."""
    value: Value = document.value
    for name in path[len(document.root) :]:
        value = value.get(name) or value
    name = ".".join(path)
    return refuse(value, f"`{name}` cannot be changed here as it is written.", "Change it in an editor (--edit).")


def camel(key: str) -> str:
    """A key as the SDK spells it when it reads a file: ``nodeCount`` of ``node_count`` and of ``NodeCount``."""
    first, *others = key.split("_")
    return first[:1].lower() + first[1:] + "".join(item.title() for item in others)


def _below(name: str, kept: int) -> int:
    """For how many levels below a key the keys are the person's."""
    if kept > 1 or name in _NAMES_BELOW_ALL:
        return _DEEP
    return 1 if kept == 0 and name in _NAMES_BELOW else 0


def _kept(path: tuple[str, ...]) -> int:
    kept = 0
    for name in path:
        kept = _below(name, kept)
    return kept


def _find(node: MappingNode, name: str, kept: int) -> tuple[Node, Node] | None:
    for key, item in reversed(node.value):
        if key.value == name or (not kept and camel(str(key.value)) == name):
            return key, item
    return None


def _is_null(node: Node) -> bool:
    return str(node.tag).endswith(":null")


def _values(node: Node, file: Path, kept: int, done: dict[tuple[int, int], Any]) -> Any:
    """A node's data for reading. What several aliases name is converted once."""
    import yaml

    place = (id(node), kept)
    if place in done:
        return done[place]
    data: Any
    if isinstance(node, yaml.MappingNode):
        own, merged = dict[str, Value](), dict[str, Value]()
        for key, item in node.value:
            if key.tag.endswith(":merge"):
                for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                    for inherited, value in _values(source, file, kept, done).items():
                        merged.setdefault(inherited, value)
                continue
            name = str(key.value) if kept else camel(str(key.value))
            own[name] = Value(_values(item, file, _below(name, kept), done), file, key.start_mark.line + 1)
        data = {**merged, **own}
    elif isinstance(node, yaml.SequenceNode):
        below = kept if kept > 1 else 0
        data = [Value(_values(item, file, below, done), file, item.start_mark.line + 1) for item in node.value]
    else:
        data = None if _is_null(node) else str(node.value)
    done[place] = data
    return data


def _plain(node: Node) -> Any:
    """A node's data with keys as they are written, for comparing and for writing again."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(item) for key, item in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if _is_null(node):
        return None
    return str(node.value) if str(node.tag).endswith(":str") else Plain(node.value)


def _scalars(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _scalars(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scalars(item) for item in value]
    if isinstance(value, bool):
        return Plain("true" if value else "false")
    return Plain(value) if isinstance(value, (int, float)) else value


def _in_one_line(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_one_line(item) for key, item in value.items()}
    return Plain(_quoted(value)) if isinstance(value, str) and "\n" in value else value


def _nested(names: tuple[str, ...], value: Any) -> Any:
    for name in reversed(names):
        value = {name: value}
    return value


def _key(data: dict[str, Any], name: str, root: tuple[str, ...]) -> str | None:
    exact = _kept(root) > 0
    return next((key for key in reversed(data) if key == name or (not exact and camel(key) == name)), None)


def _put(data: Any, names: tuple[str, ...], value: Any, root: tuple[str, ...]) -> Any:
    """The same change made to data without places."""
    if not names:
        return value
    data = data if isinstance(data, dict) else {}
    key = _key(data, names[0], root) or names[0]
    return {**data, key: _put(data.get(key), names[1:], value, (*root, names[0]))}


def _remove(data: dict[str, Any], names: tuple[str, ...], root: tuple[str, ...]) -> dict[str, Any]:
    key = _key(data, names[0], root)
    assert key is not None
    if len(names) == 1:
        return {name: item for name, item in data.items() if name != key}
    return {**data, key: _remove(data[key], names[1:], (*root, names[0]))}


def _entry(value: Any, column: int) -> tuple[str, list[str]]:
    """What follows ``key:``, on its line and below it, indented as the SDK does."""
    if isinstance(value, dict):
        return ("", _block(value, column + 2)) if value else ("{}", [])
    if isinstance(value, list):
        return ("", _block(value, column)) if value else ("[]", [])
    if isinstance(value, str) and "\n" in value and _PLAIN_LINES.fullmatch(value):
        lines = [" " * (column + 2) + line if line else "" for line in value.removesuffix("\n").split("\n")]
        if lines[-1]:
            return "|" if value.endswith("\n") else "|-", lines
    return "" if value is None else _scalar(value), []


def _block(value: Any, column: int) -> list[str]:
    lines = list[str]()
    indent = " " * column
    if isinstance(value, dict):
        for key, item in value.items():
            first, more = _entry(item, column)
            lines += [f"{indent}{_scalar(key)}:{' ' + first if first else ''}", *more]
        return lines
    for item in value:
        if isinstance(item, (dict, list)) and item:
            first, *more = _block(item, column + 2)
            lines += [f"{indent}- {first.lstrip()}", *more]
        else:
            empty = "null" if item is None else "{}" if item == {} else "[]" if item == [] else ""
            lines.append(f"{indent}- {empty or _scalar(item)}")
    return lines


def _scalar(text: str) -> str:
    """A scalar as every version of YAML reads it: quoted unless nothing could take it for anything else."""
    if _SAFE.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    if isinstance(text, Plain):
        return str(text)
    if all(" " <= letter <= "~" for letter in text):
        return "'" + text.replace("'", "''") + "'"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{text!r} cannot be kept in a {WHAT}: it is not UTF-8.", "Give it another value.")
    # Letters as escapes: the SDK opens the file in the machine's own encoding.
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\\n\t':
        return "\\" + {"\n": "n", "\t": "t"}.get(letter, letter)
    if " " <= letter <= "~":
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
