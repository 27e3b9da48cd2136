"""How much memory a step may still take."""

from __future__ import annotations

import os
from typing import List, Optional

#: What a control group without a limit says, version 1: anything this large is none.
_UNLIMITED = 1 << 60


def available_bytes() -> Optional[int]:
    """Bytes that are free, for this machine and for the container it may be; None where nothing tells."""
    found = [size for size in (_of_machine(), *_of_groups()) if size is not None]
    return min(found) if found else None


def format_size(size: int) -> str:
    """A size for a message."""
    value = float(size)
    for unit in ("bytes", "KB", "MB", "GB"):
        if value < 1024:
            return "{:.0f} {}".format(value, unit) if unit == "bytes" else "{:.1f} {}".format(value, unit)
        value /= 1024
    return "{:.1f} TB".format(value)


def _of_machine() -> Optional[int]:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_groups() -> List[Optional[int]]:
    """What is left in this process's control groups, of either version."""
    folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"]
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            for line in file:
                _number, kinds, path = line.rstrip("\n").split(":", 2)
                if kinds in ("", "memory"):
                    folders.append(os.path.join("/sys/fs/cgroup", kinds, path.lstrip("/")))
    except (OSError, ValueError):
        pass
    return [_left(folder) for folder in dict.fromkeys(folders)]


def _left(folder: str) -> Optional[int]:
    for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limit, taken = _number(os.path.join(folder, most)), _number(os.path.join(folder, used))
        if limit is not None and taken is not None and limit < _UNLIMITED:
            # What files are cached gives way.
            return max(0, limit - taken + _cached(folder))
    return None


def _cached(folder: str) -> int:
    try:
        with open(os.path.join(folder, "memory.stat"), encoding="ascii") as file:
            found = dict(line.split() for line in file)
        return int(found.get("inactive_file", 0))
    except (OSError, ValueError):
        return 0


def _number(path: str) -> Optional[int]:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None  # `max`, or no such group.
