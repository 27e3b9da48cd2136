"""debugpy's adapter as a process that nobody can connect to but the gate.

debugpy starts its adapter with a port on 127.0.0.1 that takes the Debug Adapter Protocol from every user of
the machine, and even inside an HTTP request of a web page. Here the adapter is started without that port.
The gate makes a pair of connected sockets for each debugger and hands one of them to the adapter through a
socket that both have had from the start.

__main__.py in this folder is what runs in the adapter's process. Not on Windows, where sockets are not
handed over like this: there debugpy's own way is used.
"""

from __future__ import annotations

import array
import os
import socket
import sys
import time
from subprocess import DEVNULL, Popen, SubprocessError, TimeoutExpired
from typing import Any, Dict, Tuple

#: Seconds that the adapter may take to say that it is ready.
READY_SECONDS = 30.0
#: Seconds that its first process, which only starts it, may take to end.
ENDING_SECONDS = 5.0
#: Seconds between looks at whether it has ended.
POLL_SECONDS = 0.01
_ANSWER_BYTES = 4096


class AdapterFailed(Exception):
    """The adapter's process cannot be started like this; says why."""


class Adapter:
    """The process of debugpy's adapter that belongs to this process.

    Args:
        debugpy_folder: The folder that debugpy is imported from.
        environment: The environment variables of the process.
        gate: The gate's port: what debuggers are told who do not know how they have got here.

    Raises:
        AdapterFailed: Such a process cannot be started.
    """

    def __init__(self, debugpy_folder: str, environment: Dict[str, str], gate: int) -> None:
        if not sys.executable or not hasattr(socket, "AF_UNIX") or not hasattr(socket.socket, "sendmsg"):
            raise AdapterFailed("this system cannot hand sockets to another process")
        #: What the adapter has to say to pydevd, and pydevd to the adapter.
        self.token, self.client_token = os.urandom(32).hex(), os.urandom(32).hex()
        self._port = 0
        self._control, theirs = socket.socketpair()
        self._control.settimeout(READY_SECONDS)
        command = [sys.executable, "-S", os.path.dirname(os.path.abspath(__file__)), str(theirs.fileno())]
        try:
            # It forks at once and ends: the adapter is not to be a child that the program could wait for.
            self._forks = Popen(
                command,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
            )
            told = "{}\n{}\n{}\n{}\n".format(debugpy_folder, self.token, self.client_token, gate)
            self._control.sendall(told.encode("utf-8", "surrogateescape"))
        except (OSError, SubprocessError) as error:
            self._control.close()
            raise AdapterFailed("{}: {}".format(type(error).__name__, error)) from error
        finally:
            theirs.close()

    @property
    def pydevd_endpoint(self) -> Tuple[int, str, str]:
        """For pydevd: the port, what it has to say, and what the adapter says; once it is ready."""
        return self._port, self.token, self.client_token

    def wait_until_ready(self) -> None:
        """Wait until it can be connected to.

        Raises:
            AdapterFailed: It cannot run with this debugpy.
        """
        answer = b""
        try:
            while not answer.endswith(b"\n") and len(answer) < _ANSWER_BYTES:
                received = self._control.recv(_ANSWER_BYTES)
                if not received:
                    break
                answer += received
            self._forks.wait(READY_SECONDS)
            self._port = int(answer)
        except (OSError, ValueError, TimeoutExpired) as error:
            self.end()
            said = answer.decode("utf-8", "replace").strip() or str(error)
            raise AdapterFailed("debugpy's adapter did not start: " + said) from error

    def connect(self) -> socket.socket:
        """A connection to the adapter, as a debugger's.

        Raises:
            OSError: The adapter has ended.
        """
        ours, theirs = socket.socketpair()
        try:
            rights: Any = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
            self._control.sendmsg([b"+"], rights)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def ends_within(self, seconds: float) -> bool:
        """Whether the process has ended, or does so in this time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return not self._control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(POLL_SECONDS)
            except OSError:
                return True

    def end(self) -> None:
        """End the process, whatever it is doing, and with it the session of whoever is connected."""
        try:
            self._control.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._control.close()
        try:
            self._forks.wait(ENDING_SECONDS)
        except TimeoutExpired:
            self._forks.kill()

    def lose(self) -> None:
        """Forget the process without a word to it: the descriptor may stand for something else by now."""
        self._control.detach()

    def close_here(self) -> None:
        """Close it in a forked child; the process stays with the parent."""
        self._control.close()
