"""Watches errors that a program catches only to end, or that would never be shown.

``except Exception: logging.exception(…); sys.exit(1)`` is what many scripts do at their top level, and what Hydra does
with every error of the function that it runs. Python calls no hook for these.
"""

from __future__ import annotations

import sys

from . import import_hooks, worker_errors

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable


def watch(code: worker_errors.OwnCode, examine: Callable[[Any, Any, Any], None]) -> None:
    """Have such errors examined.

    Args:
        code: The user's own code; errors that have not passed through it are ignored.
        examine: Called with the values of `sys.exc_info`, before the program ends or goes on.
    """

    def examine_current(status: Any) -> None:
        kind, value, trace = sys.exc_info()
        # An error that has not passed through the user's code is, for instance, argparse's own usage error.
        if status not in (None, 0) and value is not None and code.was_left_by(trace):
            examine(kind, value, trace)

    original_exit = sys.exit

    def examine_and_exit(status: Any = None, /) -> Any:
        examine_current(status)
        original_exit(status)

    examine_and_exit.__name__ = examine_and_exit.__qualname__ = original_exit.__name__
    examine_and_exit.__doc__, examine_and_exit.__module__ = original_exit.__doc__, original_exit.__module__
    sys.exit = examine_and_exit
    _watch_quitters(examine_current)
    import_hooks.change_when_imported("asyncio.base_events", lambda module: _watch_tasks(module, examine))


def _watch_quitters(examine_current: Callable[[Any], None]) -> None:
    """Do the same for `exit` and `quit`, which `site` adds to the built-in functions."""
    import builtins

    quitter: Any = type(getattr(builtins, "exit", None))
    if quitter.__name__ != "Quitter":
        return
    call = quitter.__call__

    def examine_and_call(self: Any, code: Any = None) -> Any:
        examine_current(code)
        return call(self, code)

    quitter.__call__ = examine_and_call


def _watch_tasks(module: Any, examine: Callable[[Any, Any, Any], None]) -> None:
    """Have asyncio tasks examined that have failed and whose result was never retrieved."""
    handle = module.BaseEventLoop.default_exception_handler

    def default_exception_handler(self: Any, context: Any) -> None:
        handle(self, context)
        error = context.get("exception")
        if error is not None and "never retrieved" in str(context.get("message", "")):
            examine(type(error), error, error.__traceback__)

    module.BaseEventLoop.default_exception_handler = default_exception_handler
