"""Stacks from py-spy, for an interpreter that does not answer: it reads the process's memory from outside.

py-spy is no dependency. It needs permission to read the process (the same user without restriction by
``kernel.yama.ptrace_scope``, or root). Source: https://github.com/benfred/py-spy, ``py-spy dump --json``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

#: Seconds that py-spy may take.
LIMIT_SECONDS = 10.0


class PySpyError(Exception):
    """py-spy is not installed, or not permitted; the text says which."""


def find_program() -> str | None:
    """The path of py-spy, next to this Python or on PATH; None if there is none."""
    beside = os.path.dirname(sys.executable)
    return shutil.which("py-spy", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


def read_stacks(pid: int, code: list[str]) -> dict[str, Any]:
    """Read the threads of a process of this machine, as :func:`workflows.debugger.stacks.request_stacks` returns them.

    Args:
        pid: The process id.
        code: Folders of the user's code.

    Raises:
        CannotLook: py-spy is not installed, or not allowed to.
    """
    program = find_program()
    if program is None:
        raise PySpyError("py-spy, which reads stacks from outside, is not installed (pip install py-spy)")
    try:
        done = subprocess.run(
            [program, "dump", "--json", "--pid", str(pid)],
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        threads = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise PySpyError(f"py-spy failed: {error}") from error
    if not isinstance(threads, list):
        last = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        raise PySpyError(f"py-spy is not permitted to read the process: {last.strip()}")
    return {"pid": pid, "process": None, "threads": [_thread(one, code) for one in threads], "tasks": [], "values": {}}


def _thread(told: dict[str, Any], code: list[str]) -> dict[str, Any]:
    frames = [
        {
            "file": frame["filename"],
            "line": frame["line"],
            "function": frame["name"],
            "own": any(frame["filename"].startswith(os.path.join(folder, "")) for folder in code)
            and "site-packages" not in frame["filename"],
        }
        for frame in reversed(told.get("frames") or [])
    ]
    name = told.get("thread_name") or f"thread {told.get('thread_id')}"
    return {
        "name": name,
        "ident": told.get("thread_id"),
        "main": name == "MainThread",
        "paused": False,
        "holds": False,
        "frames": frames,
    }
