"""VS Code in the running container: the address of its Dev Containers extension, and the editor that takes it.

The address is that of `Attach to Running Container`: the authority ``attached-container+`` with a JSON object in hex
(https://github.com/microsoft/vscode-remote-release/issues/8764), then ``@`` and the machine's own authority where the
engine is on another one.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from urllib.parse import quote

from ..console import Console
from ..errors import UserError

#: VS Code's own names on PATH, the first one that is there is taken. Its free builds have no extension Dev Containers.
EDITORS = ("code", "code-insiders")
#: Seconds that the command may take to hand the address to the editor.
LIMIT = 60


def ssh_authority(name: str, host: str, user: str, port: int, *, by_name: bool) -> str:
    """The authority of the Remote - SSH extension for a machine.

    Args:
        name: What the person calls it.
        host: Its address.
        user: The user there.
        port: Its SSH port.
        by_name: Whether the person's SSH configuration says all of it under that name.
    """
    # The extension writes what is not a plain name as JSON in hex: authorities are compared in small letters.
    if by_name and re.fullmatch(r"[a-z0-9._-]+", name):
        return f"ssh-remote+{name}"
    return f"ssh-remote+{_hex({'hostName': host, 'user': user, 'port': port})}"


def container_address(container: str, folder: str, docker: Mapping[str, str] | None = None, parent: str = "") -> str:
    """The address of a folder in a running container.

    Args:
        container: The container's name.
        folder: Absolute, in the container.
        docker: ``context`` or ``host`` of the engine, where it is not VS Code's own choice.
        parent: Authority of the machine that the engine is on; empty for this one.
    """
    # As `docker inspect` has the name.
    named: dict[str, object] = {"containerName": f"/{container}"}
    if docker:
        named["settings"] = dict(docker)
    authority = f"attached-container+{_hex(named)}{f'@{parent}' if parent else ''}"
    return f"vscode-remote://{authority}{quote(folder)}"


def open_address(where: str) -> str | None:
    """Hand an address to the editor that is on PATH; its name, None where there is none.

    Raises:
        UserError: It does not take it.
    """
    found = next((program for program in EDITORS if shutil.which(program)), None)
    if found is None:
        return None
    again = f"Run it yourself: {found} --folder-uri {where}"
    try:
        done = subprocess.run(
            [str(shutil.which(found)), "--folder-uri", where],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{found} has not returned within {LIMIT} s.", again) from error
    except OSError as error:
        raise UserError(f"{found} cannot be started: {error.strerror}.", again) from error
    if done.returncode:
        word = next(iter(done.stderr.strip().splitlines()[-1:]), "it does not say why")
        raise UserError(f"{found} ended with exit code {done.returncode}: {word}", again)
    return found


def open_in_code(console: Console, address: str) -> dict[str, object]:
    """Open an address in VS Code, or say it; what ``--json`` shows of it."""
    with console.step("code") as step:
        opened = open_address(address)
        step.text = f"{opened} opens {address}" if opened else f"{', '.join(EDITORS)}: none is on PATH"
    if opened is None:
        console.line("Where VS Code is, with its extension Dev Containers:")
        console.line(f"  code --folder-uri {address}")
    return {"address": address, "opened": opened}


def _hex(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":")).encode().hex()
