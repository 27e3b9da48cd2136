"""Exceptions that the code did not expect: two lines for those that a user can fix, a traceback for bugs.

Invalid input is normally refused where it is read, with its file and line. This module handles the rest, by

- what was raised: the number of an :class:`OSError` says what is wrong (a name that is too long, a limit of processes,
  a file that is gone), and a few other exceptions always come from input (an invalid address, a number with
  thousands of digits, text in another encoding);
- where it was raised: if the standard library or another package refused a value that it was to read, the value came
  from outside. The same exception raised by a line of this program is a bug.

The complete traceback of both is written to a log.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from . import storage, tracebacks
from .errors import UserError
from .paths import cache_folder
from .project import STATE_FOLDER, state_folder

LOG = "errors.log"
#: Size in bytes at which the log is rotated; one older log is kept.
_MOST_LOGGED = 256 * 1024

_AGAIN = "then run this again."
_LIMIT = "No further process or thread can be started: a limit is reached"
_RAISE_LIMIT = f"End what is not needed, or raise the limit (`ulimit -u`, a container's `--pids-limit`), {_AGAIN}"
_REACH = f"See that it runs and that the network leads to it, {_AGAIN}"
#: By error number: what is wrong, and what to do. The name of a file is added to the first part.
_NUMBERS: dict[int, tuple[str, str]] = {
    errno.ENOENT: (
        "There is no such file or folder",
        f"Check the path; if it was there, something has removed it: {_AGAIN}",
    ),
    errno.EACCES: ("Permission denied", f"Give yourself permission, {_AGAIN}"),
    errno.EPERM: ("Operation not permitted", f"Give yourself permission, {_AGAIN}"),
    errno.EEXIST: ("It already exists", f"Rename or remove it, {_AGAIN}"),
    errno.ENOTDIR: ("It is a file, not a folder", f"Check the path, {_AGAIN}"),
    errno.EISDIR: ("It is a folder, not a file", f"Check the path, {_AGAIN}"),
    errno.ENOTEMPTY: ("The folder is not empty", f"Check what is in it, {_AGAIN}"),
    errno.ENAMETOOLONG: ("The name is too long for a file", "Use a shorter one: most systems take 255 bytes a name."),
    errno.ELOOP: ("Links lead in a circle", f"Correct them, {_AGAIN}"),
    errno.EMFILE: ("Too many files are open", f"Raise the limit (`ulimit -n`), {_AGAIN}"),
    errno.ENFILE: ("Too many files are open on this machine", f"End what is not needed, {_AGAIN}"),
    errno.ENOMEM: ("There is not enough memory", f"End what is not needed, {_AGAIN}"),
    errno.E2BIG: ("The command and its environment variables are too long", f"Shorten them, {_AGAIN}"),
    errno.EFBIG: ("The file would be too large", f"Raise the limit of file sizes (`ulimit -f`), {_AGAIN}"),
    errno.EIO: ("The disk or the device fails", "See the system's messages about it (`dmesg`)."),
    errno.EBUSY: ("It is in use", f"End what uses it, {_AGAIN}"),
    errno.ETXTBSY: ("The program is being written to or runs", f"End what uses it, {_AGAIN}"),
    errno.ENXIO: ("There is no such device", f"Check the path, {_AGAIN}"),
    errno.ENODEV: ("There is no such device", f"Check the path, {_AGAIN}"),
    errno.ENOEXEC: ("It is not a program for this machine", "Check what it was built for, and its first line."),
    errno.EILSEQ: ("The name has characters that the file system does not take", f"Use another one, {_AGAIN}"),
    errno.ENOLCK: ("The file system takes no locks", f"Put the project on another one, {_AGAIN}"),
    errno.EADDRINUSE: ("The port is taken", f"End what listens there, or choose another one, {_AGAIN}"),
    errno.EADDRNOTAVAIL: ("The address is none of this machine's", f"Check it, {_AGAIN}"),
    errno.ECONNREFUSED: ("Nothing listens there", _REACH),
    errno.ECONNRESET: ("The connection was cut from the other side", _REACH),
    errno.ECONNABORTED: ("The connection was cut", _REACH),
    errno.ETIMEDOUT: ("No answer came in time", _REACH),
    errno.EHOSTUNREACH: ("The machine cannot be reached", _REACH),
    errno.ENETUNREACH: ("The network cannot be reached", _REACH),
    errno.ENETDOWN: ("The network is down", _REACH),
}
for _name in ("ESTALE", "EREMOTEIO", "EHOSTDOWN"):
    if hasattr(errno, _name):
        _NUMBERS[getattr(errno, _name)] = ("The file system is not there any more", f"Mount it again, {_AGAIN}")
#: Errors about a path: without one, the call itself was wrong.
_OF_A_PATH = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EBUSY})

#: Exceptions whose text shows that the input was wrong.
_TEXTS: tuple[tuple[type[Exception], re.Pattern[str], str, str], ...] = (
    (ValueError, re.compile(r"^embedded null"), "A path or an argument has a NUL in it", "Take the NUL out"),
    (ValueError, re.compile(r"^Exceeds the limit .*integer string"), "A number has thousands of digits", "Correct it"),
    (
        ValueError,
        re.compile(r"[Ii]nvalid IPv6|netloc|[Pp]ort (?:could|out)|[Pp]ort must"),
        "An address is not valid",
        "Correct it",
    ),
    (Exception, re.compile(r"nonnumeric port|URL can't contain control"), "An address is not valid", "Correct it"),
    (OverflowError, re.compile(r"."), "A number is too large", "Correct it"),
    (RuntimeError, re.compile(r"^can't start new thread"), _LIMIT, _RAISE_LIMIT),
    (
        RuntimeError,
        re.compile(r"home directory"),
        "A path with `~` names a user whose home folder the system does not know",
        "Write the path in full, or set HOME",
    ),
    (RuntimeError, re.compile(r"^Symlink loop"), "Links lead in a circle", "Correct them"),
    (KeyError, re.compile(r"uid not found"), "The system does not know the user of this process", "Set HOME and USER"),
    (MemoryError, re.compile(r""), "There is not enough memory", "End what is not needed"),
)
#: Packages that parse or open what comes from outside.
_READERS = frozenset(
    (
        *(
            "json",
            "urllib",
            "http",
            "email",
            "ipaddress",
            "zipfile",
            "tarfile",
            "gzip",
            "bz2",
            "lzma",
            "zlib",
            "binascii",
        ),
        *(
            "encodings",
            "codecs",
            "shlex",
            "configparser",
            "csv",
            "plistlib",
            "tokenize",
            "ast",
            "uuid",
            "base64",
            "ssl",
        ),
        *("pathlib", "posixpath", "ntpath", "genericpath", "os", "shutil", "tempfile", "socket", "subprocess", "_pyio"),
        *(
            "yaml",
            "dotenv",
            "pathspec",
            "requests",
            "urllib3",
            "xml",
            "html",
            "datetime",
            "_strptime",
            "fnmatch",
            "glob",
        ),
    )
)
_OURS = Path(__file__).parent
#: Steps of starting a process or a thread, in which EAGAIN means a limit.
_STARTING = frozenset(("subprocess", "threading", "multiprocessing", "popen_fork", "popen_spawn_posix", "_thread"))


def explain(error: BaseException, doing: str = "", project: Path | None = None) -> UserError | None:
    """The two-line error for an exception that the input or the machine caused; None for a bug.

    Args:
        error: What was raised.
        doing: What was in progress, such as the name of a step.
        project: The project's folder.
    """
    if isinstance(error, UserError):
        return error
    with contextlib.suppress(OSError):
        if (told := storage.explain(error, project=project)) is not None:
            return told
    found = _of_system(error) if isinstance(error, OSError) else _of_values(error)
    if found is None:
        return None
    problem, remedy = found
    where = f" (in {doing})" if doing else ""
    return UserError(f"{problem}{where}.", remedy if remedy.endswith(".") else f"{remedy}, {_AGAIN}")


def log_traceback(error: BaseException, project: Path | None) -> Path | None:
    """Write an exception's complete traceback to a log; returns the log's path, None if none can be written.

    Args:
        error: What was raised.
        project: The project in whose state folder the log is. Without one, or if that cannot be written, it is in
            the cache.
    """
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(sys.argv[1:3])[:200]}\n{tracebacks.formatted(error)}\n"
    for folder in _places(project):
        with contextlib.suppress(OSError):
            path = folder / LOG
            if path.exists() and path.stat().st_size > _MOST_LOGGED:
                os.replace(path, path.with_name(f"{LOG}.1"))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with open(os.open(path, flags, 0o600), "wb") as file:
                file.write(text.encode("utf-8", "backslashreplace")[-_MOST_LOGGED:])
            return path
    return None


def _places(project: Path | None) -> Iterator[Path]:
    if project is not None and (project / STATE_FOLDER).is_dir():
        with contextlib.suppress(UserError):
            yield state_folder(project)
    with contextlib.suppress(UserError, RuntimeError):
        folder = cache_folder()
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder


def _of_system(error: OSError) -> tuple[str, str] | None:
    if isinstance(error, shutil.Error):
        return _of_copies(error)
    number, named = error.errno, _named(error)
    if number == errno.EAGAIN:
        # From a socket it only means: not yet.
        starts = any(_module(frame) in _STARTING for frame in _frames(error)[-4:])
        return (_LIMIT, _RAISE_LIMIT) if starts else None
    if number == errno.EINVAL and named:
        return f"{error.strerror or 'It cannot be used'}: {named}", "Check the path"
    if number in _NUMBERS and (named or number not in _OF_A_PATH):
        problem, remedy = _NUMBERS[number]
        return (f"{problem}: {named}" if named else problem), remedy
    if number is None or isinstance(error, TimeoutError) or _library(error) in ("socket", "ssl", "urllib", "http"):
        # Errors that libraries raise themselves have a text that says what is wrong.
        return (_said(error), _REACH) if _library(error) else None
    if number == errno.ENOENT and str(error.strerror).startswith("No usable temporary"):
        return "There is no folder for temporary files that can be written", "Let TMPDIR name one"
    if number == errno.ENOENT and any(frame.f_code.co_name in ("getcwd", "cwd", "abspath") for frame in _frames(error)):
        return "The current folder is not there any more", "Go to one that is (`cd`)"
    return None


def _of_copies(error: shutil.Error) -> tuple[str, str] | None:
    """For a folder that could not be copied: the first file, and how many more."""
    found = error.args[0] if error.args else None
    if not isinstance(found, list) or not found:
        return _said(error), "Check those files"
    first = found[0]
    text = f"{first[0]}: {first[2]}" if isinstance(first, tuple) and len(first) == 3 else str(first)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"Not everything could be copied: {text}{more}", "Check those files"


def _of_values(error: BaseException) -> tuple[str, str] | None:
    text = str(error)
    for kind, pattern, problem, remedy in _TEXTS:
        if isinstance(error, kind) and pattern.search(text):
            said = f": {text}" if kind in (ValueError, Exception) and "NUL" not in problem else ""
            return f"{problem}{said}", remedy
    if isinstance(error, UnicodeDecodeError):
        return (
            f"A text is not {error.encoding}: byte 0x{error.object[error.start]:02x} at {error.start}",
            "Save it as UTF-8",
        )
    if isinstance(error, UnicodeEncodeError):
        letter = error.object[error.start]
        return f"A text has a character that {error.encoding} does not have: U+{ord(letter):04X}", "Use another name"
    library = _library(error)
    if library in _READERS and isinstance(error, RecursionError):
        return f"What {library} was to read is nested too deeply", "Simplify it"
    reads = isinstance(error, (ValueError, EOFError)) or type(error).__module__.partition(".")[0] in _READERS
    if library in _READERS and reads:
        return f"What {library} was to read is wrong: {_said(error)}", "Correct it"
    return None


def _said(error: BaseException) -> str:
    text = str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
    return (text or type(error).__name__).rstrip(".")


def _named(error: OSError) -> str:
    names = [one for one in (error.filename, error.filename2) if isinstance(one, str | bytes | os.PathLike)]
    return " → ".join(_shortened(os.fsdecode(one)) for one in names if os.fsdecode(one))


def _shortened(name: str) -> str:
    return name if len(name) <= 300 else f"{name[:200]}…{name[-60:]} ({len(name)} characters)"


def _frames(error: BaseException) -> Sequence[FrameType]:
    """The frames of an exception's traceback, the innermost last."""
    return [frame for frame, _line in traceback.walk_tb(error.__traceback__)]


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).rpartition(".")[2] or Path(frame.f_code.co_filename).stem


def _library(error: BaseException) -> str:
    """The package outside this program that raised it; empty if the program's own code did."""
    frames = _frames(error)
    if not frames:
        return ""
    name = str(frames[-1].f_globals.get("__name__", ""))
    inside = Path(frames[-1].f_code.co_filename)
    if inside.is_relative_to(_OURS) or name == "__main__" or name.partition(".")[0] in ("workflows", "tasks"):
        return ""
    return name.partition(".")[0]
