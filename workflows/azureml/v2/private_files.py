"""Keeps private files out of the code that the SDK sends for steps that are not debugged.

The SDK sends such a step's folders itself, with everything that no ignore file names. Where it would send this
program's own files (tokens and keys of runs) or `.env`, it gets a copy without them. The user's folders stay as they
are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...private import make_folder
from ...project import STATE_FOLDER
from ..staging import stage
from .job_file import LoadedJob, code_holders

_IGNORE_FILES = (".amlignore", ".gitignore")


@dataclass(frozen=True)
class PrivateFiles:
    """Folders of one step that contain private files.

    Attributes:
        step: The step's name.
        holder: The SDK's object with its code.
        node: The SDK's node of the step.
        code: Its code folder, if that contains private files.
        includes: Those of its additional includes that contain private files, by their index.
        context: The build context of its environment, if that contains private files.
        names: The names of the private files and folders.
    """

    step: str
    holder: Any = field(compare=False, repr=False)
    node: Any = field(compare=False, repr=False)
    code: Path | None
    includes: Mapping[int, Path]
    context: Path | None
    names: tuple[str, ...]

    @property
    def note(self) -> str:
        """The note for the user."""
        return f"the code of {self.step} is sent without {' and '.join(self.names)}, which may hold keys and passwords"

    def stage(self, folder: Path) -> None:
        """Make copies without the private files, and set them in the SDK's objects.

        Args:
            folder: The folder for the copies, which does not exist yet.

        Raises:
            UserError: A file cannot be read.
        """
        if self.code is not None:
            self._copy(self.code, folder / "code")
            self.holder.code = str(folder / "code")
        if self.includes:
            named = list(self.holder.additional_includes)
            for number, source in self.includes.items():
                copy = folder / str(number) / source.name
                self._copy(source, copy)
                # The SDK packs the folder itself where the name ends in .zip.
                named[number] = f"{copy}.zip" if Path(named[number]).name != source.name else str(copy)
            self.holder.additional_includes = named

        if self.context is not None:
            from azure.ai.ml.entities import BuildContext, Environment

            copy, build = folder / "context", self.holder.environment.build
            self._copy(self.context, copy)
            # A new object is made, since the environment's name depends on its content.
            build = BuildContext(path=str(copy), dockerfile_path=build.dockerfile_path)
            made = Environment(build=build)
            self.holder.environment = made
            # A command job has the environment both in its component and in itself.
            if getattr(getattr(self.node, "environment", None), "build", None) is not None:
                self.node.environment = made

    def _copy(self, source: Path, folder: Path) -> None:
        make_folder(folder.parent)
        stage(folder, source, (), None, None, self.step, limit=None)
        (folder / ".amlignore").unlink()
        for name in _IGNORE_FILES:
            # The SDK applies the code's ignore files to the additional includes, too.
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)


def find_private_files(loaded: LoadedJob, staged: tuple[str, ...]) -> list[PrivateFiles]:
    """Find the steps whose code the SDK would send with private files.

    Args:
        loaded: The job. All of its steps are checked, including those of nested pipelines and trials.
        staged: The steps whose code is sent as a copy anyway: only their build contexts are checked.
    """
    found, seen = [], set[int]()
    for step, node, holder in code_holders(loaded):
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        base = Path(getattr(holder, "base_path", None) or loaded.file.parent)
        names: set[str] = set()
        code: Any = None
        named: list[Any] = []
        includes: dict[int, Path] = {}
        if step not in staged:
            code, named = getattr(holder, "code", None), getattr(holder, "additional_includes", None) or []
        folder = Path(os.path.abspath(base / str(code))) if isinstance(code, (str, Path)) and str(code) else None
        within = set(_private(folder)) if folder is not None else set()
        names |= within
        for number, include in enumerate(named):
            if isinstance(include, str):
                place = Path(os.path.abspath(base / include))
                if place.suffix == ".zip" and not place.exists():
                    place = place.with_suffix("")
                if inside := set(_private(place)):
                    includes[number] = place
                    names |= inside
        context = _context(holder, base)
        if context is not None and (inside := set(_private(context))):
            names |= inside
        else:
            context = None
        if names:
            found.append(
                PrivateFiles(step, holder, node, folder if within else None, includes, context, tuple(sorted(names)))
            )
    return found


def _context(holder: Any, base: Path) -> Path | None:
    """The local build context of an environment without a name; None where there is none."""
    environment = getattr(holder, "environment", None)
    path = getattr(getattr(environment, "build", None), "path", None)
    if not isinstance(path, (str, Path)) or "://" in str(path) or not getattr(environment, "_is_anonymous", False):
        return None
    return Path(os.path.abspath(Path(getattr(environment, "base_path", None) or base) / path))


def _private(root: Path) -> Iterator[str]:
    """The names of the private files below a folder that no ignore file excludes."""
    root = Path(os.path.realpath(root))
    excluded = _excluded(root)
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if ".env" in files and not excluded(os.path.join(place, ".env")):
            yield ".env"
        if STATE_FOLDER in Path(os.path.relpath(place, root)).parts and not all(
            excluded(os.path.join(place, name)) for name in files
        ):
            yield STATE_FOLDER


def _excluded(root: Path) -> Callable[[str], bool]:
    """Whether the SDK leaves out a file of a folder, as the SDK itself decides."""
    try:
        from azure.ai.ml._utils._asset_utils import get_ignore_file
    except ImportError:
        # In another release of the SDK, nothing counts as excluded: an unnecessary copy does no harm.
        return lambda path: False
    found = get_ignore_file(root)
    return lambda path: bool(found.is_file_excluded(path))
