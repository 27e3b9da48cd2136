"""Where the other machine is: from the settings, and from the person's own SSH configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from ..redaction import MASK
from ..settings import Settings
from .instances import Instance, instance_of, is_instance, known_hosts_file
from .ssh_config import SshConfig, login

#: A compute instance's own name; its SSH server listens on 50000 and its user is azureuser
#: (https://learn.microsoft.com/azure/machine-learning/how-to-create-compute-instance, "SSH access").
_INSTANCE = re.compile(r".+\.instances\.azureml\.(ms|us|cn)$", re.IGNORECASE)
INSTANCE_PORT, INSTANCE_USER = 50000, "azureuser"
SSH_PORT = 22


@dataclass(frozen=True)
class Address:
    """One machine that is reached over SSH.

    Attributes:
        named: What the person calls it.
        host: The name or address that is connected to.
        port: Its SSH port.
        user: The user there.
        keys: Files of keys that the person has named, absolute: private ones, or public ones whose key an agent has.
        known_hosts: Files of host keys; a key that is accepted goes into the first.
        via: Machines to go through, the first one first.
        command: A ProxyCommand of the SSH configuration; empty for none.
        alias: The name under which its host key is known; empty for its own.
        dir: The project's folder there; empty for one of our choice.
        python: The Python there that runs this program; empty for one of our choice.
        original: The name without user and port, as it would be typed after ``ssh``.
        usual_keys: Files of keys that are tried where they are there.
        certificates: Files of certificates that the person has named.
        only_these: No other keys of the agent's than those that are named.
        agent: The agent's socket; empty for none.
        revoked: A file of revoked host keys; empty for none.
        accept: Whether the key of a machine that is not known is accepted, as StrictHostKeyChecking says.
        instance: The compute instance that it is, where the way to it leads through its workspace.
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
        """Host and port as people write them."""
        if self.instance is not None:
            return str(self.instance)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.user}@{self.place}"

    def as_json(self) -> dict[str, Any]:
        """For handing it to another process."""
        instance = None if self.instance is None else vars(self.instance)
        return {**vars(self), "via": [one.as_json() for one in self.via], "instance": instance}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Address:
        """What :meth:`as_json` made."""
        found = dict(value)
        found["via"] = tuple(cls.of_json(one) for one in found["via"])
        if found["instance"] is not None:
            found["instance"] = Instance(**found["instance"])
        for name in ("keys", "usual_keys", "certificates", "known_hosts"):
            found[name] = tuple(found[name])
        return cls(**found)


def resolve(settings: Settings) -> Address:
    """The machine that ``--remote`` means.

    Raises:
        UserError: None is named, or the name cannot be one.
    """
    if not settings.remote_host:
        raise UserError(
            "AML_REMOTE_HOST is not set, so there is no machine for --remote.",
            "Set it in .env to the compute instance's address or azureml:NAME, or to a Host of ~/.ssh/config"
            " (see .env.example).",
        )
    if is_instance(settings.remote_host):
        return _through_the_workspace(settings)
    user, host, port = _split(settings.remote_host, "AML_REMOTE_HOST")
    found = replace(
        _configured(host, settings.remote_user or user, settings.remote_port or port),
        named=settings.remote_host,
        dir=settings.remote_dir or "",
        python=settings.remote_python or "",
    )
    found = _with_key(found, settings)
    if settings.remote_gateway:
        found = replace(found, via=_hops(settings.remote_gateway, "AML_REMOTE_GATEWAY"), command="")
    # A gateway for which ssh knows no key of its own is likely to take the same one.
    return replace(found, via=tuple(hop if hop.keys else replace(hop, keys=found.keys) for hop in found.via))


def _through_the_workspace(settings: Settings) -> Address:
    """A compute instance that is reached through its workspace; of the SSH configuration its keys count."""
    instance = instance_of(settings)
    found = replace(
        _configured(instance.name, settings.remote_user or INSTANCE_USER, SSH_PORT),
        named=str(instance),
        host=instance.name,
        port=SSH_PORT,
        via=(),
        command="",
        alias=instance.known_as,
        known_hosts=(str(known_hosts_file()),),
        # The websocket vouches for it the first time: TLS, and a sign-in, lead to this instance alone.
        accept=True,
        instance=instance,
        dir=settings.remote_dir or "",
        python=settings.remote_python or "",
    )
    return _with_key(found, settings)


def _with_key(found: Address, settings: Settings) -> Address:
    """An address with the key of AML_REMOTE_KEY, where that is set."""
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
        found = _configured(host, user, port, (*through, host))
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
        # Nor is it shown: what is wrong with it may well be the password.
        raise UserError(
            f"{setting} holds a password, which is not taken from there.",
            "Write user@host:port, and let a key sign you in (AML_REMOTE_KEY, or one of ~/.ssh).",
        )
    return match[1] or "", match[2].strip("[]"), int(match[3] or 0)


def _configured(host: str, user: str = "", port: int = 0, through: tuple[str, ...] = ()) -> Address:
    """What the person's SSH configuration says of a host, with the usual defaults.

    Args:
        host: What the person calls it.
        user: The user that they name besides; empty for none.
        port: The port that they name besides; 0 for none.
        through: The machines that are reached through it, and itself.
    """
    through = through or (host,)
    config = SshConfig(host, user, port)
    name = config.first("hostname") or host
    if _INSTANCE.match(name):
        if not port and config.first("port") in ("", str(SSH_PORT)):
            port = INSTANCE_PORT
        if not user and config.first("user") in ("", login()):
            user = INSTANCE_USER
            # `Match user` is to see the one who logs in.
            config = SshConfig(host, user, port)
    port = port or int(config.first("port") or SSH_PORT)
    user = user or config.first("user") or login()
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
