"""What `ssh HOST` accepts, `--remote` accepts, and it refuses what ssh refuses: agents and certificates.

Each row is tried with the system's own ssh too, which says whether it has to work.
"""

from __future__ import annotations

import base64
import os
import subprocess

import pytest
from key_agent import SecurityKey, security_agent
from projects import post
from remotes import make_remote_project
from ssh_person import Person, Rows, run

ROWS = Rows()
works, refused = ROWS.works, ROWS.refused


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


@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_ssh_accepts_is_accepted_and_what_it_refuses_is_told(person: Person, name: str) -> None:
    ROWS.check(person, name)


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
