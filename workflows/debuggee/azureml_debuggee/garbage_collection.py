"""Keeps Python 3.11 from hanging when pydevd reads the frames of all threads.

Until 3.11.9 `sys._current_frames` creates them while it holds the interpreter's list of threads. A garbage collection
may begin in the middle of that and let another thread run. A thread that ends then waits for the list forever:
https://github.com/python/cpython/issues/106883
"""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable


def pause_while_reading_frames() -> None:
    """Disable garbage collection in that function, also for the modules of pydevd that have imported it."""
    if not (3, 11) <= sys.version_info < (3, 11, 9):
        return
    original: "Callable[[], Any]" = sys._current_frames
    if getattr(original, "__module__", "") == __name__:
        return

    def _current_frames() -> Any:
        is_enabled = gc.isenabled()
        gc.disable()
        try:
            return original()
        finally:
            if is_enabled:
                gc.enable()

    sys._current_frames = _current_frames
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("_pydevd") and vars(module).get("_current_frames") is original:
            module._current_frames = _current_frames  # type: ignore[attr-defined]
