"""Finds how much memory a step may still use."""

from __future__ import annotations

import os
from typing import List, Optional

#: A control group of version 1 without a limit reports at least this size.
_UNLIMITED = 1 << 60


def available_bytes() -> Optional[int]:
    """Bytes that are available on this machine and in its control groups; None if that is unknown."""
    found = [size for size in (_machine_bytes(), *_group_bytes()) if size is not None]
    return min(found) if found else None


def format_size(size: int) -> str:
    """Format a size for a message."""
    value = float(size)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1024:
            return "{:.0f} {}".format(value, unit) if unit == "bytes" else "{:.1f} {}".format(value, unit)
        value /= 1024
    return "{:.1f} TB".format(value)


def _machine_bytes() -> Optional[int]:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _group_bytes() -> List[Optional[int]]:
    """The bytes that are available in this process's control groups, of either version."""
    folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"]
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                _read_number, kinds, path = line.rstrip("\n").split(":", 2)
                if kinds in ("", "memory"):
                    folders.append(os.path.join("/sys/fs/cgroup", kinds, path.lstrip("/")))
    except (OSError, ValueError):
        pass
    return [_bytes_left(folder) for folder in dict.fromkeys(folders)]


def _bytes_left(folder: str) -> Optional[int]:
    for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limit, taken = _read_number(os.path.join(folder, most)), _read_number(os.path.join(folder, used))
        if limit is not None and taken is not None and limit < _UNLIMITED:
            # The cache of files can be released.
            return max(0, limit - taken + _cached_bytes(folder))
    return None


def _cached_bytes(folder: str) -> int:
    try:
        with open(os.path.join(folder, "memory.stat"), encoding="ascii") as file:
            found = dict(line.split() for line in file)
        return int(found.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def _read_number(path: str) -> Optional[int]:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None  # The value is `max`, or there is no such group.
