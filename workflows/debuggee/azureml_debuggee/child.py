"""A child process of the debugged program: it says that it is there, and lets the debugger in when it is told to.

The debugged process (children.py) listens on a socket of the system's, whose name its children find in their
environment. While a debugger is attached that wants to see children, there is a file as well: a child that finds it
says at once that it is there, and waits to be attended to. Every other child goes on, with a thread that says so a
moment later and waits for a word from there.

Imported at the start of each child, most of which end before any debugger comes. So nothing is imported here that is
not needed by all of them, not even `__future__`.
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
#: Seconds that a process has run before it says that it is there, where nobody is attached. Many run shorter.
QUIET_SECONDS = 0.05
#: Seconds that the debugged process may take to accept a connection.
CONNECT_SECONDS = 1.0
_PIECE_BYTES = 4096
_CREDENTIALS_BYTES = 12

#: This process's link to the one that is debugged.
link: "Optional[Link]" = None
#: This process's debugger (debugger.py), once there is one; that of the process that this one was forked from.
debugger: "Any" = None
#: What waits for the debugger and lets it in (child_session.py), once there is one.
session: "Any" = None
#: Held while a session is made.
session_lock = _thread.allocate_lock()
#: Whether what this process starts comes with the debuggee.
_injects = False
#: What has to live on, since the system may still call it.
_kept_alive: "List[Any]" = []


class Link:
    """A connection to the debugged process.

    Args:
        name: The socket's name; ``@`` at its beginning stands for a name that is no file's.

    Raises:
        OSError: Nobody listens there, or another user does.
    """

    def __init__(self, name: str) -> None:
        import _socket

        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._socket.settimeout(CONNECT_SECONDS)
            self._socket.connect("\0" + name[1:] if name.startswith("@") else name)
            if hasattr(_socket, "SO_PEERCRED"):
                # The name may be another's by now, and what comes from there is obeyed.
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
        """What tells the socket from whatever else may get its number."""
        status = os.fstat(self._socket.fileno())
        return status.st_dev, status.st_ino

    def is_lost(self) -> bool:
        """Whether the program has closed the descriptor, as those do that close all of them."""
        try:
            return bool(self._status() != self._identity)
        except OSError:
            return True

    def send(self, line: str) -> None:
        """Send one line; nothing where the other side has gone."""
        try:
            if not self.is_lost():
                self._socket.sendall(line.encode("utf-8", "replace") + b"\n")
        except OSError:
            pass

    def read_line(self) -> "Optional[str]":
        """Wait for the next line; None where the other side has gone."""
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
        """Close it, or forget the descriptor where that is something else's by now."""
        if self.is_lost():
            self._socket.detach()
        else:
            self._socket.close()


def is_child(environment: "Any") -> bool:
    """Whether this process is a child of a debugged one; that has put these into its own environment."""
    return bool(environment.get(SOCKET_VARIABLE)) and environment.get("AZUREML_DEBUGGEE_OWNER") != str(os.getpid())


def start_child(inject: str, program: "Any" = None) -> "Optional[Callable[[], None]]":
    """In a new process: say that it is there.

    Args:
        inject: The folder through which this has come in.
        program: What is run (program.Program); by default what Python has been told to run.

    Returns:
        What waits for the debugger, where it has to be waited for.
    """
    if program is None and sys.argv and os.path.dirname(os.path.abspath(sys.argv[0])) == inject:
        return None  # launch.py: it asks again, with what it launches.
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
    """Take the folder out of what the program sees of its environment, and leave it in the system's."""
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
    """Have every program that this process starts from now on come with the debuggee (child_environment.py)."""
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
    """Stands first among the finders, for the moment at which a module is asked for that starts processes.

    It stays there: another thread that goes through the finders would miss one if it went.
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
            # Such as without the right to read it any more.
            return function(path, argv, *more, **options)
        return child_environment.start_program(function, folder, path, argv, more, options)

    return start


def watch_forks() -> None:
    """Have the processes that are forked from this one say that they are there.

    Not by `os.register_at_fork`: functions that are registered later have still to put their modules in order then,
    and a process that is forked to run another program at once comes by as well.
    """
    for name in ("fork", "forkpty"):
        if hasattr(os, name):
            setattr(os, name, _with_registration(getattr(os, name)))


def ignore_fork_warning() -> None:
    """Do not warn of the debuggee's threads when the program forks: the forked process does without them."""
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
    """Say that this process is there, now or in a moment; whether a debugger is attached that wants to see children."""
    global link
    if os.path.exists(os.environ.get(ATTENDED_VARIABLE, "")):
        try:
            link = Link(os.environ[SOCKET_VARIABLE])
        except OSError:
            return False
        link.send("{} waits".format(os.getpid()))
        _thread.start_new_thread(_listen, (link,))
        return True
    _thread.start_new_thread(_register_later, (os.getpid(),))
    return False


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
    """Wait for the debugged process's first word; what it says is for a thread that the debugger leaves alone."""
    line = current.read_line()
    if line is not None and _has_threading():
        from . import child_session as module

        module.start_listening(current, line)
    elif session is not None:
        session.on_parent_ended()


def _has_threading() -> bool:
    """Whether `threading` has been imported, by the program's main thread.

    What imports it first is the main thread for it, and this is none.
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
    # The main thread may be in a call of C code for as long as it likes.
    while "_DummyThread" not in vars(sys.modules.get("threading", sys)):
        time.sleep(QUIET_SECONDS)
    return True


def _after_fork() -> None:
    """In a forked child: it is one of its own."""
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
