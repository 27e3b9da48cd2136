"""Lets a debugger in when the program has failed, and not before.

Until then nothing listens, debugpy is not imported, and the program runs at full speed. The exception
is shown first by whoever would have shown it; then the process holds, and a debugger that comes
sees the frames as they were when it was raised. Whatever happens here, the exit code stays what it was.
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


#: Seconds that a debugger may take to leave once it has said that it is about to.
LEAVING_SECONDS = 10.0

#: This process's watch, once there is one.
_watch: Optional[PostMortem] = None


def install(settings: MutableMapping[str, str], folders: Sequence[str], debugs_itself: bool) -> PostMortem:
    """Watch for exceptions that nobody catches, here and in what multiprocessing starts.

    Args:
        settings: Configuration, as for a session.
        folders: Those of the person's own code.
        debugs_itself: Whether the program calls debugpy: its calls are answered, by nobody's being there.
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
    """Watch over a child of the step's script, which may be anything; arguments as of :func:`install`."""
    install(settings, folders, debugs_itself).begin_child(any_error=False)


def watch_spawned(settings: MutableMapping[str, str], folders: Sequence[str], debugs_itself: bool) -> None:
    """Watch over a child that multiprocessing has started; arguments as of :func:`install`."""
    (_watch or install(settings, folders, debugs_itself)).begin_child()


def hold_again(again: bool = True) -> int:
    """For a debugger that only looks: where the program holds now, it is to hold once more when the debugger has left.

    Args:
        again: False takes it back.

    Returns:
        How many exceptions this hold shows, of a group more than one; 0 where nothing holds.
    """
    if _watch is None:
        return 0
    _watch.again = again
    return _watch.parts


class PostMortem:
    """The watch over one process."""

    def __init__(self, settings: MutableMapping[str, str], folders: Sequence[str]) -> None:
        #: Made with the first exception, or before, where it answers the program's own calls.
        self.session: Any = None
        self._settings, self._folders = settings, folders
        self._code = worker_errors.OwnCode(folders)
        #: Whether this process is a child of the step's script.
        self._is_child = False
        #: Whether errors count that have not been in the person's code: a program of others' has its own.
        self._any_error = True
        self._announce = Announcer(settings.get("AZUREML_DEBUGGEE_EVENTS"), rank_of(settings))
        self._one = threading.Lock()
        self._started = False
        self._over = False
        self._seen: List[BaseException] = []
        #: Whether the hold that there is is to be followed by another one.
        self.again = False
        #: How many exceptions it shows.
        self.parts = 0
        #: Threads that hold: an error in what a debugger evaluates there is nobody's.
        self._holding: Set[int] = set()

    def install(self) -> None:
        """Take the places where uncaught exceptions come by."""
        self._show, self._show_in_thread = sys.excepthook, threading.excepthook
        self._hook: Callable[..., None] = self._uncaught
        sys.excepthook = self._hook
        threading.excepthook = self._uncaught_in_thread
        exit_errors.watch(self._code, self._examine)
        worker_errors.watch(self._code, lambda: self._is_child, self._examine_workers)
        # Not atexit, where there is a choice: no thread can be started any more by then.
        getattr(threading, "_register_atexit", atexit.register)(self._at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _uncaught(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            self._show(kind, value, trace)
        finally:
            self._examine(kind, value, trace)

    def _uncaught_in_thread(self, arguments: Any) -> None:
        # The tuple's own references are cut by whoever made it, once this has returned.
        kind, value, trace = arguments.exc_type, arguments.exc_value, arguments.exc_traceback
        try:
            self._show_in_thread(arguments)
        finally:
            self._examine(kind, value, trace)

    def _at_exit(self) -> None:
        # Where a library has put its own hook in place of ours, Python still notes what was uncaught.
        value = getattr(sys, "last_value", None)
        if sys.excepthook is not self._hook and value is not None:
            self._examine_apart(value, getattr(sys, "last_traceback", None))

    def _examine_apart(self, value: Any, trace: Any) -> None:
        """Hold when the main thread counts as ended already.

        pydevd takes itself down once no thread of the program is alive that is not a daemon; so here is one.
        """
        handlers = _default_signals()
        try:
            holder = threading.Thread(target=self._examine, args=(type(value), value, trace), daemon=False)
            holder.start()
            holder.join()
        except RuntimeError as error:
            # Python 3.12.0 and 3.12.1 start no thread once the main thread's program is over.
            self._say_raised(value)
            report_failure(self._settings, error)
        finally:
            for number, handler in handlers:
                _set_signal(number, handler)

    def _examine(self, kind: Any, value: Any, trace: Any) -> None:
        """Hold for a debugger and show it the exception; never raises."""
        try:
            if trace is None or self._over or any(value is seen for seen in self._seen):
                return
            if issubclass(kind, (SystemExit, KeyboardInterrupt, GeneratorExit)):
                return
            if threading.get_ident() in self._holding or not (self._any_error or self._code.was_left_by(trace)):
                return
            self._seen.append(value)
            if not self._is_child and worker_errors.is_of_a_child(value, self._announced("raised"), self._code):
                return
            self._say_raised(value.with_traceback(trace))
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except Exception:
                    pass
            handlers = _default_signals()
            try:
                # One at a time: there is one port, and a debugger shows one stop at a time best.
                with self._one:
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
            self.again, self.parts = False, len(parts)
            for number, one in enumerate(parts):
                if number and not session.debugger.is_attached():
                    break
                session.debugger.stop_at_error((type(one), one, one.__traceback__))
            if not self.again or not _left(session):
                break

    def _say_raised(self, value: BaseException) -> None:
        more: Dict[str, Any] = {"process": _process_name()} if self._is_child else {}
        self._announce("raised", **describe(value, self._folders, anywhere=True), **more)

    def _announced(self, name: str) -> List[Dict[str, Any]]:
        """What processes of this step have announced under this name."""
        with imports.own:
            from . import siblings

        return [event for event in siblings.read_events(self._settings) if event["event"] == name]

    # Children

    def _examine_workers(self, kind: Any, value: Any, trace: Any) -> None:
        """Hold where a worker has caught an error of the person's function, for whoever has asked for its result.

        The program may well go on from it, as often as it likes, and it is not to wait each time: once for each worker,
        and no more once nobody has come in one.
        """
        is_attended = self.session is not None and self.session.debugger.is_attached()
        if is_attended or not (self._started or self._announced("not-attached")):
            self._examine(kind, value, trace)

    def _after_fork(self) -> None:
        # New ones: another thread of the parent's may hold the lock.
        self._one, self._seen, self._holding = threading.Lock(), [], set()
        self._is_child = True
        # pydevd is made once; where the parent has it already, its child is not debugged.
        self._over = self._over or self._started
        if not self._over:
            self.guard_process()

    def begin_child(self, any_error: bool = True) -> None:
        """Know that this process is a child, which has just been started.

        Args:
            any_error: Whether errors count that have not been in the person's own code.
        """
        self._is_child, self._any_error = True, any_error
        self.guard_process()

    def guard_process(self) -> None:
        """See what is uncaught in a child of multiprocessing's, which this process is or may be."""
        process: Any = sys.modules.get("multiprocessing.process")
        if process is not None:
            process.BaseProcess._bootstrap = self._guarded(process.BaseProcess._bootstrap)

    def _guarded(self, bootstrap: Callable[..., Any]) -> Callable[..., Any]:
        """Extend how multiprocessing runs a child, which shows exceptions without any hook."""
        import traceback

        show = traceback.print_exc

        def print_exc(*arguments: Any, **options: Any) -> None:
            show(*arguments, **options)
            # The program's own calls are about errors that it has caught.
            if sys._getframe(1).f_code is getattr(bootstrap, "__code__", None):
                # Here and not later: next, the main thread will count as ended, and pydevd blocks on such a one.
                self._examine(*sys.exc_info())

        def _bootstrap(process: Any, *arguments: Any, **options: Any) -> Any:
            traceback.print_exc = print_exc
            return bootstrap(process, *arguments, **options)

        return _bootstrap


def _left(session: Any) -> bool:
    """Whether the debugger leaves, as it has said."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while session.debugger.is_attached():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _process_name() -> str:
    """What multiprocessing calls this child process; empty where it has not started it."""
    process: Any = sys.modules.get("multiprocessing.process")
    current = None if process is None else process.current_process()
    return "" if current is None or current.name == "MainProcess" else str(current.name)


def _default_signals() -> List[Tuple[int, Any]]:
    """Let signals end the program in the hold: what it would do on them, it has no more occasion to do."""
    signal = imports.get("signal")
    replaced = []
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN and _set_signal(number, signal.SIG_DFL):
                replaced.append((int(number), handler))
    return replaced


def _set_signal(number: int, handler: Any) -> bool:
    signal = imports.get("signal")
    try:
        signal.signal(number, handler)
    except (ValueError, TypeError, OSError):
        return False  # A handler that is not Python's, or no signals here.
    return True
