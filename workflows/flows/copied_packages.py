"""Local packages of which an environment has copies, and notes on how an edit of them takes effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..environments import local_packages
from ..environments.definition import EnvironmentDefinition
from ..models import ImageRef
from ..paths import shown


@dataclass(frozen=True)
class CopiedPackage:
    """A local package that is installed as a copy.

    Attributes:
        local: Its folder or file.
        editable: Whether it is listed as editable.
    """

    local: Path
    editable: bool


def find_copied_packages(definition: EnvironmentDefinition, engine: str, live: Sequence[str]) -> list[CopiedPackage]:
    """Find the local packages of which an environment has copies."""
    stay = [Path(path) for path in live]
    if engine == "process":
        # On this engine every editable package is used from its folder.
        stay += [item.local for item in definition.pip if item.editable and item.local is not None]
    found = local_packages.copied_packages(definition.pip, stay)
    return [CopiedPackage(item.local, item.editable) for item in found if item.local is not None]


def notes_on_copies(definition: EnvironmentDefinition, image: ImageRef) -> list[str]:
    """A note for each local package that is copied: the command after which an edit takes effect."""
    return [
        f"{shown(one.local)} is installed as a copy: inv deploy.debug takes an edit of it"
        + ("" if one.editable else " (with `-e` in front of it, edits are live)")
        for one in find_copied_packages(definition, image.engine, image.live)
    ]
