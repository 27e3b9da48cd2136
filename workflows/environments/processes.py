"""Runs this package's child processes: with argument lists, with output line by line, and without leaving any."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..redaction import LineScrubber

_KEPT_LINES = 2000


@dataclass(frozen=True)
class Finished:
    """How a command ended: its exit code and the last lines that it wrote."""

    code: int
    lines: tuple[str, ...]


def guarded_command(command: Sequence[str], grace: float = 0.0) -> list[str]:
    """The command line that runs a command under guard.py."""
    # -I and -S skip the user's settings and site-packages, so that it starts in 10 ms.
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(grace), *command]


@contextmanager
def running_command(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    grace: float = 0.0,
    merge: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; at the end of the block it and all of its children have ended.

    Args:
        command: Argument list.
        environment: Its environment variables, by default our own.
        folder: Its working folder.
        grace: Seconds between SIGTERM and SIGKILL when it has to be ended.
        merge: Whether standard error goes into standard output.

    Raises:
        OSError: It cannot be started.
    """
    process = subprocess.Popen(
        guarded_command(command, grace),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.PIPE,
        env=None if environment is None else dict(environment),
        cwd=folder,
        # A process group of its own: the terminal's Ctrl-C goes to this program, which ends the complete group.
        start_new_session=sys.platform != "win32",
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run(
    command: Sequence[str],
    report: Callable[[str], None],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Finished:
    """Run a command to its end and report each line of its output without secrets.

    Args:
        command: Argument list.
        report: Called with each line that is not empty, without its end.
        environment: Its environment variables, by default our own.
        folder: Its working folder.

    Raises:
        OSError: It cannot be started.
    """
    with running_command(command, environment=environment, folder=folder) as process:
        return wait_for_end(process, report)


def wait_for_end(process: subprocess.Popen[bytes], report: Callable[[str], None] | None = None) -> Finished:
    """Wait for the end of a command that :func:`running_command` has started.

    Args:
        process: As of :func:`running_command`.
        report: As of :func:`run`.
    """
    lines, scrub_line = deque[str](maxlen=_KEPT_LINES), LineScrubber()
    assert process.stdout is not None
    for raw in process.stdout:
        line = scrub_line(raw.decode("utf-8", "replace").rstrip())
        if line:
            lines.append(line)
            if report is not None:
                report(line)
    return Finished(process.wait(), tuple(lines))
