"""Programs that gevent patches: the debugger's own threads stay threads, and pydevd knows of greenlets.

pydevd learns of gevent by GEVENT_SUPPORT when it is imported, and hangs at the second stop without:
https://www.gevent.org/api/gevent.monkey.html says what is patched. What is made before that works on.
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
#: Seconds that the debugger may take to be made ready before the program goes on.
READY_SECONDS = 10.0


class supported:
    """A context in which pydevd is imported such that it knows of gevent, where that is installed."""

    def __enter__(self) -> None:
        import importlib.util

        self._is_told = False
        try:
            there = importlib.util.find_spec("gevent") is not None
        except (ImportError, ValueError):
            there = False
        if there and SUPPORT not in os.environ:
            os.environ[SUPPORT] = "True"
            self._is_told = True

    def __exit__(self, *_: Any) -> None:
        if self._is_told:
            os.environ.pop(SUPPORT, None)


class _Finder:
    """Stands first among the finders, for the moment at which the program asks for what patches."""

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
                # Not sooner: the debugger imports gevent, too, which this thread is just importing.
                setattr(module, patch, _after(before, getattr(module, patch)))

        spec.loader.exec_module = exec_module
        return spec


def _after(before: Callable[[], None], patch: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(patch)
    def patch_when_ready(*arguments: Any, **keywords: Any) -> Any:
        try:
            before()
        except Exception:
            pass  # The program matters more.
        return patch(*arguments, **keywords)

    return patch_when_ready


def watch(run_in_helper: Callable[[Callable[[], None]], None], make_ready: Callable[[], None]) -> None:
    """Make the debugger ready before gevent patches this process, which nobody may have attached to.

    Args:
        run_in_helper: Runs something in the thread to which the debugger belongs.
        make_ready: What makes it ready, to be called there.
    """
    identity = os.getpid()
    begun = threading.Lock()

    def wait_until_ready() -> None:
        if os.getpid() != identity or not begun.acquire(blocking=False):
            return
        over = threading.Event()

        def work() -> None:
            try:
                make_ready()
            finally:
                over.set()

        run_in_helper(work)
        over.wait(READY_SECONDS)

    sys.meta_path.insert(0, _Finder(wait_until_ready))
