"""Writes a snapshot of each uncaught exception; costs nothing until then.

It hooks into the functions that handle such exceptions: the interpreter's hook, that of `threading`, the function by
which multiprocessing prints the exception that has ended a child, and the inference server's handler. An exception is
first shown as usual, and the program always ends as it would without this.

Every Python process of a step imports this when it starts, so it imports nothing that is not loaded already.
"""

import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, List

#: Python's own functions, which a debugger replaces.
_set_trace, _get_trace = sys.settrace, sys.gettrace
_set_profile, _get_profile = sys.setprofile, sys.getprofile
#: Whether this process has been prepared.
_is_watching = False
#: What is recorded of the program when it starts.
_program: "Dict[str, Any]" = {}
#: The exception that ends the process, once it has been handled, so that it is written only once.
_last: "Any" = None
#: Identities of threads that are writing a snapshot.
_writing: "List[int]" = []
_written = 0


def watch() -> None:
    """Watch for uncaught exceptions in this process from now on; never raises."""
    global _is_watching
    if _is_watching:
        return
    _is_watching = True
    try:
        import os

        _program["folder"] = os.getcwd()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
    except Exception:
        pass  # The folder has been removed.
    show = sys.excepthook

    def excepthook(kind: "Any", value: "Any", trace: "Any") -> None:
        try:
            show(kind, value, trace)
        finally:
            write(value, trace, is_last=True)

    _program["hook"] = excepthook
    sys.excepthook = excepthook
    import atexit

    from . import import_hooks

    atexit.register(_at_exit)
    import_hooks.change_when_imported("threading", _hook_threading)
    import_hooks.change_when_imported("traceback", _hook_multiprocessing)
    for name in ("multiprocessing.pool", "concurrent.futures.process"):
        import_hooks.change_when_imported(name, _hook_pool)
    import_hooks.change_when_imported("azureml_inference_server_http.server.user_script", _hook_server)


# Hooks ----------------------------------------------------------------------------------------------------


def _hook_threading(module: "Any") -> None:
    show = module.excepthook

    def excepthook(arguments: "Any", /) -> None:
        # The caller clears the tuple's references when this returns.
        value, trace = arguments.exc_value, arguments.exc_traceback
        try:
            show(arguments)
        finally:
            write(value, trace)

    module.excepthook = excepthook


def _hook_multiprocessing(module: "Any") -> None:
    """Handle the exceptions that multiprocessing prints in a child, without calling a hook."""
    show = module.print_exc

    def print_exc(*arguments: "Any", **options: "Any") -> None:
        show(*arguments, **options)
        frame: Any = sys._getframe(1)
        # The frames of postmortem.py may come in between.
        while frame is not None and "azureml_debuggee" in frame.f_code.co_filename:
            frame = frame.f_back
        if (
            frame is not None
            and frame.f_code.co_name == "_bootstrap"
            and frame.f_globals.get("__name__") == "multiprocessing.process"
        ):
            _, value, trace = sys.exc_info()
            write(value, trace)

    print_exc.__name__, print_exc.__qualname__ = show.__name__, show.__qualname__
    print_exc.__doc__, print_exc.__module__ = show.__doc__, show.__module__
    print_exc.__wrapped__ = show  # type: ignore[attr-defined]
    module.print_exc = print_exc


def _hook_server(module: "Any") -> None:
    """Handle the exceptions of a service's `init()` and `run()`, which the inference server catches."""
    begin = module.UserScriptException.__init__

    def __init__(self: "Any", ex: "Any", *arguments: "Any", **options: "Any") -> None:
        begin(self, ex, *arguments, **options)
        traceback: Any = BaseException.__dict__["__traceback__"]
        write(ex, traceback.__get__(ex), every=True)

    module.UserScriptException.__init__ = __init__


def _hook_pool(module: "Any") -> None:
    """Handle the exceptions that a pool's workers pass to their parent, which may end because of them."""
    from . import pool_snapshots

    _program["pool_snapshots"] = pool_snapshots
    pool_snapshots.change_module(module, lambda value, trace, name: write(value, trace, every=True, name=name))


def _at_exit() -> None:
    # If a library has replaced our hook, Python still records the uncaught exception.
    value = getattr(sys, "last_value", None)
    if value is not None and sys.excepthook is not _program.get("hook"):
        write(value, getattr(sys, "last_traceback", None), is_last=True)
    pool_snapshots = _program.get("pool_snapshots")
    if pool_snapshots is not None:
        pool_snapshots.remove_unclaimed(_environment())


def _after_fork() -> None:
    global _written, _last
    del _writing[:]
    _written, _last = 0, None


# Writing ----------------------------------------------------------------------------------------------------


def write(value: "Any", trace: "Any", every: bool = False, is_last: bool = False, name: str = "") -> None:
    """Write a snapshot of an exception; never raises.

    Args:
        value: The exception.
        trace: Its traceback.
        every: Whether the process may write any number of snapshots, as a service does, which goes on.
        is_last: Whether the exception ends the process; it may then be passed here more than once.
        name: The file's name, if it is kept for the parent; see pool_snapshots.py.
    """
    global _written, _last
    thread = 0
    try:
        if value is None or value is _last:
            return
        mro: Any = type.__dict__["__mro__"]
        lineage = mro.__get__(type(value))
        if any(one is kind for one in lineage for kind in (SystemExit, KeyboardInterrupt, GeneratorExit)):
            return
        if is_last:
            _last = value
        import _thread

        from . import snapshot_files

        if _thread.get_ident() in _writing or (_written >= snapshot_files.MOST_OF_PROCESS and not every | is_last):
            return
        thread = _thread.get_ident()
        _writing.append(thread)
        _written += 1
        _write(value, trace, name)
    except BaseException:
        pass
    finally:
        if thread:
            _writing.remove(thread)


def _write(value: "Any", trace: "Any", name: str) -> None:
    tracing, profiling = _get_trace(), _get_profile()
    # A trace function may be the program's own code, and a debugger must not trace this.
    _set_trace(None)
    _set_profile(None)
    try:
        from . import snapshot

        environment = _environment()
        if not name and "pool_snapshots" in _program:
            _program["pool_snapshots"].make_snapshots(value, environment)
        snapshot.write(value, trace, _program, environment, name)
    finally:
        _set_profile(profiling)
        _set_trace(tracing)


def _environment() -> "Dict[str, str]":
    """The environment variables, read without calling code that the program may have put in place of `os.environ`."""
    import os

    data: Any = getattr(os.environ, "_data", {})
    return {
        os.fsdecode(name): os.fsdecode(one)
        for name, one in data.items()
        if type(name) in (str, bytes) and type(one) in (str, bytes)
    }
