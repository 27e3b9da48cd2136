"""Connections to an engine behind ``ssh://``, as the docker command line makes them, and their errors."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from urllib.parse import urlsplit

from ..errors import UserError
from ..redaction import scrub

# Seconds for the connection, the login and the engine's first answer; the user may have to type a passphrase.
_TIMEOUT = 60.0
_PING = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
_INSTEAD = "or set AML_ENGINE=process."


def check_connection(host: str, timeout: float = _TIMEOUT, interactive: bool = True) -> None:
    """Send the engine one request, over a connection of its own.

    Args:
        host: Such as ``ssh://user@host:22``.
        timeout: Seconds to wait for the answer.
        interactive: Whether ssh may prompt the user.

    Raises:
        UserError: ssh is not installed or cannot connect, or no engine answers there.
    """
    if shutil.which("ssh") is None:
        raise UserError(
            f"The Docker engine is at {host}, and the program ssh is not installed.",
            f"Install it (Debian, Ubuntu: `sudo apt-get install openssh-client`), {_INSTEAD}",
        )
    # In a process group of its own, so that ssh's helpers (ProxyCommand) are ended with it.
    process = subprocess.Popen(
        connection_command(host, interactive),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=sys.platform != "win32" and not (interactive and _has_terminal()),
    )
    try:
        answer, messages = process.communicate(_PING, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"The Docker engine at {host} cannot be reached: ssh has no answer after {timeout:.0f} s.",
            f"Try `ssh {' '.join(_arguments(host))}`; correct DOCKER_HOST or the docker context, {_INSTEAD}",
        ) from error
    finally:
        _end(process)
    if answer.startswith(b"HTTP/1.") and b" 200 " in answer.partition(b"\r\n")[0]:
        return
    raise _connection_error(host, process.returncode, messages.decode("utf-8", "replace"))


def connection_command(host: str, interactive: bool = True) -> list[str]:
    """The command whose standard input and output are a connection to the engine.

    Args:
        host: Such as ``ssh://user@host:22``.
        interactive: Whether ssh may prompt the user.
    """
    return ["ssh", *([] if interactive else ["-o", "BatchMode=yes"]), *_arguments(host), "docker system dial-stdio"]


def _arguments(host: str) -> list[str]:
    """The arguments of ssh for a host, as the docker command line gives them.

    Raises:
        UserError: The address names no host.
    """
    try:
        parts = urlsplit(host)
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
    if not name or name.startswith("-"):
        raise UserError(f"{host} names no host.", "Correct DOCKER_HOST or the docker context: ssh://USER@HOST.")
    user = ["-l", parts.username] if parts.username else []
    # The host as it is written: ssh's configuration distinguishes capital letters.
    written = re.sub(r":\d*$", "", parts.netloc.rpartition("@")[2]).strip("[]")
    return [*user, *(["-p", str(port)] if port else []), "--", written]


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError):
            if sys.platform != "win32" and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _connection_error(host: str, code: int, messages: str) -> UserError:
    """The error for a missing answer, from the messages of ssh, the remote shell or the remote docker."""
    lines = [scrub(line.strip()) for line in messages.splitlines() if line.strip()]
    arguments = " ".join(_arguments(host))
    if code != 255:
        # ssh connected: its exit code is the remote command's.
        if re.search(r"docker: (?:command )?not found|docker: not found|Unknown command", messages) or code == 127:
            return UserError(
                f"The host of {host} has no docker command, which the engine there is reached with.",
                f"Install docker there, for the user who logs in, {_INSTEAD}",
                details=lines[-5:],
            )
        last = next((line for line in reversed(lines) if "docker" in line.lower()), (lines or ["it said nothing"])[-1])
        if "permission denied" in last.lower():
            remedy = "Let that user use it (there: `sudo usermod -aG docker $USER`), "
        else:
            remedy = f"Start the engine there (`ssh {arguments} docker info` shows what is wrong), "
        return UserError(
            f"No Docker engine answers on the host of {host}: {last.rstrip('.')}.",
            remedy + _INSTEAD,
            details=lines[-5:],
        )
    last = next((line for line in reversed(lines) if _SPECIFIC.search(line)), (lines or ["ssh said nothing"])[-1])
    return UserError(
        f"The Docker engine at {host} cannot be reached: {last.rstrip('.')}.",
        f"Try `ssh {arguments}` until it logs in; correct DOCKER_HOST or the docker context, {_INSTEAD}",
        details=lines[-5:],
    )


_SPECIFIC = re.compile(
    r"Permission denied|Could not resolve|Connection refused|timed out|No route|unreachable|verification failed|"
    r"Too many authentication|reset by|closed by|Bad |no such identity|kex_exchange",
    re.IGNORECASE,
)
