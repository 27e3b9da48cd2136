"""Reads classes and attributes of values without running any method, property or hook of their classes.

`isinstance` reads `__class__`, `getattr` calls `__getattr__`, and even `type.__name__` may be a metaclass's own. This
module uses the functions of Python's own types only, and the class's real ancestors.
"""

from __future__ import annotations

import contextlib
import sys
from itertools import islice

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional, Tuple

_mro_of: Any = type.__dict__["__mro__"].__get__
_dict_of: Any = type.__dict__["__dict__"].__get__
_name_of: Any = type.__dict__["__name__"].__get__
_qualname_of: Any = type.__dict__["__qualname__"].__get__
_module_of: Any = type.__dict__["__module__"].__get__
#: The types by which Python itself reads an instance's dictionary and a slot; and the type of modules.
GETSET: Any = type(BaseException.__dict__["__dict__"])
MEMBER: Any = type(slice.__dict__["start"])
MODULE: Any = type(sys)
_module_dict: Any = MODULE.__dict__["__dict__"].__get__
#: Attributes that are read of one value, at most.
MOST_ATTRIBUTES = 200


def as_str(text: Any) -> str:
    """A text as an exact `str`; for a subclass, its real content."""
    return text if type(text) is str else str.__str__(text)


def ancestors(kind: type) -> Tuple[type, ...]:
    """A class and its base classes, in order."""
    found: Tuple[type, ...] = _mro_of(kind)
    return found


def is_a(kind: type, wanted: type) -> bool:
    """Whether a class really is another class or derived from it, whatever their hooks claim."""
    return any(one is wanted for one in _mro_of(kind))


def is_exactly(value: Any, *wanted: type) -> bool:
    """Whether a value is of exactly one of these classes; `in` would call the class's `__eq__`."""
    kind = type(value)
    return any(kind is one for one in wanted)


def is_text(value: Any) -> bool:
    """Whether a value is a text, or of a subclass of `str`."""
    return type(value) is str or is_a(type(value), str)


def class_name(kind: type) -> str:
    """A class's full name."""
    module: Any = _module_of(kind)
    name = as_str(_qualname_of(kind))[:200]
    return "{}.{}".format(as_str(module)[:200], name) if is_text(module) else name


def short_name(kind: type) -> str:
    """A class's name alone."""
    return as_str(_name_of(kind))[:200]


def module_name(kind: type) -> str:
    """The name of a class's module; empty if it is not a string."""
    module: Any = _module_of(kind)
    return as_str(module)[:200] if is_text(module) else ""


def class_entries(kind: type) -> Iterator[Tuple[str, Any]]:
    """The attributes that a class itself defines."""
    for name, value in list(_dict_of(kind).items()):
        if type(name) is str:
            yield name, value


def module_entries(module: Any) -> Dict[str, Any]:
    """A module's dictionary; empty if the value is not a module."""
    if module is None or not is_a(type(module), MODULE):
        return {}
    found: Dict[str, Any] = _module_dict(module)
    return found


def from_module(modules: Dict[str, Any], name: str, attribute: str) -> Any:
    """An attribute of a loaded module; None if the module is not loaded, or has no such attribute."""
    return dict.get(module_entries(modules.get(name)), attribute)


class Shape:
    """How the values of one class are read.

    Args:
        kind: The class.
    """

    def __init__(self, kind: type) -> None:
        # The reference keeps the class alive, since it is looked up by its identity.
        self.kind = kind
        self.name = class_name(kind)
        self.lineage = ancestors(kind)
        self._dict: Any = None
        self._members: List[Tuple[str, Any]] = []
        for one in self.lineage:
            for name, value in class_entries(one):
                if name == "__dict__" and type(value) is GETSET and self._dict is None:
                    self._dict = value
                elif type(value) is MEMBER and len(self._members) < MOST_ATTRIBUTES and not name.startswith("__"):
                    self._members.append((name, value))

    def entries(self, value: Any) -> Optional[Dict[Any, Any]]:
        """A value's own dictionary; None if it has none that can be read."""
        if self._dict is None:
            return None
        try:
            found: Any = GETSET.__get__(self._dict, value, self.kind)
        except Exception:
            return None
        return found if type(found) is dict or is_a(type(found), dict) else None

    def attributes(self, value: Any) -> Tuple[List[Tuple[str, Any]], int]:
        """A value's stored attributes, and how many more there are."""
        found: List[Tuple[str, Any]] = []
        for name, member in self._members:
            # An unset slot has no value.
            with contextlib.suppress(Exception):
                found.append((name, MEMBER.__get__(member, value, self.kind)))
        entries = self.entries(value)
        if entries is None:
            return found, 0
        pairs = list(islice(dict.items(entries), MOST_ATTRIBUTES))
        found.extend((as_str(name)[:200], one) for name, one in pairs if is_text(name))
        return found, max(0, dict.__len__(entries) - len(pairs))


class Shapes:
    """The shapes of all classes that have occurred."""

    def __init__(self) -> None:
        self._known: Dict[int, Shape] = {}

    def shape_of(self, value: Any) -> Shape:
        """The shape of a value's class."""
        kind = type(value)
        found = self._known.get(id(kind))
        if found is None:
            found = self._known[id(kind)] = Shape(kind)
        return found
