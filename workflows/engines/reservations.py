"""Ports that runs and services have been promised and may not listen on yet, on this whole machine.

A step binds its port only when its Python starts, which `pip install` in its command may delay by
minutes; without a note of it, two sessions would be promised the same one.
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

#: Seconds for a run's runner to take over what the command that submits it has reserved.
HANDOVER_SECONDS = 15.0


def _folder() -> Path:
    return make_folder(cache_folder() / "ports")


@contextlib.contextmanager
def choosing_lock() -> Iterator[None]:
    """One chooser of ports at a time; where the lock cannot be had, chosen without."""
    from ..locks import HeldError, hold

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(HeldError, OSError):
            stack.enter_context(hold(_folder() / "lock", 10))
        yield


def reserve(ports: Collection[int], handover: bool = False, of: int | None = None, **more: Any) -> None:
    """Note that a process has promised these ports, or holds them.

    Args:
        ports: The ports.
        handover: Whether another process is going to take them over when this one has ended.
        of: The process; this one by default.
        more: What else to note.
    """
    identity = identify(os.getpid() if of is None else of)
    if identity is None:
        return
    with contextlib.suppress(OSError):
        _remove_ended()
        for port in ports:
            write_json(
                _folder() / f"{port}.json", {**identity, "handover": handover, "stamp": clock.current_moment(), **more}
            )


def _remove_ended() -> None:
    """Take away what processes were promised that have been killed since."""
    for path in _folder().glob("*.json"):
        if path.stem.isdigit():
            is_reserved(int(path.stem))


def release(ports: Collection[int]) -> None:
    """Give ports back."""
    with contextlib.suppress(OSError):
        for port in ports:
            (_folder() / f"{port}.json").unlink(missing_ok=True)


def read_reservation(port: int) -> dict[str, Any] | None:
    """What was noted of a port, by a process that may be gone."""
    return read_json(cache_folder() / "ports" / f"{port}.json")


def is_reserved(port: int) -> bool:
    """Whether a run that is still there has been promised the port."""
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
        path.unlink()
    return False
