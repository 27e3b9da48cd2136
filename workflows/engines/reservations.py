"""Reservations of ports for runs and services that may not listen on them yet; for all sessions of this machine's user.

A step binds its port only when its Python starts, which `pip install` in its command may delay by minutes. Without a
reservation, two sessions would get the same port.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from .. import clock
from ..paths import cache_folder
from ..private import make_folder
from ..process_identity import identify, is_alive
from ..project import read_json, write_json

#: Seconds for a run's runner to take over the ports that the submitting command has reserved.
HANDOVER_SECONDS = 15.0


def _folder() -> Path:
    return make_folder(cache_folder() / "ports")


@contextlib.contextmanager
def choosing_lock() -> Iterator[None]:
    """Let one process at a time choose ports; where the lock cannot be taken, go on without."""
    from ..locks import HeldError, hold

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(HeldError, OSError):
            stack.enter_context(hold(_folder() / "lock", 10))
        yield


def reserve(ports: Collection[int], handover: bool = False, pid: int | None = None, **extra: Any) -> None:
    """Reserve ports for a process.

    Args:
        ports: The ports.
        handover: Whether another process takes them over when this one has ended.
        pid: The process; this one by default.
        extra: Further values for the reservation.
    """
    identity = identify(os.getpid() if pid is None else pid)
    if identity is None:
        return
    with contextlib.suppress(OSError):
        _remove_ended()
        for port in ports:
            write_json(
                _folder() / f"{port}.json", {**identity, "handover": handover, "stamp": clock.current_moment(), **extra}
            )


def _remove_ended() -> None:
    """Remove the reservations of processes that have ended."""
    for path in _folder().glob("*.json"):
        if path.stem.isdigit():
            is_reserved(int(path.stem))


def release(ports: Collection[int]) -> None:
    """Remove the reservations of ports."""
    with contextlib.suppress(OSError):
        for port in ports:
            (_folder() / f"{port}.json").unlink(missing_ok=True)


def read_reservation(port: int) -> dict[str, Any] | None:
    """The reservation of a port, whose process may be gone; None where there is none."""
    return read_json(cache_folder() / "ports" / f"{port}.json")


def is_reserved(port: int) -> bool:
    """Whether a port is reserved for a process that is alive, or about to be handed over."""
    path = cache_folder() / "ports" / f"{port}.json"
    identity = read_reservation(port)
    if identity is None:
        return False
    if is_alive(identity):
        return True
    with contextlib.suppress(OSError):
        seconds = clock.seconds_since(str(identity.get("stamp") or ""), path.stat().st_mtime)
        if identity.get("handover") and seconds < HANDOVER_SECONDS:
            return True
        # Another process may have reserved it meanwhile.
        if read_reservation(port) == identity:
            path.unlink()
    return False
