"""One debugged process: its gate, its debugger, and the wait for somebody to attach.

Configured by environment variables, since they reach the process through any launcher:

========================== =====================================================
AZUREML_DEBUGGEE_HOST      address to listen on (127.0.0.1)
AZUREML_DEBUGGEE_PORT      port to listen on (5678)
AZUREML_DEBUGGEE_WAIT      ``1``: hold before the program begins
AZUREML_DEBUGGEE_TIMEOUT   seconds that a hold lasts at the most (300)
AZUREML_DEBUGGEE_EVENTS    file to announce events in (none)
AZUREML_DEBUGGEE_CHILDREN  ``1``: let debuggers into child processes as well (children.py)
AZUREML_DEBUGGEE_ADDRESS   address at which a debugger really reaches this, to be logged
                           and announced (the one that it listens on)
AZUREML_DEBUGGEE_TOKEN     SHA-256 in hex of what debuggers have to send first, ``AUTH token`` (nothing)
AZUREML_DEBUGGEE_LOOPBACK  ``1``: a debugger on this machine needs no token if it is of this process's user, or root
AZUREML_DEBUGGEE_PORTS     how many ports may be tried, from that one on (1)
AZUREML_DEBUGGEE_RANK      this process's rank, to be logged and announced (none)
AZUREML_DEBUGGEE_WORLD     how many ranks there are, to be announced (unknown)
AZUREML_DEBUGGEE_DEBUGPY   folder with a debugpy for environments that have none (none)
========================== =====================================================

What makes a step's script a session is in step.py.
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
#: Seconds between looks at whether it has.
POLL_SECONDS = 0.002


def read_number(environment: Mapping[str, str], name: str, default: float) -> float:
    """A number among environment variables, such that it can be waited for; the default where there is none."""
    try:
        number = float(environment.get(name, ""))
    except ValueError:
        return default
    # No wait in Python takes more than TIMEOUT_MAX, and none takes "nan".
    return number if abs(number) <= threading.TIMEOUT_MAX else default


def _folder_for_children(environment: Mapping[str, str]) -> Optional[str]:
    """The folder of the announced events, where children are debugged and there is one."""
    events = environment.get("AZUREML_DEBUGGEE_EVENTS")
    return os.path.dirname(events) if events and environment.get("AZUREML_DEBUGGEE_CHILDREN") == "1" else None


class Session:
    """The debuggee's part in this process; made by :func:`start`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        rank = environment.get("AZUREML_DEBUGGEE_RANK", "")
        #: Among the processes of a distributed program.
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
        self._let_go = threading.Event()
        #: Set when a hold before the program has brought nobody: the program's own waits are over at once.
        self.hold_expired = False
        #: Whether nothing is said of a hold for which the gate could not open; that it could not is announced.
        self.silent_without_gate = False
        #: Asked during a hold: whether the program is to end and should wait no longer.
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
        self._let_go.clear()
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
            """Whether a debugger has attached, and perhaps left again between two looks."""
            return self.gate.answer_count > answers

        def over() -> bool:
            return (
                time.monotonic() >= deadline
                or self._let_go.is_set()
                or self.gate.failure is not None
                or self.is_ending()
                or was_here()
            )

        # Short waits, so that a signal or `end_hold` ends the hold at once on every platform.
        while not attached and not over():
            if self.gate.admission_done.wait(min(deadline - time.monotonic(), 0.1)):
                attached = self.debugger.wait(over)
        attached = attached or was_here()
        if attached:
            self._wait_until_answered()
        print_line("Debugger attached = {}".format(attached))
        self.announce("attached" if attached else "not-attached")
        return attached

    def _wait_until_answered(self) -> None:
        """Let the answer to the `attach` through the gate, which ends with a program that ends at once.

        pydevd counts as attached before it has said so, and its adapter answers only then: the
        debugger would see its session fail instead of begin and end.
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
        self._let_go.set()


def find_debugpy(folder: Optional[str]) -> None:
    """Import debugpy, from a folder of its own where the environment has none.

    Raises:
        ImportError: It is in neither.
    """
    try:
        import debugpy
    except ImportError:
        if not folder:
            raise
        # For the import only: nothing else in it is meant for the program.
        sys.path.append(folder)
        try:
            import debugpy  # noqa: F401
        finally:
            sys.path.remove(folder)


def make(environment: Mapping[str, str]) -> Session:
    """A session whose gate is still closed, and which answers the program's own debugpy calls.

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
