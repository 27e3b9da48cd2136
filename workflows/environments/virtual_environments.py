"""Builds the embedded engine's environments: virtual environments in the user's cache, named by a digest."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import storage
from ..errors import UserError
from ..private import make_folder
from . import pythons
from .context import conda_text, pip_files
from .installing import Work, install_packages, make_empty_environment, run_required

if TYPE_CHECKING:
    from .definition import EnvironmentDefinition

MARKER = "azureml-debug.json"
_CONDAS = ("conda", "mamba", "micromamba")


@dataclass(frozen=True)
class BuiltEnvironment:
    """An environment that programs can run in.

    Attributes:
        folder: The virtual environment.
        python: Its interpreter.
        digest: Hex digest of what it was built from.
        reused: True when nothing had to be built.
        notes: Where it differs from conda.yml; after a build, also how it was built where that is unusual.
        live: Folders of editable packages that are used in place.
    """

    folder: Path
    python: Path
    digest: str
    reused: bool
    notes: tuple[str, ...]
    live: tuple[str, ...] = ()


def ensure_environment(
    definition: EnvironmentDefinition, cache: Path, report: Callable[[str], None]
) -> BuiltEnvironment:
    """The virtual environment of a definition, built where it does not exist yet.

    Args:
        definition: The environment's definition.
        cache: The program's cache folder; environments are in ``environments/`` below it.
        report: Called with each line of progress.

    Raises:
        UserError: It cannot be built. Nothing of it is left.
    """
    cache = Path(os.path.abspath(cache))  # scripts in an environment name it by its absolute path
    plan = _plan(definition, cache)
    digest, folder, choice, conda = plan.digest, plan.folder, plan.choice, plan.conda
    built = _read_complete(folder, digest, reused=True)
    if built is not None:
        return built
    if not choice.satisfied and conda is None and pythons.fetch(definition.python, cache, report):
        plan = _plan(definition, cache)
        digest, folder, choice = plan.digest, plan.folder, plan.choice

    from .locking import exclusive

    lock_file = cache / "locks" / f"{folder.name}.lock"
    try:
        with exclusive(lock_file, f"the environment `{definition.name}`", report):
            built = _read_complete(folder, digest, reused=True)  # another process may have built it meanwhile
            return built or _build(definition, folder, digest, choice, conda, cache, report)
    except OSError as error:
        if (explained := storage.explain(error, cache)) is not None:
            raise explained from error
        raise UserError(
            f"The cache folder {cache} cannot be written: {error.strerror or error}.",
            "Make it writable, or set XDG_CACHE_HOME to a folder that is.",
        ) from error


def read_live_folders(folder: Path) -> tuple[str, ...]:
    """The folders of an environment's editable packages that are used in place."""
    try:
        return tuple(json.loads((folder / MARKER).read_bytes()).get("live", ()))
    except (OSError, ValueError):
        return ()


def read_python_facts(folder: Path) -> pythons.PythonFacts | None:
    """Version and platform of an environment's Python, from its marker; None where the marker does not have them."""
    try:
        version = tuple(map(int, str(json.loads((folder / MARKER).read_bytes())["python"]).split(".")))
        libc = os.confstr("CS_GNU_LIBC_VERSION") or "" if hasattr(os, "confstr") else ""
    except (OSError, ValueError, KeyError):
        return None
    return pythons.PythonFacts(version, libc, platform.machine()) if len(version) == 3 else None


def find_environment(definition: EnvironmentDefinition, cache: Path) -> BuiltEnvironment | None:
    """The environment of a definition; None where it does not exist or is not complete."""
    plan = _plan(definition, Path(os.path.abspath(cache)))
    return _read_complete(plan.folder, plan.digest, reused=True)


@dataclass(frozen=True)
class _Plan:
    digest: str
    folder: Path
    choice: pythons.Choice
    conda: str | None


def _plan(definition: EnvironmentDefinition, cache: Path) -> _Plan:
    choice = pythons.choose_interpreter(definition.python, cache / "pythons")
    conda = _find_conda(definition, choice)
    system = f"{sys.platform} {platform.machine()}"
    digest = definition.digest("process", choice.key, system, "conda" if conda else "")
    return _Plan(digest, cache / "environments" / digest[:16], choice, conda)


def _read_complete(folder: Path, digest: str, *, reused: bool) -> BuiltEnvironment | None:
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except (OSError, ValueError):
        return None
    python = Path(str(marker.get("executable")))
    # The interpreter that it was made with may have been removed since.
    if marker.get("digest") != digest or not python.exists():
        return None
    return BuiltEnvironment(
        folder, python, digest, reused, tuple(marker.get("notes", ())), tuple(marker.get("live", ()))
    )


def _find_conda(definition: EnvironmentDefinition, choice: pythons.Choice) -> str | None:
    if not definition.conda and choice.satisfied:
        return None
    return next(filter(None, map(shutil.which, _CONDAS)), None)


def _build(
    definition: EnvironmentDefinition,
    folder: Path,
    digest: str,
    choice: pythons.Choice,
    conda: str | None,
    cache: Path,
    report: Callable[[str], None],
) -> BuiltEnvironment:
    if folder.exists():
        report(f"removing the half-built environment {folder}")
        remove_environment(folder)
    start = time.monotonic()
    report(f"building the environment `{definition.name}` in {folder}")
    try:
        temporary = folder / ".tmp"
        # Requirement files are copied into it, with the passwords of indexes.
        make_folder(temporary)
        work = Work(definition, folder, temporary, cache, report, pip_files(definition, translated=conda is None))
        notes = _make_environment(work, choice, conda)
        how = install_packages(work, _python(folder, conda))
        shutil.rmtree(temporary)
        _write_marker(definition, folder, digest, notes, conda)
    except BaseException:
        # After Ctrl-C as well; a second Ctrl-C must not interrupt the removal.
        with contextlib.suppress(KeyboardInterrupt):
            remove_environment(folder)
        remove_environment(folder)
        raise
    report(f"built the environment `{definition.name}` in {time.monotonic() - start:.1f} s")
    built = _read_complete(folder, digest, reused=False)
    assert built is not None
    return built if how is None else replace(built, notes=(*built.notes, how))


def _make_environment(work: Work, choice: pythons.Choice, conda: str | None) -> list[str]:
    """Create the environment, without packages for pip; notes on where it differs from conda.yml."""
    definition = work.definition
    notes = list[str]()
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if conda is not None:
        text = conda_text(definition, python=None if definition.python else f"={minor}")
        (work.scratch / "conda.yml").write_text(text, "utf-8")
        # conda accepts an existing folder, and leaves the files in it alone.
        verb = ["create", "--yes"] if Path(conda).stem == "micromamba" else ["env", "create"]
        command = [conda, *verb, "--prefix", str(work.folder), "--file", str(work.scratch / "conda.yml")]
        run_required(work, command, work.environment(), what=Path(conda).stem)
    else:
        python = choice.executable
        if pythons.read_facts(python) is None or not choice.satisfied:
            python = sys.executable
            wanted = f"python{definition.python}"
            notes.append(f"{definition.source.name} asks for {wanted}; using {minor}, conda is not used here")
        make_empty_environment(work, python)
        notes += definition.translate_conda()[1]
    return notes


def _python(folder: Path, conda: str | None) -> Path:
    if conda is not None and sys.platform == "win32":
        return folder / "python.exe"  # conda has no Scripts/python.exe
    return pythons.environment_python(folder)


def _write_marker(
    definition: EnvironmentDefinition, folder: Path, digest: str, notes: list[str], conda: str | None
) -> None:
    """Write the marker, last and atomically: it makes the environment a complete one."""
    executable = _python(folder, conda)
    found = pythons.read_facts(str(executable))
    marker = {
        "name": definition.name,
        "definition": str(definition.folder),
        "digest": digest,
        "python": ".".join(map(str, found.version)) if found is not None else "",
        "executable": str(executable),
        "bytes": bytes_below(folder),
        "notes": notes,
        "live": [str(path) for path in definition.live],
    }
    temporary = folder / f"{MARKER}.new"
    with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(marker, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MARKER)


def bytes_below(folder: Path, alone: bool = False) -> int:
    """Bytes of the files below a folder; files that are removed meanwhile do not count.

    Args:
        folder: The folder.
        alone: Whether to leave out files that are hard links to files elsewhere.
    """
    total = 0
    for parent, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(parent, name))
                total += 0 if alone and found.st_nlink > 1 else found.st_size
    return total


def remove_environment(folder: Path) -> None:
    """Remove an environment, even if a pip that is being killed still writes into it."""
    (folder / MARKER).unlink(missing_ok=True)
    until = time.monotonic() + 5
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=time.monotonic() < until)
        if folder.exists():
            time.sleep(0.05)
