"""One builder at a time, across processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError

# Longer than any build seen; a builder that hangs must not hold up others for ever.
WAIT_LIMIT = 30 * 60.0


@contextmanager
def exclusive(lock_file: Path, what: str, report: Callable[[str], None], limit: float = WAIT_LIMIT) -> Iterator[None]:
    """Hold a lock; it ends with the process that holds it, however that ends.

    Args:
        lock_file: Made if missing, and kept: removing it would let two in.
        what: What is being built, for the line that says who is waited for.
        report: Told once when another process holds the lock.
        limit: Seconds to wait.

    Raises:
        UserError: The other process is still not done.
    """
    from filelock import FileLock, Timeout

    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"another process is building {what}; waiting for it")
        try:
            lock.acquire(timeout=limit, poll_interval=0.1)
        except Timeout as error:
            raise UserError(
                f"Another process has been building {what} for {limit / 60:.0f} minutes.",
                "End that process, then run the same command again.",
            ) from error
    try:
        yield
    finally:
        lock.release()
