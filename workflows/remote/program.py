"""This program as the remote machine needs it: its files and requirements."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..settings import packaged_defaults
from ..version import __version__
from .local_files import LocalFile, files_below

#: The name under which the program is installed.
DISTRIBUTION = "azureml-debug"


@dataclass(frozen=True)
class Program:
    """What the remote machine needs to run this program.

    Attributes:
        version: The program's version.
        requirements: The packages to install.
        files: The program's own files, with their remote paths; empty if they are part of the project.
    """

    version: str
    requirements: tuple[str, ...]
    files: tuple[LocalFile, ...]

    @property
    def environment_key(self) -> str:
        """The identifier of an environment with these requirements."""
        return hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()[:12]

    @property
    def key(self) -> str:
        """The identifier of the program's files, from their content."""
        found = hashlib.sha256()
        for one in self.files:
            found.update(f"{one.path}\0{one.size}\0".encode())
            found.update(Path(one.full).read_bytes())
        return "files-" + found.hexdigest()[:12]


def requirements() -> tuple[str, ...]:
    """The packages that this program needs.

    Raises:
        UserError: The program is not installed, so its requirements are unknown.
    """
    import importlib.metadata

    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"{DISTRIBUTION} is not installed here, so it is not known what it needs on the other machine.",
            "Install it: pip install -e PATH-OF-THE-CLONE",
        ) from error
    return tuple(sorted(one for one in required if "extra ==" not in one))


def describe_program(project: Path) -> Program:
    """This program, for a project that is sent to the remote machine.

    Raises:
        UserError: As of :func:`requirements`.
    """
    package = Path(__file__).resolve().parents[1]
    if package.parent == project.resolve():
        return Program(__version__, requirements(), ())
    return Program(__version__, requirements(), tuple(_program_files(package)))


def _program_files(package: Path) -> list[LocalFile]:
    found = {one.path: one for one in files_below(package, package.parent) if _is_needed(one)}
    defaults = packaged_defaults()
    if not defaults.is_relative_to(package):
        # In a clone, files that are inside the package in a wheel are next to the package.
        for name in ("env", "examples"):
            for one in files_below(defaults / name, defaults):
                path = f"{package.name}/_defaults/{one.path}"
                found[path] = LocalFile(path, one.full, one.size, one.time, one.mode, one.link)
    return [found[path] for path in sorted(found)]


def _is_needed(one: LocalFile) -> bool:
    return not one.path.endswith((".pyc", ".pyo")) and os.path.basename(one.path) != ".DS_Store"
