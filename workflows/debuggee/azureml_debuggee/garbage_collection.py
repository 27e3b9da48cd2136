"""Keeps Python 3.11 from hanging where pydevd asks for the frames of all threads.

Until 3.11.9 `sys._current_frames` makes them while it holds the interpreter's list of threads. A garbage collection may
begin in the middle of that and let another thread run, and one that ends then waits for the list, for good:
https://github.com/python/cpython/issues/106883
"""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable


def hold_while_frames_are_made() -> None:
    """Have no garbage collected in there. Modules of pydevd that keep the function are given the changed one."""
    if not (3, 11) <= sys.version_info < (3, 11, 9):
        return
    make: "Callable[[], Any]" = sys._current_frames
    if getattr(make, "__module__", "") == __name__:
        return

    def _current_frames() -> Any:
        collects = gc.isenabled()
        gc.disable()
        try:
            return make()
        finally:
            if collects:
                gc.enable()

    sys._current_frames = _current_frames
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("_pydevd") and vars(module).get("_current_frames") is make:
            module._current_frames = _current_frames  # type: ignore[attr-defined]
