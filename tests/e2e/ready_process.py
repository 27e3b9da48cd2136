"""The process that `ready` starts: loads the program, and becomes a command, by a fork, as often as it is asked to.

`python ready_process.py DESCRIPTOR LISTENER ROOT [SDK]`; standard library only, but for what it loads. Whoever reaches
LISTENER, as `ready_relay` does, may ask for one command.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import inspect
import json
import os
import pkgutil
import runpy
import selectors
import socket
import struct
import subprocess
import sys
import threading
import types
from typing import Any

from ready import PLAIN, Asked, Begun, deciding

#: What commands load that work on this machine; the rest is loaded by the command that needs it.
_LEFT_OUT = (
    "workflows.debuggee.",
    "workflows.azureml.",
    "workflows.reference",
    "workflows.tasks.development",
)

#: The background processes that start as their command has: those that no test and no part of the program looks up by
#: its command line or variables, which are this process's own.
_BACKGROUND = ("workflows.runs.runner", "workflows.azureml.follower")


def load(root: str, sdk: str = "") -> None:
    """Import what commands import, and the SDK as the program does."""
    sys.path.insert(0, root)
    importlib.import_module("invoke.main")
    package = importlib.import_module("workflows")
    assert package.namespace
    # Every command with SDK v2 takes what speaks to a workspace, too.
    left_out = tuple(name for name in _LEFT_OUT if sdk != "v2" or name != "workflows.azureml.")
    for module in pkgutil.walk_packages(package.__path__, "workflows."):
        if not module.name.startswith(left_out) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    if sdk == "v1":
        importlib.import_module("workflows.azureml.sdk").load()
    elif sdk == "v2":
        importlib.import_module("workflows.azureml.v2.sdk_module").BackgroundImport().wait()
        importlib.import_module("azure.identity")
        # The SDK looks at its callers, and the first look at any goes through all modules.
        inspect.stack()
    elif sdk == "relay":
        for name in ("workflows.azureml.relay.instance", "workflows.azureml.custom_sign_in", "requests", "websocket"):
            importlib.import_module(name)
    elif sdk == "mcp":
        importlib.import_module("workflows.mcp_server.serving").require_sdk()
    sys.path.remove(root)
    # A fork takes none but its own thread along.
    assert len(os.listdir("/proc/self/task")) == 1


def received(source: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next command, and the descriptors for its streams and its status.

    Raises:
        EOFError: Whoever asks has gone.
    """
    fds = array.array("i")
    head, more, *_ = source.recvmsg(4, socket.CMSG_SPACE(4 * fds.itemsize))
    if not head:
        raise EOFError
    for _level, _kind, data in more:
        fds.frombytes(data)
    left = struct.unpack("!I", head)[0]
    parts = []
    while left:
        part = source.recv(left)
        parts.append(part)
        left -= len(part)
    return json.loads(b"".join(parts)), list(fds)


def become(wanted: dict[str, Any], streams: list[int]) -> None:
    """Make of this copy what a new process of the command is."""
    os.setsid()
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environ"])
    kind, _, *others = wanted["arguments"]
    sys.argv = [kind, *others]
    sys.path[0] = os.getcwd()
    first = os.environ.get("PYTHONPATH", "").partition(os.pathsep)[0]
    if first and first not in sys.path:
        sys.path.insert(1, first)


def background(place: str) -> None:
    """Have a command's background processes start as it has, each as a copy of the process that has loaded the program.

    Those of a command whose environment has ``AZUREML_DEBUG_TEST_PLAIN`` start the usual way.

    Args:
        place: Where the process that has started the command is asked for others.
    """
    usual, told = subprocess.Popen._execute_child, deciding(os.environ, "")  # type: ignore[attr-defined]

    def execute(self: Any, args: Any, executable: Any, *others: Any) -> None:
        environ = others[4]
        asked = isinstance(args, list) and args[:2] == [sys.executable, "-m"] and args[2] in _BACKGROUND
        if asked and PLAIN not in environ:
            path, _, more = environ["PYTHONPATH"].partition(os.pathsep)
            if path in sys.path and deciding({**environ, "PYTHONPATH": more}, "") == told:
                kind = type(self)
                self.__class__ = type(kind.__name__, (Begun, kind), {"source": Asked(place)})
                try:
                    self._execute_child(args[1:], executable, *others)
                    return
                except (ConnectionError, FileNotFoundError):
                    self.__class__ = kind
        usual(self, args, executable, *others)

    subprocess.Popen._execute_child = execute  # type: ignore[attr-defined]


def serve(source: socket.socket, listener: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Start commands and tell how they end. Returns in each copy, with what that has to become."""
    events = selectors.DefaultSelector()
    for asked in (source, listener):
        events.register(asked, selectors.EVENT_READ)
    while True:
        for key, _ in events.select():
            if key.data:
                pid, tells = key.data
                status = os.waitpid(pid, 0)[1]
                events.unregister(key.fd)
                os.close(key.fd)
                tell(tells, status)
                os.close(tells)
                continue
            try:
                if key.fileobj is listener:
                    with listener.accept()[0] as asking:
                        wanted, fds = received(asking)
                else:
                    wanted, fds = received(source)
            except EOFError:
                if key.fileobj is listener:
                    continue
                # All of it is over.
                os._exit(0)
            pid = os.fork()
            if not pid:
                # Else it is closed whenever the garbage collector finds it, by a number that is another file's by then.
                events.close()
                return wanted, fds[:3]
            for fd in fds[:3]:
                os.close(fd)
            events.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, fds[3]))
            tell(fds[3], pid)


def tell(descriptor: int, number: int) -> None:
    """Write a number for a test that may have gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, struct.pack("!q", number))


def run(kind: str, what: str) -> None:
    """Run a module (`-m`) or lines of Python (`-c`)."""
    if kind == "-m":
        # As in a process that has not loaded it as anything else.
        sys.modules.pop(what, None)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(what, "<string>", "exec"), vars(module))


def end(code: int) -> None:
    """End this copy as Python does, but keep the modules: to take them down copies all that is shared with others."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            # Python has its own words and code for it.
            sys.exit(code)
    os._exit(code & 0xFF)


def main() -> None:
    """Load, say what has been loaded, serve; a copy goes on as the command."""
    descriptor, listening, *told = sys.argv[1:]
    sys.argv[1:] = []
    source, listener = (socket.socket(fileno=int(number)) for number in (descriptor, listening))
    load(*told)
    names = " ".join({name.partition(".")[0] for name in sys.modules} | {"sitecustomize", "usercustomize"}).encode()
    source.sendall(struct.pack("!I", len(names)) + names)
    gc.collect()
    # Copies share what is never looked through.
    gc.freeze()
    wanted, streams = serve(source, listener)
    place = listener.getsockname()
    source.detach()
    listener.detach()
    become(wanted, streams)
    background(place)
    code = 0
    try:
        run(*wanted["arguments"][:2])
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            raise
        code = error.code or 0
    end(code)


if __name__ == "__main__":
    main()
