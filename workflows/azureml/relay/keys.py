"""The key pair of one run. It gives access to the run's containers, so each run gets a new one."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

_FILE = "relay.key"


def make_key(folder: Path) -> str:
    """Make a run's key pair. The private key is saved in the run's folder, readable only by the owner.

    Args:
        folder: The run's folder.

    Returns:
        The public key, as a line of ``authorized_keys``.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    handle = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(text)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} azureml-debug"


def load_key(folder: Path) -> Any:
    """A run's private key for paramiko; None where there is none."""
    import paramiko

    try:
        text = (folder / _FILE).read_text(encoding="ascii")
    except OSError:
        return None
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text))


def delete_key(folder: Path) -> None:
    """Delete a run's private key, after the run has ended."""
    (folder / _FILE).unlink(missing_ok=True)
