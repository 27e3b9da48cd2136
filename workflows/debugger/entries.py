"""The entries of launch.json and tasks.json: an object with arrays of named entries, some of them ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from workflows.debugger.jsonc import Document, Keys, parse
from workflows.debugger.jsonc_file import MOST_BYTES, edit_file
from workflows.errors import UserError
from workflows.reading import read_bytes

#: Optional arrays, for which null means that there are none.
_MAY_BE_NULL = frozenset({"compounds"})

Result = Literal["added", "updated", "unchanged"]


def read_entries(file: Path, key: str) -> list[dict[str, Any]]:
    """Read the entries of an array; empty if the file cannot be read, which is reported when it is edited."""
    try:
        value = parse(read_bytes(file, MOST_BYTES)).value
    except (OSError, ValueError):
        return []
    listed = value.get(key) if isinstance(value, dict) else None
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def check_file(file: Path, *keys: str, name: str = "name") -> None:
    """Check that a file can be edited, before anything is started.

    Args:
        file: The file.
        keys: Arrays in it.
        name: The key that holds the name of their entries.

    Raises:
        UserError: It cannot be read, parsed or written, or an array or a name has another type.
    """
    if not os.path.lexists(file) and (file.parent.is_dir() or not os.path.lexists(file.parent)):
        return

    def check_arrays(document: Document) -> Document:
        rooted = with_root(document, file, {})
        for key in keys:
            require_array(rooted, file, key, name)
        return document

    edit_file(file, check_arrays)


def with_root(document: Document, file: Path, fresh: Mapping[str, Any]) -> Document:
    """The document with an object as its root: ``fresh`` if it is empty.

    Raises:
        UserError: The root is something else.
    """
    if document.is_empty:
        return document.set((), dict(fresh))
    if not isinstance(document.value, dict):
        problem = f"{file.name} must be an object: {{ … }}"
        remedy = "Write an object around it, or rename the file to get a new one; it was not changed."
        raise UserError(problem, remedy, file=file, line=document.line())
    return document


def require_array(document: Document, file: Path, key: str, name: str = "name") -> None:
    """Check that a key is missing or an array, and that the names of its entries are texts.

    Args:
        document: The file's content, an object.
        file: The file, for the message.
        key: The array.
        name: The key that holds an entry's name.

    Raises:
        UserError: It has another type.
    """
    listed = document.value.get(key)
    if listed is None and (key in _MAY_BE_NULL or key not in document.value):
        return
    if not isinstance(listed, list):
        remedy = f'Write "{key}": [ … ] there; the file was not changed.'
        raise UserError(f'"{key}" must be an array.', remedy, file=file, line=document.line((key,)))
    for index, entry in enumerate(listed):
        if isinstance(entry, dict) and not isinstance(entry.get(name, ""), str):
            line = document.line((key, index, name))
            remedy = "Write its name in quotes; the file was not changed."
            raise UserError(f'"{name}" of an entry of "{key}" must be a string.', remedy, file=file, line=line)


def entry_names(listed: Any, name: str = "name") -> set[str]:
    """The names of an array's entries; empty for anything but an array."""
    entries = [entry.get(name) for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {entry for entry in entries if isinstance(entry, str)}


def put_entry(
    document: Document,
    key: str,
    entry: Mapping[str, Any],
    update: Callable[[Document, Keys, Mapping[str, Any]], Document],
    name: str = "name",
    fresh: Mapping[str, Any] | None = None,
) -> tuple[Document, bool]:
    """Add or update an entry of an array; returns the document and whether the entry is new.

    Args:
        document: A document whose root is an object.
        key: The array.
        entry: The entry.
        update: Updates an existing entry of the same name.
        name: The key that holds an entry's name.
        fresh: What is written if there is no such entry; by default ``entry``.
    """
    if document.value.get(key) is None:
        document = document.set((key,), [])
    for index, present in enumerate(document.value[key]):
        if isinstance(present, dict) and present.get(name) == entry[name]:
            return update(document, (key, index), entry), False
    return document.append((key,), dict(entry if fresh is None else fresh)), True


def value_at(document: Document, at: Keys) -> Any:
    """The plain value at a path of keys."""
    found = document.value
    for key in at:
        found = found[key]
    return found
