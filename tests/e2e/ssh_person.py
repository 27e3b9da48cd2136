"""A person with SSH settings, and rows of settings that are tried with the system's own ssh and with `--remote`."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hosts import Hosts
from laptop import Laptop, accepts
from projects import until

from workflows.errors import UserError
from workflows.remote import address
from workflows.remote.connection import close_connection, open_connection
from workflows.settings import resolve


def run(*command: str, **how: object) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **how).stdout  # type: ignore[call-overload, no-any-return]


@dataclass
class Person:
    """A person with a Host `box` in their SSH configuration.

    Attributes:
        environ: What they have in their environment.
        host: The machine that `box` is.
    """

    hosts: Hosts
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    close: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def laptop(self) -> Laptop:
        return self.hosts.laptop

    @property
    def keys(self) -> Path:
        return self.laptop.home / "keys"

    def configure(self, *lines: str, before: tuple[str, ...] = ()) -> None:
        host = self.hosts.instance
        known = ["Host box", f"HostName {host.address}", f"Port {host.port}", f"User {host.user}"]
        self.laptop.ssh_config.write_text("\n".join([*before, *known, *lines, ""]))

    def key(self, name: str, kind: str = "ed25519", *options: str) -> Path:
        """A key that the machine lets in."""
        path = self.keys / name
        path.parent.mkdir(parents=True, exist_ok=True)
        run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path), *options)
        self.let_in(path)
        return path

    def let_in(self, *paths: Path) -> None:
        self.hosts.instance.sshd.authorize(*[Path(f"{path}.pub").read_text().strip() for path in paths])

    def agent(self, *keys: Path, name: str = "agent.sock", set: bool = True) -> Path:
        """An agent with keys, named by the environment or by nobody."""
        path = self.folder / name
        process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
        self.close.callback(process.wait, 20)
        self.close.callback(process.kill)
        until(lambda: accepts(path), "the agent")
        for key in keys:
            run("ssh-add", "-q", str(key), env={**os.environ, "SSH_AUTH_SOCK": str(path)})
        if set:
            self.environ["SSH_AUTH_SOCK"] = str(path)
        return path

    def strangers(self, count: int) -> list[Path]:
        """Keys that nobody lets in."""
        made = []
        for number in range(count):
            made.append(self.keys / f"other-{number}")
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made[-1]))
        return made

    def serve(self, *lines: str) -> None:
        """Have the machine's SSH server configured so."""
        self.hosts.instance.sshd.configure(*lines)
        self.hosts.instance.sshd.restart()

    def authority(self) -> Path:
        """An authority that the machine trusts for people."""
        path = self.keys / "authority"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
        shutil.copy(f"{path}.pub", self.hosts.instance.folder / "etc" / "ssh" / "authority.pub")
        self.serve("TrustedUserCAKeys /etc/ssh/authority.pub")
        return path

    def certify(self, key: Path, *options: str, kind: str = "ed25519", who: str = "azureuser") -> Path:
        """A key with a certificate beside it, of which the machine knows the authority alone."""
        authority = self.authority()
        run("ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key))
        run("ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", who, *options, f"{key}.pub")
        self.hosts.instance.sshd.authorize()
        return key.with_name(f"{key.name}-cert.pub")

    def certify_machine(self, names: str, *options: str) -> str:
        """Give the machine a certificate; the authority's public key."""
        folder, authority = self.hosts.instance.folder / "etc" / "ssh", self.keys / "machines"
        run("ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(authority))
        shutil.copy(folder / "ssh_host_ed25519_key.pub", self.keys / "host.pub")
        run(
            "ssh-keygen",
            "-q",
            "-s",
            str(authority),
            "-I",
            "it",
            "-h",
            "-n",
            names,
            *options,
            str(self.keys / "host.pub"),
        )
        shutil.copy(self.keys / "host-cert.pub", folder / "ssh_host_ed25519_key-cert.pub")
        self.serve("HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub")
        return " ".join(authority.with_suffix(".pub").read_text().split()[:2])

    def place(self) -> str:
        return f"[{self.hosts.instance.address}]:{self.hosts.instance.port}"

    def ssh(self, name: str = "box") -> subprocess.CompletedProcess[str]:
        """What the system's own ssh makes of it."""
        return subprocess.run(
            [*self.laptop.prefix, "ssh", "-o", "BatchMode=yes", "-o", "UpdateHostKeys=no", name, "true"],
            env={**os.environ, "HOME": str(self.laptop.home), "SSH_AUTH_SOCK": "", **self.environ},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def remote(self, **settings: str) -> None:
        """What `--remote` makes of it."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"HOME": str(self.laptop.home), "SSH_AUTH_SOCK": "", **self.environ}.items():
                patch.setenv(name, value)
            wanted = resolve(self.folder, environ={"AML_REMOTE_HOST": "box", **settings})
            connection = open_connection(address.resolve(wanted), {})
            try:
                assert connection.run("echo it works", hide=True, in_stream=False).stdout == "it works\n"
            finally:
                close_connection(connection)


@pytest.fixture
def person(hosts: Hosts, tmp_path: Path) -> Iterator[Person]:
    made = Person(hosts, tmp_path)
    with made.close:
        yield made


Setting = Callable[[Person], None]


class Rows(dict[str, tuple[Setting, str]]):
    """Settings of a person by their names, each with what has to be told where ssh does not connect with it."""

    def works(self, row: Setting) -> Setting:
        """A row that ssh connects with."""
        self[row.__name__] = (row, "")
        return row

    def refused(self, *words: str) -> Callable[[Setting], Setting]:
        """A row that ssh does not connect with; what has to be told."""

        def made(row: Setting) -> Setting:
            self[row.__name__] = (row, "|".join(words))
            return row

        return made

    def check(self, person: Person, name: str) -> None:
        """What ssh accepts is accepted, and what it refuses is told."""
        row, told = self[name]
        row(person)
        said = person.ssh()
        assert (said.returncode == 0) is (not told), said
        (person.folder / "new").unlink(missing_ok=True)
        if not told:
            person.remote()
            return
        with pytest.raises(UserError) as raised:
            person.remote()
        for words in told.split("|"):
            assert words in f"{raised.value.problem} {raised.value.remedy}", raised.value
        assert raised.value.problem.endswith(".") and raised.value.remedy
        for wrong in ("does not answer as an SSH server", "Traceback"):
            assert wrong not in raised.value.problem
