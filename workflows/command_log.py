"""The log of a command: commands run, requests sent and steps, each with its time, without secrets.

The lines go to the :mod:`logging` logger :data:`LOGGER`, which is silent until a task begins. From then on they are
written to `.azureml-debug/log.txt` (`AML_LOG`), and with ``-v`` also to standard error. A failure to log never changes
what a command does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import UserError
from .paths import STATE_FOLDER

if sys.platform != "win32":
    import fcntl

#: A level above all others: nothing is logged.
_SILENT = logging.CRITICAL + 1


class _Logger(logging.Logger):
    """A logger that stays on while the SDKs' own logging is switched off with ``logging.disable``."""

    def isEnabledFor(self, level: int) -> bool:
        """Whether records of this level are logged."""
        return level >= self.level


#: Not in the tree of loggers, so that no SDK's logging configuration reaches it.
LOGGER: logging.Logger = _Logger("azureml_debug", _SILENT)
#: ``extra`` of a record that the command prints itself, so that it goes to the file only.
FILE_ONLY = {"is_file_only": True}
#: The log's name in the project's state folder; the previous log is `log.txt.1`.
FILE = "log.txt"
#: Size in bytes at which the log is rotated.
MOST_BYTES = 1_000_000
#: The verbosity of a command that another machine runs here with ``--remote``.
VARIABLE = "AZUREML_DEBUG_VERBOSE"
#: Lines that are kept in memory until the project has a state folder.
_MOST_KEPT = 1000
#: Characters that are logged of a command, and of each of its arguments.
_MOST_SHOWN, _MOST_WORD = 400, 120
#: Options that take an environment variable's value, or set one.
_OF_VARIABLES = frozenset(("-e", "--env", "--build-arg", "--secret"))
_LEVELS = {"info": logging.INFO, "debug": logging.DEBUG}


def verbosity(typed: int) -> int:
    """The number of ``-v`` that counts: the one typed here, or on the machine that runs this command remotely."""
    text = os.environ.pop(VARIABLE, "")
    return max(typed, int(text) if text.isdigit() else 0)


def shown_verbosity() -> int:
    """The verbosity of the command that runs now: 0, 1 or 2."""
    levels = [handler.level for handler in LOGGER.handlers if isinstance(handler, _StderrHandler)]
    return (2 if min(levels) <= logging.DEBUG else 1) if levels else 0


@contextlib.contextmanager
def log_command(project: Path | None, typed: int) -> Iterator[None]:
    """Log what is done in the block.

    Args:
        project: The project's folder; None if it has gone.
        typed: How often ``-v`` was typed.
    """
    handlers = list[logging.Handler]()
    with contextlib.suppress(Exception):
        handlers = list(_handlers(project, typed))
    if not handlers:
        yield
        return
    LOGGER.setLevel(min(handler.level for handler in handlers))
    for handler in handlers:
        LOGGER.addHandler(handler)
    started = subprocess.Popen
    subprocess.Popen = _LoggedPopen  # type: ignore[misc]
    begun = time.perf_counter()
    ending = "done"
    try:
        with contextlib.suppress(Exception):
            _log_start()
        yield
    except BaseException as error:
        ending = _log_error(error)
        raise
    finally:
        subprocess.Popen = started  # type: ignore[misc]
        LOGGER.info("%s after %.2f s", ending, time.perf_counter() - begun)
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()
        LOGGER.setLevel(_SILENT)


def written_file(project: Path) -> str | None:
    """The file that the present command writes its log to, as a path from the project's folder.

    Returns:
        None if `AML_LOG` is off, or if the file cannot be written.
    """
    path = project / STATE_FOLDER / FILE
    written = any(isinstance(handler, _FileHandler) for handler in LOGGER.handlers)
    return f"{STATE_FOLDER}/{FILE}" if written and path.is_file() else None


def _handlers(project: Path | None, typed: int) -> Iterator[logging.Handler]:
    from .settings import log_level

    wanted = "off" if project is None else log_level(project)
    if project is not None and wanted in _LEVELS:
        file = _FileHandler(project / STATE_FOLDER)
        file.setLevel(_LEVELS[wanted])
        file.setFormatter(_Formatter("%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(message)s"))
        yield file
    if level := verbosity(typed):
        shown = _StderrHandler()
        shown.setLevel(logging.INFO if level == 1 else logging.DEBUG)
        shown.setFormatter(_Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
        yield shown


def _log_start() -> None:
    import platform

    from . import command_name, report
    from .version import __version__

    LOGGER.info("%s %s", command_name.typed(), report.typed_command())
    where = f"{platform.system()} {platform.machine()}"
    LOGGER.debug("version %s, Python %s, %s, in %s", __version__, platform.python_version(), where, os.getcwd())


def _log_error(error: BaseException) -> str:
    """Log the error that ends a command; the text for its last line."""
    from . import tracebacks

    code = getattr(error, "code", 1)
    cause = error.__cause__ if isinstance(error.__cause__, UserError) else error
    with contextlib.suppress(Exception):
        if isinstance(cause, UserError):
            LOGGER.error("%s", cause, extra=FILE_ONLY)
        if cause is not error or not hasattr(error, "code"):
            LOGGER.debug("%s", tracebacks.formatted(cause))
    return f"ended with {code}"


class _Formatter(logging.Formatter):
    """Formats records without secrets and control characters."""

    def __init__(self, form: str, dates: str = "%Y-%m-%d %H:%M:%S") -> None:
        super().__init__(form, dates)

    def format(self, record: logging.LogRecord) -> str:
        """One record's line, or lines."""
        from .redaction import scrub
        from .terminal import printable

        return printable(scrub(super().format(record)), lines=True)


class _StderrHandler(logging.Handler):
    """Writes to the standard error of the command's start; while an SDK works, ``sys.stderr`` is redirected."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; errors are ignored."""
        if getattr(record, "is_file_only", False):
            return
        with contextlib.suppress(Exception):
            encoding = self._stream.encoding or "ascii"
            self._stream.write(self.format(record).encode(encoding, "replace").decode(encoding) + "\n")
            self._stream.flush()


class _FileHandler(logging.Handler):
    """Writes to a file that several commands share; each record is one write.

    Args:
        folder: The project's state folder, which is not made for the log: until it exists, lines are kept in memory.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._kept_lines: list[str] = []
        self._file: int | None = None
        self._written = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; a full disk or a read-only folder is ignored."""
        with contextlib.suppress(Exception):
            self._kept_lines.append(self.format(record) + "\n")
            if self._file is None and self._folder.is_dir():
                self._file = _open_log(self._folder / FILE)
            if self._file is None:
                del self._kept_lines[:-_MOST_KEPT]
                return
            data = "".join(self._kept_lines).encode("utf-8", "backslashreplace")
            self._kept_lines.clear()
            self._written += os.write(self._file, data)
            if self._written > MOST_BYTES:
                self._end()

    def close(self) -> None:
        """Close the file."""
        self._end()
        super().close()

    def _end(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
        self._file, self._written = None, 0


def _open_log(path: Path) -> int:
    """Open the log to append; a log that has grown too large is rotated first."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(path, flags, 0o600)
    with contextlib.suppress(OSError):
        if os.fstat(file).st_size > MOST_BYTES and _is_current(file, path):
            os.replace(path, path.with_name(f"{FILE}.1"))
            os.close(file)
            file = os.open(path, flags, 0o600)
    return file


def _is_current(file: int, path: Path) -> bool:
    """Whether an open file still has this name and no other process rotates it; closing the file releases the lock."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.path.samestat(os.fstat(file), os.stat(path))


class _LoggedPopen(subprocess.Popen):  # type: ignore[type-arg]
    """A Popen that logs its command, and its exit code once it has ended.

    It replaces ``subprocess.Popen`` while a command is logged, so that processes of the SDKs are logged, too.
    """

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        self._begun, self._is_logged = time.perf_counter(), False
        self._shown = shown_command(args)
        try:
            super().__init__(args, *more, **options)
        except OSError as error:
            LOGGER.info("%s: cannot be started: %s", self._shown, error.strerror)
            raise
        LOGGER.debug("started as process %d: %s", self.pid, self._shown)

    def wait(self, timeout: float | None = None) -> int:
        """As :meth:`subprocess.Popen.wait`."""
        return self._log_end(super().wait(timeout))

    def poll(self) -> int | None:
        """As :meth:`subprocess.Popen.poll`."""
        code = super().poll()
        return code if code is None else self._log_end(code)

    def _log_end(self, code: int) -> int:
        if not self._is_logged:
            self._is_logged = True
            LOGGER.info("%s: %d after %.2f s", self._shown, code, time.perf_counter() - self._begun)
        return code


def shown_command(command: Any) -> str:
    """A command as it is logged: values of environment variables are masked, and long arguments are cut."""
    if not isinstance(command, Sequence) or isinstance(command, str | bytes):
        return _cut(os.fsdecode(command) if isinstance(command, str | bytes | os.PathLike) else str(command))
    shown = list[str]()
    before = ""
    for part in command:
        word = os.fsdecode(part)
        option, given, value = word.partition("=")
        if before in _OF_VARIABLES and given:
            word = f"{option}=***"
        elif option in _OF_VARIABLES and value:
            word = f"{option}={value.partition('=')[0]}=***"
        before = word
        first = word.split("\n", 1)[0]
        shown.append(word if word == first and len(word) <= _MOST_WORD else f"{first[:_MOST_WORD]}…")
    return _cut(shlex.join(shown))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def log_request(method: str, address: str, answer: object, begun: float, *, often: bool = False) -> None:
    """Log a request that was sent.

    Args:
        method: ``GET``, ``POST``, ….
        address: Its URL; the query is left out, since it may hold a signature.
        answer: The response's status, or the error.
        begun: When it was sent, as ``time.perf_counter`` returned it.
        often: Whether it is one of very many, which only the level ``debug`` shows.
    """
    level = logging.DEBUG if often else logging.INFO
    if LOGGER.isEnabledFor(level):
        place = address.partition("?")[0].partition("#")[0]
        said = type(answer).__name__ if isinstance(answer, BaseException) else answer
        LOGGER.log(level, "%s %s: %s after %.3f s", method, _cut(place), said, time.perf_counter() - begun)
