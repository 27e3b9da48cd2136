"""What `ssh HOST` accepts on this machine, `--remote` accepts, and it refuses what ssh refuses: keys and settings.

Each row is tried with the system's own ssh too, which says whether it has to work.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hosts import Hosts
from key_agent import SecurityKey, security_agent
from laptop import PASSPHRASE, Laptop
from projects import post, until
from remotes import make_remote_project

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
        until(path.exists, "the agent")
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
ROWS: dict[str, tuple[Setting, str]] = {}


def works(row: Setting) -> Setting:
    """A row that ssh connects with."""
    ROWS[row.__name__] = (row, "")
    return row


def refused(*words: str) -> Callable[[Setting], Setting]:
    """A row that ssh does not connect with; what has to be told."""

    def made(row: Setting) -> Setting:
        ROWS[row.__name__] = (row, "|".join(words))
        return row

    return made


# Keys -----------------------------------------------------------------------------------------------


@works
def a_key_file_that_the_configuration_names(person: Person) -> None:
    person.configure(f"IdentityFile {person.key('mine')}")


@works
def a_usual_key_file(person: Person) -> None:
    person.key("../.ssh/id_ed25519")
    person.configure()


@refused("does not let azureuser in with the key", "keys/stranger")
def a_key_that_the_machine_does_not_know(person: Person) -> None:
    person.configure(f"IdentityFile {person.keys}/stranger")


@refused("There is no key to log in", "AML_REMOTE_KEY=")
def no_key_at_all(person: Person) -> None:
    person.configure()


@refused("keys/gone does not exist")
def a_key_file_that_is_not_there(person: Person) -> None:
    person.configure(f"IdentityFile {person.keys}/gone")


@works
def a_key_file_that_is_not_there_and_one_that_is(person: Person) -> None:
    person.configure(f"IdentityFile {person.keys}/gone", f"IdentityFile {person.key('mine')}")


@refused("is in PuTTY's format", "puttygen")
def a_key_of_putty(person: Person) -> None:
    path = person.keys / "mine.ppk"
    path.write_text("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n")
    path.chmod(0o600)
    person.configure(f"IdentityFile {path}")


@refused("keys/locked is encrypted", "ssh-add")
def an_encrypted_key_and_nobody_to_ask(person: Person) -> None:
    person.configure(f"IdentityFile {person.keys}/locked")


@works
def an_encrypted_key_that_is_not_needed(person: Person) -> None:
    path = person.keys / "private"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path))
    person.configure(f"IdentityFile {path}", f"IdentityFile {person.key('mine')}")


@works
def two_keys_one_after_the_other(person: Person) -> None:
    first, second = person.key("first"), person.key("second")
    person.let_in(first, second)
    person.serve("AuthenticationMethods publickey,publickey")
    person.configure(f"IdentityFile {first}", f"IdentityFile {second}")


@refused("takes the key of azureuser and wants more: keyboard-interactive")
def a_key_and_something_typed(person: Person) -> None:
    person.configure(f"IdentityFile {person.key('mine')}")
    person.serve("AuthenticationMethods publickey,keyboard-interactive", "KbdInteractiveAuthentication yes")


@refused("lets azureuser in with no key at all", "password")
def a_machine_that_takes_no_keys(person: Person) -> None:
    person.configure(f"IdentityFile {person.key('mine')}")
    person.serve("PubkeyAuthentication no", "PasswordAuthentication yes")


@refused("does not let azureuser in")
def a_user_who_is_not_let_in(person: Person) -> None:
    person.configure(f"IdentityFile {person.key('mine')}")
    person.serve("AllowUsers somebody")


# Agents ---------------------------------------------------------------------------------------------


@works
def the_agents_key(person: Person) -> None:
    key = person.key("mine")
    person.agent(key)
    key.unlink()
    person.configure()


@refused("ends the login after 4 keys, and there are more", "Name the key", "IdentitiesOnly")
def more_keys_in_the_agent_than_the_machine_allows(person: Person) -> None:
    person.agent(*person.strangers(8), person.key("mine"))
    person.serve("MaxAuthTries 2")
    person.configure()


@works
def more_keys_in_the_agent_and_the_right_one_named(person: Person) -> None:
    person.agent(*person.strangers(8), person.key("mine"))
    person.configure(f"IdentityFile {person.keys}/mine")


@works
def only_these_with_a_public_key_file(person: Person) -> None:
    key = person.key("mine")
    person.agent(*person.strangers(8), key)
    key.unlink()
    person.configure(f"IdentityFile {key}.pub", "IdentitiesOnly yes")


@works
def only_these_with_the_name_of_a_private_key_that_only_the_agent_has(person: Person) -> None:
    key = person.key("mine")
    person.agent(*person.strangers(8), key)
    key.unlink()
    person.configure(f"IdentityFile {key}", "IdentitiesOnly yes")


@refused("is the public half of a key", "ssh-add")
def a_public_key_file_whose_key_the_agent_does_not_have(person: Person) -> None:
    key = person.key("mine")
    person.agent(*person.strangers(1))
    key.unlink()
    person.configure(f"IdentityFile {key}.pub", "IdentitiesOnly yes")


@refused("does not let azureuser in")
def only_these_and_the_right_one_is_another(person: Person) -> None:
    person.agent(person.key("mine"))
    person.configure(f"IdentityFile {person.keys}/stranger", "IdentitiesOnly yes")


@works
def an_agent_of_its_own(person: Person) -> None:
    key = person.key("mine")
    path = person.agent(key, name="my agent", set=False)
    key.unlink()
    person.configure(f'IdentityAgent "{path}"')


@works
def an_agent_that_a_variable_names(person: Person) -> None:
    key = person.key("mine")
    person.environ["WORK_AGENT"] = str(person.agent(key, set=False))
    key.unlink()
    person.configure("IdentityAgent $WORK_AGENT")


@refused("There is no key")
def no_agent_though_there_is_one(person: Person) -> None:
    key = person.key("mine")
    person.agent(key)
    key.unlink()
    person.configure("IdentityAgent none")


@refused("The SSH agent does not answer")
def an_agent_that_is_gone(person: Person) -> None:
    person.environ["SSH_AUTH_SOCK"] = str(person.folder / "gone")
    person.configure()


@refused("There is no key")
def an_agent_that_is_locked(person: Person) -> None:
    key = person.key("mine")
    path = person.agent(key)
    key.unlink()
    helper = person.folder / "ask"
    helper.write_text("#!/bin/sh\necho word\n")
    helper.chmod(0o755)
    ask = {"SSH_ASKPASS": str(helper), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    run("ssh-add", "-x", env={**os.environ, **ask, "SSH_AUTH_SOCK": str(path)}, stdin=subprocess.DEVNULL)
    person.configure()


def _in_a_security_key(person: Person, kind: str) -> None:
    key = SecurityKey(kind)
    person.hosts.instance.sshd.authorize(f"{key.name} {base64.b64encode(key.blob).decode()} a security key")
    path = person.folder / "security.sock"
    person.close.enter_context(security_agent(path, key))
    person.environ["SSH_AUTH_SOCK"] = str(path)
    person.configure()


@works
def an_ed25519_key_in_a_security_key(person: Person) -> None:
    _in_a_security_key(person, "ed25519")


@works
def an_ecdsa_key_in_a_security_key(person: Person) -> None:
    _in_a_security_key(person, "ecdsa")


# Certificates ---------------------------------------------------------------------------------------


@works
def a_certificate_beside_the_key(person: Person) -> None:
    person.certify(person.keys / "mine")
    person.configure(f"IdentityFile {person.keys}/mine")


@works
def a_certificate_that_the_configuration_names(person: Person) -> None:
    person.certify(person.keys / "mine", kind="rsa").rename(person.keys / "my certificate")
    person.configure(f"IdentityFile {person.keys}/mine", f'CertificateFile "{person.keys}/my certificate"')


@works
def a_certificate_whose_key_the_agent_has(person: Person) -> None:
    certificate = person.certify(person.keys / "mine", kind="ecdsa").rename(person.keys / "elsewhere.pub")
    person.agent(person.keys / "mine")
    (person.keys / "mine").unlink()
    person.configure(f"CertificateFile {certificate}")


@works
def a_certificate_that_the_agent_has(person: Person) -> None:
    person.certify(person.keys / "mine")
    person.agent(person.keys / "mine")
    for path in person.keys.glob("mine*"):
        path.unlink()
    person.configure()


@refused("does not let azureuser in with the keys", "mine-cert.pub")
def a_certificate_for_somebody_else(person: Person) -> None:
    person.certify(person.keys / "mine", who="somebody")
    person.configure(f"IdentityFile {person.keys}/mine")


@refused("does not let azureuser in with the keys", "mine-cert.pub")
def a_certificate_that_is_over(person: Person) -> None:
    person.certify(person.keys / "mine", "-V", "-2d:-1d")
    person.configure(f"IdentityFile {person.keys}/mine")


# Paths and matches ----------------------------------------------------------------------------------


@works
def tokens_in_a_path(person: Person) -> None:
    host = person.hosts.instance
    name = f"{host.address}-box-{host.user}-{host.port}-{os.getuid()}-%-alias"
    key = person.key(name)
    shutil.copy(person.laptop.known_hosts, person.folder / "known")
    (person.folder / "known").write_text(f"Alias {host.sshd.host_key}\n")
    person.configure(
        "IdentityFile %d/keys/%h-%n-%r-%p-%i-%%-%k", "HostKeyAlias Alias", f"UserKnownHostsFile {person.folder}/known"
    )
    assert key.exists()


@works
def names_of_this_machine_and_a_hash_in_a_path(person: Person) -> None:
    key = person.key("mine")
    host = person.hosts.instance
    asked = ["ssh", "-G", "-F", "/dev/null", "-p", str(host.port), "-l", host.user]
    said = run(*asked, "-o", f"HostName={host.address}", "-o", "UserKnownHostsFile=/%C-%l-%L-%u", "box")
    name = next(line.split(" /")[1] for line in said.splitlines() if line.startswith("userknownhostsfile "))
    key.rename(person.keys / name)
    Path(f"{key}.pub").rename(person.keys / f"{name}.pub")
    person.configure(f"IdentityFile {person.keys}/%C-%l-%L-%u")


@works
def variables_in_a_path(person: Person) -> None:
    person.key("work/mine")
    person.environ |= {"KEY_HOME": str(person.keys), "TEAM": "work"}
    person.configure("IdentityFile ${KEY_HOME}/${TEAM}/mine")


@refused("names ${KEY_HOME} in IdentityFile, and KEY_HOME is not set")
def a_variable_that_is_not_set(person: Person) -> None:
    person.configure("IdentityFile ${KEY_HOME}/mine")


@refused("%z in IdentityFile")
def a_token_that_is_none(person: Person) -> None:
    person.configure("IdentityFile ~/keys/%z")


@works
def blanks_in_paths(person: Person) -> None:
    known = person.folder / "my hosts" / "known to me"
    known.parent.mkdir()
    known.write_bytes(person.laptop.known_hosts.read_bytes())
    person.laptop.known_hosts.write_text("")
    key = person.key("my keys/mine")
    person.configure(f'IdentityFile "{key}"', f'UserKnownHostsFile "{person.folder}/my hosts/none" "{known}"')


@works
def a_home_in_a_path(person: Person) -> None:
    person.key("mine")
    person.configure("IdentityFile ~/keys/mine")


@works
def a_match_by_the_user(person: Person) -> None:
    person.configure(f"Match user azureuser\nIdentityFile {person.key('mine')}")


@refused("There is no key")
def a_match_by_another_user(person: Person) -> None:
    person.configure(f"Match user somebody\nIdentityFile {person.key('mine')}")


@works
def a_match_by_the_name_that_was_typed(person: Person) -> None:
    person.configure(f"Match originalhost box exec true\nIdentityFile {person.key('mine')}")


@works
def an_included_file(person: Person) -> None:
    (person.laptop.home / ".ssh" / "more").write_text(f"Host b*\nIdentityFile {person.key('mine')}\n")
    person.configure(before=("Include more",))


# Host keys ------------------------------------------------------------------------------------------


def _with_a_key(person: Person, *lines: str) -> None:
    person.configure(f"IdentityFile {person.key('mine')}", *lines)


@works
def the_second_file_of_known_hosts(person: Person) -> None:
    person.laptop.known_hosts.rename(person.laptop.home / ".ssh" / "known_hosts2")
    _with_a_key(person)


@works
def the_machines_file_of_known_hosts(person: Person) -> None:
    person.laptop.known_hosts.rename(person.folder / "all known")
    _with_a_key(person, f'GlobalKnownHostsFile /none "{person.folder}/all known"')


@refused("is not known", "--accept-host-key")
def other_files_of_known_hosts(person: Person) -> None:
    _with_a_key(person, "UserKnownHostsFile /none", "GlobalKnownHostsFile none")


@works
def a_file_of_known_hosts_for_each_machine(person: Person) -> None:
    person.laptop.known_hosts.rename(person.laptop.home / ".ssh" / "known-box")
    _with_a_key(person, "UserKnownHostsFile ~/.ssh/known-%n")


@works
def hashed_known_hosts(person: Person) -> None:
    run("ssh-keygen", "-q", "-H", "-f", str(person.laptop.known_hosts))
    _with_a_key(person)


@works
def a_key_that_is_known_for_the_machine_without_a_port(person: Person) -> None:
    person.laptop.known_hosts.write_text(f"{person.hosts.instance.address} {person.hosts.instance.sshd.host_key}\n")
    _with_a_key(person)


@works
def a_machine_with_a_certificate(person: Person) -> None:
    authority = person.certify_machine(f"other,{person.hosts.instance.address}")
    person.laptop.known_hosts.write_text(f"@cert-authority [10.83.*]:* {authority}\n")
    _with_a_key(person)


@works
def a_machine_with_a_certificate_for_its_alias(person: Person) -> None:
    authority = person.certify_machine("box.example")
    person.laptop.known_hosts.write_text(f"@cert-authority *.example {authority}\n")
    _with_a_key(person, "HostKeyAlias box.example")


@refused("has a certificate which is for other")
def a_machine_with_a_certificate_for_another(person: Person) -> None:
    authority = person.certify_machine("other")
    person.laptop.known_hosts.write_text(f"@cert-authority * {authority}\n")
    _with_a_key(person)


@refused("has a certificate which is not valid today")
def a_machine_with_a_certificate_that_is_over(person: Person) -> None:
    authority = person.certify_machine(person.hosts.instance.address, "-V", "-2d:-1d")
    person.laptop.known_hosts.write_text(f"@cert-authority * {authority}\n")
    _with_a_key(person)


@refused("is not known")
def a_machine_with_a_certificate_of_another_authority(person: Person) -> None:
    person.certify_machine(person.hosts.instance.address)
    person.laptop.known_hosts.write_text(f"@cert-authority * {person.laptop.public_key()}\n")
    _with_a_key(person)


@works
def a_machine_with_a_certificate_whose_key_is_known(person: Person) -> None:
    person.certify_machine("other")
    _with_a_key(person)


@refused("marked @revoked")
def an_authority_that_is_revoked(person: Person) -> None:
    authority = person.certify_machine(person.hosts.instance.address)
    person.laptop.known_hosts.write_text(f"@cert-authority * {authority}\n@revoked * {authority}\n")
    _with_a_key(person)


@refused("marked @revoked")
def a_key_that_is_revoked(person: Person) -> None:
    with person.laptop.known_hosts.open("a") as file:
        file.write(f"@revoked * {person.hosts.instance.sshd.host_key}\n")
    _with_a_key(person)


@refused("revoked")
def a_key_in_a_file_of_revoked_ones(person: Person) -> None:
    (person.folder / "one.pub").write_text(f"{person.hosts.instance.sshd.host_key}\n")
    run("ssh-keygen", "-q", "-k", "-f", str(person.folder / "revoked"), str(person.folder / "one.pub"))
    _with_a_key(person, f"RevokedHostKeys {person.folder}/revoked")


@works
def a_file_of_revoked_keys_with_another(person: Person) -> None:
    (person.folder / "revoked").write_text(f"{person.laptop.public_key()}\n")
    _with_a_key(person, f"RevokedHostKeys {person.folder}/revoked")


@works
def a_machine_that_nobody_knows_where_new_ones_are_accepted(person: Person) -> None:
    person.laptop.known_hosts.unlink()
    _with_a_key(person, "StrictHostKeyChecking accept-new", f"UserKnownHostsFile {person.folder}/new")


@refused("has changed")
def a_machine_with_another_key_where_new_ones_are_accepted(person: Person) -> None:
    person.laptop.known_hosts.write_text(f"{person.place()} {person.laptop.public_key()}\n")
    _with_a_key(person, "StrictHostKeyChecking accept-new")


# A machine behind another ---------------------------------------------------------------------------


def _behind(person: Person, *lines: str, hop: tuple[str, ...]) -> None:
    hosts = person.hosts
    hosts.node.sshd.start()
    hosts.laptop.knows(hosts.node)
    key = person.key("for the gateway")
    inner = [f"HostName {hosts.node.address}", f"Port {hosts.node.port}", f"User {hosts.node.user}"]
    outer = [f"HostName {hosts.instance.address}", f"Port {hosts.instance.port}"]
    (person.folder / "known gateway").write_text(f"gate {hosts.instance.sshd.host_key}\n")
    hosts.laptop.ssh_config.write_text(
        "\n".join(["Host box", *inner, *lines, "Host gateway", *outer, *hop, f'IdentityFile "{key}"', ""])
    )


@works
def a_gateway_with_settings_of_its_own(person: Person) -> None:
    own = ("User azureuser", "HostKeyAlias gate", f'UserKnownHostsFile "{person.folder}/known gateway"')
    _behind(person, "ProxyJump gateway", f"IdentityFile {person.keys}/plain", hop=own)


@works
def a_gateway_that_is_named_after_the_machine(person: Person) -> None:
    own = ("User azureuser", "HostKeyAlias gate", f'UserKnownHostsFile "{person.folder}/known gateway"')
    _behind(person, "ProxyJump %n-gateway", f"IdentityFile {person.keys}/plain", hop=own)
    config = person.laptop.ssh_config
    config.write_text(config.read_text().replace("Host gateway", "Host box-gateway"))


@works
def a_gateway_with_a_user_and_a_match(person: Person) -> None:
    own = ("Match originalhost gateway user azureuser", "HostKeyAlias gate")
    known = f'UserKnownHostsFile "{person.folder}/known gateway"'
    _behind(person, "ProxyJump azureuser@gateway", f"IdentityFile {person.keys}/plain", hop=(*own, known))


@refused("is not known")
def a_gateway_that_is_not_known(person: Person) -> None:
    _behind(person, "ProxyJump azureuser@gateway", f"IdentityFile {person.keys}/plain", hop=())


@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_ssh_accepts_is_accepted_and_what_it_refuses_is_told(person: Person, name: str) -> None:
    row, told = ROWS[name]
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


@pytest.mark.parametrize("form", ["OpenSSH", "PEM", "PKCS8"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa-256", "ecdsa-384", "ecdsa-521", "ed25519"])
@pytest.mark.parametrize("locked", [False, True], ids=["plain", "encrypted"])
def test_every_form_of_a_key_is_read(person: Person, kind: str, form: str, locked: bool) -> None:
    if kind == "ed25519" and form == "PEM":
        pytest.skip("there is no such form of Ed25519 keys")
    name, _dash, bits = kind.partition("-")
    path = person.key("mine", name, *(["-b", bits] if bits else []))
    if form == "PKCS8" and kind == "ed25519":
        _as_pkcs8(path)
    elif form != "OpenSSH":
        run("ssh-keygen", "-q", "-p", "-m", form, "-N", "", "-f", str(path))
    if locked:
        # ssh-keygen knows of no encrypted PKCS#8 of Ed25519 keys.
        if form == "PKCS8" and kind == "ed25519":
            _as_pkcs8(path, PASSPHRASE)
        else:
            more = ["-m", form] if form != "OpenSSH" else []
            run("ssh-keygen", "-q", "-p", *more, "-N", PASSPHRASE, "-f", str(path))
    first = path.read_text().splitlines()[0]
    assert ("OPENSSH" in first) is (form == "OpenSSH")
    person.configure(f"IdentityFile {path}")
    if not locked:
        person.remote()
        return
    with pytest.raises(UserError, match="is encrypted"):
        person.remote()
    from workflows.remote.key_files import load, public_blob

    public = Path(f"{path}.pub").read_text().split()[1]
    assert base64.b64encode(public_blob(load(str(path), PASSPHRASE))).decode() == public


def _as_pkcs8(path: Path, passphrase: str = "") -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    from workflows.remote.key_files import load

    how = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    path.write_bytes(load(str(path), None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))


def test_a_second_connection_tries_the_keys_that_the_first_had_no_room_for(person: Person) -> None:
    person.agent(*person.strangers(8), person.key("mine"))
    person.configure()
    # ssh gives up here.
    assert person.ssh().returncode == 255
    person.remote()


def test_a_named_key_is_tried_before_the_agents(person: Person) -> None:
    person.agent(*person.strangers(14))
    key = person.key("mine")
    person.configure()
    person.remote(AML_REMOTE_KEY=str(key))
    # The public half names the one that the agent has.
    person.agent(*sorted(person.keys.glob("other-*[0-9]")), key, name="another.sock")
    person.remote(AML_REMOTE_KEY=f"{key}.pub")


def test_a_task_and_its_tunnels_log_in_as_ssh_does(person: Person) -> None:
    made = make_remote_project(person.folder / "a project", person.hosts, person.hosts.instance)
    key = person.key("mine")
    path = person.agent(*person.strangers(8), key, name="my agent", set=False)
    key.unlink()
    person.configure(f'IdentityAgent "{path}"', f"IdentityFile {key}.pub", "IdentitiesOnly yes")
    box = {"AML_REMOTE_HOST": "box", "AML_REMOTE_PORT": "", "AML_REMOTE_USER": "", "AML_REMOTE_KEY": ""}
    made.environ.update(box)
    try:
        assert "FAILED" not in made.ok("remote.check").out
        result = made.remote("deploy.debug")
        assert post(result["scoring_url"]) == {"answer": 60}
        made.ok("container.stop", "--remote")
        run("ssh-add", "-D", env={**os.environ, "SSH_AUTH_SOCK": str(path)})
        checked = made.inv("remote.check")
        assert checked.code == 1 and "FAILED   login" in checked.out and "is the public half of a key" in checked.out
    finally:
        made.clean_up()


def test_an_accepted_host_key_goes_into_the_file_that_the_configuration_names(person: Person) -> None:
    made = make_remote_project(person.folder / "a project", person.hosts, person.hosts.instance)
    made.environ.update({"AML_REMOTE_HOST": "box", "AML_REMOTE_PORT": "", "AML_REMOTE_USER": ""})
    person.configure(f'UserKnownHostsFile "{person.folder}/of work/known"', "HostKeyAlias box.example")
    shown = person.hosts.instance.sshd.fingerprint
    made.inv("pipeline.list", "--remote").says("is not known", shown)
    made.ok("remote.check", "--accept-host-key", shown)
    assert (person.folder / "of work" / "known").read_text().startswith("box.example ssh-ed25519 ")
    made.ok("pipeline.list", "--remote")
    assert person.ssh().returncode == 255 and "not known" not in made.inv("remote.check").out
    person.hosts.instance.sshd.stop()
    made.inv("remote.check", "--accept-host-key", shown).says("refuses the connection")


def test_a_server_that_closes_at_once_is_told_as_one(person: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def turn_away() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=turn_away, daemon=True).start()
        with pytest.raises(UserError, match="closes the connection before a word"):
            person.remote(AML_REMOTE_HOST=f"me@127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
