"""Where the other machine is: from the settings, and from the person's own SSH configuration."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import home_folder
from ..redaction import MASK
from ..settings import Settings

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
        keys: Private key files, absolute.
        known_hosts: Files of host keys beside the usual ones.
        via: Machines to go through, the first one first.
        command: A ProxyCommand of the SSH configuration; empty for none.
        alias: The name under which its host key is known; empty for its own.
        dir: The project's folder there; empty for one of our choice.
        python: The Python there that runs this program; empty for one of our choice.
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

    @property
    def known_as(self) -> str:
        """The name of its entry in known_hosts."""
        name = self.alias or self.host
        return name if self.port == SSH_PORT or self.alias else f"[{name}]:{self.port}"

    @property
    def place(self) -> str:
        """Host and port as people write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.user}@{self.place}"

    def as_json(self) -> dict[str, Any]:
        """For handing it to another process."""
        return {**vars(self), "via": [one.as_json() for one in self.via]}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Address:
        """What :meth:`as_json` made."""
        found = dict(value)
        found["via"] = tuple(cls.of_json(one) for one in found["via"])
        for name in ("keys", "known_hosts"):
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
            "Set it in .env to the compute instance's address, or to a Host of ~/.ssh/config (see .env.example).",
        )
    user, host, port = _split(settings.remote_host, "AML_REMOTE_HOST")
    found = _configured(host)
    found = replace(
        found,
        named=settings.remote_host,
        user=settings.remote_user or user or found.user,
        port=settings.remote_port or port or found.port,
        dir=settings.remote_dir or "",
        python=settings.remote_python or "",
    )
    if settings.remote_key is not None:
        if not settings.remote_key.is_file():
            raise UserError(
                f"The key {settings.remote_key} does not exist.", "Correct AML_REMOTE_KEY: the private key's file."
            )
        _see_that_it_is_private(settings.remote_key)
        found = replace(found, keys=(str(settings.remote_key),))
    if settings.remote_gateway:
        found = replace(found, via=_hops(settings.remote_gateway, "AML_REMOTE_GATEWAY"), command="")
    # A gateway for which ssh knows no key of its own is likely to take the same one.
    return replace(found, via=tuple(hop if hop.keys else replace(hop, keys=found.keys) for hop in found.via))


def _see_that_it_is_private(key: Path) -> None:
    """See that a file does not hold the public half of a key.

    Raises:
        UserError: It does.
    """
    try:
        with open(key, "rb") as file:
            start = file.read(200)
    except OSError as error:
        raise UserError(f"The key {key} cannot be read: {error.strerror}.", "Correct AML_REMOTE_KEY.") from error
    # As ssh-keygen writes it, and in the formats of RFC 4716 and PEM.
    if re.match(rb"\s*((sk-)?(ssh|ecdsa)-[\w@.-]+ AAAA|-----?\s?BEGIN [A-Z0-9 ]*PUBLIC KEY)", start):
        private = key.with_suffix("") if key.suffix == ".pub" and key.with_suffix("").is_file() else None
        raise UserError(
            f"{key} is the public half of a key, and only the private half lets one in.",
            f"AML_REMOTE_KEY={private}" if private else "Set AML_REMOTE_KEY to the private key's file.",
        )


def _hops(text: str, setting: str) -> tuple[Address, ...]:
    hops: list[Address] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        user, host, port = _split(word, setting)
        found = _configured(host)
        hops += [*found.via, replace(found, named=word, user=user or found.user, port=port or found.port, via=())]
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


def _configured(host: str) -> Address:
    """What the person's SSH configuration says of a host, with the usual defaults."""
    values = _ssh_g(host) if shutil.which("ssh") else _paramiko(host)

    def first(name: str) -> str:
        return next(iter(values.get(name, ())), "")

    name = first("hostname") or host
    instance = bool(_INSTANCE.match(name))
    port = int(first("port") or SSH_PORT)
    if instance and port == SSH_PORT:
        port = INSTANCE_PORT
    user = first("user")
    if instance and (not user or user == _login()):
        user = INSTANCE_USER
    command = first("proxycommand")
    jump = first("proxyjump")
    return Address(
        named=host,
        host=name,
        port=port,
        user=user or _login(),
        keys=tuple(path for key in values.get("identityfile", ()) if os.path.isfile(path := _at_home(key))),
        known_hosts=tuple(_at_home(path) for line in values.get("userknownhostsfile", ()) for path in line.split()),
        via=_hops(jump, "ProxyJump") if jump and jump != "none" else (),
        command="" if command == "none" else command,
        alias=first("hostkeyalias"),
    )


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "root"


def _at_home(path: str) -> str:
    return os.path.expanduser(path.strip('"'))


def _configuration() -> Path:
    return home_folder() / ".ssh" / "config"


def _ssh_g(host: str) -> dict[str, list[str]]:
    """As OpenSSH itself resolves it, with ``Include`` and ``Match``."""
    own = _configuration()
    # ssh looks for the home in the user's account, not in HOME.
    chosen = ["-F", str(own)] if own.is_file() and _home_differs() else []
    done = subprocess.run(
        ["ssh", "-G", *chosen, "--", host],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=30, check=False,
    )  # fmt: skip
    if done.returncode:
        word = (done.stderr.strip().splitlines() or ["ssh does not say why"])[0]
        raise UserError(
            f"The SSH configuration cannot be read: {word}.", "Correct ~/.ssh/config (ssh -G HOST shows it)."
        )
    values: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _space, value = line.partition(" ")
        values.setdefault(name.lower(), []).append(value)
    if _home_differs():
        values = {name: [_rehomed(value) for value in found] for name, found in values.items()}
    return values


def _account_home() -> str:
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError, AttributeError):
        return str(Path.home())


def _home_differs() -> bool:
    return os.path.abspath(_account_home()) != str(Path.home().absolute())


def _rehomed(value: str) -> str:
    """A default path of ssh's, below HOME instead of the account's home."""
    before = f"{_account_home().rstrip('/')}/.ssh/"
    return " ".join(
        str(Path.home() / ".ssh" / word[len(before) :]) if word.startswith(before) else word
        for word in value.split(" ")
    )


def _paramiko(host: str) -> dict[str, Sequence[str]]:
    """Without an ssh client: what paramiko understands of the configuration."""
    from paramiko import SSHConfig

    path = _configuration()
    found = dict(SSHConfig.from_path(str(path)).lookup(host)) if path.is_file() else {}
    return {name: value if isinstance(value, list) else [str(value)] for name, value in found.items()}
