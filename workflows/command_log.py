"""What a command does, line by line: commands run, requests sent, steps, each with its time, and no secret.

The lines go through :mod:`logging`, to the logger :data:`LOGGER`, which nobody hears until a task begins. From then on
they are in `.azureml-debug/log.txt` (`AML_LOG`), and with ``-v`` on standard error, too. Nothing that goes wrong here
changes what a command does.
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

#: The level at which nothing is heard.
_SILENT = logging.CRITICAL + 1


class _Logger(logging.Logger):
    """One that is not silenced with the SDKs: what they log themselves is switched off while they work."""

    def isEnabledFor(self, level: int) -> bool:
        """Whether anybody hears a record of this level."""
        return level >= self.level


#: By itself, so that no SDK's configuration of logging reaches it.
LOGGER: logging.Logger = _Logger("azureml_debug", _SILENT)
#: Of a record: that the command says the same itself, so that only the file has it.
FILE_ONLY = {"is_told": True}
#: The file in the project's own folder; what was in it before is in `log.txt.1`.
FILE = "log.txt"
#: Bytes of the file above which it begins anew.
MOST_BYTES = 1_000_000
#: How much is said on standard error by a command that another machine has asked for.
VARIABLE = "AZUREML_DEBUG_VERBOSE"
#: Lines that are kept for a project that has no folder of the program's yet.
_MOST_HELD = 1000
#: Characters of a command that are shown, and of each of its words.
_MOST_SHOWN, _MOST_WORD = 400, 120
#: Options whose value is an environment variable's, or becomes one.
_OF_VARIABLES = frozenset(("-e", "--env", "--build-arg", "--secret"))
_LEVELS = {"info": logging.INFO, "debug": logging.DEBUG}


def verbosity(typed: int) -> int:
    """How much is said on standard error: what was typed here, or on the machine that asks."""
    text = os.environ.pop(VARIABLE, "")
    return max(typed, int(text) if text.isdigit() else 0)


def shown_verbosity() -> int:
    """How much is said on standard error by the command that runs now."""
    levels = [handler.level for handler in LOGGER.handlers if isinstance(handler, _Shown)]
    return (2 if min(levels) <= logging.DEBUG else 1) if levels else 0


@contextlib.contextmanager
def log_command(project: Path | None, typed: int) -> Iterator[None]:
    """Write down what is done in the block.

    Args:
        project: The project's folder; None where it has none any more.
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
    subprocess.Popen = _Watched  # type: ignore[misc]
    begun = time.perf_counter()
    ending = "done"
    try:
        with contextlib.suppress(Exception):
            _say_what_begins()
        yield
    except BaseException as error:
        ending = _ending(error)
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
    written = any(isinstance(handler, _File) for handler in LOGGER.handlers)
    return f"{STATE_FOLDER}/{FILE}" if written and path.is_file() else None


def _handlers(project: Path | None, typed: int) -> Iterator[logging.Handler]:
    from .settings import log_level

    wanted = "off" if project is None else log_level(project)
    if project is not None and wanted in _LEVELS:
        file = _File(project / STATE_FOLDER)
        file.setLevel(_LEVELS[wanted])
        file.setFormatter(_Formatter("%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(message)s"))
        yield file
    if level := verbosity(typed):
        shown = _Shown()
        shown.setLevel(logging.INFO if level == 1 else logging.DEBUG)
        shown.setFormatter(_Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
        yield shown


def _say_what_begins() -> None:
    import platform

    from . import command_name, report
    from .version import __version__

    LOGGER.info("%s %s", command_name.typed(), report.typed_command())
    where = f"{platform.system()} {platform.machine()}"
    LOGGER.debug("version %s, Python %s, %s, in %s", __version__, platform.python_version(), where, os.getcwd())


def _ending(error: BaseException) -> str:
    """How a command ends that raises; the error is written down."""
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
    """Lines without secrets and control characters."""

    def __init__(self, form: str, dates: str = "%Y-%m-%d %H:%M:%S") -> None:
        super().__init__(form, dates)

    def format(self, record: logging.LogRecord) -> str:
        """One record's line, or lines."""
        from .redaction import scrub
        from .terminal import printable

        return printable(scrub(super().format(record)), lines=True)


class _Shown(logging.Handler):
    """Lines on what is standard error now: it is another while an SDK works, whose own lines are not shown."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line; where that cannot be, the work goes on."""
        if getattr(record, "is_told", False):
            return
        with contextlib.suppress(Exception):
            encoding = self._stream.encoding or "ascii"
            self._stream.write(self.format(record).encode(encoding, "replace").decode(encoding) + "\n")
            self._stream.flush()


class _File(logging.Handler):
    """Lines in a file that several commands write to at the same time, each line by one write.

    Args:
        folder: The project's own folder, which is not made for it: until it is there, lines are kept.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._held: list[str] = []
        self._file: int | None = None
        self._written = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line; on a full disk, or in a folder that cannot be written, the work goes on without."""
        with contextlib.suppress(Exception):
            self._held.append(self.format(record) + "\n")
            if self._file is None and self._folder.is_dir():
                self._file = _opened(self._folder / FILE)
            if self._file is None:
                del self._held[:-_MOST_HELD]
                return
            data = "".join(self._held).encode("utf-8", "backslashreplace")
            self._held.clear()
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


def _opened(path: Path) -> int:
    """The file, opened for further lines; one that has grown too large is put aside."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(path, flags, 0o600)
    with contextlib.suppress(OSError):
        if os.fstat(file).st_size > MOST_BYTES and _is_still(file, path):
            os.replace(path, path.with_name(f"{FILE}.1"))
            os.close(file)
            file = os.open(path, flags, 0o600)
    return file


def _is_still(file: int, path: Path) -> bool:
    """Whether an opened file is the one of that name, and nobody else puts it aside; the lock goes with the file."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return os.path.samestat(os.fstat(file), os.stat(path))


class _Watched(subprocess.Popen):  # type: ignore[type-arg]
    """A process that another one starts, and is told of when it has ended.

    In place of Popen itself while a command is written down: so nothing is missed, such as what the SDKs start.
    """

    def __init__(self, args: Any, *more: Any, **options: Any) -> None:
        self._begun, self._is_told = time.perf_counter(), False
        self._shown = shown_command(args)
        try:
            super().__init__(args, *more, **options)
        except OSError as error:
            LOGGER.info("%s: cannot be started: %s", self._shown, error.strerror)
            raise
        LOGGER.debug("started as process %d: %s", self.pid, self._shown)

    def wait(self, timeout: float | None = None) -> int:
        """As of any process."""
        return self._told(super().wait(timeout))

    def poll(self) -> int | None:
        """As of any process."""
        code = super().poll()
        return code if code is None else self._told(code)

    def _told(self, code: int) -> int:
        if not self._is_told:
            self._is_told = True
            LOGGER.info("%s: %d after %.2f s", self._shown, code, time.perf_counter() - self._begun)
        return code


def shown_command(command: Any) -> str:
    """A command as it is written down: no values of environment variables, and no screens full of code."""
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
    """Write down a request that was sent.

    Args:
        method: ``GET``, ``POST``, ….
        address: Where to; what follows a question mark, which may be a signature, is left out.
        answer: The answer's status, or the error.
        begun: When it was sent, by ``time.perf_counter``.
        often: Whether it is one of very many.
    """
    level = logging.DEBUG if often else logging.INFO
    if LOGGER.isEnabledFor(level):
        place = address.partition("?")[0].partition("#")[0]
        said = type(answer).__name__ if isinstance(answer, BaseException) else answer
        LOGGER.log(level, "%s %s: %s after %.3f s", method, _cut(place), said, time.perf_counter() - begun)
