"""Processes of the program's own that outlive the command which started them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .redaction import scrub
from .terminal import printable


def spawn(module: str, arguments: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start a module of the program in a session of its own, whatever becomes of this process and its terminal.

    Args:
        module: Its full name.
        arguments: What it is given.
        streams: ``stdin``, ``stdout``, ``stderr``, ``cwd`` as for Popen.
    """
    package = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, **options, **streams)


def log(text: str) -> None:
    """Write a line to this process's log, its standard error, without secrets.

    Where that is on a full disk, the work goes on.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(scrub(text.rstrip("\n")), lines=True) + "\n")
        sys.stderr.flush()
