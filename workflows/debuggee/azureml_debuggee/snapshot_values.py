"""Describes values for a snapshot: breadth first, within a limit of size and of time, without running their code.

Every container is read by the functions of Python's own types, whatever its class has overridden. A value that occurs
again gets the same entry, so cycles end. The format is described in snapshot.py.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import islice

from . import snapshot_arrays, snapshot_scalars, snapshot_types
from .snapshot_names import LEFT_OUT
from .snapshot_types import MODULE, as_str, is_a, is_exactly, is_text

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

    from .snapshot_names import Names
    from .snapshot_types import Shape

#: Elements of a container that are recorded, by its depth; deeper containers are not described.
ELEMENTS = (300, 100, 40, 15, 8, 5)
#: Characters of a text that are recorded, by its depth.
CHARACTERS = (2000, 1000, 400, 200, 200, 200, 200)
#: Characters of a container's short text, of an element in it, and the number of elements in it.
_BRIEF, _BRIEF_ITEM, _BRIEF_ITEMS = 160, 40, 6
#: Bytes of an entry in addition to its texts; and of an element's reference in it.
_ENTRY, _PLACE = 70, 14
_BOUND: Any = type(snapshot_types.Shapes().shape_of)
_CALLABLE: Any = (
    type(lambda: None),
    type([].append),
    _BOUND,
    type(list.append),
    type([].__len__),
    type(list.__len__),
    type(dict.fromkeys),
)
#: Numbers below this are too short for a secret.
_SMALL = 100_000
_WRAPPER: Any = type(list.__len__)
_VIEWS: Any = (type({}.keys()), type({}.values()), type({}.items()))
_SCALARS: Any = (type(None), bool, int, float, complex, type(Ellipsis), type(NotImplemented), str, bytes)


class Values:
    """The values of a snapshot.

    Args:
        names: Tells what is left out.
        until: The end of the available time, on the monotonic clock.
        most: Bytes that the values may take.
    """

    def __init__(self, names: Names, until: float, most: int) -> None:
        self.entries: List[Dict[str, Any]] = []
        #: Names whose values have been left out as secrets.
        self.secrets: Dict[str, None] = {}
        #: How many values were left out for lack of space or time.
        self.unread = 0
        self.is_out_of_time = False
        self.size = 0
        self._names, self.until, self.most = names, until, most
        self._shapes = snapshot_types.Shapes()
        self._seen: Dict[int, int] = {}
        # Recorded values stay alive to the end, so that no other value gets the same identity.
        self._alive: List[Any] = []
        self._waiting: List[Tuple[int, Any, Shape, int]] = []
        self._share = most
        self._secret: Optional[int] = None
        environment = snapshot_types.from_module(sys.modules, "os", "environ")
        data = getattr(environment, "_data", None) if environment is os.environ else None
        self._variables = frozenset(
            os.fsdecode(name) for name in (data if type(data) is dict else {}) if type(name) in (str, bytes)
        )
        self._arrays = snapshot_arrays.Arrays(until, names)
        self._readers = self._known_readers()

    def _known_readers(self) -> Dict[int, Callable[[Any, Dict[str, Any], int], bool]]:
        """The functions that read values, by the identity of their class or base class."""
        readers: Dict[int, Callable[[Any, Dict[str, Any], int], bool]] = {}
        for kind, read in (
            (dict, self._read_dict),
            (list, self._reader("list", list.__len__, lambda value, most: list.__getitem__(value, slice(0, most)))),
            (tuple, self._reader("tuple", tuple.__len__, lambda value, most: tuple.__getitem__(value, slice(0, most)))),
            (set, self._reader("set", set.__len__, lambda value, most: list(islice(set.__iter__(value), most)))),
            (
                frozenset,
                self._reader(
                    "frozenset",
                    frozenset.__len__,
                    lambda value, most: list(islice(frozenset.__iter__(value), most)),
                ),
            ),
        ):
            readers[id(kind)] = read
        deque: Any = snapshot_types.from_module(sys.modules, "_collections", "deque")
        if deque is not None:
            readers[id(deque)] = self._reader(
                "deque", deque.__len__, lambda value, most: list(islice(deque.__iter__(value), most))
            )
        array: Any = snapshot_types.from_module(sys.modules, "array", "array")
        if (
            array is not None
            and is_a(type(array), type)
            and type(dict(snapshot_types.class_entries(array)).get("__len__")) is _WRAPPER
        ):
            readers[id(array)] = self._reader(
                "list", array.__len__, lambda value, most: list(array.__getitem__(value, slice(0, most)))
            )
        for view in _VIEWS:
            readers[id(view)] = self._reader("list", len, lambda value, most: list(islice(value, most)))
        return readers

    # Public methods

    def limit(self, share: int) -> None:
        """Allow so many further bytes for the following values, as far as they are available."""
        self._share = min(self.most, self.size + share)

    def add(self, value: Any, name: str = "", depth: int = 0) -> Optional[int]:
        """Add a value, and return its index; None if it is left out for lack of space or time.

        Args:
            value: The value.
            name: Its name, if it has one.
            depth: Its depth below the variable.
        """
        if name and self._is_secret(name, value):
            return self._add_left_out(name, value)
        known = self._seen.get(id(value))
        if known is not None:
            return known
        if self.size >= self._share or self._is_late():
            self.unread += 1
            return None
        return self._add_new(value, depth)

    def describe_added(self) -> None:
        """Describe the contents of the values that have been added since the last call, breadth first."""
        waiting = self._waiting
        at = 0
        while at < len(waiting):
            index, value, shape, depth = waiting[at]
            at += 1
            if self.size >= self._share or self._is_late():
                self.unread += len(waiting) - at + 1
                break
            entry = self.entries[index]
            try:
                self._describe_contents(value, shape, entry, depth)
            except Exception:
                entry.setdefault("text", "<{}>".format(shape.name))
                entry["kind"] = "opaque" if "items" not in entry and "attributes" not in entry else entry["kind"]
            self.size += _PLACE * (len(entry.get("items", ())) + len(entry.get("attributes", ())))
        del waiting[:]

    def finish(self) -> None:
        """Give every container a short text, from its recorded elements."""
        for entry in reversed(self.entries):
            if "text" not in entry and "items" not in entry:
                # There was no space or time to describe its contents.
                entry["kind"], entry["text"] = "opaque", "<{} ...>".format(entry["type"])
            elif "text" not in entry:
                entry["text"] = self._container_text(entry)

    # Parts

    def _is_late(self) -> bool:
        self.is_out_of_time = self.is_out_of_time or time.monotonic() >= self.until
        return self.is_out_of_time

    def _add_new(self, value: Any, depth: int) -> int:
        shape = self._shapes.shape_of(value)
        index = len(self.entries)
        entry: Dict[str, Any] = {"type": shape.name, "kind": "object"}
        self.entries.append(entry)
        self._seen[id(value)] = index
        self._alive.append(value)
        try:
            done = self._describe_simple(value, shape, entry, depth)
        except Exception:
            entry["kind"], entry["text"], done = "opaque", "<{}>".format(shape.name), True
        self.size += (
            _ENTRY + len(shape.name) + _bytes_in_file(entry.get("text", "")) + _bytes_in_file(entry.get("value", ""))
        )
        if not done:
            self._waiting.append((index, value, shape, depth))
        return index

    def _describe_simple(self, value: Any, shape: Shape, entry: Dict[str, Any], depth: int) -> bool:
        """Describe a value without contents; False if it has contents that need to be described."""
        most = CHARACTERS[min(depth, len(CHARACTERS) - 1)]
        found = snapshot_scalars.describe(value, shape, most)
        if found is None and any(shape.kind is one for one in _CALLABLE):
            found = {"kind": "callable", "text": snapshot_scalars.function_text(value)}
        if found is None and is_a(shape.kind, type):
            found = {"kind": "class", "text": "<class {}>".format(snapshot_types.class_name(value))}
        if found is None and is_a(shape.kind, MODULE):
            name = dict.get(snapshot_types.module_entries(value), "__name__")
            found = {"kind": "module", "text": "<module {}>".format(as_str(name)[:200] if is_text(name) else "?")}
        if found is None and value is os.environ:
            found = {"kind": "secret", "text": "<left out: environment variables>"}
        if found is None:
            return False
        entry.update(found)
        return True

    def _describe_contents(self, value: Any, shape: Shape, entry: Dict[str, Any], depth: int) -> None:
        described = self._arrays.describe(value, shape, self.add, depth)
        if described is not None:
            entry.update(described)
            self.size += 100 + sum(_bytes_in_file(str(column)) for column in described.get("columns", ()))
            return
        is_read = False
        for one in shape.lineage:
            read = self._readers.get(id(one))
            if read is not None:
                is_read = read(value, entry, depth)
                break
        if is_read and "text" in entry:
            return
        if depth + 1 >= len(ELEMENTS):
            if not is_read:
                entry["text"] = "<{} object>".format(shape.name)
            return
        attributes, more = shape.attributes(value)
        if is_a(shape.kind, tuple):
            elements = tuple.__getitem__(value, slice(0, ELEMENTS[0]))
            attributes = [*zip(self._fields(shape), elements), *attributes]
        recorded = [(name, self.add(one, name, depth + 1)) for name, one in attributes]
        if recorded or not is_read:
            entry["attributes"] = [[name, index] for name, index in recorded]
            if more:
                entry["more_attributes"] = more
            self.size += sum(len(name) for name, _ in recorded)
        if not is_read:
            entry["text"] = snapshot_scalars.object_text(value, shape, dict(attributes))

    def _fields(self, shape: Shape) -> List[str]:
        """The names of a named tuple's elements; empty for other classes."""
        for kind in shape.lineage:
            for name, fields in snapshot_types.class_entries(kind):
                if name == "_fields" and type(fields) is tuple and all(type(one) is str for one in fields):
                    return list(fields)
        return []

    def _reader(
        self, kind: str, length: Callable[[Any], int], take: Callable[[Any, int], Sequence[Any]]
    ) -> Callable[[Any, Dict[str, Any], int], bool]:
        def read(value: Any, entry: Dict[str, Any], depth: int) -> bool:
            count = length(value)
            elements = take(value, ELEMENTS[depth]) if depth < len(ELEMENTS) else ()
            entry.update(kind=kind, length=count)
            if self._are_environment_variables(elements):
                entry.update(kind="secret", text="<left out: environment variables>")
                return True
            items: List[List[Optional[int]]] = []
            # A pair such as ("Authorization", "Bearer …") counts as a name and its value.
            named: Dict[int, str] = {}
            if kind in ("tuple", "list") and count == 2 and elements:
                named = {1: _as_name(elements[0])}
            if kind == "tuple" and type(value) is not tuple:
                named = dict(enumerate(self._fields(self._shapes.shape_of(value)))) or named
            for number, element in enumerate(elements):
                index = self.add(element, named.get(number, ""), depth + 1)
                if index is None:
                    self.unread += len(elements) - number - 1
                    break
                items.append([None, index])
            entry["items"] = items
            if count > len(items):
                entry["more"] = count - len(items)
            return True

        return read

    def _read_dict(self, value: Any, entry: Dict[str, Any], depth: int) -> bool:
        count = dict.__len__(value)
        most = ELEMENTS[depth] if depth < len(ELEMENTS) else 0
        pairs = list(islice(dict.items(value), most))
        entry.update(kind="dict", length=count)
        keys = [_as_name(key) for key, _ in pairs]
        if len(self._variables.intersection(keys)) >= max(4, min(len(self._variables), count) // 2):
            entry.update(kind="secret", text="<left out: environment variables>")
            return True
        items: List[List[Optional[int]]] = []
        for number, (key, element) in enumerate(pairs):
            of_key = self.add(key, "", depth + 1)
            index = None if of_key is None else self.add(element, keys[number], depth + 1)
            if of_key is None or index is None:
                self.unread += len(pairs) - number - 1
                break
            items.append([of_key, index])
        entry["items"] = items
        if count > len(items):
            entry["more"] = count - len(items)
        return True

    def _are_environment_variables(self, elements: Sequence[Any]) -> bool:
        """Whether elements are environment variables as ``NAME=value``."""
        found = 0
        for element in elements[:50] if len(elements) >= 4 else ():
            if not is_exactly(element, str, bytes):
                return False
            name = _as_name(element[:100]).partition("=")[0]
            found += name in self._variables
        return found >= 4

    # Secrets

    def _is_secret(self, name: str, value: Any) -> bool:
        """Whether a value is left out; fractions, arrays, functions and classes never are."""
        kind = type(value)
        if value is None or kind is bool or kind is float or not self._names.is_secret(name):
            return False
        shape = self._shapes.shape_of(value)
        if kind is MODULE or is_a(kind, type) or any(kind is one for one in _CALLABLE):
            return False
        if self._arrays.is_known(shape):
            return False
        # Not counts and indices, such as `max_tokens` and `eos_token_id`.
        return not (self._names.is_weak(name) and _are_numbers(value))

    def _add_left_out(self, name: str, value: Any) -> int:
        self.secrets.setdefault(name[:100])
        self._remember_texts(name, value, 3)
        if self._secret is None:
            self._secret = len(self.entries)
            self.entries.append({"type": "", "kind": "secret", "text": LEFT_OUT})
        return self._secret

    def _remember_texts(self, name: str, value: Any, depth: int) -> None:
        """Remember the texts in a left-out value, since they may occur elsewhere, too."""
        kind = type(value)
        if is_text(value):
            self._names.keep(name, as_str(str.__getitem__(value, slice(0, 4097))))
        elif kind is bytes:
            self._names.keep(name, bytes.__getitem__(value, slice(0, 4097)).decode("utf-8", "replace"))
        elif depth and is_a(kind, dict):
            for one in list(islice(dict.values(value), 50)):
                self._remember_texts(name, one, depth - 1)
        elif depth and is_a(kind, list):
            for one in list.__getitem__(value, slice(0, 50)):
                self._remember_texts(name, one, depth - 1)
        elif depth and is_a(kind, tuple):
            for one in tuple.__getitem__(value, slice(0, 50)):
                self._remember_texts(name, one, depth - 1)
        elif depth and not is_exactly(value, *_SCALARS):
            for _, one in self._shapes.shape_of(value).attributes(value)[0]:
                self._remember_texts(name, one, depth - 1)

    # Short texts

    def _container_text(self, entry: Dict[str, Any]) -> str:
        kind, items = entry["kind"], entry.get("items", ())
        parts: List[str] = []
        size = 0
        for key, index in items[:_BRIEF_ITEMS]:
            part = self._brief_text(index)
            if key is not None:
                part = "{}: {}".format(self._brief_text(key), part)
            size += len(part) + 2
            if parts and size > _BRIEF:
                break
            parts.append(part)
        more = entry.get("length", len(items)) - len(parts)
        if more:
            parts.append("... {:,} more".format(more) if parts else "{:,} elements".format(more))
        text = ", ".join(parts)
        base = entry["type"].rpartition(".")[2]
        if kind == "list" and entry["type"] == "builtins.list":
            return "[{}]".format(text)
        if kind == "tuple" and entry["type"] == "builtins.tuple":
            return "({}{})".format(text, "," if len(parts) == 1 and not more else "")
        if kind in ("dict", "set") and entry["type"] in ("builtins.dict", "builtins.set") and (parts or kind == "dict"):
            return "{{{}}}".format(text)
        marks = "{{{}}}" if kind in ("dict", "set", "frozenset") and parts else "[{}]" if parts else "{}"
        return "{}({})".format(base, marks.format(text))

    def _brief_text(self, index: int) -> str:
        entry = self.entries[index]
        text = str(entry.get("text", "..."))
        return text if len(text) <= _BRIEF_ITEM else text[: _BRIEF_ITEM - 3] + "..."


def _as_name(key: Any) -> str:
    """A dictionary's key as a name; empty if it is not a string."""
    if is_text(key):
        return as_str(str.__getitem__(key, slice(0, 200)))
    if type(key) is bytes:
        return key[:200].decode("utf-8", "replace")
    return ""


def _are_numbers(value: Any) -> bool:
    """Whether a value is a small number, or a list of such."""
    if type(value) is int:
        return -_SMALL < value < _SMALL
    return type(value) is list and all(type(one) is int and -_SMALL < one < _SMALL for one in value[:50])


def _bytes_in_file(text: Any) -> int:
    """The bytes that a text takes in the file."""
    if type(text) is not str:
        return 8
    return len(text) + 2 if text.isascii() else 6 * len(text)
