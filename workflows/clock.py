"""Durations across processes that stay right when the clock is corrected.

The wall clock may be set back while something runs. So durations are measured from the machine's boot, which is the
same for all of its processes.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def boot_id() -> str:
    """The id of the machine's current boot; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """The PID namespace of this process; a container has its own. Empty where there are none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _now() -> float:
    """Seconds since the machine's boot, including time suspended where the system counts it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def current_moment() -> str:
    """The current moment as a text for :func:`seconds_since`; empty where boots have no id."""
    known = boot_id()
    return f"{platform.node()}/{known}/{_now():.3f}" if known else ""


def seconds_since(moment: str, wall: float) -> float:
    """Seconds from a moment until now, at least 0.

    Args:
        moment: What :func:`current_moment` returned.
        wall: The same moment in seconds since the epoch, used if it was on another boot or machine.
    """
    where, _slash, seconds = moment.rpartition("/")
    if where and where == current_moment().rpartition("/")[0]:
        return max(0.0, _now() - float(seconds))
    return max(0.0, time.time() - wall)
