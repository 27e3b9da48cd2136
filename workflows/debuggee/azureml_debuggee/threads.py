"""Starts threads that the debugger must neither trace nor stop."""

from __future__ import annotations

import threading

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable


def start_untraced(target: Callable[..., Any], name: str, *args: Any) -> threading.Thread:
    """Start a daemon thread that pydevd neither traces nor suspends.

    Without the two marks, set before the thread starts, a debugger that stops all
    threads would stop the very thread that carries its own messages.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    thread.pydev_do_not_trace = True  # type: ignore[attr-defined]
    thread.is_pydev_daemon_thread = True  # type: ignore[attr-defined]
    thread.start()
    return thread
