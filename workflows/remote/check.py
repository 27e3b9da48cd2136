"""`remote.check`: checks everything that can be wrong with the remote machine, one thing after the other."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..findings import Finding
from ..formatting import format_size
from ..received import sent_by
from ..settings import Settings
from .address import Address, resolve
from .connection import (
    CONNECT_SECONDS,
    NO_SUCH_HOST,
    HostKeyRefused,
    accept_host_key,
    close_connection,
    describe_failure,
    fingerprint,
    open_connection,
)
from .instance_check import check_instance
from .login_failed import LoginFailed
from .session import ConnectionLost, Session

#: Bytes that the program's environment and that of a service need together.
_NEEDED = 2_000_000_000
#: Seconds by which the two clocks may differ before a file's time on one machine looks wrong on the other.
_CLOCK = 5.0


def findings(settings: Settings, say: Callable[[str], None] | None = None) -> Iterator[Finding]:
    """Check one thing after the other, and stop where the next check would be pointless.

    Args:
        settings: The settings that name the machine.
        say: Called with the text of what is being waited for.
    """
    address = resolve(settings)
    first = address.via[0] if address.via else address
    if not first.command:
        for one in _network(first) if first.instance is None else check_instance(first.instance, say):
            yield one
            if one.ok is False:
                return
    began = time.monotonic()
    try:
        connection = open_connection(address, {}, say)
    except HostKeyRefused as error:
        yield Finding("host key", False, error.problem, error.remedy)
        return
    except LoginFailed as error:
        yield Finding("host key", True, "known")
        yield Finding("login", False, error.problem, error.remedy)
        return
    except UserError as error:
        yield Finding("connection", False, error.problem, error.remedy)
        return
    key = connection.transport.get_remote_server_key()
    yield Finding("host key", True, f"known: {key.get_name()} {fingerprint(key)}")
    yield Finding("login", True, f"as {address.user}, in {time.monotonic() - began:.2f} s")
    try:
        session = Session(connection, address)
    except (UserError, ConnectionLost) as error:
        problem, remedy = (
            (error.problem, error.remedy) if isinstance(error, UserError) else ("no answer", "Run it again.")
        )
        yield Finding("Python", False, problem, remedy)
        with contextlib.suppress(Exception):
            connection.close()
        return
    try:
        with sent_by(str(address)):
            yield from _machine(session, settings)
    except UserError as error:
        yield Finding("machine", False, error.problem, error.remedy)
    except ConnectionLost:
        yield Finding("machine", False, "the connection was lost, or there was no answer", "Run it again.")
    finally:
        session.close()


def _network(address: Address) -> Iterator[Finding]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        reason = getattr(error, "strerror", None) or error
        yield Finding("name", False, f"{address.host}: {reason}", NO_SUCH_HOST)
        return
    places = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    yield Finding("name", True, f"{address.host} is {', '.join(places)}" if places != [address.host] else address.host)
    began = time.monotonic()
    try:
        with socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS):
            yield Finding("TCP", True, f"port {address.port} answers in {(time.monotonic() - began) * 1000:.0f} ms")
    except OSError as error:
        failure = describe_failure(address, error)
        yield Finding("TCP", False, failure.problem, failure.remedy)


def _machine(session: Session, settings: Settings) -> Iterator[Finding]:
    hello = session.hello
    asked = time.time()
    facts = session.request("facts", folder=settings.remote_dir or "azureml-debug")
    version = ".".join(map(str, hello["python"]))
    if facts["venv"]:
        yield Finding("Python", True, f"{version} ({hello['executable']})")
    else:
        yield Finding(
            "Python",
            False,
            f"{version}, which cannot make virtual environments"
            + (f" ({facts['pythons']})" if facts.get("pythons") else ""),
            "There: sudo apt install python3-venv, or name another Python: AML_REMOTE_PYTHON",
        )
    yield _disk(facts, session, settings)
    yield _docker(facts["docker"])
    yield _sdk(facts["sdk"], settings.backend)
    # The greeting's time is compared with the time at which the facts were requested.
    off = hello["time"] - asked
    if abs(off) > _CLOCK:
        ahead = "ahead" if off > 0 else "behind"
        yield Finding(
            "clock", None, f"{abs(off):.0f} s {ahead} of this one", "Set it: timedatectl set-ntp true, on both."
        )
    else:
        yield Finding("clock", True, f"{abs(off):.1f} s from this one")


def _disk(facts: Mapping[str, Any], session: Session, settings: Settings) -> Finding:
    free, place = int(facts["free"]), facts["place"]
    try:
        session.request("try", folder=settings.remote_dir or "azureml-debug")
    except UserError as error:
        return Finding("disk", False, error.problem, error.remedy)
    text = f"{format_size(free)} free of {format_size(facts['total'])} at {place}"
    if free < _NEEDED:
        return Finding("disk", None, text, f"Environments need about {format_size(_NEEDED)}: free some.")
    return Finding("disk", True, text)


def _docker(docker: Mapping[str, str]) -> Finding:
    if docker["state"] == "answers":
        return Finding("Docker", True, f"engine {docker.get('version', '')}")
    without = "without it, processes are used"
    if docker["state"] == "missing":
        return Finding("Docker", None, f"is not installed; {without}", "To have containers, install it there.")
    word = docker.get("word", "")
    if docker["state"] == "refused":
        return Finding("Docker", None, f"{word}; {without}", "There: sudo usermod -aG docker $USER, and log in again.")
    return Finding(
        "Docker", None, f"its engine does not answer: {word}; {without}", "There: sudo systemctl start docker"
    )


def _sdk(version: str, backend: str) -> Finding:
    if version:
        return Finding("Azure ML", True, f"azureml-core {version}")
    if backend == "azureml":
        return Finding(
            "Azure ML", None, "azureml-core was not found; AML_BACKEND=azureml needs it",
            "Compute instances have it in /anaconda/envs. Install it there, or choose AML_BACKEND=local.",
        )  # fmt: skip
    return Finding("Azure ML", True, "azureml-core is not there; only AML_BACKEND=azureml would need it")


def accept_key(settings: Settings, wanted: str) -> str:
    """Add the machine's host key to known_hosts if it has the given fingerprint, and say in a line what was done.

    Raises:
        UserError: The machine has another key, or a known key has changed.
    """
    address = resolve(settings)
    for number, machine in enumerate((*address.via, address)):
        try:
            # The first key of a compute instance has to have the given fingerprint, too.
            wanted_first = machine.accept and machine.instance is None
            close_connection(open_connection(replace(machine, via=address.via[:number], accept=wanted_first), {}))
        except HostKeyRefused as error:
            if "is not known" not in error.problem:
                raise
            shown = fingerprint(error.key)
            if shown.removeprefix("SHA256:") != wanted.removeprefix("SHA256:"):
                if machine is not address:
                    continue
                raise UserError(
                    f"{address.host} shows another host key: {error.key.get_name()} {shown}.",
                    "Accept it only if it is the machine's own; somebody may be in between.",
                ) from error
            path = accept_host_key(machine, error.key)
            return f"The host key {shown} of {machine.known_as} is in {path} now."
        except LoginFailed:
            # A server that refuses the login has already shown its key.
            continue
        except UserError:
            if machine is address:
                raise
    return "Its host key is known already."
