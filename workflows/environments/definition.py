"""Reads environment definitions: a folder with conda.yml, requirement files, a Dockerfile, runit services."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import UserError
from ..line_ends import has_windows_ends
from ..redaction import keep_addresses
from . import local_packages
from .added_requirements import find_missing
from .conda_file import read_conda
from .conda_packages import CondaPackage, translate_package
from .requirements import (
    PipLines,
    Requirement,
    logical_lines,
    parse_requirement,
    read_line,
)

if TYPE_CHECKING:
    from hashlib import _Hash

# Increased whenever the way environments are built changes, so that older ones are not reused.
BUILD_VERSION = "2"

CONDA_FILES = ("conda.yml", "conda.yaml", "environment.yml", "environment.yaml")
_YAML = (".yml", ".yaml")
_CACHES = frozenset(
    {
        "__pycache__",
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".tox",
        ".nox",
        "node_modules",
        ".ipynb_checkpoints",
        ".azureml-debug",
        ".DS_Store",
        "supervise",
    }
)


@dataclass(frozen=True)
class EnvironmentDefinition:
    """What an environment is made of.

    Attributes:
        name: conda.yml's ``name``, else the folder's.
        folder: Absolute path.
        source: conda.yml, or requirements.txt where there is none.
        channels: conda's channels.
        python: conda's constraint on the Python version, empty where there is none.
        conda: conda's packages other than python and pip.
        pip: Requirements for pip, the added ones last.
        added: Those of ``pip`` that we added.
        constraints: Lines of the files named by ``-c``.
        options: pip's options, such as ``--extra-index-url``.
        dockerfile: The folder's own, else the default one.
        files: Everything that goes into an image's build context: the name there, the path here.
        variables: conda's environment variables, as in the file.
        content: Hex digest of all of the above.
        live: Folders of editable packages that stay where they are, see :mod:`.local_packages`.
        copied: The digest ``content`` of the definition if those are copied, too.
        limits: The constraints, parsed.
    """

    name: str
    folder: Path
    source: Path
    channels: tuple[str, ...]
    python: str
    conda: tuple[CondaPackage, ...]
    pip: tuple[Requirement, ...]
    added: tuple[Requirement, ...]
    constraints: tuple[str, ...]
    options: tuple[str, ...]
    dockerfile: Path
    files: tuple[tuple[PurePosixPath, Path], ...]
    content: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    live: tuple[Path, ...] = ()
    copied: str = ""
    limits: tuple[Requirement, ...] = ()

    def as_copies(self) -> EnvironmentDefinition:
        """The same definition with every local package copied."""
        return replace(self, live=(), content=self.copied)

    def digest(self, *parts: str) -> str:
        """Hex SHA-256 of the definition together with everything else that an environment depends on.

        Args:
            parts: For example the base image's id, or the Python version and the platform.
        """
        total = hashlib.sha256()
        for part in (BUILD_VERSION, self.content, *parts):
            _feed(total, part.encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def requirements_digest(self, *parts: str) -> str:
        """Hex SHA-256 of only the packages, which stay the same when the Dockerfile changes."""
        total = hashlib.sha256()
        lines = [_line_without_folder(item) for item in self.pip]
        conda = [item.text for item in self.conda]
        for part in (BUILD_VERSION, *lines, "", *self.constraints, "", *self.options, "", *conda, *parts):
            _feed(total, part.encode("utf-8", "surrogateescape"))
        _feed_locals(total, self.pip, self.live)
        return total.hexdigest()

    def translate_conda(self) -> tuple[tuple[Requirement, ...], tuple[str, ...]]:
        """The packages of conda as requirements for pip, and notes on the differences."""
        found, notes = list[Requirement](), list[str]()
        for package in self.conda:
            text, note = translate_package(package)
            if note:
                notes.append(note)
            if text is not None:
                found.append(Requirement(text, parse_requirement(text).name, package.file, package.line))
        if found:
            names = ", ".join(item.text for item in found)
            notes.insert(0, f"conda is not used here: {names} from {self.source.name} installed from the package index")
        return tuple(found), tuple(notes)


def load_definition(
    folder: Path, *, conda_file: Path | None = None, required: Sequence[str] = (), default_dockerfile: Path
) -> EnvironmentDefinition:
    """Read an environment definition.

    Args:
        folder: A folder with conda.yml (or environment.yml, or one conda file of another name), or with only
            requirements.txt; or such a file itself, which then is all of the definition, as with ``conda_file``.
        conda_file: This file and the files it includes are all of the definition. Other files in its folder, which
            may be a whole project, do not count, and the default Dockerfile is used.
        required: Requirements that are added where the definition has none of that name, such as ``debugpy>=1.8``.
        default_dockerfile: The Dockerfile for a folder without one, with runit services beside it.

    Raises:
        UserError: The folder or the definition is missing, or something in it cannot be read.
    """
    folder = Path(os.path.abspath(folder))
    alone = conda_file is not None or folder.is_file()
    source = conda_file or folder
    if conda_file is None and folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(
            f"The environment folder {folder} does not exist.",
            "Create it with a conda.yml or requirements.txt, or name another in the settings.",
        )
    if not alone:
        source = _conda_file_of(folder) or folder / "requirements.txt"
    lines = PipLines()
    if source == conda_file or source.suffix.lower() in _YAML:
        name, channels, packages, variables = read_conda(source, lines)
    else:
        name, channels, packages, variables = "", [], [], {}
        _read_requirements(source, folder, lines)
    # These addresses may have passwords, which no message may show.
    for text in (*lines.options, *lines.constraints, *channels, *(item.text for item in lines.requirements)):
        keep_addresses(text)
    added = find_missing(required, lines.requirements, packages, lines.limits)
    pip = (*lines.requirements, *added)
    if alone:
        lines.files.append(source.resolve())
    files = _context_files(folder, default_dockerfile, alone)
    context_paths = {item.resolve() for _, item in files}
    others = [path for path in lines.files if path not in context_paths]
    outside = [(PurePosixPath(os.path.relpath(path, folder)), path) for path in others]
    content = partial(_content_digest, files, outside, pip, added)
    folders = {item.local: item.local for item in pip if item.local is not None and item.local.is_dir()}
    live = local_packages.find_live_folders(pip, ((path, [name for name, _ in _walk(path)]) for path in folders))
    copied = content(())
    return EnvironmentDefinition(
        name=name or (source.stem if alone else folder.name),
        folder=folder,
        source=source,
        channels=tuple(channels),
        python=next((item.constraint for item in packages if item.name == "python"), ""),
        conda=tuple(item for item in packages if item.name not in ("python", "pip")),
        pip=pip,
        added=tuple(added),
        constraints=tuple(lines.constraints),
        options=tuple(lines.options),
        dockerfile=dict(files)[PurePosixPath("Dockerfile")],
        files=files,
        content=content(live) if live else copied,
        live=live,
        copied=copied,
        limits=tuple(lines.limits),
        variables=variables,
    )


def _read_requirements(file: Path, folder: Path, lines: PipLines) -> None:
    """Read a requirements file that is a definition's only source.

    Raises:
        UserError: It does not exist, or cannot be read.
    """
    if not file.is_file():
        raise UserError(
            f"There is no conda.yml or requirements.txt in {folder}.",
            "Add one (it may be empty), or name another folder: AML_INFERENCE_ENV, AML_TRAINING_ENV.",
        )
    lines.files.append(file.resolve())
    for number, text in logical_lines(file):
        read_line(lines, text, file=file, line=number, folder=folder)


def _context_files(folder: Path, default_dockerfile: Path, alone: bool) -> tuple[tuple[PurePosixPath, Path], ...]:
    """The files of an image's build context, by name: the folder's, with the default Dockerfile and services.

    Args:
        folder: The definition's folder.
        default_dockerfile: The Dockerfile for a folder without one, with runit services beside it.
        alone: Whether one file is all of the definition, so that the folder's files do not count.
    """
    files = {} if alone else dict(_walk(folder))
    if alone or not (folder / "Dockerfile").is_file():
        files[PurePosixPath("Dockerfile")] = default_dockerfile
    if alone or not (folder / "runit").is_dir():
        runit = default_dockerfile.parent / "runit"
        files |= {PurePosixPath("runit") / inner: path for inner, path in _walk(runit)}
    return tuple(sorted(files.items()))


def _content_digest(
    files: Sequence[tuple[PurePosixPath, Path]],
    outside: Sequence[tuple[PurePosixPath, Path]],
    pip: Sequence[Requirement],
    added: Sequence[Requirement],
    live: Sequence[Path],
) -> str:
    """The hex digest of a definition's content.

    Args:
        files: The files of the build context.
        outside: Further files that it includes.
        pip: Requirements for pip.
        added: Those of them that this program added.
        live: Folders of editable packages that stay where they are.
    """
    total = hashlib.sha256()
    # Of an editable package in the folder only those files count that affect its installation.
    _feed_files(total, [one for one in files if not live or not any(map(one[1].resolve().is_relative_to, live))])
    _feed_files(total, outside)
    _feed_locals(total, pip, live)
    for item in added:
        _feed(total, item.text.encode())
    return total.hexdigest()


def _conda_file_of(folder: Path) -> Path | None:
    """A folder's conda file: one of the usual names, or else the only one where there is no requirements.txt."""
    usual = next((folder / name for name in CONDA_FILES if (folder / name).is_file()), None)
    if usual is not None or (folder / "requirements.txt").is_file():
        return usual
    named = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _YAML and path.is_file()]
    if not named:
        return None
    from ..assets.kinds import CONDA_FILE, kind_of_file

    found = [path for path in named if kind_of_file(path) is CONDA_FILE]
    if len(found) > 1:
        raise UserError(
            f"There are several conda files in {folder}: {', '.join(path.name for path in found)}.",
            "Name the one that is meant, rather than its folder.",
        )
    # A single file that cannot be parsed is returned, too: reading it reports the error.
    return found[0] if found else named[0] if len(named) == 1 and kind_of_file(named[0]) is None else None


def local_files(path: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """The files of a local requirement, a wheel or a source folder, with their relative names."""
    if path.is_dir():
        yield from _walk(path)
    else:
        yield PurePosixPath(path.name), path


def is_executable(path: Path) -> bool:
    """Whether a file has to be executable in an image: by its mode, or by a first line that begins with ``#!``.

    Windows has no such mode, so there the first line decides.
    """
    if path.stat().st_mode & 0o100:
        return True
    with path.open("rb") as file:
        return file.read(2) == b"#!"


def _walk(folder: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """The regular files below a folder with their relative names, without caches, sockets and fifos."""
    seen = set[str]()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a circular link
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name not in _CACHES and not name.endswith(".egg-info")]
        for name in names:
            path = Path(parent, name)
            if name in _CACHES or name.endswith((".pyc", ".pyo")) or not _is_file(path):
                continue
            yield PurePosixPath(path.relative_to(folder).as_posix()), path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a link into a folder without permission
        return False


def _feed(total: _Hash, part: bytes) -> None:
    # With the length in front, ("ab", "c") and ("a", "bc") differ.
    total.update(b"%d:" % len(part))
    total.update(part)


def _feed_file(total: _Hash, path: Path) -> None:
    """Add a file's content, which may be many gigabytes, to a digest."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        total.update(b"%d:" % left)
        while left and (part := file.read(min(left, 1024 * 1024))):
            total.update(part)
            left -= len(part)


def _feed_files(total: _Hash, files: Iterable[tuple[PurePosixPath, Path]]) -> None:
    for name, path in sorted(files):
        _feed(total, os.fsencode(str(name)))
        try:
            kind = b"x" if is_executable(path) else b"-"
            # Windows line ends are converted in the image, which older versions of this program did not do.
            _feed(total, kind + b"lf" if has_windows_ends(path) else kind)
            _feed_file(total, path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read: {error.strerror}.", "Make it readable, or take it out of the folder."
            ) from error


def _line_without_folder(item: Requirement) -> str:
    """A requirement's line; of a wheel or an archive without its folder.

    What is installed from a file is the same wherever the file lies, so that clones of a project share it. The folder
    of a package may be used in place.
    """
    return item.render(item.local.name if item.local is not None and item.local.is_file() else None)


def _feed_locals(total: _Hash, requirements: Sequence[Requirement], live: Sequence[Path]) -> None:
    for item in requirements:
        if item.local is None:
            continue
        _feed(total, _line_without_folder(item).encode("utf-8", "surrogateescape"))
        files = list(local_files(item.local))
        if item.local in live:
            # A new module may change what is installed; an edit of a module does not.
            for name, _ in sorted(files):
                _feed(total, os.fsencode(str(name)))
            files = [(name, path) for name, path in files if local_packages.affects_installation(name)]
        _feed_files(total, files)
