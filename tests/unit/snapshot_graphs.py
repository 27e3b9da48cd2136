"""Object graphs for the tests of snapshots: made from a seed, of ordinary values and of hostile ones.

A hostile value's methods record that they have been called, and raise. None may be.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import pathlib
import random
import types
import weakref
from collections.abc import Callable
from typing import Any

#: What has been called of a person's code.
CALLED: list[str] = []
#: All that Python may ask an object without anybody's typing a call.
DUNDERS = (
    *("__repr__", "__str__", "__format__", "__bytes__", "__hash__", "__bool__", "__len__", "__iter__", "__next__"),
    *(
        "__getattr__",
        "__getattribute__",
        "__getitem__",
        "__contains__",
        "__eq__",
        "__ne__",
        "__lt__",
        "__le__",
        "__gt__",
    ),
    *("__ge__", "__int__", "__float__", "__complex__", "__index__", "__add__", "__radd__", "__mul__", "__rmul__"),
    *("__call__", "__dir__", "__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__", "__sizeof__", "__fspath__"),
    *("__length_hint__", "__reversed__", "__missing__", "__enter__", "__exit__", "__await__", "__aiter__", "__anext__"),
    *("__array__", "__array_interface__", "__dataframe__", "__torch_function__", "__round__", "__abs__", "__neg__"),
    *(
        "items",
        "keys",
        "values",
        "get",
        "copy",
        "__getstate__",
        "__instancecheck__",
        "__subclasscheck__",
        "__del_own__",
    ),
)


def _recording(name: str) -> Callable[..., Any]:
    def called(*arguments: Any, **options: Any) -> Any:
        CALLED.append(name)
        raise RuntimeError(name)

    called.__name__ = name
    return called


def _body(base: type, left: tuple[str, ...] = ()) -> dict[str, Any]:
    body: dict[str, Any] = {name: _recording(f"{base.__name__}.{name}") for name in DUNDERS if name not in left}
    for name in ("__class__", "shape", "dtype", "lines", "__name__", "__cause__", "__notes__", "args", "_mgr"):
        if name not in left:
            body[name] = property(_recording(f"{base.__name__}.{name} as a property"))
    return body


class _Meta(type):
    """A class of classes that is asked nothing."""

    __getattribute__ = _recording("metaclass.__getattribute__")
    __eq__ = _recording("metaclass.__eq__")
    __hash__ = _recording("metaclass.__hash__")
    __repr__ = _recording("metaclass.__repr__")
    __instancecheck__ = _recording("metaclass.__instancecheck__")
    __subclasscheck__ = _recording("metaclass.__subclasscheck__")


Plain = type("HostilePlain", (), _body(object))
Slotted = type("HostileSlotted", (), {"__slots__": ("one", "two", "never"), **_body(object)})
OfMeta = _Meta("HostileOfMeta", (), {})
NoDict = type("HostileNoDict", (), {**_body(object), "__dict__": property(_recording("__dict__ as a property"))})
List, Dict, Tuple, Set, Frozen = (
    type(f"Hostile{base.__name__}", (base,), _body(base)) for base in (list, dict, tuple, set, frozenset)
)
Text, Number, Fraction, Bytes, Deque = (
    type(f"Hostile{base.__name__}", (base,), _body(base)) for base in (str, int, float, bytes, collections.deque)
)
Broken = type("HostileError", (Exception,), _body(Exception))
Broken2 = type("HostileKeyError", (KeyError, OSError), _body(Exception))


class Colour(enum.Enum):
    RED = 1


class Point(collections.namedtuple("Point", "x token")):
    __slots__ = ()


def make(chance: random.Random, depth: int = 0) -> Any:
    """A graph."""
    return _Maker(chance).make(depth)


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._made: list[Any] = []

    def make(self, depth: int) -> Any:
        chance = self._chance
        if self._made and chance.random() < 0.1:
            return chance.choice(self._made)
        leaf = depth > 4 or len(self._made) > 40 or chance.random() < 0.35
        value = self._leaf() if leaf else self._container(depth)
        self._made.append(value)
        return value

    def _leaf(self) -> Any:
        chance = self._chance
        number = chance.randrange(10**6)
        ordinary: list[Callable[[], Any]] = [
            lambda: number,
            lambda: -(2 ** chance.randrange(1, 70000)),
            lambda: chance.choice([float("nan"), float("inf"), -0.0, 1e308, 0.1]),
            lambda: complex(number, -1),
            lambda: chance.choice([None, True, False, Ellipsis, NotImplemented]),
            lambda: "".join(chr(chance.choice([chance.randrange(32, 0x3000), 0xD800, 0])) for _ in range(number % 40)),
            lambda: "x" * number,
            lambda: bytes(number % 50),
            lambda: bytearray(number % 50),
            lambda: range(number),
            lambda: slice(number),
            lambda: datetime.datetime(2024, 1, 1, tzinfo=HostileZone()),
            lambda: datetime.timedelta(seconds=number),
            lambda: decimal.Decimal(number),
            lambda: pathlib.PurePosixPath("/a", str(number)),
            lambda: Colour.RED,
            lambda: chance.choice([len, make, [].append, int, Colour, types, functools.partial(print, number)]),
            lambda: (one for one in [number]),
            lambda: memoryview(bytes(3)),
            lambda: iter([number]),
            lambda: object(),
            lambda: {number: 1}.keys(),
            lambda: types.MappingProxyType(Dict()),
            lambda: super(Plain, Plain()),
        ]
        hostile: list[Callable[[], Any]] = [
            lambda: Plain(),
            lambda: Plain,
            lambda: OfMeta,
            lambda: type.__call__(OfMeta),
            lambda: Text("a hostile text"),
            lambda: Number(number),
            lambda: Fraction(0.5),
            lambda: Bytes(b"bytes"),
            lambda: Broken("text", Plain()),
            lambda: Broken2("text"),
            lambda: NoDict(),
            lambda: weakref.proxy(_kept(Plain())),
            lambda: weakref.ref(_kept(Plain())),
            lambda: Plain().__class__ if False else functools.partial(Plain),
        ]
        return chance.choice(ordinary if chance.random() < 0.6 else hostile)()

    def _container(self, depth: int) -> Any:
        chance = self._chance
        elements = [self.make(depth + 1) for _ in range(chance.choice([0, 1, 2, 3, 9]))]
        kind = chance.randrange(17)
        if kind == 0:
            return elements
        if kind == 1:
            return tuple(elements)
        if kind == 2:
            return {f"name{number}": one for number, one in enumerate(elements)}
        if kind == 3:
            return collections.deque(elements)
        if kind == 4:
            found: list[Any] = []
            list.extend(found, elements)
            found.append(found)
            return found
        if kind == 5:
            loop: dict[Any, Any] = {"values": elements}
            loop["self"] = loop
            return loop
        if kind == 6:
            return set(range(len(elements)))
        if kind == 7:
            return List(elements)
        if kind == 8:
            hostile: Any = dict.__new__(Dict)
            for number, one in enumerate(elements):
                dict.__setitem__(hostile, number, one)
            return hostile
        if kind == 9:
            return tuple.__new__(Tuple, elements)
        if kind == 10:
            found = Plain()
            entries = object.__getattribute__(found, "__dict__")
            entries.update({f"attribute{number}": one for number, one in enumerate(elements)})
            return found
        if kind == 11:
            slotted = Slotted()
            object.__setattr__(slotted, "one", elements)
            return slotted
        if kind == 12:
            return Point(elements, "a-token-of-the-tests-123")
        if kind == 13:
            error = Broken(*elements)
            BaseException.__dict__["__cause__"].__set__(error, ValueError("cause"))
            return error
        if kind == 14:
            return collections.OrderedDict((number, one) for number, one in enumerate(elements))
        if kind == 15:
            odd: dict[Any, Any] = {(number, "key"): one for number, one in enumerate(elements)}
            odd[b"password"] = "a-password-of-the-tests-123"
            return odd
        holder = types.SimpleNamespace(api_key="a-key-of-the-tests-123")
        holder.__dict__.update({f"attribute{number}": one for number, one in enumerate(elements)})
        return holder


class HostileZone(datetime.tzinfo):
    """A time zone that answers nothing."""

    utcoffset = _recording("tzinfo.utcoffset")
    tzname = _recording("tzinfo.tzname")
    dst = _recording("tzinfo.dst")
    __repr__ = _recording("tzinfo.__repr__")


_alive: list[Any] = []


def _kept(value: Any) -> Any:
    _alive.append(value)
    del _alive[:-1000]
    return value
