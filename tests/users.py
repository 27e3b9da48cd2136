"""Peers of other users of this machine: children that become another user before they connect."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType

import pytest

#: An ordinary user; without a name, which nothing asks for.
OTHER = 65533

needs_users = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)

#: Everything is loaded before the change of user, who need not be able to read it.
_CHILD = """\
import os, socket, sys
address, port, user, then, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
os.setgroups([])
os.setgid(user)
os.setuid(user)
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
s.settimeout(20)
try:
    s.connect((address, port))
    s.sendall(bytes.fromhex(first))
    if then == "close":
        s.close()
        print("closed", flush=True)
        sys.stdin.read()
        sys.exit()
    if then == "half-close":
        s.shutdown(socket.SHUT_WR)
    print("connected", flush=True)
    while True:
        data = s.recv(65536)
        if not data:
            break
        print("data", data.hex(), flush=True)
except OSError as error:
    print("error", type(error).__name__, flush=True)
print("end", flush=True)
sys.stdin.read()
"""


class Dialer:
    """A child of another user that connects; ended with the block that it is used in."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        #: Everything that it has received.
        self.received = b""

    def said(self, word: str) -> bool:
        """Read on until the child says a word; False where it ends without it."""
        assert self._child.stdout is not None
        for line in self._child.stdout:
            first, _, rest = line.strip().partition(" ")
            if first == "data":
                self.received += bytes.fromhex(rest)
            if first == word:
                return True
            if first == "end":
                return False
        return False

    def __enter__(self) -> Dialer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.communicate()


def dial(port: int, user: int, *, address: str = "127.0.0.1", then: str = "hold", first: bytes = b"") -> Dialer:
    """Connect as another user.

    Args:
        port: Where to.
        user: The user's id.
        address: Where to.
        then: ``hold`` the connection until the other side closes it, ``half-close`` it, or ``close`` it at once.
        first: What to send.
    """
    command = [sys.executable, "-c", _CHILD, address, str(port), str(user), then, first.hex()]
    return Dialer(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
