"""Starts debugpy for the first debugger, and restores the program's full speed when the last one has left."""

from __future__ import annotations

import inspect
import os
import re
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from . import child_environment, exception_stops, forks, garbage_collection, greenlets, imports, tracing
from .adapter import Adapter, AdapterFailed

#: The oldest debugpy that this code supports.
OLDEST = (1, 8)
#: Seconds that pydevd may take to notice that its adapter has ended.
ENDING_SECONDS = 5.0
#: Seconds that pydevd may take to notice that a debugger has left.
LEAVING_SECONDS = 1.0
#: Seconds between checks whether a debugger has attached.
POLL_SECONDS = 0.01


def _server_api() -> Any:
    """The server API of debugpy, imported late because it imports pydevd."""
    from debugpy.server import api

    return api


def _threads(pydevd: Any) -> List[threading.Thread]:
    """The threads by which a pydevd talks to its adapter; empty for None."""
    found = [getattr(pydevd, name, None) for name in ("reader", "writer")]
    return [thread for thread in found if isinstance(thread, threading.Thread)]


def _prepare() -> None:
    """Prepare this process for the import of pydevd."""
    # Without this it prints a warning about frozen modules to standard error.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    forks.untrace_children()
    garbage_collection.pause_while_reading_frames()


def _accepts_connection() -> bool:
    """Whether this version of pydevd can be connected with an adapter that this program has started."""
    import pydevd

    return set(_SETTRACE_ARGUMENTS) | {"ppid"} <= set(inspect.signature(pydevd.settrace).parameters)


def _adapter_environment() -> Dict[str, str]:
    """The environment of debugpy's adapter process, which must not import the program's modules."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _trace_nothing(*_: Any, **__: Any) -> None:
    """Replaces the function by which an ended pydevd would trace a thread."""


def _hidden_files() -> Tuple[str, ...]:
    """Files of this package that the program's code calls and that pydevd must not trace, like its own files."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "failed_requests.py")
    return (*forks.FILES, *{path, os.path.realpath(path)})


#: The arguments that pydevd has to support to be connected with an adapter that this program has started.
_SETTRACE_ARGUMENTS = {
    "suspend": False,
    "wait_for_ready_to_run": False,
    "block_until_connected": True,
    "patch_multiprocessing": False,
    "dont_trace_start_patterns": (),
    "dont_trace_end_patterns": (),
    "access_token": None,
    "client_access_token": None,
}


class Debugger:
    """The debugpy of this process. All methods but the properties may be called by one thread at a time only."""

    def __init__(self) -> None:
        import debugpy

        version = re.match(r"(\d+)\.(\d+)", getattr(debugpy, "__version__", ""))
        if version and (int(version[1]), int(version[2])) < OLDEST:
            raise ImportError("debugpy {} is older than {}.{}".format(debugpy.__version__, *OLDEST))
        self._debugpy = debugpy
        self._listen: Callable[..., Tuple[str, int]] = debugpy.listen
        #: The gate's address; the adapter gets the port.
        self.gate: Tuple[str, int] = ("127.0.0.1", 0)
        #: The adapter's process that this program has started; or the address of an adapter that debugpy has started.
        self._adapter: Optional[Adapter] = None
        self._address: Optional[Tuple[str, int]] = None
        self._is_untraced = False
        #: The last pydevd that was connected, which may have ended.
        self._last: Any = None
        #: A pydevd that is ending, and may still be about to trace threads.
        self._ending: Any = None
        #: Whether a forked child drops it; a gate does that as well, if there is one.
        self._watches_forks = False
        #: How often debugpy has been started: the number of the current adapter.
        self._number = 0

    @property
    def is_started(self) -> bool:
        """Whether debugpy has been started in this process."""
        return self._adapter is not None or self._address is not None

    def ensure_started(self, alone: bool) -> int:
        """Start debugpy, or have a running one trace the program again.

        Args:
            alone: Whether no other debugger is attached or attaching, as far as is known.

        Returns:
            The number of the current adapter.

        Raises:
            Exception: Whatever debugpy raises when it cannot start.
        """
        if self.is_started and not self._is_sound(alone):
            # A debugger's message has ended pydevd, or keeps it from noticing that its debugger has left.
            self.reset()
        if not self.is_started:
            self._start()
            self._number += 1
            return self._number
        if alone:
            # A step that the last debugger requested and did not wait for would stop the program for the next one.
            tracing.cancel_steps()
        if self._is_untraced:
            tracing.trace()
            self._is_untraced = False
        return self._number

    def _is_sound(self, alone: bool) -> bool:
        """Whether pydevd runs, and no debugger is attached to it if ``alone`` is true."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while alone and self.is_attached() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        debugger = self._current_pydevd()
        if debugger is None or (alone and self.is_attached()):
            return False
        # An invalid message may have ended its reader; nothing reads from the adapter then.
        reader = getattr(debugger, "reader", None)
        return reader is None or bool(reader.is_alive())

    def connect(self, patience: float) -> socket.socket:
        """Connect to debugpy's adapter as a debugger does.

        Args:
            patience: Seconds that this may take.

        Raises:
            OSError: The adapter has ended, or debugpy has not been started.
        """
        if self._adapter is not None:
            return self._adapter.connect()
        if self._address is None:
            raise ConnectionError("debugpy has not been started")
        return socket.create_connection(self._address, timeout=patience)

    def make_ready(self) -> None:
        """Start debugpy with the program at full speed, unless it has been started already."""
        if not self.is_started:
            self.ensure_started(True)
            self.restore_full_speed()

    def is_adapter_ending(self) -> bool:
        """Whether the adapter has ended, or does so within a second; no debugger is attached then."""
        return self._adapter is not None and self._adapter.ends_within(LEAVING_SECONDS)

    def _start(self) -> None:
        _prepare()
        adapter = self._start_adapter()
        try:
            with self._load_api() as api:
                if adapter is not None and self._connect_to_adapter(api, adapter):
                    self._adapter, adapter = adapter, None
                    return
                settings: Dict[str, Any] = {"subProcess": False}
                if "PYTHONPATH" in os.environ and "pythonEnv" in getattr(api, "_config", ()):
                    settings["pythonEnv"] = _adapter_environment()
                api.configure(**settings)
                self._address = self._listen(("127.0.0.1", 0))
        finally:
            if adapter is not None:
                adapter.end()

    @contextmanager
    def _load_api(self) -> Iterator[Any]:
        """debugpy.server.api, with pydevd patched and without an old session; imports inside are the debuggee's own."""
        if "pydevd" in sys.modules:
            self._end_old_session()
        # Importing it replaces breakpoint() by a function that pauses even if no debugger is attached.
        hook = sys.breakpointhook
        with imports.own, greenlets.gevent_support():
            api = _server_api()
            sys.breakpointhook = hook
            # Imported here, since most programs are never debugged.
            from . import pydevd_patches, summaries

            pydevd_patches.patch_pydevd(api)
            summaries.register(os.environ)
            yield api

    def _folder(self) -> str:
        """The folder of debugpy's package."""
        return os.path.dirname(os.path.abspath(self._debugpy.__file__))

    def _start_adapter(self) -> Optional[Adapter]:
        """Start the adapter, which initializes while this process imports pydevd; None if that is not possible."""
        try:
            with child_environment.without_debuggee():
                return Adapter(os.path.dirname(self._folder()), _adapter_environment(), self.gate[1])
        except AdapterFailed:
            return None

    def _connect_to_adapter(self, api: Any, adapter: Adapter) -> bool:
        """Connect pydevd with the adapter; False if this version of debugpy does not support it."""
        if not _accepts_connection():
            return False
        try:
            adapter.wait_until_ready()
        except AdapterFailed:
            return False
        self._connect_pydevd(api, adapter.pydevd_endpoint)
        return True

    def _connect_pydevd(self, api: Any, pydevd_endpoint: Tuple[int, str, str], **more: Any) -> None:
        # This program announces children, not pydevd, which would hold those that no debugger attaches to.
        api.configure(subProcess=False)
        settings = dict(_SETTRACE_ARGUMENTS, **more)
        settings["dont_trace_start_patterns"] = _hidden_files()
        if getattr(api, "hide_debugpy_internals", lambda: True)():
            settings["dont_trace_start_patterns"] = (self._folder(), *_hidden_files())
            settings["dont_trace_end_patterns"] = ("debugpy_launcher.py",)
        port, settings["access_token"], settings["client_access_token"] = pydevd_endpoint
        api._settrace(host="127.0.0.1", port=port, **settings)
        self._last = self._current_pydevd()
        # The program's own debugpy.listen then refuses a second start as well.
        api.listen.called = True

    def pydevd_endpoint(self) -> Optional[Tuple[int, str, str]]:
        """How a child's pydevd connects to this process's adapter: the port, pydevd's token, and the adapter's token.

        Returns:
            None if debugpy has not been started, or if debugpy has started the adapter itself.
        """
        adapter = self._adapter
        return None if adapter is None else adapter.pydevd_endpoint

    def join_adapter(self, port: int, token: str, client_token: str, parent: int) -> None:
        """In a child process: connect pydevd with the adapter of another process, so that a debugger can attach.

        Args:
            port: The adapter's port for pydevd.
            token: The token that pydevd has to send to the adapter.
            client_token: The token that the adapter has to send to pydevd.
            parent: The process whose debugger this one is announced to.

        Raises:
            Exception: Whatever debugpy raises when it cannot start.
        """
        self.leave_adapter()
        _prepare()
        if not self._watches_forks:
            self._watches_forks = True
            os.register_at_fork(after_in_child=self.clear_after_fork)
        with self._load_api() as api:
            if not _accepts_connection():
                raise RuntimeError("this version of debugpy is not known")
            self._connect_pydevd(api, (port, token, client_token), ppid=parent)
        self._address = ("127.0.0.1", port)

    def leave_adapter(self) -> None:
        """In a child process: disconnect from the adapter, and run at full speed."""
        if not self.is_started:
            return
        left = self._current_pydevd()
        if left is not None:
            left.dispose_and_kill_all_pydevd_threads(wait=False)
            # When its threads end, they end whatever session exists by then.
            for thread in _threads(left):
                thread.join(LEAVING_SECONDS)
        self.drop_adapter()

    def is_attached(self) -> bool:
        """Whether a debugger has attached and sent its configuration."""
        if not self.is_started:
            return False
        import pydevd

        return bool(pydevd._is_attached())

    def restore_full_speed(self) -> bool:
        """Restore the program's full speed; False while a debugger is still attached."""
        if self._ending is not None and not self.is_started:
            if any(thread.is_alive() for thread in _threads(self._ending)):
                return False
            self._ending = None
            if tracing.CAN_UNTRACE:
                tracing.untrace()
        if not self.is_started or self._is_untraced:
            return True
        if self.is_attached():
            return False
        if tracing.CAN_UNTRACE:
            tracing.untrace()
            self._is_untraced = True
        return True

    def reset(self, adapter: Optional[int] = None) -> None:
        """End the adapter, and with it any state that a debugger has left; the next one gets a new adapter.

        Args:
            adapter: The number of the adapter; by default the current one.
        """
        if adapter not in (None, self._number):
            return
        if self._adapter is not None:
            self._adapter.end()
            left = self._current_pydevd()
            if left is not None:
                # It would notice by itself, but would wait half a second for its own thread to end.
                left.dispose_and_kill_all_pydevd_threads(wait=False)
        self.drop_adapter()

    def drop_adapter(self, adapter: Optional[int] = None) -> None:
        """Drop the adapter, which has ended; the next debugger gets a new one.

        Args:
            adapter: The number of the adapter; by default the current one.
        """
        if not self.is_started or adapter not in (None, self._number):
            return
        self._adapter = self._address = None
        if self._last is not None:
            # Otherwise a thread that was about to be traced for this pydevd would trace itself for it later, and then
            # for no other.
            self._last.enable_tracing = _trace_nothing
            self._ending, self._last = self._last, None
        # debugpy refuses a second call, since it expects its adapter to live as long as the program.
        _server_api().listen.called = False
        if tracing.CAN_UNTRACE:
            tracing.untrace()
        self._is_untraced = False

    def drop_lost_adapter(self) -> None:
        """Do as :meth:`drop_adapter`, after the program has closed every descriptor and may have reused the numbers."""
        if self._adapter is not None:
            self._adapter.drop()
        self.drop_adapter()

    def _end_old_session(self) -> None:
        """End the previous session of pydevd, which has lost its adapter."""
        import pydevd

        for thread in _threads(self._ending):
            thread.join(LEAVING_SECONDS)
        self._ending = None
        # It ends by itself, unless a message has ended its thread. Until then a new session would join the old one.
        if not self._has_ended_within(LEAVING_SECONDS):
            left = self._current_pydevd()
            if left is not None:
                left.dispose_and_kill_all_pydevd_threads(wait=False)
            if not self._has_ended_within(ENDING_SECONDS):
                raise RuntimeError("pydevd does not end its last session")
        # A thread that was paused when the adapter ended would never pause again.
        for thread in threading.enumerate():
            info = getattr(thread, "additional_info", None)
            if info is not None:
                pydevd.remove_additional_info(info)
                thread.additional_info = None  # type: ignore[attr-defined]
        if not tracing.TRACES:
            from _pydevd_sys_monitoring import pydevd_sys_monitoring

            pydevd_sys_monitoring.reset_thread_local_info()

    def _has_ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._current_pydevd() is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    @staticmethod
    def _current_pydevd() -> Any:
        pydevd = sys.modules.get("pydevd")
        return None if pydevd is None else pydevd.get_global_debugger()

    def wait(self, is_over: Callable[[], bool]) -> bool:
        """Hold the calling thread until a debugger has sent its configuration.

        Args:
            is_over: Called every 10 ms; returns whether to stop waiting.

        Returns:
            Whether a debugger is attached.
        """
        # debugpy.wait_for_client is not used: its `cancel` ends the wait that began last, in
        # whichever thread, and has no effect before a wait has begun. What it calls is not used either:
        # that does the work of pydevd's threads, and may block.
        while not self.is_attached() and not is_over():
            time.sleep(POLL_SECONDS)
        return self.is_attached()

    def stop_here(self, frame: Any) -> None:
        """Pause in ``frame``, as a ``breakpoint()`` in it would."""
        _server_api()._settrace(
            suspend=True, trace_only_current_thread=True, patch_multiprocessing=False, stop_at_frame=frame
        )

    def stops_at_uncaught(self) -> bool:
        """Whether the attached debugger stops at uncaught exceptions itself, so that it has shown them already."""
        debugger = self._current_pydevd()
        return debugger is not None and bool(debugger.break_on_uncaught_exceptions)

    def stop_at_error(self, error: Tuple[Any, Any, Any]) -> None:
        """Pause in the frame in which an exception was raised, although the frame has ended.

        Args:
            error: The exception, as ``sys.exc_info()`` gives it.
        """
        exception_stops.stop(self._current_pydevd(), error, self.is_attached)

    def clear_after_fork(self) -> None:
        """Drop the debugger in a forked child: it stays with the parent."""
        if self._adapter is not None:
            self._adapter.close_after_fork()
        self._adapter = self._address = None
        self._is_untraced = False
        # pydevd is not imported here: another thread may have been importing it at the moment of the fork.
        try:
            debugger = self._current_pydevd()
            if debugger is None:
                return
            import pydevd

            for thread in (debugger.reader, debugger.writer):
                # Otherwise the adapter would live on after the parent for as long as the child lives.
                if thread is not None and thread.sock is not None:
                    thread.sock.close()
            # A breakpoint inherited from the parent would hang the child forever.
            pydevd.settrace_forked(setup_tracing=False)
            if tracing.TRACES:
                sys.settrace(None)
                threading.settrace(None)
            else:
                from _pydevd_sys_monitoring import pydevd_sys_monitoring

                pydevd_sys_monitoring.stop_monitoring(all_threads=True)
        except Exception:
            # The child must run on even if an unknown version of pydevd fails here.
            pass
