"""The user's identities for a login: key files, certificates and the agent's keys, in the order of the attempts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..terminal import printable
from .address import Address
from .key_files import KeyFile, NotAKey, certificate_in, certified_key, inspect_key_file, kind_of, load, sign
from .ssh_agent import Agent, AgentError

Sign = Callable[[bytes, str], bytes]


@dataclass(frozen=True)
class Identity:
    """A key, or a certificate with its key.

    Attributes:
        label: Its name in messages.
        blob: Its public key or certificate in the SSH wire format; empty if the passphrase is needed to read it.
        file: Its file, if it has one.
        agent_sign: Signs with the agent that has the key; None if the private key is in the file.
        certificate: Whether `blob` is a certificate.
    """

    label: str
    blob: bytes
    file: KeyFile | None = None
    agent_sign: Sign | None = None
    certificate: bool = False

    @property
    def kind(self) -> str:
        """Its kind, such as ``ssh-ed25519``."""
        return kind_of(self.blob)

    @property
    def ready(self) -> bool:
        """Whether it signs without a passphrase, a touch or a confirmation."""
        return self.agent_sign is None and self.file is not None and not self.file.encrypted

    def signer(self, passphrase: str | None) -> Sign:
        """The function that signs with it.

        Raises:
            NeedsPassphrase: The file is encrypted, and the passphrase is missing or wrong.
            NotAKey: The file is damaged.
        """
        if self.agent_sign is not None:
            return self.agent_sign
        assert self.file is not None
        key = load(self.file.path, passphrase)
        return lambda data, algorithm: sign(key, data, algorithm)


@dataclass
class Identities:
    """The identities for a login.

    Attributes:
        found: The identities in the order in which they are tried.
        problems: Named keys that cannot be used: what is wrong with each, and what to do.
        agent: The connection to the agent; None if there is no agent.
    """

    found: list[Identity] = field(default_factory=list)
    problems: list[NotAKey] = field(default_factory=list)
    agent: Agent | None = None

    @classmethod
    def of(cls, address: Address) -> Identities:
        """Find the identities for a machine. Call :meth:`close` after the login."""
        made = cls()
        held = made._list_agent_keys(address)
        named_files = made._files(address.keys, address, named=True)
        usual = made._files(address.usual_keys, address, named=False)
        agent_keys = {blob: (comment, sign) for blob, comment, sign in held}
        named_paths = {file.path for file in named_files}
        plain = [
            one for file in (*named_files, *usual)
            if (one := made._identity_of(file, agent_keys, named=file.path in named_paths)) is not None
        ]  # fmt: skip
        certificates = made._certificates(address, plain, agent_keys)
        own = [one for one in plain if one.file is not None and one.file.path in named_paths]
        rest = [one for one in plain if one not in own]
        others = [] if address.only_these else made._others(held, (*certificates, *plain))
        # Named keys come first, since a server stops after a few. Keys whose public half is unknown without the
        # passphrase come last, since all others can be tried without asking the user.
        order = [
            *certificates,
            *own,
            *[one for one in rest if one.agent_sign],
            *others,
            *[one for one in rest if not one.agent_sign],
        ]
        made.found = sorted(_without_duplicates(order), key=lambda one: not one.blob)
        return made

    def close(self) -> None:
        """Close the connection to the agent."""
        if self.agent is not None:
            self.agent.close()

    def _list_agent_keys(self, address: Address) -> list[tuple[bytes, str, Sign]]:
        if not address.agent:
            return []
        try:
            agent = self.agent = Agent(address.agent)
            keys = agent.keys()
        except AgentError as error:
            problem = f"The SSH agent does not answer: {error}."
            self.problems.append(NotAKey(problem, "Start it again, or unset SSH_AUTH_SOCK (IdentityAgent)."))
            return []

        def signs(blob: bytes) -> Sign:
            return lambda data, algorithm: agent.sign(blob, data, algorithm)

        return [(key.blob, key.comment, signs(key.blob)) for key in keys]

    def _files(self, paths: tuple[str, ...], address: Address, *, named: bool) -> list[KeyFile]:
        found = []
        for path in dict.fromkeys(paths):
            try:
                found.append(inspect_key_file(path))
            except FileNotFoundError:
                beside = f"{path}.pub"
                if os.path.isfile(beside):
                    # The agent may have the private key; ssh does the same.
                    found += self._files((beside,), address, named=named)
                elif named:
                    self.problems.append(NotAKey(f"The key {path} does not exist.", _NAME_ONE))
            except OSError as error:
                self.problems.append(NotAKey(f"The key {path} cannot be read: {error.strerror}.", _NAME_ONE))
            except NotAKey as error:
                if named:
                    self.problems.append(error)
        return found

    def _identity_of(self, file: KeyFile, agent_keys: dict[bytes, tuple[str, Sign]], *, named: bool) -> Identity | None:
        """The identity of a key file, which signs with the agent if the agent has the key."""
        if file.blob in agent_keys:
            return Identity(file.path, file.blob, file, agent_keys[file.blob][1])
        if file.public:
            private = file.path.removesuffix(".pub")
            there = private != file.path and os.path.isfile(private)
            if named:
                self.problems.append(
                    NotAKey(
                        f"{file.path} is the public half of a key, and {_no_agent(self.agent)} has its private half.",
                        f"Name that one, AML_REMOTE_KEY={private}, or give it to the agent: ssh-add" if there else
                        "Name the private key's file, or give it to the agent: ssh-add",
                    )
                )  # fmt: skip
            return None
        if file.hardware:
            self.problems.append(
                NotAKey(
                    f"The key {file.path} is in a security key, which only ssh's agent can ask.",
                    f"Give it to the agent: ssh-add {shlex.quote(file.path)}",
                )
            )
            return None
        return Identity(file.path, file.blob, file)

    def _certificates(
        self, address: Address, plain: list[Identity], agent_keys: dict[bytes, tuple[str, Sign]]
    ) -> list[Identity]:
        beside = [f"{path.removesuffix('.pub')}-cert.pub" for path in (*address.keys, *address.usual_keys)]
        found = []
        for path in (*address.certificates, *beside):
            blob = certificate_in(path)
            key = certified_key(blob) if blob else b""
            owner = next((one for one in plain if key and one.blob == key), None)
            if owner is not None:
                found.append(replace(owner, label=path, blob=blob, certificate=True))
            elif key in agent_keys or blob in agent_keys:
                signs = agent_keys[blob if blob in agent_keys else key][1]
                found.append(Identity(path, blob, agent_sign=signs, certificate=True))
            elif path in address.certificates:
                reason = "its private key is nowhere" if blob else "it holds no certificate"
                self.problems.append(NotAKey(f"The certificate {path} cannot be used: {reason}.", _NAME_ONE))
        return found

    @staticmethod
    def _others(held: list[tuple[bytes, str, Sign]], known: Any) -> list[Identity]:
        have = {one.blob for one in known}
        return [
            Identity(f"the agent's {printable(comment) or kind_of(blob)}", blob, agent_sign=signs,
                     certificate="-cert-v01@" in kind_of(blob))
            for blob, comment, signs in held
            if blob not in have
        ]  # fmt: skip


_NAME_ONE = "Correct AML_REMOTE_KEY, or the key in ~/.ssh/config."


def _no_agent(agent: Agent | None) -> str:
    return "no agent" if agent is None else "not even the agent"


def _without_duplicates(identities: list[Identity]) -> list[Identity]:
    seen: set[bytes] = set()
    found = []
    for one in identities:
        if not one.blob or one.blob not in seen:
            seen.add(one.blob)
            found.append(one)
    return found
