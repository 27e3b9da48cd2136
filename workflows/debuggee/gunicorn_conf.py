"""gunicorn's configuration for a debugged service.

GUNICORN_CMD_ARGS names it, so that the image's own start script needs no change:
https://docs.gunicorn.org/en/stable/settings.html. gunicorn calls these hooks in the
master and in the worker; score.py is loaded in the worker, between `post_fork` and
`post_worker_init`. This file takes the place of a gunicorn.conf.py in the service's folder,
or of the one that the user's own GUNICORN_CMD_ARGS name. That one is read first, and its settings
and hooks stay in effect.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import traceback

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def _load_debuggee():
    """Import the debuggee by its path: an entry in `sys.path` could hide a module of the program."""
    name = "azureml_debuggee"
    package = os.path.join(_FOLDER, name)
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _read_displaced():
    named = os.environ.get("AZUREML_DEBUGGEE_GUNICORN_CONFIG", "")
    if named.startswith("python:"):
        found = vars(importlib.import_module(named[len("python:") :]))
        return {name: value for name, value in found.items() if not name.startswith("_")}
    if named.startswith("file:"):
        named = named[len("file:") :]
    path = os.path.join(os.getcwd(), named or "gunicorn.conf.py")
    settings = {"__file__": path}
    # A file that is named has to exist.
    if named or os.path.isfile(path):
        with open(path, "rb") as file:
            exec(compile(file.read(), path, "exec"), settings)
    # Names with a leading underscore are not settings, and could conflict with this file's own.
    return {name: value for name, value in settings.items() if not name.startswith("_")}


_load_debuggee()
from azureml_debuggee import errors as _errors  # noqa: E402
from azureml_debuggee import failed_requests as _failed_requests  # noqa: E402
from azureml_debuggee import failures as _failures  # noqa: E402
from azureml_debuggee import session as _sessions  # noqa: E402
from azureml_debuggee.announce import Announcer  # noqa: E402

_displaced = _read_displaced()
globals().update(_displaced)
_announce = Announcer(os.environ.get("AZUREML_DEBUGGEE_EVENTS"))
#: The debug session of this worker, once there is one.
_session = None

#: A control socket in the user's home folder is not needed, and two services would share it.
control_socket_disable = True
#: A worker that is paused at a breakpoint answers nothing; gunicorn must not kill it for that.
timeout = 0
workers = 1
preload_app = False


def _call_displaced(name, *arguments):
    hook = _displaced.get(name)
    if hook is not None:
        hook(*arguments)


def on_starting(server):
    """Bind to the engine's address; the inference server would bind to every address."""
    bind = os.environ.get("AZUREML_DEBUGGEE_BIND")
    if bind:
        server.cfg.set("bind", [bind])
        server.address = server.cfg.address
    _call_displaced("on_starting", server)


def post_fork(server, worker):
    """In the worker, before score.py: open the gate, and hold if that is configured."""
    global _session
    _call_displaced("post_fork", server, worker)
    _announce("worker", master=os.getppid())
    if os.environ.get("AZUREML_DEBUGGEE_SNAPSHOTS"):
        _failures.watch()
    try:
        session = _session = _sessions.start()
    except ImportError as error:
        _announce("gate-failed", message="debugpy cannot be used in this environment: {}".format(error))
        return
    except Exception as error:
        traceback.print_exc()
        _announce("gate-failed", message="{}: {}".format(type(error).__name__, error))
        return
    # score.py may hold by itself, with the worker's signal handlers in place.
    session.is_ending = lambda: not worker.alive
    if session.holds_at_start:
        # The worker has inherited the handlers of the master, which only queue the signal.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        session.hold()


def post_worker_init(worker):
    """In the worker, after score.py has been loaded and its init() has returned."""
    events = os.environ.get("AZUREML_DEBUGGEE_EVENTS")
    if events:
        try:
            folder = os.path.join(os.path.dirname(events), "requests")
            _failed_requests.watch(worker, _failed_requests.RequestKeeper(folder, _describe_error, _stop_at, _announce))
        except Exception:
            # The server is of an unknown version; the service runs on.
            traceback.print_exc()
    _call_displaced("post_worker_init", worker)
    _announce("loaded")


def worker_exit(server, worker):
    """In the worker, at its end: announce the error if score.py could not be loaded."""
    error = sys.exc_info()[1]
    if error is not None and not worker.booted:
        _announce("failed", **_describe(error))
    _call_displaced("worker_exit", server, worker)


def child_exit(server, worker):
    """In the master, when a worker has ended after it had booted."""
    _announce("worker-exited", worker=worker.pid)
    _call_displaced("child_exit", server, worker)


def _stop_at(error):
    """Have an attached debugger stop at an exception."""
    if _session is not None and _session.debugger.is_attached():
        _session.debugger.stop_at_error((type(error), error, error.__traceback__))


def _describe(error):
    """Describe the exception of the user's own code that caused the inference server's."""
    seen = error
    while seen is not None:
        cause = getattr(seen, "user_ex", None)
        if cause is not None:
            return _describe_error(cause)
        following = seen.__cause__ or seen.__context__
        if following is None:
            break
        seen = following
    return _describe_error(seen)


def _describe_error(error):
    """Describe an exception; its place is in the user's folder if any frame is there."""
    root = os.path.abspath(os.environ.get("AML_APP_ROOT") or os.getcwd())
    # The script itself may be a link.
    script = os.path.realpath(os.path.join(root, os.environ.get("AZUREML_ENTRY_SCRIPT") or "score.py"))
    return {
        **_errors.describe(error, [root, os.path.dirname(script)]),
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__))[-8000:],
    }
