"""The identity of a process, which distinguishes it from a later one with the same id."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import clock

#: Without /proc: seconds by which two readings of a process's start time may differ.
TOLERANCE = 2.0


def identify(pid: int) -> dict[str, Any] | None:
    """The identity of a process as a JSON object; None if there is no such process."""
    started = _started(pid)
    if started is None:
        return None
    return {
        "pid": pid,
        "started": started,
        "boot": clock.boot_id(),
        "host": platform.node(),
        "space": clock.pid_namespace(),
    }


def is_alive(identity: Mapping[str, Any]) -> bool:
    """Whether the process still runs; one of another machine or container cannot be checked and counts as running."""
    if identity.get("host") != platform.node():
        return True
    if identity.get("boot") != clock.boot_id():
        return False
    if identity.get("space") != clock.pid_namespace():
        return True
    started = _started(int(identity.get("pid") or 0))
    if started is None:
        return False
    tolerance = 0.0 if clock.boot_id() else TOLERANCE
    return abs(started - float(identity.get("started") or 0.0)) <= tolerance


def process_mark() -> str:
    """A text that identifies this process, for the names of its temporary files."""
    return _mark(os.getpid())


@functools.cache
def _mark(pid: int) -> str:
    return f"{pid}-{_started(pid) or 0:.0f}-{_surroundings()}"


def is_leftover(word: str) -> bool:
    """Whether the process whose mark this is has ended.

    False for a process of another machine or PID namespace, which may share the folder: it cannot be checked.
    """
    found = re.fullmatch(r"(\d{1,9})-(\d{1,20})-([0-9a-f]{8})", word)
    if found is None or found[3] != _surroundings():
        return False
    started = _started(int(found[1]))
    return started is None or f"{started:.0f}" != found[2]


@functools.cache
def _surroundings() -> str:
    """A digest of this machine, its boot and this process's PID namespace."""
    text = f"{platform.node()} {clock.boot_id()} {clock.pid_namespace()}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def shares_pid_namespace(identity: Mapping[str, Any]) -> bool:
    """Whether a process's id is valid in this process's machine and PID namespace."""
    return identity.get("host") == platform.node() and identity.get("space") == clock.pid_namespace()


def _started(pid: int) -> float | None:
    """When a process started: ticks since the boot from /proc (independent of the clock), else seconds."""
    if pid <= 0:
        return None
    if clock.boot_id():
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
