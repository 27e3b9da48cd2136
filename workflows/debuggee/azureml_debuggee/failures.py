"""Sees an exception that nobody catches, and has a snapshot of it written; costs nothing until then.

It takes the places where such exceptions come by: the interpreter's hook, that of `threading`, the place where
multiprocessing shows what has ended a child, and where the inference server catches what a service raises. Whoever
would have shown an exception still does, first; whatever happens here, the program ends as it would have.

Imported at the start of every Python process of a step, so it imports nothing that is not there already.
"""

import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, List

#: Python's own: a debugger puts others in their place.
_set_trace, _get_trace = sys.settrace, sys.gettrace
_set_profile, _get_profile = sys.setprofile, sys.getprofile
#: Whether this process has been prepared.
_is_watching = False
#: What is noted of the program at its start.
_program: "Dict[str, Any]" = {}
#: The exception that ends the process, once it has been seen: others are not kept from ending.
_last: "Any" = None
#: Identities of threads that write one.
_writing: "List[int]" = []
_written = 0


def watch() -> None:
    """See what nobody catches in this process from now on; never raises."""
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
        pass  # A folder that has been removed.
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
    import_hooks.change_when_imported("threading", _change_threading)
    import_hooks.change_when_imported("traceback", _change_traceback)
    for name in ("multiprocessing.pool", "concurrent.futures.process"):
        import_hooks.change_when_imported(name, _change_pool)
    import_hooks.change_when_imported("azureml_inference_server_http.server.user_script", _change_server)


# Where exceptions come by ---------------------------------------------------------------------------------


def _change_threading(module: "Any") -> None:
    show = module.excepthook

    def excepthook(arguments: "Any", /) -> None:
        # The tuple's own references are cut by whoever made it, once this has returned.
        value, trace = arguments.exc_value, arguments.exc_traceback
        try:
            show(arguments)
        finally:
            write(value, trace)

    module.excepthook = excepthook


def _change_traceback(module: "Any") -> None:
    """See what multiprocessing shows of a child that it has started, which goes by no hook."""
    show = module.print_exc

    def print_exc(*arguments: "Any", **options: "Any") -> None:
        show(*arguments, **options)
        frame: Any = sys._getframe(1)
        # The watch for failures that a debugger is let in at comes between.
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


def _change_server(module: "Any") -> None:
    """See what the inference server catches of a service's `init()` and `run()`."""
    begin = module.UserScriptException.__init__

    def __init__(self: "Any", ex: "Any", *arguments: "Any", **options: "Any") -> None:
        begin(self, ex, *arguments, **options)
        traceback: Any = BaseException.__dict__["__traceback__"]
        write(ex, traceback.__get__(ex), every=True)

    module.UserScriptException.__init__ = __init__


def _change_pool(module: "Any") -> None:
    """See what the workers of a pool hand to their parent, which may end by it."""
    from . import pool_snapshots

    _program["pool_snapshots"] = pool_snapshots
    pool_snapshots.change_module(module, lambda value, trace, name: write(value, trace, every=True, name=name))


def _at_exit() -> None:
    # Where a library has put its own hook in place of ours, Python still notes what was uncaught.
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
        every: Whether there may be any number of them: a service goes on.
        is_last: Whether the process ends by it, and it may come by again.
        name: The file's name, where it is kept for the parent; see pool_snapshots.py.
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
    # What a program traces itself with is its own code, and a debugger is of no use here.
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
    """The environment variables, without a call of what the program may have put in their place."""
    import os

    data: Any = getattr(os.environ, "_data", {})
    return {
        os.fsdecode(name): os.fsdecode(one)
        for name, one in data.items()
        if type(name) in (str, bytes) and type(one) in (str, bytes)
    }
