"""Errors that somebody catches only to end the program, or that nobody will ever see.

``except Exception: logging.exception(…); sys.exit(1)`` is what many scripts do at their top, and what Hydra does with
every error of the function that it runs. Python calls no hook for these.
"""

from __future__ import annotations

import sys

from . import import_hooks, worker_errors

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable


def watch(code: worker_errors.OwnCode, examine: Callable[[Any, Any, Any], None]) -> None:
    """Have such errors looked at.

    Args:
        code: The person's own; errors that have not come by there are nobody's business here.
        examine: Called with what `sys.exc_info` gives, before the program ends, or goes on.
    """

    def see(status: Any) -> None:
        kind, value, trace = sys.exc_info()
        # Such as a usage error of argparse's own, which it catches itself.
        if status not in (None, 0) and value is not None and code.was_left_by(trace):
            examine(kind, value, trace)

    leave = sys.exit

    def see_and_leave(status: Any = None, /) -> Any:
        see(status)
        leave(status)

    see_and_leave.__name__ = see_and_leave.__qualname__ = leave.__name__
    see_and_leave.__doc__, see_and_leave.__module__ = leave.__doc__, leave.__module__
    sys.exit = see_and_leave
    _watch_quitters(see)
    import_hooks.change_when_imported("asyncio.base_events", lambda module: _watch_tasks(module, examine))


def _watch_quitters(see: Callable[[Any], None]) -> None:
    """The same for `exit` and `quit`, which `site` puts among the built-in functions."""
    import builtins

    quitter: Any = type(getattr(builtins, "exit", None))
    if quitter.__name__ != "Quitter":
        return
    call = quitter.__call__

    def call_and_see(self: Any, code: Any = None) -> Any:
        see(code)
        return call(self, code)

    quitter.__call__ = call_and_see


def _watch_tasks(module: Any, examine: Callable[[Any, Any, Any], None]) -> None:
    """Tasks of asyncio that have failed without anybody's asking."""
    handle = module.BaseEventLoop.default_exception_handler

    def default_exception_handler(self: Any, context: Any) -> None:
        handle(self, context)
        error = context.get("exception")
        if error is not None and "never retrieved" in str(context.get("message", "")):
            examine(type(error), error, error.__traceback__)

    module.BaseEventLoop.default_exception_handler = default_exception_handler
