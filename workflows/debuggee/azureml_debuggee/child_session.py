"""A child process that the debugger is let into: before its first line, or at any time later.

The debugged process says ``join`` and how, and ``go`` when the debugger has left, or does not come. The child says
``waits`` before it waits, ``joined`` when it can be attached to, ``declined`` where nothing of the step's own code
runs in it, or ``failed`` and why. ``stacks``, a number and what is wanted are answered with ``stacks``, the number
and where this process stands.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Callable, List, Optional

from . import child, imports
from .announce import warn
from .program import code_folders, has_safe_path, is_own, is_within, this_program
from .startup import outside_site
from .threads import start_untraced

#: Seconds that a child waits at the most, whatever the debugged process does.
WAIT_SECONDS = 60.0
#: Seconds that pydevd may take to notice that its debugger has left.
LEAVING_SECONDS = 1.0
#: Seconds between looks at whether the debugger has attached.
POLL_SECONDS = 0.005


class ChildSession:
    """What waits for the debugger in this process.

    Args:
        link: The connection to the debugged process.
    """

    def __init__(self, link: child.Link) -> None:
        self._link = link
        self._over = True

    def wait(self) -> None:
        """Hold the calling thread until the debugger has attached, or will not come."""
        self._over = False
        self._link.send("waits")
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._over and time.monotonic() < deadline:
            if child.debugger is not None and child.debugger.is_attached():
                break
            time.sleep(POLL_SECONDS)
        self._over = True

    def on_parent_ended(self) -> None:
        """The debugged process has ended: nobody comes any more."""
        self._over = True

    def handle_line(self, line: str) -> None:
        """Do what the debugged process says."""
        word, _, rest = line.partition(" ")
        if word == "join":
            self._join(rest.split(" "))
        elif word == "go":
            self._over = True
            self._leave()
        elif word == "stacks":
            number, _, text = rest.partition(" ")
            # What follows may be for the thread that waits, so it is not kept waiting by an expression.
            start_untraced(self._send_stacks, "azureml-debuggee-stacks", number, text)

    def _send_stacks(self, number: str, text: str) -> None:
        with imports.own:
            from . import stack_requests
        found = stack_requests.collect_stacks(stack_requests.expressions_in(text) or [])
        self._link.send("stacks {} {}".format(number, imports.get("json").dumps(found)))

    def _join(self, told: List[str]) -> None:
        port, parent, token, client_token = told
        if self._over and not has_own_code():
            self._link.send("declined")
            return
        try:
            if child.debugger is None:
                child.debugger = _debugger()
            child.debugger.join_adapter(int(port), token, client_token, int(parent))
            self._link.send("joined")
        except Exception as error:
            message = "child process {} cannot be debugged: {}: {}".format(os.getpid(), type(error).__name__, error)
            self._link.send("failed " + " ".join(message.split()))
            self._over = True

    def _leave(self) -> None:
        deadline = time.monotonic() + LEAVING_SECONDS
        while child.debugger is not None and child.debugger.is_attached() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if child.debugger is not None:
            child.debugger.leave_adapter()


def start_listening(link: child.Link, line: Optional[str]) -> None:
    """Do what the debugged process says, from this line on, in a thread that the debugger leaves alone."""
    start_untraced(_listen, "azureml-debuggee-child", link, _get_session(link), line)


def _listen(link: child.Link, session: ChildSession, line: Optional[str]) -> None:
    while line is not None:
        try:
            session.handle_line(line)
        except Exception as error:
            warn("{}: {}".format(type(error).__name__, error))
        line = link.read_line()
    session.on_parent_ended()


def _get_session(link: child.Link) -> ChildSession:
    """This process's session, made by whoever is first."""
    with child.session_lock:
        if child.session is None:
            child.session = ChildSession(link)
        return child.session  # type: ignore[no-any-return]


def _debugger() -> Any:
    """The debugger of a process that was not forked from one that has it."""
    from . import session

    fronts = [os.getcwd()] if not has_safe_path() else []
    imports.set_program_folders(fronts, code_folders(os.environ))
    with imports.own:
        session.find_debugpy(os.environ.get("AZUREML_DEBUGGEE_DEBUGPY"))
        from .debugger import Debugger

        return Debugger()


def prepare_wait(program: Any) -> Optional[Callable[[], None]]:
    """In a new process, while a debugger is attached: what waits for it, before the program begins or in it."""
    program = program or this_program()
    if is_own(program, os.environ) or program.name.startswith("from multiprocessing.spawn import"):
        return _wait_outside_site
    if "multiprocessing" not in program.tool_names():
        _wait_for_own_code()
    return None


def wait_for_debugger() -> None:
    """Wait for the debugger in this thread, while one is attached."""
    if child.link is not None:
        _get_session(child.link).wait()


def _wait_outside_site() -> None:
    with outside_site():
        wait_for_debugger()


def _wait_for_own_code() -> None:
    """Wait for the debugger when the first file of the step's own code is about to run."""
    folders = code_folders(os.environ)
    is_armed = [True]

    def on_event(event: str, arguments: Any) -> None:
        if event != "exec" or not is_armed:
            return
        file = getattr(arguments[0], "co_filename", "")
        if file and file[:1] != "<" and any(is_within(os.path.abspath(file), folder) for folder in folders):
            is_armed.clear()
            wait_for_debugger()

    sys.addaudithook(on_event)


def has_own_code() -> bool:
    """Whether a module of the step's own code has been imported here."""
    folders = code_folders(os.environ)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and any(is_within(os.path.abspath(file), folder) for folder in folders):
            return True
    return False
