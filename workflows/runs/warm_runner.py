"""A runner that is started before its run exists, and loads modules while the run is being prepared.

It loads them on a second core. It ends with the process that started it, unless it has been given a run by then.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..background import spawn

MODULE = "workflows.runs.runner"


@contextmanager
def waiting_runner(engine: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a runner that waits to be given its run. It is ended if it has none by the end of the block.

    Args:
        engine: ``docker``, ``process`` or ``auto``.
    """
    nowhere = subprocess.DEVNULL
    waiting = spawn(MODULE, ["--warm", engine], stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere)
    try:
        yield waiting
    finally:
        if waiting.returncode is None:
            waiting.kill()
            waiting.wait()
            if waiting.stdin is not None:
                waiting.stdin.close()


def send_run(waiting: subprocess.Popen[bytes], folder: Path) -> bool:
    """Give a waiting runner its run; returns whether it was still running."""
    assert waiting.stdin is not None
    try:
        with waiting.stdin:
            waiting.stdin.write(os.fsencode(folder))
    except OSError:
        return False
    return waiting.poll() is None
