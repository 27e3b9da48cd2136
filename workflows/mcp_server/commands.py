"""Long-running commands of the program: started as child processes, observed, ended.

Their output goes to files, not to pipes: a command that loses its reader undoes what it has started, but that has to
go on when the client leaves.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import command_name
from ..errors import UserError
from ..scratch import scratch_folder
from ..terminal import plain

#: Seconds between two checks of a command.
LOOK_SECONDS = 0.05
#: Lines that are returned at once; bytes of a result.
_MOST_LINES, _MOST_RESULT = 200, 4 * 1024 * 1024
_MOST_READ = 1024 * 1024


class StartedCommand:
    """A command that was started.

    Args:
        arguments: What follows `inv`.
        project: The project's folder.
    """

    def __init__(self, arguments: Sequence[str], project: Path) -> None:
        self.arguments = list(arguments)
        self.started = time.monotonic()
        #: The story it was started for; see :mod:`.start_tools`.
        self.story = ""
        self._lines_read = 0
        self._kept = contextlib.ExitStack()
        # Folders that a killed server has left are removed with the next one.
        self._folder = self._kept.enter_context(scratch_folder())
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            with open(self._folder / "out", "wb") as out, open(self._folder / "err", "wb") as err:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", command_name.module_name(), *self.arguments],
                    cwd=project,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    **options,
                )
        except BaseException:
            self._kept.close()
            raise

    @property
    def is_at_work(self) -> bool:
        """Whether it is still running."""
        return self._process.poll() is None

    @property
    def typed(self) -> str:
        """The command as it would be typed."""
        import shlex

        return shlex.join([command_name.typed(), *self.arguments])

    @property
    def seconds(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def wait_until(self, deadline: float, ready: Callable[[], object] = lambda: None) -> None:
        """Wait until it has ended, ``ready`` returns something true, or a monotonic time has come."""
        while self.is_at_work and not ready() and time.monotonic() < deadline:
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))

    def new_lines(self) -> list[str]:
        """The lines of its standard error since the last call, at most the last :data:`_MOST_LINES`."""
        data = self._read("err", self._lines_read)
        whole = data if not self.is_at_work else data[: data.rfind(b"\n") + 1]
        self._lines_read += len(whole)
        lines = [plain(line.decode("utf-8", "replace")) for line in whole.split(b"\n")]
        return [line for line in lines if line.strip()][-_MOST_LINES:]

    def result(self) -> dict[str, Any]:
        """The result that it has printed with ``--json``.

        Raises:
            UserError: It has failed; with the two lines of its error.
        """
        self._process.wait()
        text = self._read("out", 0, _MOST_RESULT).decode("utf-8", "replace").strip()
        if self._process.returncode:
            raise self._failure()
        try:
            value = json.loads(text.splitlines()[-1])
        except (ValueError, IndexError):
            value = {}
        return value if isinstance(value, dict) else {}

    def _failure(self) -> UserError:
        lines = [plain(line.decode("utf-8", "replace")) for line in self._read("err").split(b"\n")]
        lines = [line for line in lines if line.strip()]
        problem = next((n for n, line in reversed(list(enumerate(lines))) if "error: " in line), None)
        if problem is None:
            last = lines[-1] if lines else f"exit code {self._process.returncode}"
            return UserError(f"{self.typed} failed: {last}", "Correct that, then start again.")
        remedy = lines[problem + 1] if problem + 1 < len(lines) else "Correct that, then start again."
        before, _error, message = lines[problem].partition("error: ")
        return UserError(before + message, remedy, details=lines[max(0, problem - 15) : problem])

    def interrupt(self, seconds: float) -> bool:
        """End it like Ctrl-C, so that it undoes what it has started; returns whether it has ended in time."""
        if self.is_at_work:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def release(self) -> None:
        """Let it run on by itself; its output is dropped."""
        with contextlib.suppress(OSError):
            self._kept.close()
        # Its exit code is not needed any more.
        self._process.returncode = self._process.returncode if self._process.returncode is not None else 0

    def _read(self, name: str, offset: int = 0, most: int = _MOST_READ) -> bytes:
        """Read one of its files from an offset on; of a long text only the end."""
        try:
            with open(self._folder / name, "rb") as file:
                file.seek(max(offset, file.seek(0, 2) - most))
                return file.read(most)
        except FileNotFoundError:
            return b""


def run_command(arguments: Sequence[str], project: Path, seconds: float) -> dict[str, Any]:
    """Run a short command; returns its result.

    Raises:
        UserError: It failed, or takes longer.
    """
    command = StartedCommand(arguments, project)
    try:
        command.wait_until(time.monotonic() + seconds)
        if command.is_at_work:
            raise UserError(
                f"{command.typed} has not ended within {seconds:g} s; it goes on.", "See status a little later."
            )
        return command.result()
    finally:
        command.release()
