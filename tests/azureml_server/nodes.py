"""The nodes of a job with several: each has its own network and processes, and can reach only the workspace.

They are namespaces of this machine (Linux, root). A port on 127.0.0.1 of one node is not reachable from another.
"""

from __future__ import annotations

import ctypes
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
#: linux/sched.h.
_NETWORK = 0x40000000
#: A node's first process: all others end with it.
_KEEPER = "ip link set lo up && echo ready && exec cat"


class Node:
    """One node; it ends with :meth:`close`, or with this process.

    Args:
        number: Counted from 0.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _KEEPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n", "no node can be made: it takes Linux, root and iproute2"
        with open(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children") as file:
            self._first = int(file.read().split()[0])

    def within(self, folder: Path, command: list[str]) -> list[str]:
        """A command that runs on the node, in a folder."""
        # A command in another mount namespace begins in that one's root.
        there = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder)]
        return ["nsenter", f"--target={self._first}", "--net", "--pid", "--mount", *there, *command]

    def do(self, work: Callable[[], _T]) -> _T:
        """Do something with the node's network: what sockets it makes are the node's for good."""
        found: list[Any] = []

        def there() -> None:
            try:
                with open(f"/proc/{self._first}/ns/net") as network:
                    if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _NETWORK):
                        raise OSError(ctypes.get_errno(), "the node's network cannot be entered")
                found.append(work())
            except BaseException as error:
                found.append(error)

        # A thread is in one network for good.
        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        result: _T = found[0]
        return result

    def connect(self, port: int) -> socket.socket:
        """A connection to a port of the node's own 127.0.0.1."""
        return self.do(lambda: socket.create_connection(("127.0.0.1", port), 10))

    def close(self) -> None:
        """End it, and all that runs there."""
        assert self._keeper.stdin is not None and self._keeper.stdout is not None
        self._keeper.kill()
        self._keeper.wait(10)
        self._keeper.stdin.close()
        self._keeper.stdout.close()
