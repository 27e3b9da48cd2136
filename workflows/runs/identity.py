"""Which process runs a run, so that a later one of the same id is never taken for it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Where there is no /proc: seconds by which two readings of a process's start may differ.
TOLERANCE = 2.0


def of_process(pid: int) -> dict[str, Any] | None:
    """What tells a process from every other one, for keeping in a file; None where there is none."""
    started = _started(pid)
    if started is None:
        return None
    return {"pid": pid, "started": started, "boot": _boot(), "host": platform.node(), "space": _space()}


def is_alive(identity: Mapping[str, Any]) -> bool:
    """Whether the process is still there; of another machine or container that cannot be known, and is believed."""
    if identity.get("host") != platform.node():
        return True
    if identity.get("boot") != _boot():
        return False
    if identity.get("space") != _space():
        return True
    started = _started(int(identity.get("pid") or 0))
    if started is None:
        return False
    tolerance = 0.0 if _boot() else TOLERANCE
    return abs(started - float(identity.get("started") or 0.0)) <= tolerance


def is_here(identity: Mapping[str, Any]) -> bool:
    """Whether the process's id means something in this process's own surroundings."""
    return identity.get("host") == platform.node() and identity.get("space") == _space()


def _boot() -> str:
    """This boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _space() -> str:
    """The namespace that process ids belong to; a container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    """When a process began: ticks since the boot where /proc tells (a corrected clock does not move them)."""
    if pid <= 0:
        return None
    if _boot():
        try:
            # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: the name in brackets may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if fields[0] in (b"Z", b"X") else float(fields[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
