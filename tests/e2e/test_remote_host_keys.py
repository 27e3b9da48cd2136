"""What `ssh HOST` accepts, `--remote` accepts, and it refuses what ssh refuses: host keys.

Each row is tried with the system's own ssh too, which says whether it has to work.
"""

from __future__ import annotations

import pytest
from remotes import make_remote_project
from ssh_person import Person, Rows, run

ROWS = Rows()
works, refused = ROWS.works, ROWS.refused


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


@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_ssh_accepts_is_accepted_and_what_it_refuses_is_told(person: Person, name: str) -> None:
    ROWS.check(person, name)


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
