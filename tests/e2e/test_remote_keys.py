"""What `ssh HOST` accepts, `--remote` accepts, and it refuses what ssh refuses: keys.

Each row is tried with the system's own ssh too, which says whether it has to work.
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from laptop import PASSPHRASE
from ssh_person import Person, Rows, run

from workflows.errors import UserError
from workflows.remote.key_files import load, public_blob

ROWS = Rows()
works, refused = ROWS.works, ROWS.refused


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


@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_ssh_accepts_is_accepted_and_what_it_refuses_is_told(person: Person, name: str) -> None:
    ROWS.check(person, name)


@pytest.mark.parametrize("kind", ["rsa", "ecdsa-256", "ecdsa-384", "ecdsa-521", "ed25519"])
def test_every_form_of_a_key_is_read_plain_and_encrypted(person: Person, kind: str) -> None:
    name, _dash, bits = kind.partition("-")
    made = person.key("made", name, *(["-b", bits] if bits else []))
    # There is no PEM of Ed25519 keys.
    for form in ("OpenSSH", "PKCS8") if kind == "ed25519" else ("OpenSSH", "PEM", "PKCS8"):
        path = person.keys / form
        for end in ("", ".pub"):
            shutil.copy(f"{made}{end}", f"{path}{end}")
        if form == "PKCS8" and kind == "ed25519":
            _as_pkcs8(path)
        elif form != "OpenSSH":
            run("ssh-keygen", "-q", "-p", "-m", form, "-N", "", "-f", str(path))
        assert ("OPENSSH" in path.read_text().splitlines()[0]) is (form == "OpenSSH")
        person.configure(f"IdentityFile {path}")
        person.remote()
        # ssh-keygen knows of no encrypted PKCS#8 of Ed25519 keys.
        if form == "PKCS8" and kind == "ed25519":
            _as_pkcs8(path, PASSPHRASE)
        else:
            more = ["-m", form] if form != "OpenSSH" else []
            run("ssh-keygen", "-q", "-p", *more, "-N", PASSPHRASE, "-f", str(path))
        assert ("OPENSSH" in path.read_text().splitlines()[0]) is (form == "OpenSSH")
        with pytest.raises(UserError, match=f"{form} is encrypted"):
            person.remote()
        public = Path(f"{path}.pub").read_text().split()[1]
        assert base64.b64encode(public_blob(load(str(path), PASSPHRASE))).decode() == public


def _as_pkcs8(path: Path, passphrase: str = "") -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    how = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    path.write_bytes(load(str(path), None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
