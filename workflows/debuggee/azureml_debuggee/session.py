"""The debug session of one process: its gate, its debugger, and the wait for a debugger to attach.

Environment variables configure it, since they reach the process through any launcher:

========================== =====================================================
AZUREML_DEBUGGEE_HOST      address to listen on (127.0.0.1)
AZUREML_DEBUGGEE_PORT      port to listen on (5678)
AZUREML_DEBUGGEE_WAIT      ``1``: hold before the program begins
AZUREML_DEBUGGEE_TIMEOUT   seconds that a hold lasts at most (300)
AZUREML_DEBUGGEE_EVENTS    file that events are appended to (none)
AZUREML_DEBUGGEE_CHILDREN  ``1``: debug child processes as well (children.py)
AZUREML_DEBUGGEE_ADDRESS   address at which a debugger reaches this process, to be logged
                           and announced (the address that it listens on)
AZUREML_DEBUGGEE_TOKEN     SHA-256 in hex of the token that debuggers have to send first, as ``AUTH token`` (none)
AZUREML_DEBUGGEE_LOOPBACK  ``1``: a debugger on this machine needs no token if its user is this process's user or root
AZUREML_DEBUGGEE_PORTS     how many ports may be tried, starting with that one (1)
AZUREML_DEBUGGEE_RANK      this process's rank, to be logged and announced (none)
AZUREML_DEBUGGEE_WORLD     how many ranks there are, to be announced (unknown)
AZUREML_DEBUGGEE_DEBUGPY   folder with a debugpy for environments that have none (none)
========================== =====================================================

step.py decides which process of a step gets a session.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Callable, Mapping, Optional

from . import child
from .announce import Announcer, print_line
from .debugger import Debugger
from .debugpy_calls import answer_debugpy_calls
from .gate import Gate

#: Seconds that the adapter may take to answer a debugger whose configuration pydevd has.
ANSWER_SECONDS = 5.0
#: Seconds between checks whether it has.
POLL_SECONDS = 0.002


def read_number(environment: Mapping[str, str], name: str, default: float) -> float:
    """A number of seconds from an environment variable; the default if it is missing, or too long for a wait."""
    try:
        number = float(environment.get(name, ""))
    except ValueError:
        return default
    # No wait in Python accepts more than TIMEOUT_MAX, or "nan".
    return number if abs(number) <= threading.TIMEOUT_MAX else default


def _folder_for_children(environment: Mapping[str, str]) -> Optional[str]:
    """The folder of the events' file, if there is one and children are debugged."""
    events = environment.get("AZUREML_DEBUGGEE_EVENTS")
    return os.path.dirname(events) if events and environment.get("AZUREML_DEBUGGEE_CHILDREN") == "1" else None


class Session:
    """The debug session of this process; :func:`start` creates it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        rank = environment.get("AZUREML_DEBUGGEE_RANK", "")
        #: The rank of this process in a distributed program.
        self.rank = int(rank) if rank.isdigit() else None
        world = environment.get("AZUREML_DEBUGGEE_WORLD", "")
        self.announce = Announcer(
            environment.get("AZUREML_DEBUGGEE_EVENTS"), self.rank, int(world) if world.isdigit() else None
        )
        self.holds_at_start = environment.get("AZUREML_DEBUGGEE_WAIT") == "1"
        self.timeout = read_number(environment, "AZUREML_DEBUGGEE_TIMEOUT", 300.0)
        self.debugger = child.debugger = Debugger()
        host = environment.get("AZUREML_DEBUGGEE_HOST") or "127.0.0.1"
        port = int(read_number(environment, "AZUREML_DEBUGGEE_PORT", 5678))
        self.gate = Gate(
            host,
            port,
            self.debugger,
            self.announce,
            environment.get("AZUREML_DEBUGGEE_ADDRESS"),
            environment.get("AZUREML_DEBUGGEE_TOKEN"),
            int(read_number(environment, "AZUREML_DEBUGGEE_PORTS", 1)),
            environment.get("AZUREML_DEBUGGEE_LOOPBACK") == "1",
            _folder_for_children(environment),
        )
        self._hold_ended = threading.Event()
        #: Whether no debugger came in the hold before the program: the program's own waits then end at once.
        self.hold_expired = False
        #: Whether a hold logs nothing if the gate could not open, which is announced anyway.
        self.silent_without_gate = False
        #: Called during a hold; returns whether the program is about to end and must not wait longer.
        self.is_ending: Callable[[], bool] = lambda: False

    def hold(self) -> bool:
        """Hold the calling thread for a debugger, up to the timeout, and log the published lines.

        Returns:
            Whether a debugger is attached, or was in this hold.
        """
        answers = self.gate.answer_count
        if self.debugger.is_attached():
            self._wait_until_answered()
            return True
        deadline = time.monotonic() + self.timeout
        self._hold_ended.clear()
        # The port may still be held by the process that this one replaces.
        self.gate.bind_done.wait(self.timeout)
        if self.gate.failure is not None and self.silent_without_gate:
            return False
        seconds = int(self.timeout) if self.timeout.is_integer() else self.timeout
        print_line("Timeout for debug connection: {}".format(seconds))
        print_line("ip_address: {}".format(self.gate.reached_at[0]))
        print_line("debug_port: {}".format(self.gate.reached_at[1]))
        if self.rank is not None:
            print_line("rank: {}".format(self.rank))
        self.announce("waiting", timeout=self.timeout)
        attached = False

        def was_here() -> bool:
            """Whether a debugger has attached, and perhaps left again between two checks."""
            return self.gate.answer_count > answers

        def is_over() -> bool:
            return (
                time.monotonic() >= deadline
                or self._hold_ended.is_set()
                or self.gate.failure is not None
                or self.is_ending()
                or was_here()
            )

        # Short waits, so that a signal or `end_hold` ends the hold at once on every platform.
        while not attached and not is_over():
            if self.gate.admission_done.wait(min(deadline - time.monotonic(), 0.1)):
                attached = self.debugger.wait(is_over)
        attached = attached or was_here()
        if attached:
            self._wait_until_answered()
        print_line("Debugger attached = {}".format(attached))
        self.announce("attached" if attached else "not-attached")
        return attached

    def _wait_until_answered(self) -> None:
        """Wait until the gate has sent the answer to the debugger's `attach`.

        pydevd counts as attached before it reports that, and its adapter answers only afterwards. If the program
        ended in between, the debugger would see its session fail instead of begin and end.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while (
            self.gate.owes_answer
            and self.debugger.is_attached()
            and not self.is_ending()
            and time.monotonic() < deadline
        ):
            time.sleep(POLL_SECONDS)

    def end_hold(self) -> None:
        """End a hold early."""
        self._hold_ended.set()


def find_debugpy(folder: Optional[str]) -> None:
    """Import debugpy, from this folder if the environment has none.

    Raises:
        ImportError: It is in neither.
    """
    try:
        import debugpy
    except ImportError:
        if not folder:
            raise
        # For this import only: the program must not import anything else from the folder.
        sys.path.append(folder)
        try:
            import debugpy  # noqa: F401
        finally:
            sys.path.remove(folder)


def make(environment: Mapping[str, str]) -> Session:
    """Create a session whose gate is still closed, and which answers the program's own debugpy calls.

    Raises:
        ImportError: debugpy is not installed here.
    """
    find_debugpy(environment.get("AZUREML_DEBUGGEE_DEBUGPY"))
    session = Session(environment)
    answer_debugpy_calls(session)
    return session


def start(environment: Optional[Mapping[str, str]] = None) -> Session:
    """Make this process one that a debugger can attach to at any time.

    Args:
        environment: Configuration; the process's environment by default.

    Raises:
        ImportError: debugpy is not installed here.
    """
    session = make(os.environ if environment is None else environment)
    session.gate.start()
    return session
