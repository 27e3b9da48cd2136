"""Opens Fabric's connection: verifies host keys, unlocks the user's keys, and explains failures in two lines."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import home_folder
from ..reading import read_bytes
from ..terminal import printable
from . import keepalive
from .address import INSTANCE_PORT, SSH_PORT, Address
from .host_keys import BadCertificate, HostKeys, RevokedKey, UnknownHost
from .instances import find_local_key
from .login_failed import LoginFailed
from .proxy import start_proxy

#: Seconds for TCP, for the server's greeting and for the login, each. Measured at 100 ms delay and 5 % loss: up to 13.
CONNECT_SECONDS = 20
#: Milliseconds after which unacknowledged data ends the connection.
_USER_TIMEOUT = 15_000
#: What to do about an unknown host name.
NO_SUCH_HOST = "Correct AML_REMOTE_HOST, or give it a Host entry with a HostName in ~/.ssh/config."
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class HostKeyRefused(UserError):
    """The machine was reached, but its host key is unknown or differs from the known one.

    Attributes:
        key: The key that the machine has shown.
    """

    def __init__(self, key: Any, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.key = key


def open_connection(address: Address, passphrases: dict[str, str], say: Callable[[str], None] | None = None) -> Any:
    """Open a Fabric connection, through gateways if there are any.

    Args:
        address: The machine.
        passphrases: Passphrases of key files, by path; those that the user types are added.
        say: Called with the text of what a workspace is being waited for; None if the caller retries by itself.

    Raises:
        UserError: The machine cannot be reached, is not the known one, or refuses the login.
    """
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    gateway: Any = None
    opened: list[Any] = []
    try:
        for hop in address.via:
            gateway = _connect(hop, gateway, passphrases, say)
            opened.append(gateway)
        connection = _connect(address, gateway, passphrases, say)
    except BaseException:
        for one in reversed(opened):
            with contextlib.suppress(Exception):
                one.close()
        raise
    return connection


def close_connection(connection: Any) -> None:
    """Close a connection and those of its gateways."""
    while connection is not None:
        with contextlib.suppress(Exception):
            connection.close()
        connection = connection.gateway


def known_hosts_file(address: Address | None = None) -> Path:
    """The file to which an accepted host key is written: the first of the user's files, or the default one."""
    named = address.known_hosts[:1] if address is not None else ()
    return Path(*named) if named else home_folder() / ".ssh" / "known_hosts"


def _connect(address: Address, gateway: Any, passphrases: dict[str, str], say: Callable[[str], None] | None) -> Any:
    from .login import TooManyKeys

    tried: list[Any] = []
    try:
        return _connect_once(address, gateway, passphrases, tried, say)
    except TooManyKeys:
        # Connect again and try the remaining keys: an agent often has more keys than a server lets you try.
        try:
            return _connect_once(address, gateway, passphrases, tried, say)
        except TooManyKeys:
            raise LoginFailed(
                f"{address.place} ends the login after {len(tried)} keys, and there are more that were not tried.",
                "Name the key: AML_REMOTE_KEY, or IdentityFile and IdentitiesOnly yes in ~/.ssh/config.",
            ) from None


def _prepare_route(address: Address, gateway: Any, say: Callable[[str], None] | None) -> tuple[Address, Any, str]:
    """Prepare the route of a connection: a websocket, a ProxyCommand or plain TCP.

    Returns:
        The address, with a key that Azure knows added; a socket, or None for plain TCP; and the advice for a login
        that is refused.
    """
    if address.instance is not None:
        from ..azureml.relay import instance as instances

        stream, found = instances.connect_to_instance(address.instance, say)
        advice, own = instances.key_advice(address.instance, found), find_local_key(found.public_key)
        if own and own not in address.keys:
            address = replace(address, keys=(*address.keys, own))
        return address, stream, advice
    if address.command and gateway is None:
        return address, start_proxy(address), ""
    return address, None, ""


def _connect_once(
    address: Address,
    gateway: Any,
    passphrases: dict[str, str],
    tried: list[Any],
    say: Callable[[str], None] | None,
) -> Any:
    import fabric
    from paramiko.config import SSHConfig

    from .login import Login

    address, through, about_keys = _prepare_route(address, gateway, say)
    # The SSH configuration is already resolved; Fabric's own reader does not support Include.
    config = fabric.Config(ssh_config=SSHConfig())
    known = _host_keys(address)
    options: dict[str, Any] = {
        "banner_timeout": CONNECT_SECONDS,
        "channel_timeout": CONNECT_SECONDS,
        "auth_strategy": Login(address, passphrases, tried),
        "transport_factory": known.transport,
    }
    if through is not None:
        options["sock"] = through
    connection = fabric.Connection(
        address.host,
        user=address.user,
        port=address.port,
        gateway=gateway,
        config=config,
        connect_kwargs=options,
        connect_timeout=CONNECT_SECONDS,
    )
    client = connection.client
    client.set_missing_host_key_policy(known)
    try:
        connection.open()
    except BaseException as error:
        disconnect_message = getattr(client.get_transport(), "disconnect_message", "")
        with contextlib.suppress(Exception):
            client.close()
        if through is not None:
            through.close()
        if isinstance(error, LoginFailed) and about_keys:
            raise LoginFailed(error.problem, about_keys) from error
        if isinstance(error, Exception):
            raise describe_failure(address, error, disconnect_message) from error
        raise
    transport = client.get_transport()
    if getattr(transport.sock, "family", None) in _INTERNET:
        with contextlib.suppress(OSError):
            # A debugger's small messages must not wait for each other.
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
    keepalive.watch(transport)
    return connection


def _host_keys(address: Address) -> HostKeys:
    files = [Path(name) for name in dict.fromkeys(address.known_hosts)] or [known_hosts_file()]
    found = HostKeys.load(address.known_as, files)
    bare = address.alias or address.host
    if not (found.keys or found.authorities) and address.known_as != bare:
        # As in ssh, a key that is known for the host is valid for each of its ports.
        found = HostKeys.load(bare, files)
    found.principal, found.revoked_file = bare, address.revoked
    if address.accept:
        found.accept = lambda key: _accept(address, key)
    return found


def _accept(address: Address, key: Any) -> None:
    """Accept the key of an unknown machine, as the user's SSH configuration says."""
    with contextlib.suppress(OSError):
        accept_host_key(address, key)
    why = "StrictHostKeyChecking" if address.instance is None else "it is the first that this instance shows"
    sys.stderr.write(f"The host key of {printable(address.place)}, {fingerprint(key)}, is accepted ({why}).\n")


def fingerprint(key: Any) -> str:
    """A key's fingerprint as OpenSSH shows it."""
    import base64
    import hashlib

    # paramiko's own `fingerprint`, which returns the same, exists from 3.2 on.
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


def describe_failure(address: Address, error: Exception, disconnect_message: str = "") -> UserError:
    """The error that the user reads for a failed connection.

    Args:
        address: The machine.
        error: What paramiko or the system has raised.
        disconnect_message: The server's message when it ended the connection; empty for none.
    """
    from .login import TooManyKeys

    if isinstance(error, UserError):
        return error
    if isinstance(error, TooManyKeys):
        raise error
    found = (
        _host_key_refused(address, error)
        or _unreachable(address, error)
        or _ssh_failed(address, error, disconnect_message)
    )
    if found is None:
        raise error
    return found


def _host_key_refused(address: Address, error: Exception) -> UserError | None:
    import paramiko

    where = address.place
    if isinstance(error, BadCertificate):
        return HostKeyRefused(
            error.key,
            f"The host key of {where}, {fingerprint(error.key)}, has a certificate {error.reason}.",
            "Have the machine's key certified for the name that you use, or set HostKeyAlias in ~/.ssh/config.",
        )
    if isinstance(error, RevokedKey):
        return HostKeyRefused(
            error.key,
            f"The host key of {where}, {fingerprint(error.key)}, is marked @revoked in known_hosts.",
            "Somebody may be in between. Ask whoever keeps the machine for its new key.",
        )
    if isinstance(error, UnknownHost):
        shown_fingerprint = fingerprint(error.key)
        return HostKeyRefused(
            error.key,
            f"The host key of {where} is not known: {error.key.get_name()} {shown_fingerprint}.",
            f"Compare it with the machine's own; to accept it: inv remote.check --accept-host-key {shown_fingerprint}",
        )
    if isinstance(error, paramiko.BadHostKeyException):
        return HostKeyRefused(
            error.key,
            f"The host key of {where} has changed: it shows {fingerprint(error.key)}, "
            f"and {fingerprint(error.expected_key)} is known. Somebody may be in between.",
            f"If the machine was really reinstalled: ssh-keygen {_keygen_file_option(address)}"
            f"-R {shlex.quote(address.known_as)}, then inv remote.check shows the new key.",
        )
    return None


def _unreachable(address: Address, error: Exception) -> UserError | None:
    from paramiko.ssh_exception import NoValidConnectionsError

    where = address.place
    if isinstance(error, socket.gaierror):
        return UserError(f"There is no host {address.host}: {error.strerror or error}.", NO_SUCH_HOST)
    if isinstance(error, TimeoutError | socket.timeout):
        return UserError(
            f"{where} does not answer within {CONNECT_SECONDS} s.",
            "Is the machine running, and does its network accept connections from here? AML_REMOTE_GATEWAY sets a"
            " gateway.",
        )
    if isinstance(error, NoValidConnectionsError | ConnectionError):
        causes = list(getattr(error, "errors", {}).values()) or [error]
        if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
            hint = (
                f" Compute instances listen on {INSTANCE_PORT}: AML_REMOTE_PORT={INSTANCE_PORT}."
                if address.port == SSH_PORT
                else ""
            )
            return UserError(f"{where} refuses the connection.", f"Is its SSH server up, and on that port?{hint}")
        reason = getattr(causes[0], "strerror", None) or causes[0]
        return UserError(f"{where} cannot be reached: {reason}.", "Check the network, or set AML_REMOTE_GATEWAY.")
    if isinstance(error, OSError):
        return UserError(
            f"{where} cannot be reached: {error.strerror or error}.", "Check the network, or set AML_REMOTE_GATEWAY."
        )
    return None


def _ssh_failed(address: Address, error: Exception, disconnect_message: str) -> UserError | None:
    """The error for a failure after the machine was reached; None for an unknown one."""
    import paramiko

    where = address.place
    if isinstance(error, paramiko.ChannelException):
        return UserError(
            f"The gateway cannot reach {where}: {error.text}.", "Correct AML_REMOTE_HOST as the gateway sees it."
        )
    if disconnect_message and isinstance(error, EOFError | paramiko.SSHException):
        return UserError(
            f"{where} has ended the connection: {printable(disconnect_message)}.",
            "See its SSH server's log.",
        )
    if isinstance(error, EOFError | paramiko.SSHException) and address.command and _no_greeting(error):
        return UserError(
            f"The ProxyCommand to {where} has ended, or does not lead to an SSH server.",
            f"Try it by itself: ssh {shlex.quote(address.named)}; it stands in ~/.ssh/config.",
        )
    if isinstance(error, EOFError | paramiko.SSHException) and address.instance is not None and _no_greeting(error):
        closed = isinstance(error, EOFError) or isinstance(error.__context__, EOFError | ConnectionError)
        does = "closes at once" if closed else f"gets no greeting of an SSH server within {CONNECT_SECONDS} s"
        return UserError(
            f"The websocket to {where} opens and {does}.",
            f"Its SSH server may be coming up: run this again; else: az ml compute restart"
            f" {address.instance.named_for_az}",
        )
    if isinstance(error, EOFError):
        return UserError(
            f"{where} closed the connection before the login.", "Is its SSH server being restarted? Run it again."
        )
    if isinstance(error, paramiko.SSHException):
        text = str(error) or type(error).__name__
        if isinstance(error.__context__, EOFError | ConnectionError) and "banner" in text:
            return UserError(
                f"{where} closes the connection before it says anything.",
                "Its SSH server may be turning this address away (MaxStartups, fail2ban, hosts.deny), "
                "or be none: see AML_REMOTE_PORT.",
            )
        # "No existing session": the key exchange took too long.
        if "banner" in text or "Indecipherable" in text or "No existing session" in text:
            return UserError(f"{where} does not answer as an SSH server.", "Is the port right? See AML_REMOTE_PORT.")
        return UserError(
            f"The SSH connection to {where} failed: {text}.", "See ssh -v with the same host, port and key."
        )
    return None


def _keygen_file_option(address: Address) -> str:
    """The option that tells ssh-keygen which known_hosts file to change, if that is not its default."""
    return f"-f {shlex.quote(str(known_hosts_file(address)))} " if address.instance is not None else ""


def _no_greeting(error: Exception) -> bool:
    return isinstance(error, EOFError) or "banner" in str(error)


def accept_host_key(address: Address, key: Any) -> Path:
    """Add a host key to the user's known_hosts and return the file."""
    path = known_hosts_file(address)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = f"{address.known_as} {key.get_name()} {key.get_base64()}\n"
    before = read_bytes(path) if path.is_file() else b""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
        file.write((b"\n" if before and not before.endswith(b"\n") else b"") + line.encode())
    return path
