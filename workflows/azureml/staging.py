"""Makes the folder that becomes a step's snapshot: a copy of its code, and what the node needs besides.

The user's folder is not changed. Files are hard-linked where possible, since copying gigabytes would take as long as
the upload. Files that ``.amlignore``, or else ``.gitignore``, of the code folder names are left out, as by Azure ML's
own clients.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..debuggee import FOLDER as DEBUGGEE
from ..errors import UserError
from ..ignore_files import read_patterns
from ..paths import cache_folder
from ..private import FOLDER, make_folder, open_file, touch

#: The folder in a snapshot that holds this program's own files.
OWN = "azureml_debug"
SCRIPT = f"{OWN}/node.py"
#: The most bytes of a snapshot: https://learn.microsoft.com/azure/machine-learning/how-to-save-write-experiment-files
LIMIT_BYTES = 300 * 1024 * 1024
#: `.vscode` changes with every session, and changed files would be sent again.
_IGNORED_FOLDERS = frozenset({".git", "__pycache__", ".azureml-debug", ".ipynb_checkpoints", ".vscode"})
#: The file that marks the folder of a virtual environment, which is useful on this machine only.
_VENV_MARKER = "pyvenv.cfg"
#: Files that are not sent either: `.env` holds secrets, including this program's.
_NEVER_SENT = frozenset({".amlignore", ".gitignore", ".env"})


def stage(
    folder: Path,
    code: Path | None,
    includes: Sequence[Path],
    step: Mapping[str, Any] | None,
    debugpy: Path | None,
    name: str,
    limit: int | None = LIMIT_BYTES,
) -> None:
    """Fill a folder with the content of a step's snapshot.

    Args:
        folder: The folder, which does not exist yet.
        code: The step's source folder or file.
        includes: Files and folders that are put beside the code.
        step: The content of node.py's `step.json`; None where the job itself passes it.
        debugpy: A folder with debugpy for environments that have none; None where the step is not debugged.
            Without `step` and `debugpy`, nothing is added to the code.
        name: The step's name, for messages.
        limit: The most bytes of the code; None for no limit.

    Raises:
        UserError: The code is more than a snapshot may hold, or takes the name of what goes beside it.
    """
    make_folder(folder.parent)
    folder.mkdir(FOLDER)
    total = count = 0
    for source, inner in _files(code, includes):
        if inner.parts[0] == OWN and (step is not None or debugpy is not None):
            raise UserError(
                f"The code of step {name} has a folder {OWN}, which this program puts beside it.", "Rename it."
            )
        target = folder / inner
        make_folder(target.parent)
        _link_or_copy(source, target)
        total, count = total + source.stat().st_size, count + 1
        if limit is not None and total > limit:
            raise UserError(
                f"The code of step {name} is larger than the {limit >> 20} MB that Azure ML takes.",
                f"List what the step does not need in {_ignore_file(code)}; data belongs into `inputs`.",
            )
    # An empty ignore file: everything in this folder is to be sent.
    touch(folder / ".amlignore")
    if step is None and debugpy is None:
        return
    own = folder / OWN
    own.mkdir(FOLDER)
    shutil.copy2(Path(DEBUGGEE) / "node.py", own / "node.py")
    if step is not None:
        with open_file(own / "step.json", "w", encoding="utf-8") as file:
            file.write(json.dumps(dict(step), indent=1, sort_keys=True))
    if debugpy is not None:
        # They are sent as one file, since snapshots are sent file by file and debugpy has four hundred.
        _link_or_copy(_bundle(debugpy), own / "debuggee.zip")


def _bundle(debugpy: Path) -> Path:
    """The zip file with the debuggee and debugpy, created if it does not exist."""
    files = [
        (path, path.relative_to(DEBUGGEE)) for part in ("azureml_debuggee", "inject") for path in _source_files(part)
    ]
    total = hashlib.sha256(debugpy.name.encode())
    for path, name in files:
        total.update(f"\0{name}\0".encode() + path.read_bytes())
    bundle = cache_folder() / "debuggee" / f"{total.hexdigest()[:16]}.zip"
    if bundle.is_file():
        return bundle  # it is renamed to this name only when it is complete
    files += [(path, "debugpy" / path.relative_to(debugpy)) for path in _source_files(debugpy)]
    make_folder(bundle.parent)
    partial = bundle.with_name(f".{bundle.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in files:
                archive.write(path, str(name))
        partial.replace(bundle)
    finally:
        partial.unlink(missing_ok=True)
    return bundle


def _source_files(folder: str | Path) -> list[Path]:
    """The files in a folder of the debuggee, or in any other folder, without compiled ones."""
    root = Path(DEBUGGEE) / folder
    return [path for path in sorted(root.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]


def _ignore_file(code: Path | None) -> str:
    return str((code if code is not None and code.is_dir() else Path()) / ".amlignore")


def _files(code: Path | None, includes: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Every source file, with its path in the snapshot."""
    if code is not None and code.is_dir():
        yield from _walk(code, Path())
    elif code is not None:
        yield code, Path(code.name)
    for path in includes:
        if path.is_dir():
            yield from _walk(path, Path(path.name))
        else:
            yield path, Path(path.name)


def _walk(root: Path, inner: Path) -> Iterator[tuple[Path, Path]]:
    """The files below a folder that are to be sent. Links are followed; each folder is visited once."""
    from pathspec import GitIgnoreSpec

    lines: list[str] = []
    for name in (".amlignore", ".gitignore"):
        if (root / name).is_file():
            lines = read_patterns(root / name)
            break
    ignored = GitIgnoreSpec.from_lines(lines)
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or (_VENV_MARKER in files and place != os.fspath(root)):
            folders.clear()
            continue
        seen.add(real)
        within = Path(os.path.relpath(place, root))
        folders[:] = sorted(
            name
            for name in folders
            if name not in _IGNORED_FOLDERS and not ignored.match_file(f"{(within / name).as_posix()}/")
        )
        for name in sorted(files):
            path = within / name
            if name in _NEVER_SENT or ignored.match_file(path.as_posix()):
                continue
            if (source := Path(place, name)).is_file():
                yield source, inner / path


def _link_or_copy(source: Any, target: Any) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
