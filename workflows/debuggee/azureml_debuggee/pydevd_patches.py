"""Patches pydevd in the running process, where it delays its debugger or loses events.

These are the faults as of debugpy 1.8.22. A patch is skipped if the code that it changes looks different:

* Each message goes out in two parts without TCP_NODELAY: the system delays the second until the first
  has been acknowledged, 40 ms later.
* A thread that is resumed is not woken. ``_update_stepping_info`` wakes whichever thread its loop has ended
  with, since the loop's variable has the name of its argument; the right thread polls every 200 ms. If a paused
  thread is sent two commands at once, it handles the second at that pace, too.
* The answer to `continue` is sent only when a paused thread has resumed, and the adapter does nothing until it has
  that answer. If a thread reaches a breakpoint before, all threads pause again, and the session hangs.
* A thread that has reached a breakpoint, but has not paused yet when the program is resumed, pauses the
  others and runs on itself, and no stop is reported. In versions without suspend_threads_lock, no stop is reported
  either if two threads reach a breakpoint at the same moment: each expects the other to report it.
* A new connection is followed by a sleep of 0.1 s.
* A program that closes all of its descriptors closes the connection's, too. pydevd continues to use the number,
  which may stand for a file or a connection of the program by then.
* debugpy describes its environment for its log, including the metadata of every installed package, even if
  it writes no log.

The patches change pydevd's classes and functions in memory, so forked children inherit them.
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

#: Whether pydevd has been patched in this process.
_is_patched = False
#: Cleared while all threads are being resumed.
_not_resuming = threading.Event()
_not_resuming.set()


def _after_fork() -> None:
    # Another thread of the parent may have been resuming threads.
    global _not_resuming
    _not_resuming = threading.Event()
    _not_resuming.set()


def patch_pydevd(api: Any) -> None:
    """Patch pydevd, which has been imported.

    Args:
        api: The module debugpy.server.api.
    """
    global _is_patched
    if _is_patched:
        return
    _is_patched = True
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)
    for change in (_skip_description, _connect_at_once, _report_every_stop):
        try:
            change(api)
        except Exception:
            pass  # An unknown version, which stays slower.


def _skip_description(api: Any) -> None:
    """Keep debugpy from describing its environment if it writes no log."""
    log, begin = api.log, api.ensure_logging
    if log.log_dir is None and "info" not in log.stderr.levels and begin.ensured is False:
        begin.ensured = True


def _connect_at_once(api: Any) -> None:
    """Remove the delays from each connection of pydevd and from its threads' waits."""
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
    """The module time without the one sleep after a connection has been made."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)

    def sleep(self, seconds: float) -> None:
        """Do as `time.sleep`, except for that sleep."""
        # The sleep waits for threads that have started by now: Thread.start() waits for that.
        if seconds != _CONNECTED_SECONDS or threading.get_ident() != self._thread:
            self._clock.sleep(seconds)


def _send_at_once(debugger: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _wake_at_once(debugger: Any, sock: Any) -> None:
    """Have paused threads woken by their own events."""
    events = getattr(debugger, "_thread_events", None)
    # debugpy before 1.8.9 has no such events; its threads poll every 10 ms.
    if events is not None and not isinstance(events, _WakeEvents):
        debugger._thread_events = _WakeEvents(events.default_factory, debugger._cmd_queue)


class _WakeEvents(dict):  # type: ignore[type-arg]
    """The events that paused threads wait for, by thread id."""

    def __init__(self, event: Any, queues: "Dict[str, Any]") -> None:
        super().__init__()
        from _pydevd_bundle.pydevd_constants import STATE_SUSPEND

        class WakeEvent(event):  # type: ignore[misc]
            """An event whose wait also ends while its thread has something to do. The thread clears it afterwards."""

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


def _report_every_stop(api: Any) -> None:
    """Have each stop reported, and each `continue` answered at once."""
    import pydevd

    notifications = pydevd.ThreadsSuspendedSingleNotification
    known = {"_last_suspend_notification_time", "_suspend_time_request"} <= set(notifications.__slots__)
    needed = (
        (notifications, ("add_on_resumed_callback", "notify_thread_suspended")),
        (pydevd.PyDB, ("is_attached", "set_suspend")),
        (pydevd, ("get_global_debugger", "CMD_THREAD_SUSPEND", "STATE_SUSPEND")),
    )
    # Either everything can be patched, or nothing is.
    if not known or not all(hasattr(owner, name) for owner, names in needed for name in names):
        return
    _record_stop_reasons(pydevd, notifications, _announce_resuming(pydevd.get_global_debugger))

    def add_on_resumed_callback(self: Any, answer: "Callable[[], None]") -> None:
        answer()

    notifications.add_on_resumed_callback = add_on_resumed_callback


def _announce_resuming(get_debugger: "Callable[[], Any]") -> "Callable[..., None]":
    """Have `resume_threads` record which stop it ends, and wake every paused thread.

    Returns:
        The original function.
    """
    from _pydevd_bundle import pydevd_api, pydevd_comm, pydevd_thread_lifecycle

    resume: "Callable[..., None]" = pydevd_thread_lifecycle.resume_threads

    def resume_threads(*arguments: Any, **keywords: Any) -> None:
        debugger = get_debugger()
        not_resuming = _not_resuming
        not_resuming.clear()
        try:
            if debugger is not None:
                # A thread that pauses from now on does not belong to a stop that has been reported.
                reported = debugger.threads_suspended_single_notification._last_suspend_notification_time
                debugger.azureml_debuggee_resumed = reported
            resume(*arguments, **keywords)
        finally:
            not_resuming.set()
            events = getattr(debugger, "_thread_events", None)
            if isinstance(events, _WakeEvents):
                for event in list(events.values()):
                    event.set()

    for module in (pydevd_thread_lifecycle, pydevd_api, pydevd_comm):
        if getattr(module, "resume_threads", None) is resume:
            module.resume_threads = resume_threads
    return resume


def _record_stop_reasons(pydevd: Any, notifications: Any, resume: "Callable[..., None]") -> None:
    """Have each thread report its own stop, even if another thread stops or resumes at the same moment."""
    get_debugger, notify = pydevd.get_global_debugger, notifications.notify_thread_suspended
    suspend, by_another, paused = pydevd.PyDB.set_suspend, pydevd.CMD_THREAD_SUSPEND, pydevd.STATE_SUSPEND

    def set_suspend(self: Any, thread: Any, reason: int, *arguments: Any, **keywords: Any) -> Any:
        if thread is threading.current_thread():
            # Kept here, since another thread that stops at the same moment overwrites the reason.
            vars(thread)["azureml_debuggee_reason"] = reason
        return suspend(self, thread, reason, *arguments, **keywords)

    def notify_thread_suspended(self: Any, thread_id: str, thread: Any, reason: int) -> Any:
        debugger = get_debugger()
        own = vars(thread).pop("azureml_debuggee_reason", by_another)
        if debugger is not None and own != by_another and self.multi_threads_single_notification:
            _not_resuming.wait(_RESUMING_SECONDS)
            resumed = getattr(debugger, "azureml_debuggee_resumed", None)
            is_late = resumed == self._last_suspend_notification_time >= self._suspend_time_request
            if is_late or thread.additional_info.pydev_state != paused:
                # The thread was resumed before it had paused.
                if debugger.is_attached():
                    # It stops again, and the others with it.
                    suspend(debugger, thread, own, suspend_other_threads=True)
                else:
                    # The debugger has left: also resume the threads that this one has suspended meanwhile.
                    resume("*")
            reason = own
        return notify(self, thread_id, thread, reason)

    notifications.notify_thread_suspended = notify_thread_suspended
    pydevd.PyDB.set_suspend = set_suspend
