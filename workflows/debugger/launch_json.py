"""The configurations in ``.vscode/launch.json``: ours are kept up to date, all else is the user's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from workflows import command_name
from workflows.debugger import entries as shared
from workflows.debugger import jsonc
from workflows.debugger.entries import Result, put_entry, require_array, value_at
from workflows.debugger.jsonc import Document, Keys
from workflows.debugger.jsonc_file import MOST_BYTES, edit_file
from workflows.models import DebugEndpoint, PathMapping
from workflows.reading import read_bytes

_FRESH = {"version": "0.2.0", "configurations": []}

#: Keys that are ours if they name one of our tasks; the user's own tasks stay.
_TASKS = ("preLaunchTask", "postDebugTask")
OUR_TASKS = command_name.TASK_LABEL_PREFIXES
_OURS = ("name", "type", "request", "connect", "pathMappings")
# debugpy refuses these beside "connect"; the published pages still show the first two.
_CONTRADICTORY = ("host", "port", "listen", "processId")


def attach_configuration(name: str, endpoint: DebugEndpoint, project: Path) -> dict[str, Any]:
    """The launch configuration that attaches VS Code to ``endpoint``.

    Args:
        name: The name in VS Code.
        endpoint: The address for debuggers.
        project: The folder that is open in VS Code.

    Raises:
        ValueError: A remote root is not absolute; the debuggee would resolve it against its current folder.
    """
    return {
        "name": name,
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": endpoint.host, "port": endpoint.port},
        "pathMappings": [_path_mapping(mapping, project) for mapping in endpoint.path_mappings],
        "justMyCode": True,
    }


def read_configurations(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the configurations of the project's launch.json by name; empty if it cannot be read."""
    return {entry["name"]: entry for entry in _named(folder, "configurations")}


def read_compound_members(folder: Path, name: str) -> list[str]:
    """Read the names of a compound's configurations; empty if there is no such compound."""
    found = next((entry for entry in _named(folder, "compounds") if entry["name"] == name), {})
    listed = found.get("configurations")
    return [str(one) for one in listed] if isinstance(listed, list) else []


def find_line(folder: Path, name: str) -> int:
    """The line on which a configuration begins; 1 if there is no such configuration."""
    try:
        document = jsonc.parse(read_bytes(folder / ".vscode" / "launch.json", MOST_BYTES))
        for index, entry in enumerate(document.value["configurations"]):
            if isinstance(entry, dict) and entry.get("name") == name:
                return document.line(("configurations", index))
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return 1


def _named(folder: Path, key: str) -> list[dict[str, Any]]:
    return [
        entry
        for entry in shared.read_entries(folder / ".vscode" / "launch.json", key)
        if isinstance(entry.get("name"), str)
    ]


def check_launch_json(folder: Path) -> None:
    """Check that launch.json can be edited, before anything is started.

    Raises:
        UserError: As :func:`write_configurations`.
    """
    shared.check_file(folder / ".vscode" / "launch.json", "configurations", "compounds")


def write_configurations(
    folder: Path,
    configurations: Sequence[Mapping[str, Any]],
    compounds: Sequence[Mapping[str, Any]] = (),
    retired: Callable[[str], bool] = lambda name: False,
    also: Mapping[str, str] | None = None,
) -> Result:
    """Write configurations to the project's launch.json.

    An entry of the same name is updated key by key, and only where a value differs. Missing keys are added, and the
    user's keys and comments stay.

    Args:
        folder: The project's folder, which holds ``.vscode``.
        configurations: Launch configurations, each with a ``name``.
        compounds: Compounds, each with a ``name`` and the names of its ``configurations``.
        retired: Whether the target of a configuration, by its name, is gone. Such a configuration is removed if it
            is unchanged; with the user's changes in it, it stays.
        also: By a configuration's name another one for the same endpoint, which is updated if it exists and has a
            task of its own.

    Returns:
        ``added`` when at least one entry is new, else ``updated`` or ``unchanged``.

    Raises:
        UserError: launch.json cannot be read, parsed or written; it is not changed then.
    """
    if not configurations and not compounds:
        return "unchanged"
    file = folder / ".vscode" / "launch.json"
    added = False

    def change(document: Document) -> Document:
        nonlocal added
        document = shared.with_root(document, file, _FRESH)
        # Both before any edit, so that the lines in errors are those of the file.
        require_array(document, file, "configurations")
        if compounds:
            require_array(document, file, "compounds")
        every = [*configurations, *_by_other_names(document, configurations, also or {})]
        document = _without_retired(document, {str(entry["name"]) for entry in every}, retired)
        document = document.set_scalars(_changed_scalars(document, every))
        document, new = _put_all(document, every)
        added |= new
        for entry in compounds:
            document, new = put_entry(document, "compounds", entry, _update_compound)
            added |= new
        return document

    changed = edit_file(file, change)
    if added:
        return "added"
    return "updated" if changed else "unchanged"


def _put_all(document: Document, entries: Sequence[Mapping[str, Any]]) -> tuple[Document, bool]:
    """Add or update these configurations; returns the document and whether any is new.

    New ones are added in one edit and found by an index: a step may have hundreds of ranks.
    """
    if document.value.get("configurations") is None:
        document = document.set(("configurations",), [])
    places = _places(document)
    new: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        index = places.get(entry["name"])
        if index is None:
            new[entry["name"]] = _without_empty(entry)
        else:
            document = _update_configuration(document, ("configurations", index), entry)
    return document.extend(("configurations",), [dict(entry) for entry in new.values()]), bool(new)


def _places(document: Document) -> dict[str, int]:
    """The index of each configuration by name; of several with the same name, the first."""
    listed = list(enumerate(document.value.get("configurations") or ()))
    return {entry["name"]: index for index, entry in reversed(listed) if isinstance(entry, dict) and "name" in entry}


def changed_since(before: bytes, now: bytes, names: Sequence[str]) -> Result:
    """What has changed in launch.json, whoever wrote it.

    Args:
        before: Its text before.
        now: Its text now.
        names: The configurations that it has to have now.

    Returns:
        ``added`` when at least one of them is new, else ``updated`` or ``unchanged``.
    """
    if now == before:
        return "unchanged"
    try:
        value = jsonc.parse(before).value
    except jsonc.JsoncError:
        return "updated"
    known = shared.entry_names(value.get("configurations") if isinstance(value, dict) else None)
    return "updated" if known.issuperset(names) else "added"


def _by_other_names(
    document: Document, configurations: Sequence[Mapping[str, Any]], also: Mapping[str, str]
) -> list[dict[str, Any]]:
    listed = [entry for entry in document.value.get("configurations", ()) if isinstance(entry, dict)]
    there = {entry.get("name") for entry in listed if "preLaunchTask" in entry}
    others = [{**entry, "name": also[entry["name"]]} for entry in configurations if entry["name"] in also]
    return [entry for entry in others if entry["name"] in there]


def _without_retired(document: Document, wanted: set[str], retired: Callable[[str], bool]) -> Document:
    gone = []
    for index, entry in enumerate(document.value.get("configurations", ())):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name not in wanted and retired(name) and _is_untouched(document, index, entry):
            gone.append(index)
    return document.delete_items(("configurations",), gone) if gone else document


def _is_untouched(document: Document, index: int, entry: Mapping[str, Any]) -> bool:
    """Whether a configuration is as `attach_configuration` writes it, without comments."""
    return (
        set(entry) == {*_OURS, "justMyCode"}
        and entry["type"] == "debugpy"
        and entry["request"] == "attach"
        and entry["justMyCode"] is True
        and not document.has_comments(("configurations", index))
    )


def _changed_scalars(document: Document, configurations: Sequence[Mapping[str, Any]]) -> dict[Keys, str | int]:
    """New ports and remote roots for entries whose structure is unchanged, by path of keys."""
    places = _places(document)
    found: dict[Keys, str | int] = {}
    for entry in configurations:
        index = places.get(entry["name"])
        if index is None:
            continue
        at: Keys = ("configurations", index)
        present = value_at(document, at)
        old, new = present.get("connect"), entry.get("connect")
        if isinstance(old, dict) and new and old.keys() == new.keys() and _are_scalars(old):
            found |= {(*at, "connect", key): value for key, value in new.items()}
        old, new = present.get("pathMappings"), entry.get("pathMappings")
        if isinstance(old, list) and new and _are_alike(old, new):
            found |= {(*at, "pathMappings", number, "remoteRoot"): one["remoteRoot"] for number, one in enumerate(new)}
    return found


def _are_alike(old: Sequence[Any], new: Sequence[Mapping[str, str]]) -> bool:
    """Whether path mappings have the same local roots in the same order, so that only remote roots may differ."""
    return len(old) == len(new) and all(
        isinstance(before, dict)
        and before.keys() == {"localRoot", "remoteRoot"}
        and _are_scalars(before)
        and before["localRoot"] == now["localRoot"]
        for before, now in zip(old, new, strict=True)
    )


def _are_scalars(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str | int) for value in entry.values())


def _path_mapping(mapping: PathMapping, project: Path) -> dict[str, str]:
    remote = mapping.remote_root
    if not (PurePosixPath(remote).is_absolute() or PureWindowsPath(remote).is_absolute()):
        raise ValueError(f"remote root is not absolute: {remote!r}")
    return {"localRoot": _local_root(mapping.local_root, project), "remoteRoot": remote}


def _local_root(local: Path, project: Path) -> str:
    # First as written: below a symbolic link inside the project, VS Code uses the link's name.
    for normal in (os.path.abspath, os.path.realpath):
        try:
            inside = Path(normal(local)).relative_to(normal(project))
        except ValueError:
            continue
        return "/".join(["${workspaceFolder}", *inside.parts])
    return os.path.abspath(local)


def _update_configuration(document: Document, at: Keys, entry: Mapping[str, Any]) -> Document:
    present = value_at(document, at)
    for key, value in entry.items():
        current = present.get(key)
        if key == "connect" and isinstance(current, dict):
            for part in value:
                document = document.set((*at, key, part), value[part])
        elif key == "pathMappings" and isinstance(current, list):
            document = _update_mappings(document, (*at, key), value)
        elif key in _TASKS:
            document = _update_task(document, at, key, value)
        elif key in _OURS or key not in present:
            document = document.set((*at, key), value)
    if "connect" in entry:
        for key in _CONTRADICTORY:
            while key in value_at(document, at) and key not in entry:
                document = document.delete((*at, key))
    return document


def _without_empty(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _TASKS or value}


def _update_task(document: Document, at: Keys, key: str, label: str) -> Document:
    """Set the name of our task, or remove it for an empty label; the user's own task stays."""
    present = value_at(document, at).get(key)
    if present is not None and not (isinstance(present, str) and present.startswith(OUR_TASKS)):
        return document
    if label:
        return document.set((*at, key), label)
    return document.delete((*at, key)) if present is not None else document


def _update_compound(document: Document, at: Keys, entry: Mapping[str, Any]) -> Document:
    present = value_at(document, at)
    for key, value in entry.items():
        current = present.get(key)
        if key == "configurations" and isinstance(current, list):
            # An unused "Azure Machine Learning Compute: …" was a step of an older run; members with other names are
            # the user's.
            family = str(entry["name"]).partition(":")[0] + ":"
            kept = [m for m in current if m not in value and not str(m).startswith(family)]
            document = _arrange(document, (*at, key), [*value, *kept])
        elif key in _TASKS:
            document = _update_task(document, at, key, value)
        elif key == "configurations" or key not in present:
            document = document.set((*at, key), value)
    return document


def _update_mappings(document: Document, at: Keys, ours: Sequence[Mapping[str, str]]) -> Document:
    """Write our mappings first, since the first match wins, and the user's others behind them."""
    taken: set[int] = set()
    for mapping in ours:
        present = value_at(document, at)
        places = [i for i, other in enumerate(present) if i not in taken and _same_root(mapping, other)]
        if places:
            best = min(places, key=lambda i: not jsonc.same(present[i], mapping))
            taken.add(best)
            for key, value in mapping.items():
                document = document.set((*at, best, key), value)
    present = value_at(document, at)
    kept = [other for other in present if not any(_same_root(mapping, other) for mapping in ours)]
    first = [next((o for o in present if _holds(o, mapping)), mapping) for mapping in ours]
    return _arrange(document, at, [*first, *kept])


def _same_root(mapping: Mapping[str, str], other: Any) -> bool:
    return isinstance(other, dict) and any(_plain(mapping[k]) == _plain(other.get(k)) for k in mapping)


def _holds(other: Any, mapping: Mapping[str, str]) -> bool:
    return isinstance(other, dict) and all(other.get(key) == value for key, value in mapping.items())


def _plain(path: Any) -> Any:
    return path.rstrip("/\\") if isinstance(path, str) else path


def _arrange(document: Document, at: Keys, wanted: Sequence[Any]) -> Document:
    """Make an array hold ``wanted``; elements that are already there keep their formatting."""
    needed = Counter(map(jsonc.canonical, wanted))
    present: list[str | None] = []
    for text in map(jsonc.canonical, value_at(document, at)):
        # None: it is to be removed.
        present.append(text if needed[text] else None)
        needed[text] -= 1 if needed[text] else 0
    place = 0
    for number, value in enumerate(wanted):
        text, there = jsonc.canonical(value), place
        while there < len(present) and present[there] is None:
            there += 1
        if there == len(present):
            # No element that stays is left, so all the rest are new.
            document = document.extend(at, wanted[number:])
            break
        if present[there] == text:
            place = there + 1
            continue
        if text in present[there:]:
            source = present.index(text, there)
            document = document.move(at, source, place)
            present.insert(place, present.pop(source))
        else:
            document = document.insert(at, place, value)
            present.insert(place, text)
        place += 1
    return document.delete_items(at, [index for index, text in enumerate(present) if text is None])
