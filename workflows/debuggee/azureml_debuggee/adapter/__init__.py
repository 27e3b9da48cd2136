"""Runs debugpy's adapter as a process that only the gate can connect to.

debugpy starts its adapter with a port on 127.0.0.1 that takes the Debug Adapter Protocol from every user of
the machine, even inside an HTTP request of a web page. Here the adapter is started without that port.
The gate creates a pair of connected sockets for each debugger and passes one of them to the adapter through a
socket that both have from the start.

__main__.py in this folder runs in the adapter's process. On Windows, where sockets cannot be passed like
this, debugpy starts its adapter itself.
"""

from __future__ import annotations

import array
import os
import socket
import sys
import time
from subprocess import DEVNULL, Popen, SubprocessError, TimeoutExpired
from typing import Any, Dict, Tuple

#: Seconds that the adapter may take to report that it is ready.
READY_SECONDS = 30.0
#: Seconds that its first process, which only starts it, may take to end.
ENDING_SECONDS = 5.0
#: Seconds between checks whether it has ended.
POLL_SECONDS = 0.01
_ANSWER_BYTES = 4096


class AdapterFailed(Exception):
    """The adapter's process cannot be started like this; the message has the reason."""


class Adapter:
    """The process of debugpy's adapter that belongs to this process.

    Args:
        debugpy_folder: The folder that debugpy is imported from.
        environment: The environment variables of the process.
        gate: The gate's port, which the adapter reports to debuggers as its own.

    Raises:
        AdapterFailed: Such a process cannot be started.
    """

    def __init__(self, debugpy_folder: str, environment: Dict[str, str], gate: int) -> None:
        if not sys.executable or not hasattr(socket, "AF_UNIX") or not hasattr(socket.socket, "sendmsg"):
            raise AdapterFailed("this system cannot hand sockets to another process")
        #: The token that pydevd sends to the adapter, and the one that the adapter sends to pydevd.
        self.token, self.client_token = os.urandom(32).hex(), os.urandom(32).hex()
        self._port = 0
        self._control, theirs = socket.socketpair()
        self._control.settimeout(READY_SECONDS)
        command = [sys.executable, "-S", os.path.dirname(os.path.abspath(__file__)), str(theirs.fileno())]
        try:
            # It forks at once and ends, so that the adapter is not a child that the program could wait for.
            self._starter = Popen(
                command,
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd="/",
            )
            settings = "{}\n{}\n{}\n{}\n".format(debugpy_folder, self.token, self.client_token, gate)
            self._control.sendall(settings.encode("utf-8", "surrogateescape"))
        except (OSError, SubprocessError) as error:
            self._control.close()
            raise AdapterFailed("{}: {}".format(type(error).__name__, error)) from error
        finally:
            theirs.close()

    @property
    def pydevd_endpoint(self) -> Tuple[int, str, str]:
        """The port for pydevd, pydevd's token and the adapter's token; valid once the adapter is ready."""
        return self._port, self.token, self.client_token

    def wait_until_ready(self) -> None:
        """Wait until the adapter accepts connections.

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
            self._starter.wait(READY_SECONDS)
            self._port = int(answer)
        except (OSError, ValueError, TimeoutExpired) as error:
            self.end()
            message = answer.decode("utf-8", "replace").strip() or str(error)
            raise AdapterFailed("debugpy's adapter did not start: " + message) from error

    def connect(self) -> socket.socket:
        """Connect to the adapter as a debugger does.

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
        """End the process at once, and with it the sessions of all connected debuggers."""
        try:
            self._control.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._control.close()
        try:
            self._starter.wait(ENDING_SECONDS)
        except TimeoutExpired:
            self._starter.kill()

    def drop(self) -> None:
        """Drop the process without closing the descriptor, which may stand for another file by now."""
        self._control.detach()

    def close_after_fork(self) -> None:
        """Close the socket in a forked child; the process stays with the parent."""
        self._control.close()
