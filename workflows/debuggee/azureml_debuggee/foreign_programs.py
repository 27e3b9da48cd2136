"""A program from elsewhere in a step, such as a launcher: it is debugged once it runs the step's own code itself.

Most of them only start what is to be debugged, whatever they are called. Others import it, as papermill's kernel and
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

#: Folders that are looked through for Python.
MOST_FOLDERS = 2000


def has_python(environment: MutableMapping[str, str]) -> bool:
    """Whether the step's code has Python in it that a program could run; True where there is too much to tell."""
    looked = 0
    for folder in code_folders(environment):
        if folder.endswith(".py"):
            return True
        for _path, _folders, files in os.walk(folder):
            looked += 1
            if looked > MOST_FOLDERS or any(name.endswith((".py", ".ipynb")) for name in files):
                return True
    return False


def watch(environment: MutableMapping[str, str], become: Callable[[], None]) -> None:
    """Call a function when this process is about to run a module of the step's own code for the first time.

    Not by a finder: those who import by their own ways, as pytest does, pass it by.

    Args:
        environment: Where the step's code is named.
        become: Called in the thread that is about to run it.
    """
    folders = code_folders(environment)
    prefix = os.path.realpath(sys.prefix)
    # No folders, once it has been called.
    watched: List[str] = [folder for folder in folders if not is_within(folder, prefix)]
    identity = os.getpid()

    def see(event: str, arguments: Any) -> None:
        if event != "exec" or not watched:
            return
        name = getattr(arguments[0], "co_filename", "")
        if not name.endswith(".py") or os.getpid() != identity:
            return
        path = os.path.abspath(name)
        if is_within(path, prefix) or not any(is_within(path, folder) for folder in watched):
            return
        del watched[:]
        try:
            become()
        except Exception as error:
            report_failure(dict(os.environ), error)

    sys.addaudithook(see)
