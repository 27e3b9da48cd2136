"""Reading and checking a snapshot's file. It may come from anyone, and may be truncated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import shown
from ..reading import read_bytes
from .model import Frame, Place, Raised, Snapshot, ThreadStack, Value

FORMAT, VERSION = "azureml-debug-snapshot", 1
#: The largest file that is read, in bytes; a program writes at most a tenth of that.
MOST_BYTES = 32 * 1024 * 1024
#: The largest line number that is accepted.
MOST_LINE = 10_000_000
#: The largest number of items that is accepted.
_MOST_ITEMS = 1 << 53
#: The facts about an array or a table.
_FACTS = ("shape", "dtype", "device", "requires_grad", "nan", "inf", "columns")


class Damaged(ValueError):
    """Something in the file is not valid; the text says what."""


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot.

    Args:
        path: The file.

    Raises:
        UserError: It cannot be read, is no snapshot, is truncated, or has an unknown version.
    """
    try:
        data = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be read: {error.strerror or error}.", "Look at the step's log."
        ) from error
    try:
        content = json.loads(data)
    except (ValueError, RecursionError, MemoryError) as error:
        if _is_cut_off(data):
            raise UserError(
                f"{shown(path)} is cut off: the program was killed while it was being written.",
                "Look at the step's log, or run the step again.",
            ) from error
        raise _no_snapshot(path, "it is not JSON") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _no_snapshot(path, f'it has no `"format": "{FORMAT}"`')
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise _no_snapshot(path, "its version is not a number")
    if version > VERSION:
        raise UserError(
            f"{shown(path)} is of a newer version than this program reads: {min(version, 1 << 60)}, not {VERSION}.",
            "It was written by a newer azureml-debug: update the one here.",
        )
    try:
        return _snapshot(path, content)
    except Damaged as error:
        raise _no_snapshot(path, str(error)) from error


def _is_cut_off(data: bytes) -> bool:
    head = data[:200].lstrip()
    return not head or (head.startswith(b"{") and FORMAT.encode() in head and not data.rstrip().endswith(b"}"))


def _no_snapshot(path: Path, why: str) -> UserError:
    return UserError(f"{shown(path)} is not a snapshot that can be read: {why}.", "Look at the step's log.")


# The parts. Missing optional fields count as empty; all others have to be valid.


@contextmanager
def _in(what: str) -> Iterator[None]:
    try:
        yield
    except Damaged as error:
        raise Damaged(f"{what}: {error}") from error


def _snapshot(path: Path, content: Mapping[str, Any]) -> Snapshot:
    raw_values, raw_frames = _list(content, "values"), _list(content, "frames")
    raw_exceptions = _list(content, "exceptions")
    if not raw_exceptions:
        raise Damaged("it has no exception")
    counts = len(raw_values), len(raw_frames), len(raw_exceptions)
    return Snapshot(
        path=path,
        written=_text(content, "written"),
        where=_object(content, "where"),
        program=_object(content, "program"),
        packages={name: str(version) for name, version in _object(content, "packages").items()},
        values=_each(raw_values, "value", lambda one: _value(one, counts[0])),
        frames=_each(raw_frames, "frame", lambda one: _frame(one, counts[0])),
        exceptions=_each(raw_exceptions, "exception", lambda one: _raised(one, counts)),
        thread=_text(content, "thread"),
        threads=_each(_list(content, "threads"), "thread", lambda one: _thread(one, counts[1])),
        left_out=[one for one in _list(content, "left_out") if isinstance(one, str)],
    )


def _each(entries: list[Any], what: str, read_one: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
    found = []
    for number, entry in enumerate(entries):
        try:
            if not isinstance(entry, dict):
                raise Damaged("it is not an object")
            found.append(read_one(entry))
        except Damaged as error:
            raise Damaged(f"{what} {number}: {error}") from error
    return found


def _value(entry: Mapping[str, Any], count: int) -> Value:
    with _in("items"):
        items = [(_place(key, count), _place(item, count)) for key, item in _pairs(entry, "items")]
    with _in("attributes"):
        attributes = [(_name(name), _place(one, count)) for name, one in _pairs(entry, "attributes")]
    length = entry.get("length")
    return Value(
        type=_text(entry, "type"),
        kind=_text(entry, "kind"),
        text=_text(entry, "text"),
        plain=entry.get("value"),
        has_plain="value" in entry,
        length=_number(length, _MOST_ITEMS) if length is not None else None,
        items=items,
        more=_number(entry.get("more") or 0, _MOST_ITEMS),
        attributes=attributes,
        facts={name: entry[name] for name in _FACTS if entry.get(name) is not None},
    )


def _frame(entry: Mapping[str, Any], count: int) -> Frame:
    source = _object(entry, "source")
    lines = _list(source, "lines")
    if not all(isinstance(one, str) for one in lines):
        raise Damaged("a line of its source is not text")
    with _in("locals"):
        variables = [(_name(name), _place(one, count)) for name, one in _pairs(entry, "locals")]
    name, of = _text(entry, "function"), _text(entry, "class")
    return Frame(
        file=_text(entry, "file"),
        line=max(1, _number(entry.get("line") or 1, MOST_LINE)),
        function=name if not of else of if of.endswith(f".{name}") else f"{of}.{name}",
        module=_text(entry, "module"),
        own=entry.get("own") is True,
        first=max(1, _number(source.get("first") or 1, MOST_LINE)),
        lines=lines,
        sha256=_text(source, "sha256"),
        locals=variables,
        real=_text(entry, "real"),
    )


def _raised(entry: Mapping[str, Any], counts: tuple[int, int, int]) -> Raised:
    values, frames, exceptions = counts
    with _in("frames"):
        own = [_index(one, frames) for one in _list(entry, "frames")]
    with _in("value"):
        value = _place(entry.get("value"), values)
    with _in("the exceptions that it names"):
        return Raised(
            type=_text(entry, "type") or "Exception",
            module=_text(entry, "module"),
            text=_text(entry, "text"),
            notes=[one for one in _list(entry, "notes") if isinstance(one, str)],
            frames=own,
            cause=_place(entry.get("cause"), exceptions),
            context=_place(entry.get("context"), exceptions),
            suppressed=entry.get("suppress_context") is True,
            group=[_index(one, exceptions) for one in _list(entry, "group")],
            value=value,
        )


def _thread(entry: Mapping[str, Any], frames: int) -> ThreadStack:
    return ThreadStack(_text(entry, "name"), [_index(one, frames) for one in _list(entry, "frames")])


# Single values


def _list(content: Mapping[str, Any], name: str) -> list[Any]:
    found = content.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Damaged(f"its `{name}` is not a list")
    return found


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Damaged(f"its `{name}` is not an object")
    return found


def _pairs(content: Mapping[str, Any], name: str) -> Iterator[tuple[Any, Any]]:
    for number, one in enumerate(_list(content, name)):
        if not isinstance(one, list) or len(one) != 2:
            raise Damaged(f"entry {number} is not a pair")
        yield one[0], one[1]


def _text(content: Mapping[str, Any], name: str) -> str:
    found = content.get(name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise Damaged(f"its `{name}` is not text")
    return found


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise Damaged("a name is not text")
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise Damaged("a number is out of range")
    return value


def _index(value: Any, count: int) -> int:
    if type(value) is not int or not 0 <= value < count:
        raise Damaged(f"it names number {value if type(value) is int and abs(value) < 1 << 60 else '?'} of {count}")
    return value


def _place(value: Any, count: int) -> Place:
    return None if value is None else _index(value, count)
