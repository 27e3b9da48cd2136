"""Reads the stacks of this process's threads and asyncio tasks, without a debugger and without stopping anything.

The debuggee's own thread reads the frames while the program runs on, so two threads may be read a few microseconds
apart. None of the program's own code is called, unless expressions are evaluated.
"""

from __future__ import annotations

import os
import sys
import threading
import types
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import imports
from .program import code_folders, is_within
from .threads import start_untraced

#: Frames of one stack that are kept: the innermost and the outermost.
INNERMOST, OUTERMOST = 150, 50
#: Tasks and threads that are shown at most.
MOST_TASKS, MOST_THREADS = 500, 500
#: Seconds that all expressions together may take.
EVALUATION_SECONDS = 1.0
#: Characters of a value that are kept.
VALUE_CHARACTERS = 4000
#: Functions of pydevd in which a thread waits while a debugger has stopped it.
_SUSPENDED = frozenset(("do_wait_suspend", "_do_wait_suspend"))


class Places:
    """Tells which files are the step's own code, and which are the debugger's.

    Args:
        code: Folders, or files, of the step's own code.
    """

    def __init__(self, code: List[str]) -> None:
        self._code = code
        self._prefix = os.path.realpath(sys.prefix)
        here = os.path.dirname(os.path.abspath(__file__))
        self._debugger = [here, os.path.join(os.path.dirname(here), "inject")]
        debugpy = getattr(sys.modules.get("debugpy"), "__file__", None)
        if isinstance(debugpy, str):
            self._debugger.append(os.path.dirname(os.path.abspath(debugpy)))
        self._known: Dict[str, Tuple[bool, bool]] = {}

    def classify(self, file: str) -> Tuple[bool, bool]:
        """Whether a file is the step's own, and whether it is the debugger's."""
        if file not in self._known:
            path = os.path.abspath(file)
            real = os.path.realpath(path)
            debugger = any(is_within(path, folder) for folder in self._debugger)
            packages = "site-packages" in real or "dist-packages" in real
            installed = packages and is_within(real, self._prefix)
            own = any(is_within(one, folder) for one in (path, real) for folder in self._code)
            self._known[file] = (own and not installed and not debugger and file[:1] != "<", debugger)
        return self._known[file]

    def is_suspension(self, code: Any) -> bool:
        """Whether a thread in this function has been stopped by a debugger."""
        return code.co_name in _SUSPENDED and self.classify(code.co_filename)[1]

    def is_hold(self, code: Any) -> bool:
        """Whether a thread in this function is held until a debugger attaches (session.py, postmortem.py)."""
        return code.co_name == "hold" and self.classify(code.co_filename)[1]


def own_code_folders() -> List[str]:
    """The folders of the step's own code; for a service that Azure's server runs, its source folder."""
    named = code_folders(os.environ)
    return named or code_folders({"AZUREML_DEBUGGEE_CODE": os.environ.get("AML_APP_ROOT", "")})


def collect(expressions: List[str]) -> Dict[str, Any]:
    """Collect the stacks of this process.

    Args:
        expressions: Python expressions. Each is evaluated in the innermost frame of the step's own code, in the main
            thread or else in the first thread that has one.

    Returns:
        ``pid``, ``process`` (multiprocessing's name; None if that is not loaded), ``threads`` and ``tasks`` (each
        with its ``frames``, outermost first), and ``values`` by expression.
    """
    places = Places(own_code_folders())
    threads, own, loops = _threads(places)
    main = next((thread["ident"] for thread in threads if thread["main"]), None)
    frame = own.get(main) or next(iter(own.values()), None)
    return {
        "pid": os.getpid(),
        "process": _process_name(),
        "threads": threads,
        "tasks": _tasks(places, loops),
        "values": evaluate(expressions, frame) if expressions else {},
    }


def _process_name() -> Optional[str]:
    process = sys.modules.get("multiprocessing.process")
    current = vars(process).get("_current_process") if process is not None else None
    name = vars(current).get("_name") if current is not None else None
    return name if isinstance(name, str) else None


def _threads(places: Places) -> Tuple[List[Dict[str, Any]], Dict[Any, Any], List[Any]]:
    """The threads, the innermost own frame of each that has one, and the event loops that run in them."""
    # A copy of `threading`'s own table: a waiting thread may hold the lock for `threading.enumerate`.
    known = dict(vars(threading).get("_active", {}))
    main = threading.main_thread().ident
    found: List[Dict[str, Any]] = []
    own: Dict[Any, Any] = {}
    loops: List[Any] = []
    for ident, frame in list(sys._current_frames().items()):
        thread = known.get(ident)
        if thread is not None and _is_debugger_thread(thread):
            continue
        frames = _frames_from(frame)
        loops += [loop for one in frames for loop in _loop_of(one)]
        waits = [number for number, one in enumerate(frames) if places.is_suspension(one.f_code)]
        held = [number for number, one in enumerate(frames) if places.is_hold(one.f_code)]
        # The hold itself waits in frames of the standard library, which are left out, too.
        shown = [one for one in frames[max([0, *waits, *held]) :] if not places.classify(one.f_code.co_filename)[1]]
        if not shown and not held:
            continue  # A thread of the debugger.
        for one in shown:
            if places.classify(one.f_code.co_filename)[0]:
                own[ident] = one
                break
        found.append(
            {
                "name": str(vars(thread).get("_name")) if thread is not None else "thread {}".format(ident),
                "ident": ident,
                "main": ident == main,
                "paused": bool(waits),
                "holds": bool(held),
                "frames": _describe_frames(shown, places),
            }
        )
    found.sort(key=lambda thread: (not thread["main"], thread["name"]))
    return found[:MOST_THREADS], own, loops


def _is_debugger_thread(thread: Any) -> bool:
    marks = vars(thread)
    return bool(marks.get("pydev_do_not_trace") or marks.get("is_pydev_daemon_thread"))


def _frames_from(frame: Any) -> List[Any]:
    """A frame and its callers, innermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _describe_frames(frames: List[Any], places: Places) -> List[Dict[str, Any]]:
    """Describe frames, given innermost first, in the order outermost first; the middle of a deep stack is left out."""
    left_out = len(frames) - INNERMOST - OUTERMOST
    if left_out > 0:
        frames = frames[:INNERMOST] + frames[-OUTERMOST:]
    described: List[Dict[str, Any]] = []
    for number, frame in enumerate(frames):
        code = frame.f_code
        one = {
            "file": code.co_filename,
            "line": frame.f_lineno or code.co_firstlineno,
            "function": getattr(code, "co_qualname", code.co_name),
            "own": places.classify(code.co_filename)[0],
        }
        if left_out > 0 and number == INNERMOST - 1:
            one["left_out"] = left_out
        described.append(one)
    described.reverse()
    return described


def _loop_of(frame: Any) -> List[Any]:
    """The event loop that a frame runs, if the frame is asyncio's `run_forever`; as a list."""
    if frame.f_code.co_name != "run_forever" or not frame.f_code.co_filename.endswith("base_events.py"):
        return []
    loop = frame.f_locals.get("self")
    return [loop] if loop is not None else []


def _tasks(places: Places, loops: List[Any]) -> List[Dict[str, Any]]:
    """The tasks of the event loops; for loops written in C, as far as asyncio keeps a list of tasks in Python."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return []
    tasks: List[Any] = []
    for _ in range(5):
        try:
            if loops:
                tasks = [task for loop in loops for task in asyncio.all_tasks(loop)]
            else:
                module = sys.modules.get("asyncio.tasks")
                listed = vars(module).get("_scheduled_tasks", vars(module).get("_all_tasks", ()))
                tasks = [task for task in list(listed) if not asyncio.Task.done(task)]
            break
        except (RuntimeError, TypeError):
            continue  # The program has changed the list meanwhile.
    described = [
        one for one in (_describe_task(asyncio, task, places) for task in tasks[:MOST_TASKS]) if one is not None
    ]
    return sorted(described, key=lambda one: str(one["name"]))


def _describe_task(asyncio: Any, task: Any, places: Places) -> Optional[Dict[str, Any]]:
    """Describe a task; None if it has just ended, or is another library's."""
    try:
        frames, running = _awaited_frames(asyncio.Task.get_coro(task))
        name = str(asyncio.Task.get_name(task))
    except Exception:
        return None
    shown = [one for one in frames if not places.classify(one.f_code.co_filename)[1]]
    return {"name": name, "running": running, "frames": _describe_frames(list(reversed(shown)), places)}


def _awaited_frames(coroutine: Any) -> Tuple[List[Any], bool]:
    """The frames of a coroutine and of what it awaits, outermost first; and whether it is running."""
    frames: List[Any] = []
    running = False
    while len(frames) < INNERMOST + OUTERMOST:
        if isinstance(coroutine, types.CoroutineType):
            frame, inner, runs = coroutine.cr_frame, coroutine.cr_await, coroutine.cr_running
        elif isinstance(coroutine, types.GeneratorType):
            frame, inner, runs = coroutine.gi_frame, coroutine.gi_yieldfrom, coroutine.gi_running
        elif isinstance(coroutine, types.AsyncGeneratorType):
            frame, inner, runs = coroutine.ag_frame, coroutine.ag_await, coroutine.ag_running
        else:
            break
        running = running or runs
        if frame is not None:
            frames.append(frame)
        coroutine = inner
    return frames, running


def evaluate(expressions: List[str], frame: Any) -> Dict[str, Dict[str, str]]:
    """Evaluate expressions in a frame, which runs on meanwhile.

    Args:
        expressions: Python expressions.
        frame: The frame for their names; None if no frame of the step's own code was found.

    Returns:
        By expression, ``value`` (its repr, cut) or ``error``.
    """
    if frame is None:
        return {text: {"error": "no frame of the step's own code is running"} for text in expressions}
    values: Dict[str, Dict[str, str]] = {}
    # A copy: an expression must not change the program's variables, nor see them change.
    names, known = frame.f_globals, dict(frame.f_locals)

    def evaluate_all() -> None:
        for text in expressions:
            try:
                values[text] = {"value": _shorten(repr(eval(text, names, known)))}  # noqa: S307
            except BaseException as error:
                values[text] = {"error": _shorten("{}: {}".format(type(error).__name__, error))}

    thread = start_untraced(evaluate_all, "azureml-debuggee-evaluation")
    thread.join(EVALUATION_SECONDS)
    if thread.is_alive():
        _interrupt(thread)
    late = {"error": "did not end within {:g} s".format(EVALUATION_SECONDS)}
    return {text: values.get(text, late) for text in expressions}


def _shorten(text: str) -> str:
    if len(text) <= VALUE_CHARACTERS:
        return text
    return "{}... ({} characters)".format(text[:VALUE_CHARACTERS], len(text))


class _TooLate(BaseException):
    """Ends an evaluation that takes too long."""


def _interrupt(thread: Any) -> None:
    """Raise an exception in a thread's Python code; a running call of C code ends first."""
    try:
        raises: Callable[..., Any] = imports.standard_module("ctypes").pythonapi.PyThreadState_SetAsyncExc
        raises(
            imports.standard_module("ctypes").c_ulong(thread.ident),
            imports.standard_module("ctypes").py_object(_TooLate),
        )
    except Exception:
        pass  # No ctypes in this Python.
