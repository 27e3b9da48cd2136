"""debugpy, started when the first debugger comes and put to rest when the last has left."""

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

from . import child_environment, forks, garbage_collection, greenlets, imports, tracing
from .adapter import Adapter, AdapterFailed
from .errors import file_of
from .threads import start_untraced

#: The oldest debugpy that this code has been written for.
OLDEST = (1, 8)
#: Seconds that pydevd may take to notice that its adapter has gone.
ENDING_SECONDS = 5.0
#: Seconds that pydevd may take to notice that a debugger has left.
LEAVING_SECONDS = 1.0
#: Seconds between looks at whether a debugger has attached.
POLL_SECONDS = 0.01


def _server() -> Any:
    """The inner side of debugpy, imported late: it brings pydevd with it."""
    from debugpy.server import api

    return api


def _threads(pydevd: Any) -> List[threading.Thread]:
    """The threads by which a pydevd speaks with its adapter; none without one."""
    found = [getattr(pydevd, name, None) for name in ("reader", "writer")]
    return [thread for thread in found if isinstance(thread, threading.Thread)]


def _prepare() -> None:
    """Make this process ready for pydevd to be imported."""
    # It warns of frozen modules on standard error; whoever debugs knows.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    forks.untrace_children()
    garbage_collection.pause_while_reading_frames()


def _takes_connection() -> bool:
    """Whether this version of pydevd can be connected to an adapter like this."""
    import pydevd

    return set(_CONNECTING) | {"ppid"} <= set(inspect.signature(pydevd.settrace).parameters)


def _adapters_environment() -> Dict[str, str]:
    """What keeps the program's modules from debugpy's adapter, which is a Python process of its own."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _trace_nothing(*_: Any, **__: Any) -> None:
    """In place of what has a thread traced for a pydevd that has ended."""


def _name_files(trace: Any) -> None:
    """Have pydevd show the file of functions that have been sent here by value, which it would hide as a library's."""
    names = {}
    while trace is not None:
        name, file = trace.tb_frame.f_code.co_filename, file_of(trace.tb_frame)
        if name.startswith("<") and name not in ("<string>", "<stdin>") and not name.startswith("<frozen ") and file:
            names[name] = file
        trace = trace.tb_next
    try:
        import pydevd_file_utils

        for name, file in names.items():
            found = pydevd_file_utils.get_abs_path_real_path_and_base_from_file(file)
            pydevd_file_utils.NORM_PATHS_AND_BASE_CONTAINER[name] = found
    except (ImportError, AttributeError):
        pass  # An unknown pydevd.


def _hidden_files() -> Tuple[str, ...]:
    """Files of this package that pydevd is to leave alone, as it does with its own: the program's code calls them."""
    keeper = os.path.join(os.path.dirname(os.path.abspath(__file__)), "failed_requests.py")
    return (*forks.FILES, *{keeper, os.path.realpath(keeper)})


#: What pydevd has to understand to be connected to an adapter that this program has started.
_CONNECTING = {
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
    """The debugpy of this process. All methods but the properties belong to one thread at a time."""

    def __init__(self) -> None:
        import debugpy

        version = re.match(r"(\d+)\.(\d+)", getattr(debugpy, "__version__", ""))
        if version and (int(version[1]), int(version[2])) < OLDEST:
            raise ImportError("debugpy {} is older than {}.{}".format(debugpy.__version__, *OLDEST))
        self._debugpy = debugpy
        self._listen: Callable[..., Tuple[str, int]] = debugpy.listen
        #: Where the gate listens; the adapter is told the port.
        self.gate: Tuple[str, int] = ("127.0.0.1", 0)
        #: The process of debugpy's adapter; where it cannot be one of ours, the address at which debugpy's own listens.
        self._adapter: Optional[Adapter] = None
        self._address: Optional[Tuple[str, int]] = None
        self._resting = False
        #: The last pydevd that was connected, which may have ended.
        self._last: Any = None
        #: One that is ending, and may still be about to trace threads.
        self._ending: Any = None
        #: Whether a forked child forgets it; a gate sees to that where there is one.
        self._watches_forks = False
        #: How often debugpy has been started, which tells one adapter from the next.
        self._number = 0

    @property
    def is_started(self) -> bool:
        """Whether debugpy has been started in this process."""
        return self._adapter is not None or self._address is not None

    def ensure_started(self, alone: bool) -> int:
        """Start debugpy, or take it out of its rest.

        Args:
            alone: Whether nobody else is attached or attaching, as far as is known.

        Returns:
            The number of the adapter that runs now.

        Raises:
            Exception: Whatever debugpy raises when it cannot start.
        """
        if self.is_started and not self._is_sound(alone):
            # Something that a debugger has sent has ended pydevd, or keeps it from noticing that its debugger has left.
            self.reset()
        if not self.is_started:
            self._start()
            self._number += 1
            return self._number
        if alone:
            # A step that the last debugger has asked for and not awaited would stop the program for the next one.
            tracing.forget_steps()
        if self._resting:
            tracing.trace()
            self._resting = False
        return self._number

    def _is_sound(self, alone: bool) -> bool:
        """Whether pydevd is there, and free where it should be."""
        deadline = time.monotonic() + LEAVING_SECONDS
        while alone and self.is_attached() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        debugger = self._live()
        if debugger is None or (alone and self.is_attached()):
            return False
        # It may have ended of a message that it could not take, and nobody hears the adapter then.
        reader = getattr(debugger, "reader", None)
        return reader is None or bool(reader.is_alive())

    def connect(self, patience: float) -> socket.socket:
        """A new connection to debugpy's adapter, as a debugger's.

        Args:
            patience: Seconds that it may take.

        Raises:
            OSError: The adapter has ended, or debugpy has not been started.
        """
        if self._adapter is not None:
            return self._adapter.connect()
        if self._address is None:
            raise ConnectionError("debugpy has not been started")
        return socket.create_connection(self._address, timeout=patience)

    def make_ready(self) -> None:
        """Start debugpy, and put it to rest until a debugger comes; unless it has been started already."""
        if not self.is_started:
            self.ensure_started(True)
            self.restore_full_speed()

    def is_adapter_ending(self) -> bool:
        """Whether the adapter has ended, or does so within a moment; nobody is attached by it then."""
        return self._adapter is not None and self._adapter.ends_within(LEAVING_SECONDS)

    def _start(self) -> None:
        _prepare()
        adapter = self._start_adapter()
        try:
            with self._loaded() as api:
                if adapter is not None and self._join(api, adapter):
                    self._adapter, adapter = adapter, None
                    return
                settings: Dict[str, Any] = {"subProcess": False}
                if "PYTHONPATH" in os.environ and "pythonEnv" in getattr(api, "_config", ()):
                    settings["pythonEnv"] = _adapters_environment()
                api.configure(**settings)
                self._address = self._listen(("127.0.0.1", 0))
        finally:
            if adapter is not None:
                adapter.end()

    @contextmanager
    def _loaded(self) -> Iterator[Any]:
        """debugpy.server.api, with pydevd put right and no session left in it; imports are its own meanwhile."""
        if "pydevd" in sys.modules:
            self._clean_up()
        # Its import puts a breakpoint() in place that pauses even with nobody attached.
        hook = sys.breakpointhook
        with imports.own, greenlets.supported():
            api = _server()
            sys.breakpointhook = hook
            # Not before: most programs are never debugged.
            from . import pydevd_patches, summaries

            pydevd_patches.patch_pydevd(api)
            summaries.register(os.environ)
            yield api

    def _folder(self) -> str:
        """The folder of debugpy's package."""
        return os.path.dirname(os.path.abspath(self._debugpy.__file__))

    def _start_adapter(self) -> Optional[Adapter]:
        """Begin to start the adapter, which gets ready while this process imports pydevd."""
        try:
            with child_environment.without_debuggee():
                return Adapter(os.path.dirname(self._folder()), _adapters_environment(), self.gate[1])
        except AdapterFailed:
            return None

    def _join(self, api: Any, adapter: Adapter) -> bool:
        """Connect pydevd to the adapter; False where this debugpy is not known to take it."""
        if not _takes_connection():
            return False
        try:
            adapter.wait_until_ready()
        except AdapterFailed:
            return False
        self._connect_pydevd(api, adapter.pydevd_endpoint)
        return True

    def _connect_pydevd(self, api: Any, pydevd_endpoint: Tuple[int, str, str], **more: Any) -> None:
        # Children are told by this program, not by pydevd, which would keep those waiting that nobody attends to.
        api.configure(subProcess=False)
        settings = dict(_CONNECTING, **more)
        settings["dont_trace_start_patterns"] = _hidden_files()
        if getattr(api, "hide_debugpy_internals", lambda: True)():
            settings["dont_trace_start_patterns"] = (self._folder(), *_hidden_files())
            settings["dont_trace_end_patterns"] = ("debugpy_launcher.py",)
        port, settings["access_token"], settings["client_access_token"] = pydevd_endpoint
        api._settrace(host="127.0.0.1", port=port, **settings)
        self._last = self._live()
        # A second start is refused by the program's own debugpy.listen, too.
        api.listen.called = True

    def pydevd_endpoint(self) -> Optional[Tuple[int, str, str]]:
        """How a child's pydevd connects to this process's adapter: its port, what to say to it, and what it says.

        Returns:
            None where debugpy has not been started, or its adapter is not one of ours.
        """
        adapter = self._adapter
        return None if adapter is None else adapter.pydevd_endpoint

    def join_adapter(self, port: int, token: str, client_token: str, parent: int) -> None:
        """In a child process: become one that a debugger can attach to, by the adapter of another.

        Args:
            port: The adapter's port for pydevd.
            token: What pydevd has to say to the adapter.
            client_token: What the adapter has to say to pydevd.
            parent: The process whose debugger is told of this one.

        Raises:
            Exception: Whatever debugpy raises when it cannot start.
        """
        self.leave_adapter()
        _prepare()
        if not self._watches_forks:
            self._watches_forks = True
            os.register_at_fork(after_in_child=self.clear_after_fork)
        with self._loaded() as api:
            if not _takes_connection():
                raise RuntimeError("this version of debugpy is not known")
            self._connect_pydevd(api, (port, token, client_token), ppid=parent)
        self._address = ("127.0.0.1", port)

    def leave_adapter(self) -> None:
        """In a child process: be connected no more, at full speed."""
        if not self.is_started:
            return
        left = self._live()
        if left is not None:
            left.dispose_and_kill_all_pydevd_threads(wait=False)
            # Its threads, when they end, end whichever session there is by then.
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
        """Give the program its full speed back; False while a debugger is still attached."""
        if self._ending is not None and not self.is_started:
            if any(thread.is_alive() for thread in _threads(self._ending)):
                return False
            self._ending = None
            if tracing.CAN_UNTRACE:
                tracing.untrace()
        if not self.is_started or self._resting:
            return True
        if self.is_attached():
            return False
        if tracing.CAN_UNTRACE:
            tracing.untrace()
            self._resting = True
        return True

    def reset(self, adapter: Optional[int] = None) -> None:
        """End the adapter, and with it whatever a debugger has left behind; the next one begins anew.

        Args:
            adapter: The number of the adapter; by default the one that runs now.
        """
        if adapter not in (None, self._number):
            return
        if self._adapter is not None:
            self._adapter.end()
            left = self._live()
            if left is not None:
                # It would notice by itself, but wait half a second for its own thread to end.
                left.dispose_and_kill_all_pydevd_threads(wait=False)
        self.drop_adapter()

    def drop_adapter(self, adapter: Optional[int] = None) -> None:
        """Begin anew with the next debugger: the adapter has ended, and nothing speaks to pydevd.

        Args:
            adapter: The number of the adapter; by default the one that runs now.
        """
        if not self.is_started or adapter not in (None, self._number):
            return
        self._adapter = self._address = None
        if self._last is not None:
            # A thread that was about to be traced for it would trace itself for it later, and for no other then.
            self._last.enable_tracing = _trace_nothing
            self._ending, self._last = self._last, None
        # debugpy refuses a second call, since its adapter is meant to live as long as the program.
        _server().listen.called = False
        if tracing.CAN_UNTRACE:
            tracing.untrace()
        self._resting = False

    def drop_lost_adapter(self) -> None:
        """Do as :meth:`drop_adapter`, after the program has closed every descriptor and may have reused the numbers."""
        if self._adapter is not None:
            self._adapter.lose()
        self.drop_adapter()

    def _clean_up(self) -> None:
        """Make room for a new pydevd, where the one before has lost its adapter."""
        import pydevd

        for thread in _threads(self._ending):
            thread.join(LEAVING_SECONDS)
        self._ending = None
        # It takes itself down, unless a message has ended its thread; until then a new session would join the old one.
        if not self._has_ended_within(LEAVING_SECONDS):
            left = self._live()
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
        while self._live() is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    @staticmethod
    def _live() -> Any:
        pydevd = sys.modules.get("pydevd")
        return None if pydevd is None else pydevd.get_global_debugger()

    def wait(self, over: Callable[[], bool]) -> bool:
        """Hold the calling thread until a debugger has sent its configuration.

        Args:
            over: Asked several times a second whether to give up.

        Returns:
            Whether a debugger is attached.
        """
        # Not debugpy.wait_for_client: its `cancel` ends the wait that began last, in
        # whichever thread, and belongs to no wait until that has begun. Nor what that calls:
        # it does pydevd's work, which its own threads do as well, and may block in doing so.
        while not self.is_attached() and not over():
            time.sleep(POLL_SECONDS)
        return self.is_attached()

    def stop_here(self, frame: Any) -> None:
        """Pause in ``frame``, as a ``breakpoint()`` in it would."""
        _server()._settrace(
            suspend=True, trace_only_current_thread=True, patch_multiprocessing=False, stop_at_frame=frame
        )

    def stops_at_uncaught(self) -> bool:
        """Whether the attached debugger has asked to stop at uncaught exceptions, so that it has seen them."""
        debugger = self._live()
        return debugger is not None and bool(debugger.break_on_uncaught_exceptions)

    def stop_at_error(self, error: Tuple[Any, Any, Any]) -> None:
        """Pause in the frame in which an exception was raised, though it has been left.

        Args:
            error: The exception, as ``sys.exc_info()`` gives it.
        """
        _name_files(error[2])
        debugger = self._live()
        thread = threading.current_thread()
        state = debugger.set_additional_thread_info(thread)
        over = threading.Event()

        def watch() -> None:
            # A debugger that has left before the stop was there would never end it.
            while not over.wait(0.2):
                if not self.is_attached():
                    state.pydev_step_cmd, state.pydev_state = -1, 1

        start_untraced(watch, "azureml-debuggee-watch")
        try:
            if hasattr(debugger, "trigger_exception_handler"):
                debugger.trigger_exception_handler(error, as_uncaught=False)
                return
            # Before debugpy 1.8.22: what that does.
            frame, trace = None, error[2]
            while trace is not None:
                if debugger.get_file_type(trace.tb_frame) != debugger.PYDEV_FILE:
                    frame = trace.tb_frame
                trace = trace.tb_next
            if frame is not None:
                state.is_tracing += 1
                try:
                    debugger.do_stop_on_unhandled_exception(thread, frame, None, error)
                finally:
                    state.is_tracing -= 1
        finally:
            over.set()

    def clear_after_fork(self) -> None:
        """Make a forked child a plain process: its debugger stayed with the parent."""
        if self._adapter is not None:
            self._adapter.close_here()
        self._adapter = self._address = None
        self._resting = False
        # Not imported: at the moment of the fork another thread may have been doing that.
        try:
            debugger = self._live()
            if debugger is None:
                return
            import pydevd

            for thread in (debugger.reader, debugger.writer):
                # Else the adapter would outlive the parent for as long as the child lives.
                if thread is not None and thread.sock is not None:
                    thread.sock.close()
            # A breakpoint inherited from the parent would hang the child for good.
            pydevd.settrace_forked(setup_tracing=False)
            if tracing.TRACES:
                sys.settrace(None)
                threading.settrace(None)
            else:
                from _pydevd_sys_monitoring import pydevd_sys_monitoring

                pydevd_sys_monitoring.stop_monitoring(all_threads=True)
        except Exception:
            # The child must run on whatever an unknown version of pydevd does here.
            pass
