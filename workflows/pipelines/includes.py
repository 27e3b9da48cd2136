"""Reads ``additional_includes``: files and folders that are placed beside a step's own code when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..paths import exists
from .local_paths import local_path, scheme
from .problems import Problems
from .yaml_file import Value, read_text, refuse

#: The suffix of the older form: a file beside the component's, with a path on each line.
SUFFIX = ".additional_includes"
#: Folders that the run itself has in a step's working folder.
_TAKEN = ("outputs", "logs")


def read_includes(
    value: Value | None, component: Path | None, code: Path | None, what: str, problems: Problems
) -> tuple[Path, ...]:
    """The paths that a step's working folder has beside its code, each under its own name.

    Args:
        value: The field.
        component: The component's file, beside which a file of the older form may exist.
        code: The step's source folder or file.
        what: The step in a message.
        problems: Gets those that do not exist, are not local paths, or have the name of another one.
    """
    found: dict[str, Path] = {}
    beside = list[Value]()
    with problems.collect_errors():
        beside = _beside(component)
    for entry in [*_listed(value, what, problems), *beside]:
        with problems.collect_errors():
            path = _path(entry, what)
            _check_name(entry, path, found, code, what)
            found[path.name] = path
    return tuple(found.values())


def _check_name(entry: Value, path: Path, found: Mapping[str, Path], code: Path | None, what: str) -> None:
    if found.get(path.name, path) != path:
        raise refuse(entry, f"{what} includes two that are called {path.name}.", "Rename one of them.")
    own = (code / path.name if code.is_dir() else code) if code is not None else None
    if own is not None and own.name == path.name and exists(own) and not own.samefile(path):
        problem = f"{what} includes {path.name}, which is in its code already: {own}."
        raise refuse(entry, problem, "Take one of the two out.")


def _listed(value: Value | None, what: str, problems: Problems) -> list[Value]:
    if value is None:
        return []
    if not isinstance(value.data, list):
        problem = f"`additional_includes` of {what.lower()} has to be a list."
        problems.add(value, problem, "Write `- ../path` lines under it.")
        return []
    return [entry for entry in value.data if isinstance(entry, Value)]


def _beside(component: Path | None) -> list[Value]:
    file = component.with_suffix(SUFFIX) if component is not None else None
    if file is None or not exists(file):
        return []
    lines = read_text(file, "file of additional includes").splitlines()
    return [Value(line.strip(), file, number) for number, line in enumerate(lines, 1) if line.strip()]


def _path(entry: Value, what: str) -> Path:
    if entry.is_mapping:
        raise refuse(entry, f"{what} includes a package of a feed.", "Download it, and name its folder.")
    text = entry.text(f"An additional include of {what.lower()}")
    if scheme(text):
        raise refuse(entry, f"{what} includes {text}, which is not on this machine.", "Name a local path.")
    path = local_path(entry, text)
    if not text.strip() or not path.name:
        raise refuse(entry, f"{what} includes `{text}`, which is not a name.", "Name a file or a folder.")
    if path.name in _TAKEN:
        raise refuse(entry, f"{what} includes {path.name}, which every step has of its own.", "Rename it.")
    if not exists(path):
        raise refuse(entry, f"{what} includes {path}, which does not exist.", "Check the path.")
    return path
