"""Starts the watch for uncaught exceptions in processes that multiprocessing spawns.

A forked child inherits the watch. A child that is spawned, or forked by a server, begins as a bare
Python, to which its parent sends its state. The watch is part of the same message: the child
unpickles it first, before it imports the program's main module. No environment variable
or command line is changed.
"""

from __future__ import annotations

import os

from . import import_hooks

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Mapping, Sequence, Tuple

#: The code that the child runs first. If that fails, as in another Python, the child runs on without the watch.
_CODE = """
try:
    import sys
    sys.path.insert(0, {folder!r})
    try:
        from azureml_debuggee import spawned_child
    finally:
        sys.path.remove({folder!r})
    spawned_child.watch_process({settings!r}, {folders!r}, {debugs_itself!r})
except Exception:
    pass
"""


class _Watch:
    """An object whose unpickling executes the code."""

    def __init__(self, code: str) -> None:
        self._code = code

    def __reduce__(self) -> Tuple[Callable[..., Any], Tuple[str, Dict[str, Any]]]:
        return exec, (self._code, {})


def pass_on(settings: Mapping[str, str], folders: Sequence[str], debugs_itself: bool) -> None:
    """Send the watch to every process that multiprocessing starts from now on.

    Args:
        settings: Configuration, as for a session.
        folders: The folders of the user's own code.
        debugs_itself: Whether the program calls debugpy.
    """
    code = _CODE.format(
        folder=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        settings={name: value for name, value in settings.items() if name.startswith("AZUREML_DEBUGGEE_")},
        folders=list(folders),
        debugs_itself=debugs_itself,
    )

    def change(module: Any) -> None:
        prepare = module.get_preparation_data

        def get_preparation_data(*arguments: Any, **options: Any) -> Any:
            data = prepare(*arguments, **options)
            if isinstance(data, dict):
                # Under a name of its own, which nothing reads; a fork server takes only the names that it knows.
                data["azureml_debuggee"] = _Watch(code)
            return data

        module.get_preparation_data = get_preparation_data

    import_hooks.change_when_imported("multiprocessing.spawn", change)
