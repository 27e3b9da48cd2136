"""A run configuration as text: a new file, or the file that is there with no more than what differs changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import shown
from .runconfig_fields import RunConfig
from .runconfig_reader import (
    OLDER_PLACES,
    PLACES,
    VARIABLES,
    at,
    data_name,
    is_legacy,
    parse,
    whole,
)
from .runconfig_text import CannotChange, Document, camel, cannot_change

_HEAD = "# A run configuration of Azure ML: azureml-core reads and writes it too. Paths are relative to the project.\n"
_NOTES = {
    "environment": "condaDependenciesFile, or condaDependencies with a conda file's content.",
    "data": "Local paths by name, or azureml:NAME for a workspace's data, in dataLocation.uri.path.",
}
#: Left out of a new file where they are the default.
_SELDOM = ("mpi_processes", "pytorch_processes", "environment_version", "conda", "base_dockerfile")
_HISTORY = ("output_collection", "snapshot_project", "directories_to_watch")


def fresh(config: RunConfig, path: Path) -> bytes:
    """A new file.

    Args:
        config: What it is to say.
        path: What it is to be called.

    Raises:
        UserError: A value cannot be written, such as one that is not UTF-8.
    """
    default = RunConfig("")
    # `environment` has to be there: the SDK takes a file without it for one of before its version 1.
    content: dict[str, Any] = {}
    for name, place in PLACES.items():
        value = getattr(config, name)
        seldom = name in (*_SELDOM, *_HISTORY) or (place[0] == "environment" and config.only_named)
        if seldom and name != "environment" and value == getattr(default, name):
            continue
        section = content
        for key in place[:-1]:
            section = section.setdefault(key, {})
        section[place[-1]] = _written(value)
    content["data"], content["environmentVariables"] = {}, {}
    document = Document(path, "script: ''\n")
    try:
        for key, value in content.items():
            document = document.put((key,), value)
    except CannotChange as error:
        raise AssertionError(content) from error
    (document,) = _with_entries((document,), config)
    lines = document.text.splitlines(keepends=True)
    notes = {f"{key}:": f"# {note}\n" for key, note in _NOTES.items()}
    return (_HEAD + "".join(notes.get(line.split(" ")[0].strip(), "") + line for line in lines)).encode()


def changed(documents: tuple[Document, ...], config: RunConfig) -> tuple[Document, ...]:
    """The same files with the values that differ.

    Raises:
        UserError: A value cannot be changed, or cannot be written.
    """
    before = parse(documents)
    differing = [name for name in PLACES if getattr(before, name) != getattr(config, name)]
    same = before.variables == config.variables and before.data == config.data
    if not differing and same:
        return documents
    if is_legacy(documents[0].value):
        raise UserError(
            f"{shown(documents[0].file)} is in the format of azureml-core before its version 1, which is not changed.",
            "Rename it, and give everything again: a new one is made.",
        )
    for name in differing:
        value = _written(getattr(config, name))
        documents = _put(documents, PLACES[name], value)
        if name in OLDER_PLACES and at(whole(documents), OLDER_PLACES[name]) is not None:
            documents = _put(documents, OLDER_PLACES[name], value)
    return _with_entries(documents, config)


def _with_entries(documents: tuple[Document, ...], config: RunConfig) -> tuple[Document, ...]:
    """The variables and the data, entry by entry; what goes goes last, so that no mapping is empty meanwhile."""
    before = parse(documents)
    for name, text in config.variables.items():
        if before.variables.get(name) != text:
            documents = _put(documents, (*VARIABLES[0], name), text)
    for name in before.variables.keys() - config.variables.keys():
        for place in VARIABLES:
            documents = _remove(documents, (*place, name))
    entries = at(whole(documents), ("data",))
    keys = {data_name(key, entry): key for key, entry in entries.data.items()} if entries is not None else {}
    for name, path in config.data.items():
        if before.data.get(name) == path:
            continue
        if name in keys:
            # Beside what it is in the cloud, which stays.
            documents = _put(documents, ("data", keys[name], "dataLocation", "uri", "path"), path)
            continue
        keys[name] = key = _data_key(name, keys.values())
        location = {"uri": {"path": path}}
        entry = {"dataLocation": location, "mechanism": "direct", "environmentVariableName": name}
        documents = _put(documents, ("data", key), entry)
    for name in before.data.keys() - config.data.keys():
        documents = _remove(documents, ("data", keys[name]))
    return documents


def _data_key(name: str, taken: Any) -> str:
    """A key that the SDK leaves as it is; a name that is not one is kept in ``environmentVariableName``."""
    plain = "_".join(filter(None, name.split("_"))) or "data"
    key, number = camel(plain), 1
    while key in taken:
        number += 1
        key = f"{camel(plain)}{number}"
    return key


def _written(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if value == "" else value


def _put(documents: tuple[Document, ...], path: tuple[str, ...], value: Any) -> tuple[Document, ...]:
    return _edited(documents, path, lambda document: document.put(path, value))


def _remove(documents: tuple[Document, ...], path: tuple[str, ...]) -> tuple[Document, ...]:
    return _edited(documents, path, lambda document: document.remove(path))


def _edited(
    documents: tuple[Document, ...], path: tuple[str, ...], edit: Callable[[Document], Document]
) -> tuple[Document, ...]:
    main, *others = documents
    if others and path[0] == "environment":
        main = others[0]
    try:
        after = edit(main)
    except CannotChange as error:
        raise cannot_change(main, path) from error
    return (documents[0], after) if others and path[0] == "environment" else (after, *others)
