"""Durations between processes, which no correction of the clock moves.

The time of day says when something was; it may be set back while something runs. How long something took is measured
from the machine's start, which every process of the machine sees alike.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def boot_id() -> str:
    """This boot of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """The namespace that process ids belong to; a container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _now() -> float:
    """Seconds since the machine's start, those that it slept included where the system counts them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def current_moment() -> str:
    """This moment, for :func:`seconds_since`, on this boot of this machine; empty where boots cannot be told apart."""
    known = boot_id()
    return f"{platform.node()}/{known}/{_now():.3f}" if known else ""


def seconds_since(moment: str, wall: float) -> float:
    """Seconds from a moment until now; never less than 0.

    Args:
        moment: As :func:`current_moment` gave it.
        wall: The same in seconds since the epoch, for another boot or machine.
    """
    where, _slash, seconds = moment.rpartition("/")
    if where and where == current_moment().rpartition("/")[0]:
        return max(0.0, _now() - float(seconds))
    return max(0.0, time.time() - wall)
