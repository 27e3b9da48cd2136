"""Whether an engine behind ``ssh://`` answers, asked as the docker command line does, and why it does not."""

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

# Seconds for the way there, the login and the engine's first answer; a person may have to type a passphrase.
_PATIENCE = 60.0
_PING = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n"
_INSTEAD = "or set AML_ENGINE=process."


def check_connection(host: str, patience: float = _PATIENCE, ask: bool = True) -> None:
    """Ask the engine once, over a connection of its own.

    Args:
        host: Such as ``ssh://user@host:22``.
        patience: Seconds until silence counts as no answer.
        ask: Whether ssh may ask the person for something.

    Raises:
        UserError: ssh is not installed, does not get there, or no engine answers there.
    """
    if shutil.which("ssh") is None:
        raise UserError(
            f"The Docker engine is at {host}, and the program ssh is not installed.",
            f"Install it (Debian, Ubuntu: `sudo apt-get install openssh-client`), {_INSTEAD}",
        )
    # In a group of its own, so that ssh's helpers (ProxyCommand) go with it.
    process = subprocess.Popen(
        connection_command(host, ask),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=sys.platform != "win32" and not (ask and _may_ask()),
    )
    try:
        answer, said = process.communicate(_PING, timeout=patience)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"The Docker engine at {host} cannot be reached: ssh has no answer after {patience:.0f} s.",
            f"Try `ssh {' '.join(_arguments(host))}`; correct DOCKER_HOST or the docker context, {_INSTEAD}",
        ) from error
    finally:
        _end(process)
    if answer.startswith(b"HTTP/1.") and b" 200 " in answer.partition(b"\r\n")[0]:
        return
    raise _explained(host, process.returncode, said.decode("utf-8", "replace"))


def connection_command(host: str, ask: bool = True) -> list[str]:
    """The command whose standard input and output are a connection to the engine.

    Args:
        host: Such as ``ssh://user@host:22``.
        ask: Whether ssh may ask the person for something.
    """
    return ["ssh", *([] if ask else ["-o", "BatchMode=yes"]), *_arguments(host), "docker system dial-stdio"]


def _arguments(host: str) -> list[str]:
    """What ssh is called with, as by the docker command line.

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
    # The host as it is written: ssh's settings tell capital letters apart.
    written = re.sub(r":\d*$", "", parts.netloc.rpartition("@")[2]).strip("[]")
    return [*user, *(["-p", str(port)] if port else []), "--", written]


def _may_ask() -> bool:
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


def _explained(host: str, code: int, said: str) -> UserError:
    """Why there was no answer, from what ssh, the shell there or docker there said."""
    lines = [scrub(line.strip()) for line in said.splitlines() if line.strip()]
    way = " ".join(_arguments(host))
    if code != 255:
        # ssh got there: it ends as the command there does.
        if re.search(r"docker: (?:command )?not found|docker: not found|Unknown command", said) or code == 127:
            return UserError(
                f"The host of {host} has no docker command, which the engine there is reached with.",
                f"Install docker there, for the user who logs in, {_INSTEAD}",
                details=lines[-5:],
            )
        last = next((line for line in reversed(lines) if "docker" in line.lower()), (lines or ["it said nothing"])[-1])
        if "permission denied" in last.lower():
            remedy = "Let that user use it (there: `sudo usermod -aG docker $USER`), "
        else:
            remedy = f"Start the engine there (`ssh {way} docker info` shows what is wrong), "
        return UserError(
            f"No Docker engine answers on the host of {host}: {last.rstrip('.')}.",
            remedy + _INSTEAD,
            details=lines[-5:],
        )
    last = next((line for line in reversed(lines) if _TELLING.search(line)), (lines or ["ssh said nothing"])[-1])
    return UserError(
        f"The Docker engine at {host} cannot be reached: {last.rstrip('.')}.",
        f"Try `ssh {way}` until it logs in; correct DOCKER_HOST or the docker context, {_INSTEAD}",
        details=lines[-5:],
    )


_TELLING = re.compile(
    r"Permission denied|Could not resolve|Connection refused|timed out|No route|unreachable|verification failed|"
    r"Too many authentication|reset by|closed by|Bad |no such identity|kex_exchange",
    re.IGNORECASE,
)
