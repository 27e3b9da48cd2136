"""What the tests' hosts are made with."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host import Host
    from laptop import Laptop

#: As on an Azure ML compute instance.
USER = "azureuser"
UID = 1000
PORT = 50000
#: What is on a remote host's PATH; its first folder is private to the host and holds `Host.programs`.
REMOTE_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
SSHD = "/usr/sbin/sshd"


def run_program(*command: str, input: str | None = None, check: bool = True) -> str:
    """Run one of the system's programs."""
    done = subprocess.run(command, input=input, capture_output=True, text=True)
    assert done.returncode == 0 or not check, (command, done.stderr)
    return done.stdout


def end(child: subprocess.Popen[str]) -> None:
    """End a program, however it takes it, and close what led to it."""
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
    if child.poll() is None:
        child.kill()
        child.wait(20)
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def empty(folder: Path, keep: Sequence[str] = ()) -> None:
    """Take away all that is in a folder."""
    for path in folder.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> None:
    for old in (path, Path(f"{path}.pub")):
        old.unlink(missing_ok=True)
    run_program("ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-a", "1", "-C", path.name, "-f", str(path))


def listeners(host: Host | Laptop) -> set[tuple[str, int]]:
    """Every address and port on which somebody listens in a host's network."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{host.pid}/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == "0A":
                raw, port = local.split(":")
                # Words of four bytes, each in the machine's own order.
                packed = b"".join(int(raw[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(raw), 8))
                found.add((socket.inet_ntop(family, packed), int(port, 16)))
    return found


def namespaces_of(pid: int) -> tuple[int, int]:
    """What tells a host's processes from others, also from those on this machine that lead there."""
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino, os.stat(f"/proc/{pid}/ns/pid").st_ino
