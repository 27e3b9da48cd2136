"""Invoke tasks that debug code on Azure Machine Learning where it fails.

In a project's own tasks.py::

    from workflows import namespace as ns
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tasks.all_tasks import namespace as namespace


def __getattr__(name: str) -> Any:
    # The program's own processes in the background start without Invoke and its tasks.
    if name == "namespace":
        from .byte_code import byte_code_enabled

        try:
            with byte_code_enabled():
                from .tasks.all_tasks import namespace
        except KeyboardInterrupt:
            # Invoke would end with 1, as for a failure.
            raise SystemExit(130) from None
        return namespace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
