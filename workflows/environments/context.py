"""The build context of an image: the definition's folder, and the files that this program adds in `.azureml-debug`.

`.azureml-debug` has install.sh, conda.yml without its pip part, plain requirement files, local packages and, where the
host could make it, the environment itself or wheels. A Dockerfile of the user's own need not use any of it. One that
adds `.azureml-debug-packages.tar` to the environment gets the packages by that instruction, not by install.sh: they are
then written once, not once for each stage.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from ..line_ends import has_windows_ends, to_unix_ends
from ..reading import read_text
from .definition import EnvironmentDefinition, is_executable, local_files
from .dockerfile import parse

if TYPE_CHECKING:
    from .requirements import Requirement

OURS = PurePosixPath(".azureml-debug")
#: The archive of the environment's packages, for Dockerfiles that add it.
PACKAGES = PurePosixPath(".azureml-debug-packages.tar")
#: A file that tells install.sh that the packages are added.
ADDED = "packages-added"
#: Subfolders of what :func:`.wheelhouse.make_packages` makes: a complete environment, or wheels.
ENVIRONMENT, WHEELS = "environment", "wheels"
_HOSTS_OWN = re.compile(
    r"bin/(?:python[\d.]*|(?:de)?activate[^/]*|pydoc\.bat)|pyvenv\.cfg|\.lock|\.gitignore|CACHEDIR\.TAG"
)


def pip_files(
    definition: EnvironmentDefinition, *, translated: bool, places: dict[Path, str] | None = None
) -> dict[str, str]:
    """The requirement files to install, by name, without includes and comments.

    Args:
        definition: The environment.
        translated: Whether conda's packages are among them, as requirements for pip.
        places: The paths of local packages as pip will see them; by default their paths on this machine.

    Returns:
        ``requirements.txt``, and ``constraints.txt`` and ``requirements-added.txt`` where needed.
    """
    in_image = places is not None

    def render(item: Requirement) -> str:
        place = None
        if item.local is not None and places is not None:
            place = places.get(item.local)
        elif item.local is not None and item.local.is_relative_to(definition.folder.resolve()):
            # pip runs in that folder, and cannot read requirements with an absolute path that is not UTF-8.
            place = f"./{item.local.relative_to(definition.folder.resolve()).as_posix()}"
        if item.local is not None and item.editable and re.search(r"\s", place or str(item.local)):
            # pip splits the line at spaces.
            place = item.local.as_uri()
        # In an image the source folder of any other editable package does not exist after the build.
        return item.render(place, editable=not in_image or item.local in definition.live)

    files = dict[str, str]()
    lines = list(definition.options)
    if definition.constraints:
        files["constraints.txt"] = "\n".join(definition.constraints) + "\n"
        lines.append("-c constraints.txt")
    wanted = list(definition.pip)
    if any("--hash" in item.text for item in wanted):
        # If some lines have hashes, pip wants them on all: the added requirements go into a second file.
        wanted = [item for item in wanted if item not in definition.added]
        files["requirements-added.txt"] = "".join(f"{item.text}\n" for item in definition.added)
    if translated:
        wanted = [*definition.translate_conda()[0], *wanted]
    files["requirements.txt"] = "\n".join([*lines, *map(render, wanted)]) + "\n"
    return {name: text for name, text in files.items() if text}


def conda_text(definition: EnvironmentDefinition, *, python: str | None) -> str:
    """conda.yml without its pip part, which pip installs afterwards with its own settings.

    Args:
        definition: The environment.
        python: Python's constraint where the definition has none, such as ``=3.11``.
    """
    packages = [
        f"python{definition.python or python or ''}",
        "pip",
        *(item.text for item in definition.conda),
    ]
    # JSON is valid YAML, with all necessary quotes.
    lists = {"channels": list(definition.channels) or ["conda-forge"], "dependencies": packages}
    return json.dumps(lists, indent=2) + "\n"


@contextmanager
def build_context(
    definition: EnvironmentDefinition, packages: Path | None, dockerfile: str | None = None
) -> Iterator[IO[bytes]]:
    """The context as a tar archive in a temporary file, which is gone after the block.

    Args:
        definition: The environment to build.
        packages: The folder from :func:`.wheelhouse.make_packages`; None where the image installs its packages.
        dockerfile: A text that replaces the definition's own Dockerfile.

    Raises:
        OSError: A file cannot be read, or the disk is full.
    """
    with tempfile.TemporaryFile(prefix="azureml-debug-context-") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name, path in definition.files:
                # The engine would apply .dockerignore to the added files as well, and `*` with exceptions is common.
                if str(name) == "Dockerfile" and dockerfile is not None:
                    _add_text(tar, name, dockerfile)
                elif str(name) != ".dockerignore":
                    _add_file(tar, name, path)
            _add_file(tar, OURS / "install.sh", Path(__file__).with_name("install.sh"))
            _add_text(tar, OURS / "conda.yml", conda_text(definition, python=None))
            # Without requirements there are no wheels, and no folder for install.sh.
            wheels = sorted((packages / WHEELS).glob("*.whl")) if packages is not None else []
            made = packages / ENVIRONMENT if packages is not None and (packages / ENVIRONMENT).is_dir() else None
            if _adds_packages(definition, dockerfile):
                _add_environment(tar, made, PACKAGES)
                if made is not None:
                    _add_text(tar, OURS / ADDED, "")
            elif made is not None:
                _add_environment(tar, made, OURS / f"{ENVIRONMENT}.tar")
            for wheel in wheels:
                _add_file(tar, OURS / "wheelhouse" / wheel.name, wheel)
            if made is None and not wheels:
                _add_requirements(tar, definition)
        file.seek(0)
        yield file


def _adds_packages(definition: EnvironmentDefinition, dockerfile: str | None) -> bool:
    """Whether a Dockerfile adds the archive of packages."""
    text = read_text(definition.dockerfile, errors="replace") if dockerfile is None else dockerfile
    return any(one.keyword == "ADD" and str(PACKAGES) in one.rest for one in parse(text).instructions)


def _add_environment(tar: tarfile.TarFile, folder: Path | None, target: PurePosixPath) -> None:
    """Add the packages and programs of an environment, without the files of the host's interpreter.

    They are added as one tar file: an engine takes much longer for thousands of small files.

    Args:
        tar: The build context.
        folder: The environment; None for an archive without any.
        target: The tar file's place in the context.
    """
    with tempfile.TemporaryFile(prefix="azureml-debug-environment-") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as inner:
            # The engine takes a tar file with nothing in it for an ordinary file.
            root = _info(PurePosixPath("."), 0, 0o755)
            root.type = tarfile.DIRTYPE
            inner.addfile(root)
            for place, path in _package_files(folder) if folder is not None else ():
                found = path.stat()
                info = _info(place, found.st_size, 0o755 if found.st_mode & 0o100 else 0o644)
                # Byte code is validated by the source's time.
                info.mtime = int(found.st_mtime)
                with path.open("rb") as source:
                    inner.addfile(info, source)
        size = file.tell()
        file.seek(0)
        tar.addfile(_info(target, size, 0o644), file)


def _package_files(folder: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """The files of an environment's packages and programs: their places in it, and their paths."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            place = path.relative_to(folder).as_posix()
            if not path.is_symlink() and not _HOSTS_OWN.fullmatch(place):
                yield PurePosixPath(place), path


def _add_requirements(tar: tarfile.TarFile, definition: EnvironmentDefinition) -> None:
    places, live = dict[Path, str](), ""
    for item in definition.pip:
        if item.local is None or item.local in places:
            continue
        below = PurePosixPath("local") / str(len(places))
        # pip parses the name of a wheel, but not that of a folder.
        is_folder = item.local.is_dir()
        places[item.local] = f"./{below}" if is_folder else f"./{below / item.local.name}"
        if item.local in definition.live:
            # A container has the folder itself mounted at this path; the copy is for the build.
            places[item.local] = item.local.as_uri()
            live += f"{below}\t{item.local}\n"
        for inner, path in local_files(item.local):
            _add_file(tar, OURS / below / inner, path)
    for name, text in pip_files(definition, translated=False, places=places).items():
        _add_text(tar, OURS / name, text)
    if live:
        _add_text(tar, OURS / "live", live)
    everything = pip_files(definition, translated=True, places=places)["requirements.txt"]
    _add_text(tar, OURS / "requirements-all.txt", everything)


def _add_file(tar: tarfile.TarFile, name: PurePosixPath, path: Path) -> None:
    if has_windows_ends(path):
        data = to_unix_ends(path.read_bytes())
        tar.addfile(_info(name, len(data), 0o755 if is_executable(path) else 0o644), io.BytesIO(data))
        return
    with path.open("rb") as file:
        info = _info(name, path.stat().st_size, 0o755 if is_executable(path) else 0o644)
        tar.addfile(info, file)


def _add_text(tar: tarfile.TarFile, name: PurePosixPath, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    tar.addfile(_info(name, len(data), 0o644), io.BytesIO(data))


def _info(name: PurePosixPath, size: int, mode: int) -> tarfile.TarInfo:
    # Without owner and time, so that equal contexts are equal.
    info = tarfile.TarInfo(str(name))
    info.size, info.mode = size, mode
    return info
