"""What a person can log in with: key files, certificates and the agent's keys, in the order in which they are tried."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..terminal import printable
from .address import Address
from .key_files import KeyFile, NotAKey, certificate_in, certified, kind_of, load, look_at, sign
from .ssh_agent import Agent, AgentError

Sign = Callable[[bytes, str], bytes]


@dataclass(frozen=True)
class Identity:
    """A key, or a certificate with its key.

    Attributes:
        label: What it is called in messages.
        blob: Its public half or certificate as it goes over the wire; empty where only the passphrase would tell.
        file: Its file, where it has one.
        held: Signs with the agent that has it; None where the file has the private half.
        certificate: Whether `blob` is a certificate.
    """

    label: str
    blob: bytes
    file: KeyFile | None = None
    held: Sign | None = None
    certificate: bool = False

    @property
    def kind(self) -> str:
        """Its kind, such as ``ssh-ed25519``."""
        return kind_of(self.blob)

    @property
    def ready(self) -> bool:
        """Whether it signs without a passphrase, a touch or a word from its person."""
        return self.held is None and self.file is not None and not self.file.encrypted

    def signer(self, passphrase: str | None) -> Sign:
        """What signs with it.

        Raises:
            NeedsPassphrase: The file is encrypted, and the passphrase is missing or wrong.
            NotAKey: The file is damaged.
        """
        if self.held is not None:
            return self.held
        assert self.file is not None
        key = load(self.file.path, passphrase)
        return lambda data, algorithm: sign(key, data, algorithm)


@dataclass
class Identities:
    """What there is to log in with.

    Attributes:
        found: What is tried, the first one first.
        problems: Keys that were named and cannot be used: what is wrong with each, and what to do.
        agent: The connection to the agent; None where there is none.
    """

    found: list[Identity] = field(default_factory=list)
    problems: list[NotAKey] = field(default_factory=list)
    agent: Agent | None = None

    @classmethod
    def of(cls, address: Address) -> Identities:
        """Look what there is; :meth:`close` it when it has been used."""
        made = cls()
        held = made._ask_agent(address)
        named = made._files(address.keys, address, told=True)
        usual = made._files(address.usual_keys, address, told=False)
        mine = {blob: (comment, sign) for blob, comment, sign in held}
        named_paths = {file.path for file in named}
        plain = [
            one for file in (*named, *usual)
            if (one := made._held(file, mine, told=file.path in named_paths)) is not None
        ]  # fmt: skip
        certificates = made._certificates(address, plain, mine)
        own = [one for one in plain if one.file is not None and one.file.path in named_paths]
        rest = [one for one in plain if one not in own]
        others = [] if address.only_these else made._others(held, (*certificates, *plain))
        # Named ones first, whoever holds them: a server stops after a few. Those that need a passphrase to be even
        # asked about come last, as everything else is free.
        order = [
            *certificates,
            *own,
            *[one for one in rest if one.held],
            *others,
            *[one for one in rest if not one.held],
        ]
        made.found = sorted(_once(order), key=lambda one: not one.blob)
        return made

    def close(self) -> None:
        """Let the agent go."""
        if self.agent is not None:
            self.agent.close()

    def _ask_agent(self, address: Address) -> list[tuple[bytes, str, Sign]]:
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

    def _files(self, paths: tuple[str, ...], address: Address, *, told: bool) -> list[KeyFile]:
        found = []
        for path in dict.fromkeys(paths):
            try:
                found.append(look_at(path))
            except FileNotFoundError:
                beside = f"{path}.pub"
                if os.path.isfile(beside):
                    # The agent may have the private half, and ssh takes it so.
                    found += self._files((beside,), address, told=told)
                elif told:
                    self.problems.append(NotAKey(f"The key {path} does not exist.", _NAME_ONE))
            except OSError as error:
                self.problems.append(NotAKey(f"The key {path} cannot be read: {error.strerror}.", _NAME_ONE))
            except NotAKey as error:
                if told:
                    self.problems.append(error)
        return found

    def _held(self, file: KeyFile, mine: dict[bytes, tuple[str, Sign]], *, told: bool) -> Identity | None:
        """A file's key, signed with by the agent where that has it."""
        if file.blob in mine:
            return Identity(file.path, file.blob, file, mine[file.blob][1])
        if file.public:
            private = file.path.removesuffix(".pub")
            there = private != file.path and os.path.isfile(private)
            if told:
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
        self, address: Address, plain: list[Identity], mine: dict[bytes, tuple[str, Sign]]
    ) -> list[Identity]:
        beside = [f"{path.removesuffix('.pub')}-cert.pub" for path in (*address.keys, *address.usual_keys)]
        found = []
        for path in (*address.certificates, *beside):
            blob = certificate_in(path)
            key = certified(blob) if blob else b""
            owner = next((one for one in plain if key and one.blob == key), None)
            if owner is not None:
                found.append(replace(owner, label=path, blob=blob, certificate=True))
            elif key in mine or blob in mine:
                signs = mine[blob if blob in mine else key][1]
                found.append(Identity(path, blob, held=signs, certificate=True))
            elif path in address.certificates:
                reason = "its private key is nowhere" if blob else "it holds no certificate"
                self.problems.append(NotAKey(f"The certificate {path} cannot be used: {reason}.", _NAME_ONE))
        return found

    @staticmethod
    def _others(held: list[tuple[bytes, str, Sign]], known: Any) -> list[Identity]:
        have = {one.blob for one in known}
        return [
            Identity(f"the agent's {printable(comment) or kind_of(blob)}", blob, held=signs,
                     certificate="-cert-v01@" in kind_of(blob))
            for blob, comment, signs in held
            if blob not in have
        ]  # fmt: skip


_NAME_ONE = "Correct AML_REMOTE_KEY, or the key in ~/.ssh/config."


def _no_agent(agent: Agent | None) -> str:
    return "no agent" if agent is None else "not even the agent"


def _once(identities: list[Identity]) -> list[Identity]:
    seen: set[bytes] = set()
    found = []
    for one in identities:
        if not one.blob or one.blob not in seen:
            seen.add(one.blob)
            found.append(one)
    return found
