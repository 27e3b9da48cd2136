"""Removing entries of an earlier setup for steps, ranks, experiments and flags that no longer exist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..debugger.jsonc import Document
from ..debugger.jsonc_file import edit_file
from ..debugger.launch_json import OUR_TASKS
from .tasks_json import EditorTask

_CONFIGURATION = {"name", "type", "request", "connect", "pathMappings", "justMyCode", "preLaunchTask"}
_COMPOUND = {"name", "configurations", "preLaunchTask", "stopAll"}
_FAMILIES = "Azure Machine Learning "


@dataclass
class Leftovers:
    """Removes obsolete entries that are unchanged since they were written, and that nothing else refers to.

    Attributes:
        before: Configuration by label, for the tasks that were ours before this setup.
        names: The configurations and compounds that this setup has written.
        labels: The labels of the tasks that it has written.
        gone: Names of entries removed from launch.json.
        kept: Names of obsolete entries that stay, since the user has changed them.
    """

    before: Mapping[str, str]
    names: Collection[str]
    labels: Collection[str]
    gone: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def remove(self, project: Path) -> None:
        """Remove the entries from launch.json and tasks.json.

        Raises:
            UserError: One of the files cannot be edited; it is not changed then.
        """
        launch: Any = None

        def out_of_launch(document: Document) -> Document:
            nonlocal launch
            document = self._without(self._without(document, "compounds"), "configurations")
            launch = document.value
            return document

        edit_file(project / ".vscode" / "launch.json", out_of_launch)
        edit_file(project / ".vscode" / "tasks.json", lambda document: self._without_tasks(document, project, launch))

    def _without(self, document: Document, key: str) -> Document:
        named = Counter(_texts([one.get("configurations") for one in _listed(document, "compounds")]))
        gone = []
        for index, entry in reversed(list(enumerate(_listed(document, key)))):
            name, label = entry.get("name"), entry.get("preLaunchTask")
            if not isinstance(name, str) or name in self.names:
                continue
            if not isinstance(label, str) or self.before.get(label) != name:
                continue
            ours = _is_configuration(entry) if key == "configurations" else _is_compound(entry)
            if ours and not named[name] and not document.has_comments((key, index)):
                gone.append(index)
                self.gone.insert(0, name)
                if key == "compounds":
                    named.subtract(_texts(entry["configurations"]))
            else:
                self.kept.insert(0, name)
        return document.delete_items((key,), gone) if gone else document

    def _without_tasks(self, document: Document, project: Path, launch: Any) -> Document:
        tasks = _listed(document, "tasks")
        named = Counter(_texts([launch, tasks]))
        gone = []
        for index, entry in reversed(list(enumerate(tasks))):
            label = entry.get("label")
            if not isinstance(label, str) or label in self.labels or label not in self.before:
                continue
            own = Counter(_texts(entry))
            if _is_task(entry, project) and named[label] == own[label] and not document.has_comments(("tasks", index)):
                gone.append(index)
                named.subtract(own)
        return document.delete_items(("tasks",), gone) if gone else document


def _listed(document: Document, key: str) -> list[dict[str, Any]]:
    """The entries of an array; entries that are no objects become empty ones."""
    found = None if document.is_empty else document.value.get(key)
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _is_configuration(entry: Mapping[str, Any]) -> bool:
    after = str(entry.get("postDebugTask", OUR_TASKS[0]))
    return (
        set(entry) - {"postDebugTask"} == _CONFIGURATION and entry["justMyCode"] is True and after.startswith(OUR_TASKS)
    )


def _is_compound(entry: Mapping[str, Any]) -> bool:
    members = entry.get("configurations")
    ours = isinstance(members, list) and all(str(one).startswith(_FAMILIES) for one in members)
    return set(entry) == _COMPOUND and entry["stopAll"] is False and ours


def _is_task(entry: Mapping[str, Any], project: Path) -> bool:
    """Whether a task is unchanged, apart from the interpreter and the problem matchers."""
    fresh = EditorTask("", (), "").entry(project)
    options = entry.get("options")
    return (
        set(entry) - {"isBackground"} == set(fresh)
        and isinstance(options, dict)
        and set(options) == {"cwd", "env"}
        and isinstance(options["env"], dict)
        and len(options["env"]) == 1
        and entry["presentation"] == fresh["presentation"]
    )
