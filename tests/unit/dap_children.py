"""Peers for the tests of the debugger's side: programs under a real debugpy, and a scripted fake."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

#: In the adapter: its listener stays where greeting a debugger fails. The thread that accepts debuggers also sends the
#: new one's ports to the one that came before, and ends if that has just left (debugpy 1.8.22).
LISTENER = """
import threading

def begin(self, group=None, target=None, *arguments, **options):
    def listen():
        while True:
            try:
                return target()
            except Exception:
                pass
    accepts = getattr(target, "__name__", "") == "accept_worker"
    created(self, group, listen if accepts else target, *arguments, **options)

created, threading.Thread.__init__ = threading.Thread.__init__, begin
"""
SERVER = """
import importlib, json, socket, sys
import debugpy

sys.path.insert(0, sys.argv[1])
debugpy.configure(subProcess=False, pythonEnv={"PYTHONPATH": sys.argv[2]})
_, port = debugpy.listen(("127.0.0.1", 0))
server = socket.create_server(("127.0.0.1", 0))
print(json.dumps({"debug": port, "requests": server.getsockname()[1]}), flush=True)
if "--wait" in sys.argv:
    debugpy.wait_for_client()
import app
while True:
    connection, _ = server.accept()
    with connection:
        text = connection.makefile("r").readline().strip()
        connection.sendall(repr(app.handle(text)).encode())
"""


class Debuggee:
    """A child process under debugpy that answers requests with ``app.handle``."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        script = folder / "server.py"
        script.write_text(SERVER)
        for_adapter = folder / "adapter"
        for_adapter.mkdir()
        (for_adapter / "sitecustomize.py").write_text(LISTENER)
        self.process = subprocess.Popen(
            [sys.executable, "-Xfrozen_modules=off", str(script), str(folder), str(for_adapter), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
        )
        assert self.process.stdout is not None
        ports = json.loads(self.process.stdout.readline())
        self.port: int = ports["debug"]
        self._requests: int = ports["requests"]

    def ask(self, text: str, timeout: float = 10.0) -> str:
        """One request; the answer is what ``app.handle`` returned."""
        with socket.create_connection(("127.0.0.1", self._requests), timeout) as connection:
            connection.sendall(text.encode() + b"\n")
            connection.settimeout(timeout)
            with connection.makefile("r") as answer:
                return answer.read()

    def end(self) -> None:
        """End the child and its adapter, by the id of their group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def debuggee(folder: Path, *arguments: str) -> Iterator[Debuggee]:
    """A :class:`Debuggee` that is ended afterwards."""
    child = Debuggee(folder, *arguments)
    try:
        yield child
    finally:
        child.end()


@contextlib.contextmanager
def fake_peer(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port on which one client is treated as ``behave`` says, then left until the end of the test."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def serve() -> None:
        # Connections that the test breaks off are what the tests are about.
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            taken.append(connection)
            behave(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        listener.close()
        for connection in taken:
            connection.close()
        assert not thread.is_alive()
