"""The debug session of a child process, which may begin before the program's first line or at any time later.

The debugged process sends ``join`` with the adapter's address, and ``go`` when the debugger has left or does not come.
The child sends ``waits`` before it waits, ``joined`` when a debugger can attach, ``declined`` if it runs none of the
step's own code, or ``failed`` and the reason. It answers ``stacks``, a number and a request with ``stacks``, the number
and this process's stacks.
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

#: Seconds that a child waits at most, whatever the debugged process does.
WAIT_SECONDS = 60.0
#: Seconds that pydevd may take to notice that its debugger has left.
LEAVING_SECONDS = 1.0
#: Seconds between checks whether the debugger has attached.
POLL_SECONDS = 0.005


class ChildSession:
    """Waits for the debugger in this process, and connects to it.

    Args:
        link: The connection to the debugged process.
    """

    def __init__(self, link: child.Link) -> None:
        self._link = link
        self._is_over = True

    def wait(self) -> None:
        """Hold the calling thread until the debugger has attached or will not come."""
        self._is_over = False
        self._link.send("waits")
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._is_over and time.monotonic() < deadline:
            if child.debugger is not None and child.debugger.is_attached():
                break
            time.sleep(POLL_SECONDS)
        self._is_over = True

    def on_parent_ended(self) -> None:
        """Stop waiting: the debugged process has ended, so no debugger will come."""
        self._is_over = True

    def handle_line(self, line: str) -> None:
        """Handle one message of the debugged process."""
        word, _, rest = line.partition(" ")
        if word == "join":
            self._join(rest.split(" "))
        elif word == "go":
            self._is_over = True
            self._leave()
        elif word == "stacks":
            number, _, text = rest.partition(" ")
            # In a thread of its own: an evaluation must not delay later messages, which the waiting thread may need.
            start_untraced(self._send_stacks, "azureml-debuggee-stacks", number, text)

    def _send_stacks(self, number: str, text: str) -> None:
        with imports.own:
            from . import stack_requests
        found = stack_requests.collect_stacks(stack_requests.expressions_in(text) or [])
        self._link.send("stacks {} {}".format(number, imports.standard_module("json").dumps(found)))

    def _join(self, arguments: List[str]) -> None:
        port, parent, token, client_token = arguments
        if self._is_over and not has_own_code():
            self._link.send("declined")
            return
        try:
            if child.debugger is None:
                child.debugger = _create_debugger()
            child.debugger.join_adapter(int(port), token, client_token, int(parent))
            self._link.send("joined")
        except Exception as error:
            message = "child process {} cannot be debugged: {}: {}".format(os.getpid(), type(error).__name__, error)
            self._link.send("failed " + " ".join(message.split()))
            self._is_over = True

    def _leave(self) -> None:
        deadline = time.monotonic() + LEAVING_SECONDS
        while child.debugger is not None and child.debugger.is_attached() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if child.debugger is not None:
            child.debugger.leave_adapter()


def start_listening(link: child.Link, line: Optional[str]) -> None:
    """Handle messages of the debugged process, from this line on, in a thread that pydevd does not trace."""
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
    """This process's session, which the first caller creates."""
    with child.session_lock:
        if child.session is None:
            child.session = ChildSession(link)
        return child.session  # type: ignore[no-any-return]


def _create_debugger() -> Any:
    """Create the debugger, in a process that was not forked from one that has it."""
    from . import session

    front_folders = [os.getcwd()] if not has_safe_path() else []
    imports.set_program_folders(front_folders, code_folders(os.environ))
    with imports.own:
        session.find_debugpy(os.environ.get("AZUREML_DEBUGGEE_DEBUGPY"))
        from .debugger import Debugger

        return Debugger()


def prepare_wait(program: Any) -> Optional[Callable[[], None]]:
    """In a new process, while a debugger is attached: wait for it when the step's own code begins.

    Returns:
        A function that waits before the program begins, if the program is the step's own.
    """
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
    """Have this process wait for the debugger when the first file of the step's own code is about to run."""
    folders = code_folders(os.environ)
    is_armed = [True]

    def on_event(event: str, details: Any) -> None:
        if event != "exec" or not is_armed:
            return
        file = getattr(details[0], "co_filename", "")
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
