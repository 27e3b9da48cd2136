"""What an image has copies of: the ``COPY`` instructions of the Dockerfile that it is built of."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path

from ..environments.dockerfile import Instruction, parse
from ..reading import read_text


def find_copied_folders(context: Path, dockerfile: str) -> Mapping[str, str]:
    """Folders of a build context with Python in them, by their places in the image; those of the last stage.

    Of a single file its folder is told, under whatever name it has there. What has variables or wildcards in its
    name, or comes from another stage, is left out: a debugger finds no file of this machine for it.

    Args:
        context: The folder.
        dockerfile: Relative to it.
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
                # Of a folder its content is copied.
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
