"""Programs in a step that are not its own code, such as launchers: debugged once they run the step's own code.

Most of them only start the program to debug, whatever their name is. Others import it, as papermill's kernel and
test runners do.
"""

from __future__ import annotations

import os
import sys

from .program import code_folders, is_within
from .startup import report_failure

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, List, MutableMapping

#: Folders that are searched for Python files at most.
MOST_FOLDERS = 2000


def has_python(environment: MutableMapping[str, str]) -> bool:
    """Whether the step's code contains Python files; True as well if it has too many folders to search."""
    searched = 0
    for folder in code_folders(environment):
        if folder.endswith(".py"):
            return True
        for _path, _folders, files in os.walk(folder):
            searched += 1
            if searched > MOST_FOLDERS or any(name.endswith((".py", ".ipynb")) for name in files):
                return True
    return False


def watch(environment: MutableMapping[str, str], become_owner: Callable[[], None]) -> None:
    """Call a function when this process is about to run a module of the step's own code for the first time.

    An audit hook is used, since programs that import in their own way, as pytest does, bypass finders.

    Args:
        environment: The variables that name the step's code.
        become_owner: Called in the thread that is about to run it.
    """
    folders = code_folders(environment)
    prefix = os.path.realpath(sys.prefix)
    # Emptied once `become_owner` has been called.
    watched: List[str] = [folder for folder in folders if not is_within(folder, prefix)]
    process_id = os.getpid()

    def on_event(event: str, arguments: Any) -> None:
        if event != "exec" or not watched:
            return
        name = getattr(arguments[0], "co_filename", "")
        if not name.endswith(".py") or os.getpid() != process_id:
            return
        path = os.path.abspath(name)
        if is_within(path, prefix) or not any(is_within(path, folder) for folder in watched):
            return
        del watched[:]
        try:
            become_owner()
        except Exception as error:
            report_failure(dict(os.environ), error)

    sys.addaudithook(on_event)
