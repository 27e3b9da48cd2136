"""The host keys that a machine may have: reads known_hosts files as OpenSSH does, sshd(8)."""

from __future__ import annotations

import base64
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..reading import read_bytes, read_text

#: The signature algorithms of a kind of key, if they have other names than the kind (RFC 8332).
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}
#: The first bytes of a list of revoked keys that ssh-keygen has created; other lists are lines of public keys.
_KRL = b"SSHKRL\n\0"


class UnknownHost(Exception):
    """The host's key is in no known_hosts file."""

    def __init__(self, key: Any) -> None:
        super().__init__()
        self.key = key


class RevokedKey(UnknownHost):
    """A known_hosts file marks the key as revoked."""


class BadCertificate(UnknownHost):
    """The host's certificate is not valid for it; ``reason`` says why."""

    def __init__(self, key: Any, reason: str) -> None:
        super().__init__(key)
        self.reason = reason


@dataclass
class HostKeys:
    """The known host keys of one machine.

    Attributes:
        name: Its name in known_hosts.
        keys: The keys that it may have.
        revoked: Keys that no machine may have.
        authorities: Keys of certificate authorities for its keys.
        accept: Called with the first key of an unknown machine to accept it; None to accept none.
        revoked_file: A file of revoked keys, as of ssh-keygen(1); empty for none.
        principal: The name for which a certificate has to be valid.
    """

    name: str
    keys: list[Any] = field(default_factory=list)
    revoked: list[Any] = field(default_factory=list)
    authorities: list[Any] = field(default_factory=list)
    accept: Callable[[Any], None] | None = None
    revoked_file: str = ""
    principal: str = ""

    @classmethod
    def load(cls, name: str, files: Iterable[Path]) -> HostKeys:
        """Read known_hosts files. Missing files and unreadable lines are skipped."""
        found = cls(name.lower())
        for path in files:
            try:
                text = read_text(path, errors="replace")
            except OSError:
                continue
            for line in text.splitlines():
                found._add(line)
        return found

    def _add(self, line: str) -> None:
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked", "@cert-authority"):
            return
        if not _matches(words[0], self.name):
            return
        from paramiko.hostkeys import HostKeyEntry

        try:
            entry = HostKeyEntry.from_line(" ".join(words[:3]))
        except Exception:
            # Invalid base64, or an invalid key: paramiko raises many types of exceptions.
            return
        if entry is not None and entry.key is not None:
            kept = {"": self.keys, "@revoked": self.revoked, "@cert-authority": self.authorities}
            kept[marker].append(entry.key)

    def check(self, key: Any) -> None:
        """Check that the machine may have this key.

        Raises:
            RevokedKey: The key is revoked.
            BadCertificate: The machine's certificate is not valid for it.
            UnknownHost: No key of the machine is known, and none is accepted.
            paramiko.BadHostKeyException: Other keys are known.
        """
        from paramiko import BadHostKeyException

        if key in self.revoked or (self.revoked_file and _is_revoked(key, self.revoked_file)):
            raise RevokedKey(key)
        if self._certified(key):
            return
        if not self.keys:
            if self.accept is None:
                raise UnknownHost(key)
            self.accept(key)
            return
        if key not in self.keys:
            expected = next((one for one in self.keys if one.get_name() == key.get_name()), self.keys[0])
            raise BadHostKeyException(self.name, key, expected)

    def _certified(self, key: Any) -> bool:
        """Whether a known authority has certified the key. The certificate of an unknown authority is ignored.

        Raises:
            RevokedKey: The authority's key is revoked.
            BadCertificate: The certificate is for another machine or time.
        """
        certificate = getattr(key, "public_blob", None)
        if certificate is None or not self.authorities:
            return False
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            PublicFormat,
            SSHCertificateType,
            load_ssh_public_identity,
        )

        line = f"{certificate.key_type} {base64.b64encode(certificate.key_blob).decode()}".encode()
        try:
            found: Any = load_ssh_public_identity(line)
            signer = found.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()
            authority = next((one for one in self.authorities if one.get_base64() == signer), None)
            if authority is None:
                return False
            found.verify_cert_signature()
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise BadCertificate(key, f"which is damaged ({error or type(error).__name__})") from error
        if authority in self.revoked or (self.revoked_file and _is_revoked(authority, self.revoked_file)):
            raise RevokedKey(authority)
        names = [name.decode(errors="replace") for name in found.valid_principals]
        if found.type is not SSHCertificateType.HOST:
            raise BadCertificate(key, "which is for a user, not for a machine")
        if not found.valid_after <= time.time() < found.valid_before:
            raise BadCertificate(key, "which is not valid today")
        if not any(_matches(name, self.principal.lower()) for name in names):
            raise BadCertificate(key, f"which is for {', '.join(names) or 'no machine'}")
        if found.critical_options:
            raise BadCertificate(key, "with critical options that this program does not know")
        return True

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Check a host key for paramiko's client, which knows no host keys itself."""
        self.check(key)

    def transport(self, sock: Any, **options: Any) -> Any:
        """A paramiko transport that prefers the kinds of host keys that are known, as OpenSSH does."""
        from .transport import SshTransport

        made = SshTransport(sock, **options)
        kinds = {key.get_name() for key in self.keys}
        wanted = {one for kind in kinds for one in _ALGORITHMS.get(kind, (kind,))}
        security = made.get_security_options()
        security.key_types = sorted(security.key_types, key=lambda kind: kind not in wanted)
        made.certificates_first = bool(self.authorities)
        return made


def _is_revoked(key: Any, path: str) -> bool:
    """Whether a key is in a RevokedHostKeys file. As in ssh, an unreadable file revokes all keys."""
    try:
        data = read_bytes(path)
    except OSError:
        return True
    if not data.startswith(_KRL):
        return any(key.get_base64().encode() in line.split() for line in data.splitlines())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "key.pub"
        file.write_text(f"{key.get_name()} {key.get_base64()}\n")
        try:
            done = subprocess.run(
                ["ssh-keygen", "-Q", "-f", path, str(file)],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False,
            )  # fmt: skip
        except OSError:
            return True
    return done.returncode != 0


def _matches(patterns: str, name: str) -> bool:
    """Whether the first field of a known_hosts line names a machine: names, patterns, negated ones, or a hash."""
    if patterns.startswith("|"):
        from paramiko import HostKeys as Paramiko

        try:
            return bool(Paramiko.hash_host(name, patterns) == patterns)
        except Exception:
            # Invalid base64, or an unknown kind of hash.
            return False
    found = False
    for pattern in patterns.lower().split(","):
        # OpenSSH's patterns have `*` and `?` only. A bracket is literal, as around a name with a port.
        if fnmatchcase(name, pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found
