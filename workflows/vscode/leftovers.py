"""What an earlier setup has written, for steps, ranks, experiments and flags that are no more."""

from __future__ import annotations

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
    """What leads to nothing any more is taken out: where it is as it was written here, and nothing else names it.

    Attributes:
        before: Configuration by label, of the tasks that were ours before this setup.
        names: The configurations and compounds that this setup has written.
        labels: The labels of the tasks that it has written.
        gone: Names of what was taken out of launch.json.
        kept: Names of what stays in it, since something of it is the person's.
    """

    before: Mapping[str, str]
    names: Collection[str]
    labels: Collection[str]
    gone: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)

    def remove(self, project: Path) -> None:
        """Take them out of both files of the folder that is open in VS Code.

        Raises:
            UserError: One of the files cannot be edited; it is left as it was.
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
        for index, entry in reversed(list(enumerate(_listed(document, key)))):
            name, label = str(entry.get("name")), entry.get("preLaunchTask")
            if name in self.names or not isinstance(label, str) or self.before.get(label) != name:
                continue
            ours = _is_configuration(entry) if key == "configurations" else _is_compound(entry)
            named = name in _texts([one.get("configurations") for one in _listed(document, "compounds")])
            if ours and not named and not document.has_comments((key, index)):
                document = document.delete((key, index))
                self.gone.insert(0, name)
            else:
                self.kept.insert(0, name)
        return document

    def _without_tasks(self, document: Document, project: Path, launch: Any) -> Document:
        for index, entry in reversed(list(enumerate(_listed(document, "tasks")))):
            label = entry.get("label")
            if label in self.labels or label not in self.before:
                continue
            others = [one for number, one in enumerate(document.value["tasks"]) if number != index]
            named = label in _texts([launch, others])
            if _is_task(entry, project) and not named and not document.has_comments(("tasks", index)):
                document = document.delete(("tasks", index))
        return document


def _listed(document: Document, key: str) -> list[dict[str, Any]]:
    """The entries of an array; in place of one that is no object an empty one."""
    found = None if document.is_empty else document.value.get(key)
    return [one if isinstance(one, dict) else {} for one in found] if isinstance(found, list) else []


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _is_configuration(entry: Mapping[str, Any]) -> bool:
    after = str(entry.get("postDebugTask", OUR_TASKS))
    return (
        set(entry) - {"postDebugTask"} == _CONFIGURATION and entry["justMyCode"] is True and after.startswith(OUR_TASKS)
    )


def _is_compound(entry: Mapping[str, Any]) -> bool:
    members = entry.get("configurations")
    ours = isinstance(members, list) and all(str(one).startswith(_FAMILIES) for one in members)
    return set(entry) == _COMPOUND and entry["stopAll"] is False and ours


def _is_task(entry: Mapping[str, Any], project: Path) -> bool:
    """Whether all that was written here is as it was; the interpreter and the matchers may be those of another day."""
    fresh = EditorTask("", (), "").entry(project)
    options = entry["options"]
    return (
        set(entry) - {"isBackground"} == set(fresh)
        and set(options) == {"cwd", "env"}
        and len(options["env"]) == 1
        and entry["presentation"] == fresh["presentation"]
    )
