"""Describes values that are not containers: numbers, texts, times, paths, functions."""

from __future__ import annotations

import sys
import types

from . import snapshot_types
from .snapshot_types import as_str, is_a, is_text

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from .snapshot_types import Shape

#: Bits of a number that is written in decimal: more take long, or Python refuses.
_MOST_BITS = 10000
#: Limit of the integers that every JSON reader reads exactly.
_EXACT = 2**53
_FUNCTION: Any = type(lambda: None)
_BOUND: Any = type(snapshot_types.Shapes().shape_of)
#: Suspended functions, with the prefix of their attributes. The program cannot replace these attributes.
_SUSPENDED = ((types.GeneratorType, "gi"), (types.CoroutineType, "cr"), (types.AsyncGeneratorType, "ag"))
_WRAPPER: Any = type(object.__str__)


def describe(value: Any, shape: Shape, most: int) -> Optional[Dict[str, Any]]:
    """Describe a number, a text or the like; None if the value is something else.

    Args:
        value: The value.
        shape: How its class is read.
        most: Characters of a text that are recorded.
    """
    kind = shape.kind
    if value is None or value is Ellipsis or value is NotImplemented:
        return {"kind": "scalar", "text": repr(value), "value": None}
    for one in shape.lineage:
        if one is str:
            part = as_str(str.__getitem__(value, slice(0, most)))
            return {"kind": "str", "text": repr(part), "value": part, "length": str.__len__(value)}
        if one is bytes:
            return {
                "kind": "bytes",
                "text": repr(bytes.__getitem__(value, slice(0, most // 2))),
                "length": bytes.__len__(value),
            }
        if one is bytearray:
            data = bytearray.__getitem__(value, slice(0, most // 2))
            return {"kind": "bytes", "text": "bytearray({!r})".format(bytes(data)), "length": bytearray.__len__(value)}
        if one is bool:
            return {"kind": "scalar", "text": repr(value), "value": value}
        if one is int:
            return _describe_int(value, shape)
        if one is float:
            number = float.__mul__(value, 1.0)
            found: Dict[str, Any] = {"kind": "scalar", "text": float.__repr__(value)}
            # JSON has no NaN and no infinities.
            return {**found, "value": number} if number - number == 0.0 else found
        if one is complex:
            return {"kind": "scalar", "text": complex.__repr__(value)}
    if kind is range:
        return {"kind": "scalar", "text": _range_text(value)}
    return _describe_time(value, shape) or _describe_decimal(value, shape) or _describe_path(value, shape)


def _describe_int(value: Any, shape: Shape) -> Dict[str, Any]:
    bits = int.bit_length(value)
    if bits > _MOST_BITS:
        return {"kind": "scalar", "text": "<int of {:,} bits>".format(bits)}
    number: int = int.__add__(value, 0)
    text = int.__repr__(value)
    entries = None if shape.kind is int else shape.entries(value)
    name = None if entries is None else dict.get(entries, "_name_")
    if is_text(name):
        # A member of an enumeration.
        text = "<{}.{}: {}>".format(snapshot_types.short_name(shape.kind), as_str(name)[:200], text)
    found: Dict[str, Any] = {"kind": "scalar", "text": text}
    return {**found, "value": number} if -_EXACT < number < _EXACT else found


def _range_text(value: Any) -> str:
    numbers = [value.start, value.stop, value.step]
    texts = [int.__repr__(one) if int.bit_length(one) < _MOST_BITS else "..." for one in numbers]
    return "range({})".format(", ".join(texts if texts[2] != "1" else texts[:2]))


def _describe_time(value: Any, shape: Shape) -> Optional[Dict[str, Any]]:
    """Describe a date or a time by its fields; formatting it would call its time zone, which may be any class."""
    modules = sys.modules
    for name, fields in (
        ("datetime", ("year", "month", "day", "hour", "minute", "second", "microsecond")),
        ("date", ("year", "month", "day")),
        ("time", ("hour", "minute", "second", "microsecond")),
        ("timedelta", ("days", "seconds", "microseconds")),
    ):
        wanted = snapshot_types.from_module(modules, "datetime", name)
        if type(wanted) is not type or not is_a(shape.kind, wanted):
            continue
        readers = dict(snapshot_types.class_entries(wanted))
        if name == "datetime":
            readers.update(snapshot_types.class_entries(snapshot_types.from_module(modules, "datetime", "date")))
            readers.update(snapshot_types.class_entries(wanted))
        numbers = []
        for field in fields:
            reader: Any = readers.get(field)
            # Only Python's implementation in C is read; the one in Python has properties.
            if not snapshot_types.is_exactly(reader, snapshot_types.GETSET, snapshot_types.MEMBER):
                return None
            numbers.append(int(type(reader).__get__(reader, value, wanted)))
        shown = "{}({})".format(snapshot_types.short_name(shape.kind), ", ".join(map(str, numbers)))
        return {"kind": "scalar", "text": shown}
    return None


def _describe_decimal(value: Any, shape: Shape) -> Optional[Dict[str, Any]]:
    """Describe a decimal number, if the class is the one written in C."""
    decimal = snapshot_types.from_module(sys.modules, "decimal", "Decimal")
    if type(decimal) is type and is_a(shape.kind, decimal):
        show: Any = dict(snapshot_types.class_entries(decimal)).get("__repr__")
        if type(show) is _WRAPPER:
            return {"kind": "scalar", "text": str(show(value))[:1000]}
    return None


def _describe_path(value: Any, shape: Shape) -> Optional[Dict[str, Any]]:
    if snapshot_types.module_name(shape.kind).partition(".")[0] != "pathlib":
        return None
    parts = dict(shape.attributes(value)[0])
    text: Any = parts.get("_str")
    raw = parts.get("_raw_paths") or parts.get("_raw_path") or parts.get("_parts")
    if type(text) is not str and type(raw) is str:
        text = raw
    if type(text) is not str and type(raw) is list and all(type(one) is str for one in raw):
        text = "/".join(one.rstrip("/") if number else one for number, one in enumerate(raw)).replace("//", "/")
    if type(text) is not str:
        return None
    return {"kind": "scalar", "text": "{}({!r})".format(snapshot_types.short_name(shape.kind), text[:1000])}


def function_text(value: Any) -> str:
    """A function's name and place."""
    if type(value) is _BOUND:
        function, owner = value.__func__, type(value.__self__)
        return "<bound method {} of {}>".format(
            as_str(function.__qualname__)[:200] if type(function) is _FUNCTION else "?",
            snapshot_types.class_name(owner),
        )
    if type(value) is not _FUNCTION:
        name = type(value).__dict__["__name__"].__get__(value, type(value))
        return "<built-in function {}>".format(as_str(name)[:200] if is_text(name) else "?")
    code = value.__code__
    return "<function {} at {}:{}>".format(
        as_str(value.__qualname__)[:200], as_str(code.co_filename)[-200:], code.co_firstlineno
    )


def object_text(value: Any, shape: Shape, attributes: Dict[str, Any]) -> str:
    """The short text of an object."""
    for kind, prefix in _SUSPENDED:
        if shape.kind is kind:
            code = getattr(value, prefix + "_code")
            return "<{} {}>".format(shape.name.rpartition(".")[2], as_str(code.co_name)[:200])
    name: Any = attributes.get("_name_")
    if "_value_" in attributes and is_text(name):
        return "<{}.{}>".format(shape.name, as_str(name)[:200])
    return "<{} object>".format(shape.name)
