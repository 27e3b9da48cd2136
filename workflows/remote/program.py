"""The program itself, as it is here, for the other machine: its files and what it needs installed."""

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
    """What the other machine has to have.

    Attributes:
        version: The program's version.
        requirements: What pip has to install for it.
        files: The program's own files, by their path there; empty where the project holds them.
    """

    version: str
    requirements: tuple[str, ...]
    files: tuple[LocalFile, ...]

    @property
    def environment_key(self) -> str:
        """Tells environments of other requirements apart."""
        return hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()[:12]

    @property
    def key(self) -> str:
        """Tells other files of the program apart."""
        found = hashlib.sha256()
        for one in self.files:
            found.update(f"{one.path}\0{one.size}\0".encode())
            found.update(Path(one.full).read_bytes())
        return "files-" + found.hexdigest()[:12]


def describe_program(project: Path) -> Program:
    """This program, for a project that is going to another machine.

    Raises:
        UserError: It is not installed, so nobody knows what it needs.
    """
    import importlib.metadata

    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"{DISTRIBUTION} is not installed here, so it is not known what it needs on the other machine.",
            "Install it: pip install -e PATH-OF-THE-CLONE",
        ) from error
    requirements = tuple(sorted(one for one in required if "extra ==" not in one))
    package = Path(__file__).resolve().parents[1]
    if package.parent == project.resolve():
        return Program(__version__, requirements, ())
    return Program(__version__, requirements, tuple(_program_files(package)))


def _program_files(package: Path) -> list[LocalFile]:
    found = {one.path: one for one in files_below(package, package.parent) if _is_needed(one)}
    defaults = packaged_defaults()
    if not defaults.is_relative_to(package):
        # A clone: what a wheel has inside lies beside the package.
        for name in ("env", "examples"):
            for one in files_below(defaults / name, defaults):
                path = f"{package.name}/_defaults/{one.path}"
                found[path] = LocalFile(path, one.full, one.size, one.time, one.mode, one.link)
    return [found[path] for path in sorted(found)]


def _is_needed(one: LocalFile) -> bool:
    return not one.path.endswith((".pyc", ".pyo")) and os.path.basename(one.path) != ".DS_Store"
