"""A child process of the debugged program: it registers with that process, which may then send it a debugger.

The debugged process (children.py) listens on a Unix socket, whose name its children find in their environment. While a
debugger is attached that debugs children, there is a marker file as well. A child that finds the file registers at once
and waits for the debugger. Every other child runs on; a thread of it registers a moment later and then waits for
messages.

Every child imports this when it starts, and most end before any debugger attaches. So this module imports nothing that
not all of them need, not even `__future__`.
"""

import _thread
import os
import sys
import time

TYPE_CHECKING = False  # As good as typing.TYPE_CHECKING, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, List, MutableMapping, Optional

#: The environment variables with the name of the socket, and with that of the file.
SOCKET_VARIABLE = "AZUREML_DEBUGGEE_CHILDREN_AT"
ATTENDED_VARIABLE = "AZUREML_DEBUGGEE_CHILDREN_ATTENDED"
#: Seconds after which a process registers while no debugger is attached. Many end sooner.
QUIET_SECONDS = 0.05
#: Seconds that the debugged process may take to accept a connection.
CONNECT_SECONDS = 1.0
_PIECE_BYTES = 4096
_CREDENTIALS_BYTES = 12

#: This process's connection to the debugged process.
link: "Optional[Link]" = None
#: This process's debugger (debugger.py), once there is one; a forked child inherits it.
debugger: "Any" = None
#: The debug session of this process (child_session.py), once there is one.
session: "Any" = None
#: Held while the session is created.
session_lock = _thread.allocate_lock()
#: Whether the programs that this process starts load the debuggee.
_injects = False
#: Objects that must stay alive, since the interpreter may still call them.
_kept_alive: "List[Any]" = []


class Link:
    """A connection to the debugged process.

    Args:
        name: The socket's name. A leading ``@`` stands for an abstract name, which is not a file's.

    Raises:
        OSError: No process listens there, or another user's process does.
    """

    def __init__(self, name: str) -> None:
        import _socket

        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._socket.settimeout(CONNECT_SECONDS)
            self._socket.connect("\0" + name[1:] if name.startswith("@") else name)
            if hasattr(_socket, "SO_PEERCRED"):
                # Another user may have taken the name by now, and this process does what it is sent.
                peer = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS_BYTES)
                if int.from_bytes(peer[4:8], sys.byteorder) not in (0, os.geteuid()):
                    raise PermissionError("the socket is another user's")
            self._socket.settimeout(None)
        except BaseException:
            self._socket.close()
            raise
        self._identity = self._status()
        self._unread = b""

    def _status(self) -> "Any":
        """What distinguishes the socket from any other file that gets its descriptor number."""
        status = os.fstat(self._socket.fileno())
        return status.st_dev, status.st_ino

    def is_lost(self) -> bool:
        """Whether the program has closed the descriptor, as programs do that close all of them."""
        try:
            return bool(self._status() != self._identity)
        except OSError:
            return True

    def send(self, line: str) -> None:
        """Send one line, if the other side is still connected."""
        try:
            if not self.is_lost():
                self._socket.sendall(line.encode("utf-8", "replace") + b"\n")
        except OSError:
            pass

    def read_line(self) -> "Optional[str]":
        """Wait for the next line; None if the other side has closed the connection."""
        while b"\n" not in self._unread:
            try:
                received = b"" if self.is_lost() else self._socket.recv(_PIECE_BYTES)
            except OSError:
                received = b""
            if not received:
                return None
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the socket, or only drop its descriptor if that stands for another file by now."""
        if self.is_lost():
            self._socket.detach()
        else:
            self._socket.close()


def is_child(environment: "Any") -> bool:
    """Whether this process is a child of a debugged one, which has the same variables in its own environment."""
    return bool(environment.get(SOCKET_VARIABLE)) and environment.get("AZUREML_DEBUGGEE_OWNER") != str(os.getpid())


def start_child(inject: str, program: "Any" = None) -> "Optional[Callable[[], None]]":
    """Register a new process with the debugged one.

    Args:
        inject: The folder with the sitecustomize that has loaded the debuggee.
        program: The program (program.Program); by default the one on Python's command line.

    Returns:
        A function that waits for the debugger, if this process has to wait.
    """
    if program is None and sys.argv and os.path.dirname(os.path.abspath(sys.argv[0])) == inject:
        return None  # This is launch.py, which calls this again with the program that it launches.
    try:
        sys.path[:] = [entry for entry in sys.path if not entry or os.path.abspath(entry) != inject]
        hide_inject_folder(inject, os.environ)
        inject_into_programs(inject)
        watch_forks()
        if not register_child():
            return None
        from . import child_session as module

        return module.prepare_wait(program)
    except Exception:
        return None


def hide_inject_folder(inject: str, environment: "MutableMapping[str, str]") -> None:
    """Remove the folder from the PYTHONPATH in `os.environ`, but leave it in the system's environment."""
    path = environment.get("PYTHONPATH")
    data: "Any" = getattr(environment, "_data", None)
    if path is None or not isinstance(data, dict):
        return
    kept = [entry for entry in path.split(os.pathsep) if not entry or os.path.abspath(entry) != inject]
    if kept:
        data[b"PYTHONPATH"] = os.fsencode(os.pathsep.join(kept))
    else:
        data.pop(b"PYTHONPATH", None)


def inject_into_programs(inject: str) -> None:
    """Have every program that this process starts from now on load the debuggee (child_environment.py)."""
    global _injects
    if _injects:
        return
    _injects = True
    folder = os.fsencode(inject)
    if "subprocess" in sys.modules:
        from . import child_environment

        child_environment.change_fork_exec(folder)
    else:
        sys.meta_path.insert(0, _BeforeImport(folder))
    for name in ("posix_spawn", "posix_spawnp", "execve"):
        if hasattr(os, name):
            setattr(os, name, _with_debuggee(getattr(os, name), folder))
    execve = os.execve

    def execv(path: "Any", argv: "Any") -> None:
        execve(path, argv, os.environ)

    os.execv = execv  # type: ignore[assignment]


class _BeforeImport:
    """A finder before all others, which reacts to the first import of a module that starts processes.

    It is never removed: another thread that iterates over the finders at that moment would skip one.
    """

    def __init__(self, folder: bytes) -> None:
        self._folder: "Optional[bytes]" = folder

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> None:
        if self._folder is not None and name in ("subprocess", "multiprocessing.util"):
            folder, self._folder = self._folder, None
            from . import child_environment

            child_environment.change_fork_exec(folder)


def _with_debuggee(function: "Callable[..., Any]", folder: bytes) -> "Callable[..., Any]":
    def start(path: "Any", argv: "Any", *more: "Any", **options: "Any") -> "Any":
        try:
            from . import child_environment
        except Exception:
            # For instance, the process may no longer read the file.
            return function(path, argv, *more, **options)
        return child_environment.start_program(function, folder, path, argv, more, options)

    return start


def watch_forks() -> None:
    """Have the processes that are forked from this one register.

    `os.register_at_fork` is not used: functions that other modules register later have not run yet at that point, and
    it also runs in a process that is forked only to exec another program.
    """
    for name in ("fork", "forkpty"):
        if hasattr(os, name):
            setattr(os, name, _with_registration(getattr(os, name)))


def ignore_fork_warning() -> None:
    """Ignore the warning about threads when the program forks: a forked child does not need the debuggee's threads."""
    if sys.version_info >= (3, 12) and hasattr(os, "fork"):
        import warnings

        warnings.filterwarnings("ignore", r".*use of \w+\(\) may lead to deadlocks", DeprecationWarning)


def _with_registration(fork: "Callable[[], Any]") -> "Callable[[], Any]":
    def fork_and_register() -> "Any":
        ignore_fork_warning()
        forked = fork()
        if not (forked[0] if isinstance(forked, tuple) else forked):
            _after_fork()
        return forked

    fork_and_register.__name__ = fork_and_register.__qualname__ = fork.__name__
    fork_and_register.__doc__ = fork.__doc__
    return fork_and_register


def register_child() -> bool:
    """Register this process, now or in a moment; whether a debugger is attached that debugs children."""
    global link
    if os.path.exists(os.environ.get(ATTENDED_VARIABLE, "")):
        try:
            link = Link(os.environ[SOCKET_VARIABLE])
        except OSError:
            return False
        link.send("{} waits".format(os.getpid()))
        _start_thread(_listen, link)
        return True
    _start_thread(_register_later, os.getpid())
    return False


def _start_thread(target: "Callable[[Any], None]", argument: "Any") -> None:
    """Start a thread, and wait until it runs.

    Python 3.10 crashes if it ends before a new thread runs, whose state it has freed by then. Many children end soon.
    """
    runs = _thread.allocate_lock()
    runs.acquire()

    def run() -> None:
        runs.release()
        target(argument)

    _thread.start_new_thread(run, ())
    runs.acquire()


def _register_later(pid: int) -> None:
    global link
    try:
        time.sleep(QUIET_SECONDS)
        link = Link(os.environ[SOCKET_VARIABLE])
    except Exception:
        return  # The debugged process has ended, or this one is ending.
    link.send(str(pid))
    _listen(link)


def _listen(current: Link) -> None:
    """Wait for the debugged process's first message, which a thread that pydevd does not trace then handles."""
    line = current.read_line()
    if line is not None and _has_threading():
        from . import child_session as module

        module.start_listening(current, line)
    elif session is not None:
        session.on_parent_ended()


def _has_threading() -> bool:
    """Whether `threading` has been imported, by the program's main thread.

    The module takes the thread that imports it first for the main thread, and this thread is not.
    """
    if "threading" in sys.modules or sys.version_info >= (3, 13):
        return True
    import ctypes

    def import_it(_: "Any") -> int:
        import threading  # noqa: F401

        return 0

    in_main_thread = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(import_it)
    _kept_alive.append(in_main_thread)
    if ctypes.pythonapi.Py_AddPendingCall(in_main_thread, None) != 0:
        return False
    # The main thread may be in a call of C code for any time.
    while "_DummyThread" not in vars(sys.modules.get("threading", sys)):
        time.sleep(QUIET_SECONDS)
    return True


def _after_fork() -> None:
    """Register a forked child as a process of its own."""
    global link, session, session_lock
    try:
        if link is not None:
            link.close()
        link = session = None
        session_lock = _thread.allocate_lock()
        if is_child(os.environ) and register_child():
            from . import child_session as module

            module.wait_for_debugger()
    except Exception:
        pass  # The child runs on, whatever happens here.
