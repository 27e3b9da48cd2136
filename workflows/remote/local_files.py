"""Lists the files of a project to send: those that git would track, and those that are named explicitly."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..ignore_files import read_patterns
from ..project import STATE_FOLDER
from ..scratch import scratch_folder

#: Never sent, even if git tracks them: `.env` has secrets, the others belong to this machine and its editor.
_NEVER = frozenset({".env", ".git", STATE_FOLDER, "__pycache__", ".venv", ".vscode", ".ipynb_checkpoints"})


@dataclass(frozen=True)
class LocalFile:
    """One local file.

    Attributes:
        path: The path relative to the folder, with ``/``.
        full: The full path.
        size: The size in bytes.
        time: The modification time, in nanoseconds since the epoch.
        mode: The permissions.
        link: The target of a symbolic link; empty for other files.
    """

    path: str
    full: str
    size: int
    time: int
    mode: int
    link: str = ""

    @property
    def key(self) -> list[int]:
        """The values by which a change is detected."""
        return [self.size, self.time, self.mode]


def project_files(project: Path, extra: Iterable[Path]) -> dict[str, LocalFile]:
    """The files of a project to send, by path: those that git does not ignore, and those below named folders.

    Args:
        project: The project's folder.
        extra: Files and folders in it that are sent even if git ignores them.

    Raises:
        UserError: The files cannot be listed.
    """
    found: dict[str, LocalFile] = {}
    for path in _list_paths(project):
        if not _NEVER.isdisjoint(path.split("/")):
            continue
        found.update((one.path, one) for one in _files_at(project, path))
    for place in extra:
        for one in files_below(place, project):
            found.setdefault(one.path, one)
    return found


def files_below(place: Path, root: Path) -> Iterator[LocalFile]:
    """A file, or all files below a folder, with paths relative to a root.

    Raises:
        UserError: A folder cannot be read.
    """
    if not place.is_dir():
        one = _read_file_info(root, Path(os.path.relpath(place, root)).as_posix(), follow=True)
        if one is not None:
            yield one
        return

    def unreadable(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.", "Make it readable, or name less data.")

    for parent, folders, files in os.walk(place, onerror=unreadable):
        inside = Path(os.path.relpath(parent, root)).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        folders[:] = [name for name in folders if name not in _NEVER and not _is_environment(parent, name)]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in [*files, *links]:
            if name != ".env":
                yield from _files_at(root, prefix + name)


def _files_at(root: Path, path: str, within: frozenset[str] = frozenset()) -> Iterator[LocalFile]:
    """The file at a path. For a link to a folder outside the root: the files in that folder, below the link's path.

    Args:
        root: The folder that is sent.
        path: A path in it.
        within: The real paths of linked folders that contain the path.
    """
    one = _read_file_info(root, path)
    if one is not None:
        yield one
        return
    full = os.path.join(root, path)
    real = os.path.realpath(full)
    if not os.path.islink(full) or not os.path.isdir(real) or _contains_any(real, [os.path.realpath(root), *within]):
        return
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(real), key=lambda entry: entry.name):
            yield from _in_linked(root, f"{path}/{entry.name}", within | {real})


def _in_linked(root: Path, path: str, within: frozenset[str]) -> Iterator[LocalFile]:
    full, name = os.path.join(root, path), path.rpartition("/")[2]
    if name in _NEVER or _is_environment(os.path.dirname(full), name):
        return
    if os.path.isdir(full) and not os.path.islink(full):
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(full)):
                yield from _in_linked(root, f"{path}/{entry}", within)
        return
    yield from _files_at(root, path, within)


def _contains_any(folder: str, others: Iterable[str]) -> bool:
    """Whether a folder contains, or is, one of the others: following a link to it would never end."""
    return any(os.path.join(other, "").startswith(os.path.join(folder, "")) for other in others)


def _is_environment(parent: str, name: str) -> bool:
    """Whether a folder is a virtual environment, which works on this machine only."""
    return os.path.isfile(os.path.join(parent, name, "pyvenv.cfg"))


def _read_file_info(root: Path, path: str, follow: bool = False) -> LocalFile | None:
    full = os.path.join(root, path)
    try:
        seen = os.lstat(full)
        if stat.S_ISLNK(seen.st_mode):
            target = os.readlink(full)
            inside = os.path.realpath(full)
            if not follow and inside.startswith(os.path.join(os.path.realpath(root), "")) and not os.path.isabs(target):
                return LocalFile(path, full, len(os.fsencode(target)), seen.st_mtime_ns, 0o777, target)
            # The link leads out of the folder: its target is sent, if that is a file.
            seen = os.stat(full)
    except OSError:
        # Deleted meanwhile, or a broken link.
        return None
    if not stat.S_ISREG(seen.st_mode):
        return None
    return LocalFile(path, full, seen.st_size, seen.st_mtime_ns, stat.S_IMODE(seen.st_mode))


def _list_paths(project: Path) -> list[str]:
    if shutil.which("git") is None:
        return _without_git(project)
    arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = _git(["git", *arguments], project)
    if done.returncode:
        # No repository, or one that git does not trust: apply the same rules with an empty repository.
        done = _list_without_repository(project, arguments)
    if done.returncode:
        word = (os.fsdecode(done.stderr).strip().splitlines() or ["git does not say why"])[-1]
        raise UserError(f"The project's files cannot be listed: {word}.", f"See: git -C {project} status")
    found: dict[str, None] = {}
    for name in filter(None, done.stdout.split(b"\0")):
        path = os.fsdecode(name).rstrip("/")
        inner = project / path
        if inner.is_dir() and not inner.is_symlink():
            # A submodule or nested repository, of which git lists only the folder.
            found.update(dict.fromkeys(f"{path}/{one}" for one in _list_submodule(inner, arguments)))
        else:
            found[path] = None
    return list(found)


def _list_submodule(folder: Path, arguments: list[str]) -> list[str]:
    """The files that git would track in a submodule or nested repository."""
    if (folder / ".git").exists():
        return _list_paths(folder)
    # A submodule that was not fetched: its files belong to no repository.
    done = _list_without_repository(folder, arguments)
    return [os.fsdecode(name) for name in done.stdout.split(b"\0") if name and not name.endswith(b"/")]


def _list_without_repository(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    """List a folder's files with git as if it were a new repository in which nothing is tracked."""
    with scratch_folder() as empty:
        _git(["git", "init", "-q", "--bare", str(empty)], folder)
        return _git(["git", f"--git-dir={empty}", f"--work-tree={folder}", *arguments], folder)


def _git(argv: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False
    )


def _without_git(project: Path) -> list[str]:
    """List the files by the .gitignore files, if git is not installed."""
    from pathspec import GitIgnoreSpec

    found: list[str] = []
    specs: dict[str, list[tuple[str, GitIgnoreSpec]]] = {}
    for parent, folders, files in os.walk(project):
        inside = Path(parent).relative_to(project).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        known = specs.get(os.path.dirname(inside) if inside != "." else "", []) if prefix else []
        if ".gitignore" in files:
            lines = read_patterns(Path(parent, ".gitignore"))
            known = [*known, (prefix, GitIgnoreSpec.from_lines(lines))]
        specs[inside if prefix else ""] = known

        def ignored(path: str, known: list[tuple[str, GitIgnoreSpec]] = known) -> bool:
            verdict = False
            for base, spec in known:
                result = spec.check_file(path[len(base) :])
                verdict = verdict if result.include is None else bool(result.include)
            return verdict

        # For git, a symbolic link is a file, whatever its target.
        files += [name for name in folders if os.path.islink(os.path.join(parent, name))]
        folders[:] = [name for name in folders if name not in _NEVER and not ignored(f"{prefix}{name}/")]
        found += [f"{prefix}{name}" for name in files if not ignored(f"{prefix}{name}")]
    return found
