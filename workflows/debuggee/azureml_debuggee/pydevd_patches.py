"""What pydevd keeps its debugger waiting for, and what it then loses: put right in the running process.

As of debugpy 1.8.22, each found by what it looks like, and left alone where it looks different:

* Each message goes out in two parts without TCP_NODELAY: the system keeps the second back until the first
  has been confirmed, 40 ms later.
* A thread that is to go on is not woken. ``_update_stepping_info`` wakes whichever thread its loop has ended
  with, since the loop's variable has the name of its argument; the right one looks for itself every 200 ms. Of
  two commands that are sent to a paused thread at once, it takes the second at that pace, too.
* The answer to `continue` waits until a paused thread has left, and the adapter does nothing until it has that
  answer. A thread that reaches a breakpoint before pauses them all anew, and the session is dead.
* A thread that has reached a breakpoint, but has not paused yet when the program is told to go on, pauses the
  others and goes on itself. Nobody is told. Nor is anybody, before suspend_threads_lock came, where two threads
  reach one at the same moment: each takes the other for the one that tells.
* A new connection is followed by a sleep of 0.1 s.
* A program that closes all of its descriptors closes the connection's, too. pydevd goes on with the number, which
  may be a file or a connection of the program's by then.
* debugpy describes its environment for its log, the metadata of every installed package included, even where
  it keeps no log.

What is changed are pydevd's classes and functions in memory: forked children have inherited it, too.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from . import descriptors

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

#: Seconds that resuming all threads may take.
_RESUMING_SECONDS = 1.0
#: Seconds that pydevd sleeps after a new connection.
_CONNECTED_SECONDS = 0.1

#: Whether this has been done in this process.
_done = False
#: Set but while all threads are being resumed.
_settled = threading.Event()
_settled.set()


def _after_fork() -> None:
    # In the parent another thread may have been about to.
    global _settled
    _settled = threading.Event()
    _settled.set()


def patch_pydevd(api: Any) -> None:
    """Change pydevd, which has been imported.

    Args:
        api: The module debugpy.server.api.
    """
    global _done
    if _done:
        return
    _done = True
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
    for change in (_describe_nothing, _connect_at_once, _tell_every_stop):
        try:
            change(api)
        except Exception:
            pass  # An unknown version: slower, no worse.


def _describe_nothing(api: Any) -> None:
    """Begin no log where none is kept."""
    log, begin = api.log, api.ensure_logging
    if log.log_dir is None and "info" not in log.stderr.levels and begin.ensured is False:
        begin.ensured = True


def _connect_at_once(api: Any) -> None:
    """Prepare each connection of pydevd's, and what its threads wait for."""
    import pydevd

    kind = pydevd.PyDB
    connect = kind.initialize_network

    def initialize_network(self: Any, sock: Any, *arguments: Any, **keywords: Any) -> None:
        sock = descriptors.as_own_socket(sock)
        for prepare in (_send_at_once, _wake_at_once):
            try:
                prepare(self, sock)
            except Exception:
                pass
        clock = getattr(pydevd, "time", None)
        if getattr(clock, "sleep", None) is not time.sleep:
            connect(self, sock, *arguments, **keywords)
            return
        pydevd.time = _Clock(clock)
        try:
            connect(self, sock, *arguments, **keywords)
        finally:
            pydevd.time = clock

    kind.initialize_network = initialize_network


class _Clock:
    """The module time, but for the one sleep after a connection has been made."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def sleep(self, seconds: float) -> None:
        """As the module's."""
        # The threads that it is for have started by now: Thread.start() waits for that.
        if seconds != _CONNECTED_SECONDS or threading.get_ident() != self._thread:
            self._clock.sleep(seconds)


def _send_at_once(debugger: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _wake_at_once(debugger: Any, sock: Any) -> None:
    """Let paused threads wait for what concerns them."""
    events = getattr(debugger, "_thread_events", None)
    # There is none before debugpy 1.8.9, whose threads look every 10 ms.
    if events is not None and not isinstance(events, _WakeEvents):
        debugger._thread_events = _WakeEvents(events.default_factory, debugger._cmd_queue)


class _WakeEvents(dict):  # type: ignore[type-arg]
    """By a thread's id, what it waits for while it is paused."""

    def __init__(self, event: Any, queues: "Dict[str, Any]") -> None:
        super().__init__()
        from _pydevd_bundle.pydevd_constants import STATE_SUSPEND

        class WakeEvent(event):  # type: ignore[misc]
            """Is set as well while there is something to do; its thread clears it after each wait."""

            def __init__(self, thread_id: str) -> None:
                super().__init__()
                self._thread_id = thread_id

            def wait(self, timeout: Any = None) -> bool:
                info = getattr(threading.current_thread(), "additional_info", None)
                if not queues[self._thread_id].empty() or getattr(info, "pydev_state", None) != STATE_SUSPEND:
                    return True
                return bool(super().wait(timeout))

        self._make_event: "Callable[[str], Any]" = WakeEvent

    def __missing__(self, thread_id: str) -> Any:
        return self.setdefault(thread_id, self._make_event(thread_id))


def _tell_every_stop(api: Any) -> None:
    """Have each stop told of, and each `continue` answered."""
    import pydevd
    from _pydevd_bundle import pydevd_api, pydevd_comm, pydevd_thread_lifecycle

    notifications = pydevd.ThreadsSuspendedSingleNotification
    get_debugger, notify = pydevd.get_global_debugger, notifications.notify_thread_suspended
    suspend, by_another, paused = pydevd.PyDB.set_suspend, pydevd.CMD_THREAD_SUSPEND, pydevd.STATE_SUSPEND
    known = {"_last_suspend_notification_time", "_suspend_time_request"} <= set(notifications.__slots__)
    if not known or not hasattr(notifications, "add_on_resumed_callback") or not hasattr(pydevd.PyDB, "is_attached"):
        return
    resume = pydevd_thread_lifecycle.resume_threads

    def resume_threads(*arguments: Any, **keywords: Any) -> None:
        debugger = get_debugger()
        settled = _settled
        settled.clear()
        try:
            if debugger is not None:
                # Whoever pauses from now on belongs to no stop that has been told of.
                told = debugger.threads_suspended_single_notification._last_suspend_notification_time
                debugger.azureml_debuggee_resumed = told
            resume(*arguments, **keywords)
        finally:
            settled.set()
            events = getattr(debugger, "_thread_events", None)
            if isinstance(events, _WakeEvents):
                for event in list(events.values()):
                    event.set()

    def add_on_resumed_callback(self: Any, answer: "Callable[[], None]") -> None:
        answer()

    def set_suspend(self: Any, thread: Any, reason: int, *arguments: Any, **keywords: Any) -> Any:
        if thread is threading.current_thread():
            # Kept here, since another thread that stops at the same moment writes its own reason over it.
            vars(thread)["azureml_debuggee_reason"] = reason
        return suspend(self, thread, reason, *arguments, **keywords)

    def notify_thread_suspended(self: Any, thread_id: str, thread: Any, reason: int) -> Any:
        debugger = get_debugger()
        own = vars(thread).pop("azureml_debuggee_reason", by_another)
        if debugger is not None and own != by_another and self.multi_threads_single_notification:
            _settled.wait(_RESUMING_SECONDS)
            resumed = getattr(debugger, "azureml_debuggee_resumed", None)
            is_late = resumed == self._last_suspend_notification_time >= self._suspend_time_request
            if is_late or thread.additional_info.pydev_state != paused:
                # It has been resumed before it has paused.
                if debugger.is_attached():
                    # It stops anew, and the others with it.
                    suspend(debugger, thread, own, suspend_other_threads=True)
                else:
                    # By a debugger that left: those go on, too, that it has suspended meanwhile.
                    resume("*")
            reason = own
        return notify(self, thread_id, thread, reason)

    modules = [
        module
        for module in (pydevd_thread_lifecycle, pydevd_api, pydevd_comm)
        if getattr(module, "resume_threads", None) is resume
    ]
    for module in modules:
        module.resume_threads = resume_threads
    notifications.add_on_resumed_callback = add_on_resumed_callback
    notifications.notify_thread_suspended = notify_thread_suspended
    pydevd.PyDB.set_suspend = set_suspend
