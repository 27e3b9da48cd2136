"""Opening VS Code in a running container: the URI of its Dev Containers extension, and the editor's command.

The URI is that of `Attach to Running Container`: the authority ``attached-container+`` with a JSON object in hex
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

#: VS Code's commands; the first one on PATH is used. Free builds of it have no Dev Containers extension.
EDITORS = ("code", "code-insiders")
#: Seconds that the command may take to pass the URI to the editor.
LIMIT = 60


def ssh_authority(name: str, host: str, user: str, port: int, *, by_name: bool) -> str:
    """The authority of the Remote - SSH extension for a machine.

    Args:
        name: The user's name for it.
        host: Its address.
        user: The user there.
        port: Its SSH port.
        by_name: Whether the user's SSH configuration has everything under that name.
    """
    # Other names than plain ones are JSON in hex for the extension: authorities are compared in lower case.
    if by_name and re.fullmatch(r"[a-z0-9._-]+", name):
        return f"ssh-remote+{name}"
    return f"ssh-remote+{_hex({'hostName': host, 'user': user, 'port': port})}"


def container_address(container: str, folder: str, docker: Mapping[str, str] | None = None, parent: str = "") -> str:
    """The URI of a folder in a running container.

    Args:
        container: The container's name.
        folder: Absolute, in the container.
        docker: ``context`` or ``host`` of the engine, if it is not VS Code's default.
        parent: The authority of the engine's machine; empty for this one.
    """
    # The name as `docker inspect` shows it.
    named: dict[str, object] = {"containerName": f"/{container}"}
    if docker:
        named["settings"] = dict(docker)
    authority = f"attached-container+{_hex(named)}{f'@{parent}' if parent else ''}"
    return f"vscode-remote://{authority}{quote(folder)}"


def open_address(where: str) -> str | None:
    """Open a URI in the editor on PATH; returns the editor's name, None if there is none.

    Raises:
        UserError: The editor's command fails.
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
    """Open a URI in VS Code, or print it if there is no editor; returns the object for ``--json``."""
    with console.step("code") as step:
        opened = open_address(address)
        step.text = f"{opened} opens {address}" if opened else f"{', '.join(EDITORS)}: none is on PATH"
    if opened is None:
        console.line("Where VS Code is, with its extension Dev Containers:")
        console.line(f"  code --folder-uri {address}")
    return {"address": address, "opened": opened}


def _hex(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":")).encode().hex()
