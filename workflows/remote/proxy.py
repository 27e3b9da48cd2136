"""Runs a ProxyCommand of the user's SSH configuration, connected to a socket."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from typing import Any

from ..errors import UserError
from .address import Address

#: Names and addresses without characters that are special to a shell.
_PLAIN = re.compile(r"[\w.:%@+~\[\]-]*")


class _Proxy(socket.socket):
    """The socket to a command. Closing the socket ends the command."""

    child: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        super().close()
        if self.child is not None and self.child.poll() is None:
            with contextlib.suppress(OSError):
                self.child.terminate()
                self.child.wait(1)


def start_proxy(address: Address) -> Any:
    """Start the ProxyCommand of an address and return the socket for the SSH connection.

    paramiko's own class uses pipes. A socket reports the end of the command, and writing to it cannot block forever.

    Raises:
        UserError: A name in the command has characters that are special to the shell.
    """
    command = _expand_command(address)
    if os.name == "nt":
        import paramiko

        return paramiko.ProxyCommand(command)
    ours, theirs = socket.socketpair()
    with theirs:
        # Run by a shell, as ssh_config(5) says. Ctrl-C in the terminal is meant for the task, not for this command.
        end = theirs.fileno()
        child = subprocess.Popen(["/bin/sh", "-c", f"trap '' INT; exec {command}"], stdin=end, stdout=end)
    proxy = _Proxy(ours.family, ours.type, fileno=ours.detach())
    proxy.child = child
    return proxy


def _expand_command(address: Address) -> str:
    """The command with its tokens expanded."""
    values = {
        "%": "%",
        "h": address.host,
        "p": str(address.port),
        "r": address.user,
        "n": address.original or address.named,
    }

    def value(match: re.Match[str]) -> str:
        found = values[match[1]]
        if not _PLAIN.fullmatch(found):
            raise UserError(
                f"{found!r} cannot be passed to the ProxyCommand.", "Correct AML_REMOTE_HOST or AML_REMOTE_USER."
            )
        return found

    return re.sub(r"%([%hprn])", value, address.command)
