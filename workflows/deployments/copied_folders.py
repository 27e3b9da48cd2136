"""Finds the folders that an image has copies of, from the ``COPY`` instructions of its Dockerfile."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path

from ..environments.dockerfile import Instruction, parse
from ..reading import read_text


def find_copied_folders(context: Path, dockerfile: str) -> Mapping[str, str]:
    """Folders of a build context that have Python files, by their paths in the image's last stage.

    For a single file it is its parent folder. Copies with variables or wildcards, and those from another stage, are
    left out: the debugger then finds no files of this machine for them.

    Args:
        context: The folder of the build context.
        dockerfile: The Dockerfile, relative to it.
    """
    found: dict[str, str] = {}
    home = "/"
    for instruction in parse(read_text(context / dockerfile, errors="replace")).instructions:
        if instruction.keyword == "FROM":
            found, home = {}, "/"
        elif instruction.keyword == "WORKDIR" and "$" not in instruction.rest:
            home = posixpath.normpath(posixpath.join(home, instruction.rest.strip().strip("\"'")))
        elif instruction.keyword in ("COPY", "ADD") and not instruction.flag("from") and not instruction.heredocs:
            *sources, target = _arguments(instruction)
            for source in sources:
                local = context / source.lstrip("/")
                if any(sign in source + target for sign in "$*?[") or "://" in source or not local.exists():
                    continue
                place = posixpath.normpath(posixpath.join(home, target))
                if not local.is_dir():
                    into = len(sources) > 1 or target.endswith("/") or target in (".", "..") or place == home
                    place, local = (place, local.parent) if into else (posixpath.dirname(place), local.parent)
                # COPY copies the content of a folder, not the folder itself.
                if place != "/":
                    found.setdefault(place, str(local.resolve()))
    return {place: local for place, local in found.items() if _has_python(Path(local))}


def _arguments(instruction: Instruction) -> list[str]:
    if instruction.rest.startswith("["):
        try:
            return [str(word) for word in json.loads(instruction.rest)] or ["", ""]
        except ValueError:
            pass
    return instruction.rest.split() or [""]


def _has_python(folder: Path) -> bool:
    return next(folder.rglob("*.py"), None) is not None
