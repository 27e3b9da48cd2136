"""Admits a debugger only after the program has failed.

Until then nothing listens, debugpy is not imported, and the program runs at full speed. The exception
is first shown as usual; then the process holds, and a debugger that attaches
sees the frames as they were when it was raised. The exit code is always the program's own.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

from . import exit_errors, imports, spawned_watch, worker_errors
from .announce import Announcer
from .errors import describe, with_members
from .ranks import rank_of
from .startup import report_failure

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, MutableMapping, Optional, Sequence, Set, Tuple


#: Seconds that a debugger may take to leave after it has announced that.
LEAVING_SECONDS = 10.0

#: This process's watch, once there is one.
_watch: Optional[PostMortem] = None


def install(settings: MutableMapping[str, str], folders: Sequence[str], debugs_itself: bool) -> PostMortem:
    """Watch for uncaught exceptions, in this process and in those that multiprocessing starts.

    Args:
        settings: Configuration, as for a session.
        folders: The folders of the user's own code.
        debugs_itself: Whether the program calls debugpy. Its calls are then answered as if no debugger were attached.
    """
    global _watch
    watch = _watch = PostMortem(settings, folders)
    watch.install()
    if debugs_itself:
        from . import session

        watch.session = session.make(settings)
        watch.session.hold_expired = True
    spawned_watch.pass_on(settings, folders, debugs_itself)
    return watch


def watch_child(settings: MutableMapping[str, str], folders: Sequence[str], debugs_itself: bool) -> None:
    """Watch a child of the step's script, which may be any program; arguments as of :func:`install`."""
    install(settings, folders, debugs_itself).watch_as_child(any_error=False)


def watch_spawned(settings: MutableMapping[str, str], folders: Sequence[str], debugs_itself: bool) -> None:
    """Watch a child that multiprocessing has started; arguments as of :func:`install`."""
    (_watch or install(settings, folders, debugs_itself)).watch_as_child()


def hold_again(again: bool = True) -> int:
    """Have the current hold repeated when the debugger has left; for a debugger that only inspects the program.

    Args:
        again: False cancels that.

    Returns:
        How many exceptions this hold shows, more than one for a group; 0 if the program does not hold.
    """
    if _watch is None:
        return 0
    _watch.holds_again = again
    return _watch.parts


class PostMortem:
    """Watches one process."""

    def __init__(self, settings: MutableMapping[str, str], folders: Sequence[str]) -> None:
        #: Created with the first exception, or earlier if it answers the program's own debugpy calls.
        self.session: Any = None
        self._settings, self._folders = settings, folders
        self._code = worker_errors.OwnCode(folders)
        #: Whether this process is a child of the step's script.
        self._is_child = False
        #: Whether errors count that have not passed through the user's code. They do not in a program that is not the
        #: step's own.
        self._any_error = True
        self._announce = Announcer(settings.get("AZUREML_DEBUGGEE_EVENTS"), rank_of(settings))
        self._lock = threading.Lock()
        self._started = False
        self._is_over = False
        self._handled: List[BaseException] = []
        #: Whether the current hold is to be repeated.
        self.holds_again = False
        #: How many exceptions the current hold shows.
        self.parts = 0
        #: Threads that hold: an error in an expression that a debugger evaluates there does not count.
        self._holding: Set[int] = set()

    def install(self) -> None:
        """Hook into the functions that handle uncaught exceptions."""
        self._show, self._show_in_thread = sys.excepthook, threading.excepthook
        self._hook: Callable[..., None] = self._uncaught
        sys.excepthook = self._hook
        threading.excepthook = self._uncaught_in_thread
        exit_errors.watch(self._code, self._examine)
        worker_errors.watch(self._code, lambda: self._is_child, self._examine_workers)
        # atexit is the fallback only: no thread can be started by then.
        getattr(threading, "_register_atexit", atexit.register)(self._at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _uncaught(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            self._show(kind, value, trace)
        finally:
            self._examine(kind, value, trace)

    def _uncaught_in_thread(self, arguments: Any) -> None:
        # The caller clears the tuple's references when this returns.
        kind, value, trace = arguments.exc_type, arguments.exc_value, arguments.exc_traceback
        try:
            self._show_in_thread(arguments)
        finally:
            self._examine(kind, value, trace)

    def _at_exit(self) -> None:
        # If a library has replaced our hook, Python still records the uncaught exception.
        value = getattr(sys, "last_value", None)
        if sys.excepthook is not self._hook and value is not None:
            self._examine_in_new_thread(value, getattr(sys, "last_traceback", None))

    def _examine_in_new_thread(self, value: Any, trace: Any) -> None:
        """Hold when the main thread already counts as ended.

        pydevd ends once no non-daemon thread of the program is alive; so this starts one.
        """
        handlers = _default_signals()
        try:
            holder = threading.Thread(target=self._examine, args=(type(value), value, trace), daemon=False)
            holder.start()
            holder.join()
        except RuntimeError as error:
            # Python 3.12.0 and 3.12.1 cannot start a thread after the main thread's program has ended.
            self._announce_raised(value)
            report_failure(self._settings, error)
        finally:
            for number, handler in handlers:
                _set_signal(number, handler)

    def _examine(self, kind: Any, value: Any, trace: Any) -> None:
        """Hold for a debugger and show it the exception; never raises."""
        try:
            if trace is None or self._is_over or any(value is seen for seen in self._handled):
                return
            if issubclass(kind, (SystemExit, KeyboardInterrupt, GeneratorExit)):
                return
            if threading.get_ident() in self._holding or not (self._any_error or self._code.was_left_by(trace)):
                return
            self._handled.append(value)
            if not self._is_child and worker_errors.was_raised_in_child(
                value, self._announced_events("raised"), self._code
            ):
                return
            self._announce_raised(value.with_traceback(trace))
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except Exception:
                    pass
            handlers = _default_signals()
            try:
                # One at a time: there is one port, and a debugger shows one stop at a time.
                with self._lock:
                    self._holding.add(threading.get_ident())
                    self._hold((kind, value, trace))
            finally:
                self._holding.discard(threading.get_ident())
                for number, handler in handlers:
                    _set_signal(number, handler)
        except Exception as error:
            report_failure(self._settings, error)

    def _hold(self, error: Tuple[Any, Any, Any]) -> None:
        with imports.own:
            from . import session as sessions
            from . import siblings

            if self.session is None:
                self.session = sessions.make(self._settings)
            session = self.session
            if not self._started:
                self._started = True
                session.gate.is_held, session.silent_without_gate = siblings.is_held, True
                session.gate.start()
        followed = session.debugger.is_attached() and session.debugger.stops_at_uncaught()
        parts = [*with_members(error[1].with_traceback(error[2]))]
        while session.hold() and not followed:
            self.holds_again, self.parts = False, len(parts)
            for number, one in enumerate(parts):
                if number and not session.debugger.is_attached():
                    break
                session.debugger.stop_at_error((type(one), one, one.__traceback__))
            if not self.holds_again or not _wait_until_left(session):
                break

    def _announce_raised(self, value: BaseException) -> None:
        more: Dict[str, Any] = {"process": _process_name()} if self._is_child else {}
        self._announce("raised", **describe(value, self._folders, anywhere=True), **more)

    def _announced_events(self, name: str) -> List[Dict[str, Any]]:
        """The events of this name that processes of the step have announced."""
        with imports.own:
            from . import siblings

        return [event for event in siblings.read_events(self._settings) if event["event"] == name]

    # Children

    def _examine_workers(self, kind: Any, value: Any, trace: Any) -> None:
        """Hold when a worker has caught an error of the user's function, to send it to the requesting process.

        The program may continue after any number of such errors and must not wait each time. So each worker holds once,
        and none does after a hold in which no debugger attached.
        """
        is_attended = self.session is not None and self.session.debugger.is_attached()
        if is_attended or not (self._started or self._announced_events("not-attached")):
            self._examine(kind, value, trace)

    def _after_fork(self) -> None:
        # New ones: another thread of the parent may have held the lock.
        self._lock, self._handled, self._holding = threading.Lock(), [], set()
        self._is_child = True
        # pydevd is created once; if the parent has it already, the child is not debugged.
        self._is_over = self._is_over or self._started
        if not self._is_over:
            self.watch_bootstrap()

    def watch_as_child(self, any_error: bool = True) -> None:
        """Watch this process as a child, which has just been started.

        Args:
            any_error: Whether errors count that have not passed through the user's own code.
        """
        self._is_child, self._any_error = True, any_error
        self.watch_bootstrap()

    def watch_bootstrap(self) -> None:
        """Examine uncaught errors in a child of multiprocessing, which this process is or may be."""
        process: Any = sys.modules.get("multiprocessing.process")
        if process is not None:
            process.BaseProcess._bootstrap = self._with_examination(process.BaseProcess._bootstrap)

    def _with_examination(self, bootstrap: Callable[..., Any]) -> Callable[..., Any]:
        """Extend the method by which multiprocessing runs a child, which prints exceptions without calling a hook."""
        import traceback

        show = traceback.print_exc

        def print_exc(*arguments: Any, **options: Any) -> None:
            show(*arguments, **options)
            # The program's own calls are for errors that it has caught.
            if sys._getframe(1).f_code is getattr(bootstrap, "__code__", None):
                # Here and not later: the main thread will count as ended next, and pydevd blocks on such a thread.
                self._examine(*sys.exc_info())

        def _bootstrap(process: Any, *arguments: Any, **options: Any) -> Any:
            traceback.print_exc = print_exc
            return bootstrap(process, *arguments, **options)

        return _bootstrap


def _wait_until_left(session: Any) -> bool:
    """Wait until the debugger has left, as it has announced; False if it has not."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while session.debugger.is_attached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _process_name() -> str:
    """The name that multiprocessing has given this child process; empty if it has not started it."""
    process: Any = sys.modules.get("multiprocessing.process")
    current = None if process is None else process.current_process()
    return "" if current is None or current.name == "MainProcess" else str(current.name)


def _default_signals() -> List[Tuple[int, Any]]:
    """Let signals end the program during the hold, since its own handlers would not run.

    Returns:
        The signals with the handlers that were replaced.
    """
    signal = imports.standard_module("signal")
    replaced = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN and _set_signal(number, signal.SIG_DFL):
                replaced.append((int(number), handler))
    return replaced


def _set_signal(number: int, handler: Any) -> bool:
    signal = imports.standard_module("signal")
    try:
        signal.signal(number, handler)
    except (ValueError, TypeError, OSError):
        return False  # The handler is not Python's, or signals cannot be set here.
    return True
