"""Which host keys a machine may show: the known_hosts files read as OpenSSH reads them, sshd(8)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..reading import read_text

#: The algorithms with which a key of a kind signs, where they are not the kind itself (RFC 8332).
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}


class UnknownHost(Exception):
    """The host's key is in no known_hosts file."""

    def __init__(self, key: Any) -> None:
        super().__init__()
        self.key = key


class RevokedKey(UnknownHost):
    """A known_hosts file says that the key must not be used any more."""


@dataclass
class HostKeys:
    """What is known of one machine's keys.

    Attributes:
        name: Its name in known_hosts.
        keys: The keys that it may show.
        revoked: Keys that nobody may show.
    """

    name: str
    keys: list[Any] = field(default_factory=list)
    revoked: list[Any] = field(default_factory=list)

    @classmethod
    def load(cls, name: str, files: Iterable[Path]) -> HostKeys:
        """What the files say; those that are missing, and lines that nobody can read, say nothing."""
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
        # A certificate authority signs other keys than its own; paramiko does not check certificates of hosts.
        if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
            return
        if not _matches(words[0], self.name):
            return
        from paramiko.hostkeys import HostKeyEntry

        try:
            entry = HostKeyEntry.from_line(" ".join(words[:3]))
        except Exception:
            # Base64 that is none, a key that is none: depending on what is wrong, paramiko raises almost anything.
            return
        if entry is not None and entry.key is not None:
            (self.revoked if marker else self.keys).append(entry.key)

    def check(self, key: Any) -> None:
        """See that the machine may show this key.

        Raises:
            RevokedKey: Nobody may.
            UnknownHost: No key of the machine is known.
            paramiko.BadHostKeyException: Others are known.
        """
        from paramiko import BadHostKeyException

        if key in self.revoked:
            raise RevokedKey(key)
        if not self.keys:
            raise UnknownHost(key)
        if key not in self.keys:
            expected = next((one for one in self.keys if one.get_name() == key.get_name()), self.keys[0])
            raise BadHostKeyException(self.name, key, expected)

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """What paramiko's client asks, which has been told of no keys of its own."""
        self.check(key)

    def transport(self, sock: Any, **options: Any) -> Any:
        """A paramiko transport that asks for the kinds of keys that are known first, as OpenSSH does."""
        import paramiko

        made = paramiko.Transport(sock, **options)
        kinds = {key.get_name() for key in self.keys}
        wanted = {one for kind in kinds for one in _ALGORITHMS.get(kind, (kind,))}
        security = made.get_security_options()
        security.key_types = sorted(security.key_types, key=lambda kind: kind not in wanted)
        return made


def _matches(patterns: str, name: str) -> bool:
    """Whether a machine is meant by the first field of a line: names, patterns, negated ones, or a hashed name."""
    if patterns.startswith("|"):
        from paramiko import HostKeys as Paramiko

        try:
            return bool(Paramiko.hash_host(name, patterns) == patterns)
        except Exception:
            # Not base64, or another hash than the only one there is.
            return False
    found = False
    for pattern in patterns.lower().split(","):
        # OpenSSH knows `*` and `?` alone; a bracket stands for itself, as around a name with a port.
        if fnmatchcase(name, pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found
