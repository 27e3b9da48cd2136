"""Editing a file of JSON with comments atomically, while other processes may edit it, too."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from workflows import locks, storage
from workflows import process_identity as identity
from workflows.debugger.jsonc import Document, JsoncError, parse
from workflows.errors import UserError
from workflows.reading import read_bytes

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another command that edits the same file."""

#: The largest file that is read; a launch.json with thousands of configurations is smaller.
MOST_BYTES = 4 * 1024 * 1024
#: Age in seconds at which a killed writer's temporary file is removed.
_STALE_SECONDS = 60.0


def edit_file(file: Path, change: Callable[[Document], Document]) -> bool:
    """Change a file of JSON with comments; a missing one is an empty document.

    Several processes may do it at once. Nothing is written when ``change`` changes nothing.

    Args:
        file: The file; a symbolic link is followed, a missing folder is created.
        change: Returns the new document for the current one; it may raise.

    Returns:
        Whether the file was written.

    Raises:
        UserError: The file cannot be read, parsed, locked or written; it is not changed then.
    """
    target = Path(os.path.realpath(file))
    with _locked(file, target):
        before = _read(file, target)
        try:
            document = parse(before)
        except JsoncError as error:
            remedy = f"Correct line {error.line}, or rename the file to get a new one; it was not changed."
            raise UserError(f"This file cannot be parsed: {error}", remedy, file=file, line=error.line) from error
        after = change(document).data
        if after == before:
            return False
        try:
            _replace(target, after)
        except OSError as error:
            problem = f"This file cannot be written: {_reason(error)}"
            raise UserError(problem, _write_remedy(error, target), file=file) from error
        return True


@contextlib.contextmanager
def _locked(file: Path, target: Path) -> Iterator[None]:
    digest = hashlib.sha256(os.path.normcase(target).encode(errors="surrogateescape")).hexdigest()[:16]
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.hold(locks.folder() / f"{digest}.lock", LOCK_TIMEOUT))
        except locks.HeldError as error:
            problem = f"Another command has been changing it for {LOCK_TIMEOUT:g} s"
            raise UserError(problem, "Wait for that command or end it, then try again.", file=file) from error
        except (OSError, RuntimeError) as error:
            told = storage.explain(error)
            problem = f"This file cannot be locked: {told.problem if told else _reason(error)}"
            remedy = told.remedy if told else "Let XDG_CACHE_HOME, or TMPDIR, name a folder you can write to."
            raise UserError(problem, remedy, file=file) from error
        yield


def _read(file: Path, target: Path) -> bytes:
    try:
        kind = target.stat().st_mode
        if stat.S_ISREG(kind):
            return read_bytes(target, MOST_BYTES)
    except FileNotFoundError:
        return b""
    except NotADirectoryError as error:
        remedy = "Rename that file; VS Code keeps its settings in a folder of this name."
        raise UserError("This is a file, not a folder.", remedy, file=file.parent) from error
    except OSError as error:
        remedy = "Give yourself the right to read it and its folder, then try again."
        if error.errno == errno.EFBIG:
            remedy = "Rename it to get a new one; it was not changed."
        raise UserError(f"This file cannot be read: {_reason(error)}", remedy, file=file) from error
    what = "This is a folder, not a file." if stat.S_ISDIR(kind) else "This is not a regular file."
    raise UserError(what, "Rename or remove it, then try again.", file=file)


def _replace(target: Path, data: bytes) -> None:
    """Replace a file's content atomically, keeping its mode and owner."""
    made_folder = not target.parent.is_dir()
    if made_folder:
        # Another command may make it at the same time.
        target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{target.name}.{identity.process_mark()}.tmp")
    try:
        old = _writable_status(target)
        _remove_stale(target)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        descriptor = os.open(temporary, flags, 0o666)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if old is not None:
            if hasattr(os, "chown"):
                # Only root can set the owner; other users' files already belong to them.
                with contextlib.suppress(OSError):
                    os.chown(temporary, old.st_uid, old.st_gid)
            temporary.chmod(stat.S_IMODE(old.st_mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if made_folder:
            with contextlib.suppress(OSError):
                target.parent.rmdir()
        raise


def _writable_status(target: Path) -> os.stat_result | None:
    """The file's status; raises for a read-only file, which could be replaced but is read-only for a reason."""
    try:
        with target.open("r+b") as stream:
            return os.fstat(stream.fileno())
    except FileNotFoundError:
        return None


def _remove_stale(target: Path) -> None:
    """Remove temporary files of killed commands; no other command writes the file now."""
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError):
            # A process of another machine cannot be checked, so its files go by age (in both directions of the clock).
            old = abs(time.time() - left.stat().st_mtime) > _STALE_SECONDS
            if old or identity.is_leftover(left.name.split(".")[-2]):
                left.unlink()


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error)
    return text[:1].lower() + text[1:]


def _write_remedy(error: OSError, target: Path) -> str:
    if (told := storage.explain(error, target)) is not None:
        return f"Free some space there: {told.problem.rstrip('.')}. The file is as it was."
    if error.errno == errno.ENOENT:
        return "Check that the project folder exists, then try again."
    return "Make the file and its folder writable, then try again; the file is as it was."
