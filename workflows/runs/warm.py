"""A runner that is started before there is a run: it loads what a run takes while the run is being prepared.

It loads on a second core, and ends with the process that started it unless it is told a run by then.
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
def warmed(engine: str) -> Iterator[subprocess.Popen[bytes]]:
    """A runner that waits to be told its run; one that has been told none by the end of the block is ended.

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


def told(waiting: subprocess.Popen[bytes], folder: Path) -> bool:
    """Tell a waiting runner its run; whether it was still there."""
    assert waiting.stdin is not None
    try:
        with waiting.stdin:
            waiting.stdin.write(os.fsencode(folder))
    except OSError:
        return False
    return waiting.poll() is None
