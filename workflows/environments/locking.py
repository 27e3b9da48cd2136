"""Lets one process build at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..errors import UserError
from ..private import make_folder

# Longer than any build; a process that hangs must not block others for ever.
WAIT_LIMIT = 30 * 60.0


@contextmanager
def exclusive(lock_file: Path, what: str, report: Callable[[str], None], limit: float = WAIT_LIMIT) -> Iterator[None]:
    """Hold a lock, which is released when the process ends, even if it is killed.

    Args:
        lock_file: The lock's file, created if missing.
        what: What is being built, for messages.
        report: Called once with a line of progress if another process holds the lock.
        limit: Seconds to wait.

    Raises:
        UserError: The other process is still not done.
    """
    from ..locks import HeldError, hold

    make_folder(lock_file.parent)
    reported = list[bool]()

    def waiting() -> None:
        if not reported:
            reported.append(True)
            report(f"another process is building {what}; waiting for it")

    with ExitStack() as stack:
        try:
            stack.enter_context(hold(lock_file, limit, pause=0.1, waiting=waiting))
        except HeldError as error:
            raise UserError(
                f"Another process has been building {what} for {limit / 60:.0f} minutes.",
                "End that process, then run the same command again.",
            ) from error
        yield
