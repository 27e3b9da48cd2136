"""Writes a run configuration: a new file, or an existing file in which only the differing values are changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import shown
from .runconfig_fields import RunConfig
from .runconfig_reader import (
    KEY_PATHS,
    OLDER_KEY_PATHS,
    VARIABLES,
    data_name,
    is_legacy,
    merged_root,
    parse,
    value_at,
)
from .runconfig_text import CannotChange, Document, cannot_change
from .runconfig_yaml import camel_case

_HEAD = "# A run configuration of Azure ML: azureml-core reads and writes it too. Paths are relative to the project.\n"
_NOTES = {
    "environment": "condaDependenciesFile, or condaDependencies with a conda file's content.",
    "data": "Local paths by name, or azureml:NAME for a workspace's data, in dataLocation.uri.path.",
}
#: Omitted from a new file where they have the default value.
_OMITTED_DEFAULTS = ("mpi_processes", "pytorch_processes", "environment_version", "conda", "base_dockerfile")
_HISTORY = ("output_collection", "snapshot_project", "directories_to_watch")


def new_file_content(config: RunConfig, path: Path) -> bytes:
    """The content of a new file.

    Args:
        config: The run configuration.
        path: The file's path.

    Raises:
        UserError: A value cannot be written, such as one that is not UTF-8.
    """
    default = RunConfig("")
    # `environment` has to be present: the SDK takes a file without it for the format from before its version 1.
    content: dict[str, Any] = {}
    for name, place in KEY_PATHS.items():
        value = getattr(config, name)
        seldom = name in (*_OMITTED_DEFAULTS, *_HISTORY) or (place[0] == "environment" and config.only_named)
        if seldom and name != "environment" and value == getattr(default, name):
            continue
        section = content
        for key in place[:-1]:
            section = section.setdefault(key, {})
        section[place[-1]] = _as_written(value)
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


def updated_documents(documents: tuple[Document, ...], config: RunConfig) -> tuple[Document, ...]:
    """The documents with the values that differ changed.

    Raises:
        UserError: A value cannot be changed, or cannot be written.
    """
    before = parse(documents)
    differing = [name for name in KEY_PATHS if getattr(before, name) != getattr(config, name)]
    same = before.variables == config.variables and before.data == config.data
    if not differing and same:
        return documents
    if is_legacy(documents[0].value):
        raise UserError(
            f"{shown(documents[0].file)} is in the format of azureml-core before its version 1, which is not changed.",
            "Rename it, and give all flags again: a new one is written.",
        )
    for name in differing:
        value = _as_written(getattr(config, name))
        documents = _put(documents, KEY_PATHS[name], value)
        if name in OLDER_KEY_PATHS and value_at(merged_root(documents), OLDER_KEY_PATHS[name]) is not None:
            documents = _put(documents, OLDER_KEY_PATHS[name], value)
    return _with_entries(documents, config)


def _with_entries(documents: tuple[Document, ...], config: RunConfig) -> tuple[Document, ...]:
    """Update the variables and the data entry by entry. Removals come last, so that no mapping is ever empty."""
    before = parse(documents)
    for name, text in config.variables.items():
        if before.variables.get(name) != text:
            documents = _put(documents, (*VARIABLES[0], name), text)
    for name in before.variables.keys() - config.variables.keys():
        for place in VARIABLES:
            documents = _remove(documents, (*place, name))
    entries = value_at(merged_root(documents), ("data",))
    keys = {data_name(key, entry): key for key, entry in entries.data.items()} if entries is not None else {}
    for name, path in config.data.items():
        if before.data.get(name) == path:
            continue
        if name in keys:
            # Only the local path is changed; the entry's other keys stay.
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
    """A key that the SDK does not change. A name that the SDK would change is kept in ``environmentVariableName``."""
    plain = "_".join(filter(None, name.split("_"))) or "data"
    key, number = camel_case(plain), 1
    while key in taken:
        number += 1
        key = f"{camel_case(plain)}{number}"
    return key


def _as_written(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return None if value == "" else value


def _put(documents: tuple[Document, ...], path: tuple[str, ...], value: Any) -> tuple[Document, ...]:
    return _edit_document(documents, path, lambda document: document.put(path, value))


def _remove(documents: tuple[Document, ...], path: tuple[str, ...]) -> tuple[Document, ...]:
    return _edit_document(documents, path, lambda document: document.remove(path))


def _edit_document(
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
