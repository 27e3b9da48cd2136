"""What `ssh HOST` accepts, `--remote` accepts, and it refuses what ssh refuses: paths, matches, gateways.

Each row is tried with the system's own ssh too, which says whether it has to work.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from ssh_person import Person, Rows, run

from workflows.errors import UserError

ROWS = Rows()
works, refused = ROWS.works, ROWS.refused


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
    ROWS.check(person, name)


def test_a_server_that_closes_at_once_is_told_as_one(person: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def turn_away() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=turn_away, daemon=True).start()
        with pytest.raises(UserError, match="closes the connection before it says anything"):
            person.remote(AML_REMOTE_HOST=f"me@127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
