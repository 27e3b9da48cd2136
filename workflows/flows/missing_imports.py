"""Remedies for imports of an entry script that fail because the source folder does not have the module."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from ..models import Service
from ..paths import shown

#: How many folders above the source folder are searched if it is outside the project.
_LEVELS = 3
#: Python's message: https://docs.python.org/3/library/exceptions.html#ModuleNotFoundError
_MISSING = re.compile(r"No module named '([\w.]+)'")


def remedy_for_import(service: Service, message: str, again: str) -> str | None:
    """The remedy for a module that was not found, but exists above the source folder or beside the script.

    Args:
        service: The service.
        message: The message of its ModuleNotFoundError.
        again: The command that starts it again.

    Returns:
        The second line of the error; None if no such folder has the module.
    """
    found = _MISSING.search(message)
    if found is None or found[1].partition(".")[0] in sys.stdlib_module_names:
        return None
    name, script = found[1], service.score_script
    if script.parent != service.source and _has_module(script.parent, name):
        return (
            f"{name} is beside {script.name}, and a service imports from its source folder, {shown(service.source)}: "
            f"import it from there, or leave out AML_SOURCE_DIR and --source-directory."
        )
    for folder in _folders_above(service):
        if _has_module(folder, name):
            flags = [f"--source-directory={shown(folder)}", f"--score-script={script.relative_to(folder).as_posix()}"]
            return f"{name} is in {shown(folder)}, above the folder that runs: {again} {shlex.join(flags)}"
    return None


def _folders_above(service: Service) -> Iterator[Path]:
    """The folders above the source folder, up to the project's folder; a few if it is outside the project."""
    parents = list(service.source.parents)
    if service.project in parents:
        yield from parents[: parents.index(service.project) + 1]
    else:
        yield from parents[:_LEVELS]


def _has_module(folder: Path, name: str) -> bool:
    place = folder.joinpath(*name.split("."))
    return place.is_dir() or place.with_name(f"{place.name}.py").is_file()
