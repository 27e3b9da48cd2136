"""A ProxyCommand of the person's SSH configuration, with a socket of ours at its other end."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from typing import Any

from ..errors import UserError
from .address import Address

#: Characters of names and addresses that mean nothing to a shell.
_PLAIN = re.compile(r"[\w.:%@+~\[\]-]*")


class _Proxy(socket.socket):
    """The socket to a command, which ends with it."""

    child: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        super().close()
        if self.child is not None and self.child.poll() is None:
            with contextlib.suppress(OSError):
                self.child.terminate()
                self.child.wait(1)


def start_proxy(address: Address) -> Any:
    """Start the command of an address; what the SSH connection goes through.

    Where paramiko's own class has pipes, this has a socket: it tells when the command has ended, and can be
    written to without waiting for ever.

    Raises:
        UserError: A name in it would mean something else to the shell.
    """
    command = _expand_command(address)
    if os.name == "nt":
        import paramiko

        return paramiko.ProxyCommand(command)
    ours, theirs = socket.socketpair()
    with theirs:
        # By a shell, as ssh_config(5) has it; Ctrl-C in the terminal is meant for the task, not for the way to it.
        end = theirs.fileno()
        child = subprocess.Popen(["/bin/sh", "-c", f"trap '' INT; exec {command}"], stdin=end, stdout=end)
    proxy = _Proxy(ours.family, ours.type, fileno=ours.detach())
    proxy.child = child
    return proxy


def _expand_command(address: Address) -> str:
    """The command with what stands for the machine filled in."""
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
