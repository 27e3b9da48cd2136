"""Opening a file in its default program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import UserError


def open_file(path: Path) -> None:
    """Open a file in the system's default program for it.

    Raises:
        UserError: There is nothing to open it with.
    """
    if sys.platform == "win32":
        os.startfile(path)  # noqa: S606
        return
    program = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if program is None:
        raise UserError("There is no program here that opens files.", f"Open it yourself: {path}")
    done = subprocess.run([program, str(path)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"{path.name} cannot be opened: {reason}.", f"Open it yourself: {path}")
