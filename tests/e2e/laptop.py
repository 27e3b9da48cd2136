"""The laptop from which the tests reach their hosts: this machine, with a home of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from host import Host
from host_tools import empty, end, make_key
from projects import until

#: What opens the key `locked`.
PASSPHRASE = "correct horse"
_AS_LAPTOP = 'mount --bind "$0" /etc/passwd && exec "$@"'


def accepts(path: Path) -> bool:
    """Whether a program accepts connections at a socket, whose file exists a moment before."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


@dataclass
class Laptop:
    """This machine, with a home of its own: what a person has there.

    Attributes:
        home: The home folder, for `HOME` as well as for programs that ask who the user is, such as ssh.
        address: The laptop's address where the instance sees it.
        pid: A process in its network.
    """

    home: Path
    address: str
    pid: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        self._keys = self.home.with_name(f"{self.home.name}-keys")
        self._keys.mkdir()
        for name, passphrase in {"plain": "", "locked": PASSPHRASE, "stranger": ""}.items():
            make_key(self._keys / name, passphrase=passphrase)
        self._passwd = self._keys / "passwd"
        entries = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
        for entry in entries:
            if int(entry[2]) == os.getuid():
                entry[5] = str(self.home)
        self._passwd.write_text("".join(":".join(entry) + "\n" for entry in entries))
        self.known: dict[tuple[str, int], str] = {}
        self.home.mkdir()
        self.restore()

    @property
    def known_hosts(self) -> Path:
        """The host keys that the person has accepted."""
        return self.home / ".ssh" / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """The person's ssh configuration; not there at first."""
        return self.home / ".ssh" / "config"

    @property
    def prefix(self) -> tuple[str, ...]:
        """Typed before a command: makes `home` the home also for who looks it up in /etc/passwd."""
        return ("unshare", "--mount", "--", "sh", "-c", _AS_LAPTOP, str(self._passwd))

    def key(self, name: str = "plain") -> Path:
        """A private key: `plain`; `locked`, with PASSPHRASE; `stranger`, which nobody lets in."""
        return self.home / "keys" / name

    def public_key(self, name: str = "plain") -> str:
        """The public half of a key, as a line for authorized_keys."""
        return (self._keys / f"{name}.pub").read_text().strip()

    def knows(self, *hosts: Host) -> None:
        """Accept the hosts' keys, those that they have now, and no others."""
        self.known_hosts.write_text("".join(f"[{host.address}]:{host.port} {host.sshd.host_key}\n" for host in hosts))

    def knows_first(self, *hosts: Host) -> None:
        """Accept the hosts' keys, also after the test that runs."""
        for host in hosts:
            self.known[host.address, host.port] = host.sshd.host_key
        self.restore()

    def environment(self, host: Host, gateway: Host | None = None, key: str | None = "plain") -> dict[str, str]:
        """What `inv` needs in its environment to work on a host; caches stay where they are."""
        environ = {
            "HOME": str(self.home),
            "SSH_AUTH_SOCK": "",
            "AML_REMOTE_HOST": host.address,
            "AML_REMOTE_PORT": str(host.port),
            "AML_REMOTE_USER": host.user,
        }
        if key is not None:
            environ["AML_REMOTE_KEY"] = str(self.key(key))
        if gateway is not None:
            environ["AML_REMOTE_GATEWAY"] = f"{gateway.user}@{gateway.address}:{gateway.port}"
        # What the person has set for pip holds, though the home is another.
        for settings in (Path.home() / ".config" / "pip" / "pip.conf", Path.home() / ".pip" / "pip.conf"):
            if "PIP_CONFIG_FILE" not in os.environ and settings.exists():
                environ["PIP_CONFIG_FILE"] = str(settings)
        return environ

    def ssh(
        self, host: Host, *arguments: str, gateway: Host | None = None, key: str = "plain", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host with the system's ssh."""
        options = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-i", str(self.key(key)), "-p", str(host.port)]
        if gateway is not None:
            jump = (
                f"ssh -o BatchMode=yes -i {self.key(key)} -p {gateway.port} -W %h:%p {gateway.user}@{gateway.address}"
            )
            options += ["-o", f"ProxyCommand={jump}"]
        done = subprocess.run(
            [*self.prefix, "ssh", *options, f"{host.user}@{host.address}", *arguments],
            env={**os.environ, **self.environment(host)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0 or not check, done
        return done

    @contextlib.contextmanager
    def agent(self, key: str = "plain") -> Iterator[dict[str, str]]:
        """An ssh-agent that holds a key without a passphrase; gives what to add to the environment."""
        path = self.home / "agent"
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL, start_new_session=True, text=True
        )
        try:
            until(lambda: accepts(path), "the agent")
            environ = {"SSH_AUTH_SOCK": str(path)}
            subprocess.run(["ssh-add", "-q", str(self.key(key))], check=True, env={**os.environ, **environ})
            yield environ
        finally:
            end(agent)

    def restore(self) -> None:
        """Take back what a test has changed, and end what it left running."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("HOME") == str(self.home):
                    process.kill()
        empty(self.home)
        (self.home / ".ssh").mkdir(mode=0o700)
        (self.home / "keys").mkdir(mode=0o700)
        for path in self._keys.iterdir():
            if path != self._passwd:
                shutil.copy(path, self.home / "keys")
        self.known_hosts.write_text("".join(f"[{at}]:{port} {key}\n" for (at, port), key in self.known.items()))
