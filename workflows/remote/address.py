"""The address of the remote machine, from the settings and the user's SSH configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from ..redaction import MASK
from ..settings import Settings
from .instances import Instance, instance_of, is_instance, known_hosts_file
from .ssh_config import SshConfig, local_user

#: The host name of a compute instance. Its SSH server listens on 50000, and its user is azureuser
#: (https://learn.microsoft.com/azure/machine-learning/how-to-create-compute-instance, "SSH access").
_INSTANCE = re.compile(r".+\.instances\.azureml\.(ms|us|cn)$", re.IGNORECASE)
INSTANCE_PORT, INSTANCE_USER = 50000, "azureuser"
SSH_PORT = 22


@dataclass(frozen=True)
class Address:
    """A machine that is reached over SSH.

    Attributes:
        named: The name that the user has given.
        host: The host name or IP address to connect to.
        port: Its SSH port.
        user: The user on that machine.
        keys: Absolute paths of key files that the user has named: private keys, or public keys of an agent's keys.
        known_hosts: Files of host keys; an accepted key is written to the first.
        via: Gateways, in the order in which they are passed.
        command: The ProxyCommand of the SSH configuration; empty for none.
        alias: The name under which its host key is known; empty for the host's own name.
        dir: The project's folder on that machine; empty for the default.
        python: The Python on that machine that runs this program; empty to have one looked for.
        original: The name without user and port, as it would be typed after ``ssh``.
        usual_keys: Default key files, which are tried if they exist.
        certificates: Certificate files that the user has named.
        only_these: Whether only named keys of the agent are used (IdentitiesOnly).
        agent: The agent's socket; empty for none.
        revoked: A file of revoked host keys; empty for none.
        accept: Whether the key of an unknown machine is accepted, as StrictHostKeyChecking says.
        instance: The compute instance, if the machine is reached through its workspace.
    """

    named: str
    host: str
    port: int
    user: str
    keys: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    via: tuple[Address, ...] = ()
    command: str = ""
    alias: str = ""
    dir: str = ""
    python: str = ""
    original: str = ""
    usual_keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    only_these: bool = False
    agent: str = ""
    revoked: str = ""
    accept: bool = False
    instance: Instance | None = None

    @property
    def known_as(self) -> str:
        """The name of its entry in known_hosts."""
        name = self.alias or self.host
        return name if self.port == SSH_PORT or self.alias else f"[{name}]:{self.port}"

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        if self.instance is not None:
            return str(self.instance)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """User, host and port, for messages."""
        return f"{self.user}@{self.place}"

    def as_json(self) -> dict[str, Any]:
        """The address as JSON, for another process."""
        instance = None if self.instance is None else vars(self.instance)
        return {**vars(self), "via": [one.as_json() for one in self.via], "instance": instance}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Address:
        """The address that :meth:`as_json` has written."""
        found = dict(value)
        found["via"] = tuple(cls.from_json(one) for one in found["via"])
        if found["instance"] is not None:
            found["instance"] = Instance(**found["instance"])
        for name in ("keys", "usual_keys", "certificates", "known_hosts"):
            found[name] = tuple(found[name])
        return cls(**found)


def resolve(settings: Settings) -> Address:
    """The machine on which ``--remote`` runs tasks.

    Raises:
        UserError: No machine is named, or the name is not valid.
    """
    if not settings.remote_host:
        raise UserError(
            "AML_REMOTE_HOST is not set, so there is no machine for --remote.",
            "Set it in .env to the compute instance's address or azureml:NAME, or to a Host of ~/.ssh/config"
            " (see .env.example).",
        )
    if is_instance(settings.remote_host):
        return _instance_address(settings)
    user, host, port = _split(settings.remote_host, "AML_REMOTE_HOST")
    found = replace(
        _from_ssh_config(host, settings.remote_user or user, settings.remote_port or port),
        named=settings.remote_host,
        dir=settings.remote_dir or "",
        python=settings.remote_python or "",
    )
    found = _with_key(found, settings)
    if settings.remote_gateway:
        found = replace(found, via=_hops(settings.remote_gateway, "AML_REMOTE_GATEWAY"), command="")
    # A gateway without a key in the SSH configuration is likely to accept the machine's key.
    return replace(found, via=tuple(hop if hop.keys else replace(hop, keys=found.keys) for hop in found.via))


def _instance_address(settings: Settings) -> Address:
    """The address of a compute instance that is reached through its workspace, with keys of the SSH configuration."""
    instance = instance_of(settings)
    found = replace(
        _from_ssh_config(instance.name, settings.remote_user or INSTANCE_USER, SSH_PORT),
        named=str(instance),
        host=instance.name,
        port=SSH_PORT,
        via=(),
        command="",
        alias=instance.known_as,
        known_hosts=(str(known_hosts_file()),),
        # TLS and the sign-in ensure that the websocket leads to this instance, so its first host key is accepted.
        accept=True,
        instance=instance,
        dir=settings.remote_dir or "",
        python=settings.remote_python or "",
    )
    return _with_key(found, settings)


def _with_key(found: Address, settings: Settings) -> Address:
    """The address with the key of AML_REMOTE_KEY, if that is set."""
    if settings.remote_key is None:
        return found
    if not settings.remote_key.is_file():
        raise UserError(
            f"The key {settings.remote_key} does not exist.", "Correct AML_REMOTE_KEY: the private key's file."
        )
    return replace(found, keys=(str(settings.remote_key),), usual_keys=())


def _hops(text: str, setting: str, through: tuple[str, ...] = ()) -> tuple[Address, ...]:
    hops: list[Address] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        user, host, port = _split(word, setting)
        if host in through:
            raise UserError(
                f"The SSH configuration leads to {host} through {host} itself (ProxyJump).",
                f"Give it an entry above the others in ~/.ssh/config: Host {host}, with ProxyJump none.",
            )
        found = _from_ssh_config(host, user, port, (*through, host))
        hops += [*found.via, replace(found, named=word, via=())]
    return tuple(hops)


def _split(text: str, setting: str) -> tuple[str, str, int]:
    """The parts of ``[user@]host[:port]``."""
    host = r"\[[^\]\s]+\]|[^:@\s/]+|[0-9a-fA-F:]+(?:[0-9.]+)?(?:%\w+)?"
    match = re.fullmatch(rf"(?:ssh://)?(?:([^@\s]+)@)?({host})(?::(\d{{1,5}}))?/?", text.strip())
    if match is None or match[2].startswith("-") or int(match[3] or 1) > 65535:
        shown = re.sub(r":[^@]*@", f":{MASK}@", text)
        raise UserError(f"{setting} must be a host, or user@host:port, not {shown!r}.", f"Correct {setting}.")
    if ":" in (match[1] or ""):
        # The text is not shown, since it contains the password.
        raise UserError(
            f"{setting} holds a password, which is not taken from there.",
            "Write user@host:port, and let a key sign you in (AML_REMOTE_KEY, or one of ~/.ssh).",
        )
    return match[1] or "", match[2].strip("[]"), int(match[3] or 0)


def _from_ssh_config(host: str, user: str = "", port: int = 0, through: tuple[str, ...] = ()) -> Address:
    """The address of a host by the user's SSH configuration, with the usual defaults.

    Args:
        host: The host as the user has named it.
        user: The user of the login, if it was given; empty otherwise.
        port: The port, if it was given; 0 otherwise.
        through: The hosts that are already being resolved through this one, and this one, to find loops.
    """
    through = through or (host,)
    config = SshConfig(host, user, port)
    name = config.first("hostname") or host
    if _INSTANCE.match(name):
        if not port and config.first("port") in ("", str(SSH_PORT)):
            port = INSTANCE_PORT
        if not user and config.first("user") in ("", local_user()):
            user = INSTANCE_USER
            # Read again, so that `Match user` sees this user.
            config = SshConfig(host, user, port)
    port = port or int(config.first("port") or SSH_PORT)
    user = user or config.first("user") or local_user()
    command, jump = config.first("proxycommand"), config.first("proxyjump")
    tokens = config.tokens(name, port, user)
    jump = re.sub("%([%hnpr])", lambda match: tokens[match[1]], jump)
    named, usual = config.keys(tokens)
    own, machine = config.known_hosts(tokens)
    return Address(
        named=host,
        original=host,
        host=name,
        port=port,
        user=user,
        keys=tuple(named),
        usual_keys=tuple(usual),
        certificates=tuple(config.certificates(tokens)),
        only_these=config.flag("identitiesonly"),
        agent=config.agent(tokens),
        known_hosts=(*own, *machine),
        revoked=config.revoked(tokens),
        accept=config.first("stricthostkeychecking") in ("accept-new", "no", "off", "false"),
        via=_hops(jump, "ProxyJump", through) if jump and jump != "none" else (),
        command="" if command == "none" else command,
        alias=config.first("hostkeyalias"),
    )
