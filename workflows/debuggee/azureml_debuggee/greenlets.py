"""Support for programs that gevent patches: the debugger's threads stay real threads, and pydevd handles greenlets.

pydevd reads GEVENT_SUPPORT when it is imported, and hangs at the second stop without it.
https://www.gevent.org/api/gevent.monkey.html lists what is patched. Threads and locks created before that keep working.
"""

from __future__ import annotations

import functools
import os
import sys
import threading

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

SUPPORT = "GEVENT_SUPPORT"
#: Seconds that starting the debugger may take before the program runs on.
READY_SECONDS = 10.0


class gevent_support:
    """A context for the import of pydevd, which then supports gevent if that is installed."""

    def __enter__(self) -> None:
        import importlib.util

        self._has_set_variable = False
        try:
            is_installed = importlib.util.find_spec("gevent") is not None
        except (ImportError, ValueError):
            is_installed = False
        if is_installed and SUPPORT not in os.environ:
            os.environ[SUPPORT] = "True"
            self._has_set_variable = True

    def __exit__(self, *_: Any) -> None:
        if self._has_set_variable:
            os.environ.pop(SUPPORT, None)


class _Finder:
    """A finder before all others, which reacts to the program's import of gevent.monkey."""

    def __init__(self, before: Callable[[], None]) -> None:
        self._before: Optional[Callable[[], None]] = before

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "gevent.monkey" or self._before is None:
            return None
        from importlib.machinery import PathFinder

        before, self._before = self._before, None
        spec: Any = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            for patch in [patch for patch in vars(module) if patch.startswith("patch_")]:
                # Not earlier: the debugger imports gevent, too, and this thread is just importing it.
                setattr(module, patch, _call_first(before, getattr(module, patch)))

        spec.loader.exec_module = exec_module
        return spec


def _call_first(before: Callable[[], None], patch: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(patch)
    def patch_when_ready(*arguments: Any, **keywords: Any) -> Any:
        try:
            before()
        except Exception:
            pass  # The program must not be disturbed.
        return patch(*arguments, **keywords)

    return patch_when_ready


def start_before_patching(run_in_helper: Callable[[Callable[[], None]], None], make_ready: Callable[[], None]) -> None:
    """Start the debugger before gevent patches this process, even if no debugger has attached.

    Args:
        run_in_helper: Calls a function in the thread that the debugger belongs to.
        make_ready: Starts the debugger; called there.
    """
    process_id = os.getpid()
    begun = threading.Lock()

    def wait_until_ready() -> None:
        if os.getpid() != process_id or not begun.acquire(blocking=False):
            return
        done = threading.Event()

        def start_debugger() -> None:
            try:
                make_ready()
            finally:
                done.set()

        run_in_helper(start_debugger)
        done.wait(READY_SECONDS)

    sys.meta_path.insert(0, _Finder(wait_until_ready))
