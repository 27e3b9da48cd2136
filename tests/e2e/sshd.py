"""A host's OpenSSH server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import subprocess
from typing import IO, TYPE_CHECKING

import psutil
from host_tools import REMOTE_PATH, SSHD, end, listeners, make_key
from projects import until

if TYPE_CHECKING:
    from host import Host


class Sshd:
    """A host's OpenSSH server.

    Args:
        host: The host.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._folder = host.folder / "etc" / "ssh"
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._authorized: list[str] = []
        self.log_path = host.folder / "sshd.log"
        self.log_path.touch()
        self.configure()
        self._make_host_keys()
        self._first = {path.name: path.read_bytes() for path in self._folder.glob("ssh_host_*")}

    @property
    def running(self) -> bool:
        """It has not been stopped, and it has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The listening process's id on this machine."""
        if self._process is None or self._process.poll() is not None:
            return None
        if self._host.on_loopback:
            return self._process.pid
        return psutil.Process(self._process.pid).children()[0].pid

    @property
    def host_key(self) -> str:
        """The public host key that clients are to know: kind and key."""
        return " ".join((self._folder / "ssh_host_ed25519_key.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """That key's fingerprint as ssh shows it."""
        digest = hashlib.sha256(base64.b64decode(self.host_key.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def configure(self, *more: str) -> None:
        """Write its configuration, with more lines that take precedence; it holds from the next start."""
        lines = [
            *more,
            f"Port {self._host.port}",
            f"ListenAddress {self._host.address}",
            *[f"HostKey /etc/ssh/ssh_host_{kind}_key" for kind in ("ed25519", "ecdsa")],
            "AuthorizedKeysFile /etc/ssh/authorized_keys",
            "PidFile none",
            "UsePAM no",
            "UseDNS no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin no",
            "AllowTcpForwarding yes",
            "LogLevel VERBOSE",
            "MaxStartups 100:30:200",
            "PrintMotd no",
            "AcceptEnv LANG LC_*",
            f"SetEnv PATH={REMOTE_PATH}",
            "Subsystem sftp internal-sftp",
        ]
        (self._folder / "sshd_config").write_text("".join(f"{line}\n" for line in lines))

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assert not self.running, "it runs already"
        self._host.begin_to_serve()
        self._close()
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            self._host.command([SSHD, "-D", "-e", "-f", "/etc/ssh/sshd_config"], root=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        wanted = (self._host.address, self._host.port)
        until(lambda: not self.running or wanted in listeners(self._host), "sshd listening")
        assert self.running, self.log()

    def stop(self) -> None:
        """Kill it and the processes of its connections; what they started is left to itself, as it would be."""
        self._kill()
        self._close()
        # Again and again: somebody may just have connected.
        until(lambda: not self._kill(), "the end of sshd")

    def _kill(self) -> int:
        """Kill its processes; how many there were."""
        found = self._processes()
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return len(found)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def drop_connections(self) -> None:
        """Kill the processes of its connections; it goes on listening."""
        listener = self.pid
        for process in self._processes():
            if process.pid != listener:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        until(lambda: [process.pid for process in self._processes()] == [listener], "the end of connections")

    def new_host_key(self) -> None:
        """Have other host keys, as a machine that was made anew has."""
        self._make_host_keys()
        if self.running:
            self.restart()

    def have_host_key(self, kind: str) -> str:
        """Have a host key of this kind alone; the public one, as it stands in known_hosts."""
        path = self._folder / f"ssh_host_{kind}_key"
        if not path.exists():
            make_key(path, kind)
        self.configure()
        config = self._folder / "sshd_config"
        lines = [line for line in config.read_text().splitlines() if not line.startswith("HostKey ")]
        config.write_text("\n".join([*lines, f"HostKey /etc/ssh/{path.name}", ""]))
        self.restart()
        return " ".join(path.with_suffix(".pub").read_text().split()[:2])

    def authorize(self, *public_keys: str) -> None:
        """Let these keys in, and no other; none: nobody. It holds at once."""
        (self._folder / "authorized_keys").write_text("".join(f"{key}\n" for key in public_keys))

    def authorize_first(self, *public_keys: str) -> None:
        """Let these keys in, also after the test that runs."""
        self._authorized += public_keys
        self.authorize(*self._authorized)

    def log(self) -> str:
        """What it has logged in this test."""
        return self.log_path.read_text(errors="replace")

    def connections(self) -> int:
        """How many logins it has accepted in this test."""
        return self.log().count("Accepted publickey for ")

    def restore(self, up: bool) -> None:
        """Take back what a test has changed."""
        config = (self._folder / "sshd_config").read_text()
        self.configure()
        changed = config != (self._folder / "sshd_config").read_text()
        for name, content in self._first.items():
            if (self._folder / name).read_bytes() != content:
                (self._folder / name).write_bytes(content)
                changed = True
        self.authorize(*self._authorized)
        if up and (changed or not self.running):
            self.restart()
        elif up:
            self.drop_connections()
        else:
            self.stop()
        os.truncate(self.log_path, 0)

    def _make_host_keys(self) -> None:
        for kind in ("ed25519", "ecdsa"):
            make_key(self._folder / f"ssh_host_{kind}_key", kind)

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in self._host.processes():
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("sshd"):
                    found.append(process)
        return found

    def _close(self) -> None:
        if self._process is not None:
            end(self._process)
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
