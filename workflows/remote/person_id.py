"""The identifier of this user on this machine."""

from __future__ import annotations

import os

from ..errors import UserError
from ..locks import HeldError, hold
from ..paths import state_folder
from ..private import make_folder
from ..project import write_bytes


def person_id() -> str:
    """The identifier of this user on this machine, created at the first use and stored.

    The machine's name and network addresses cannot serve as identifiers, since they change with the network.

    Raises:
        UserError: It cannot be stored.
    """
    path = state_folder() / "id"
    try:
        if not path.exists():
            make_folder(path.parent)
            with hold(path.with_name("id.lock"), 10):
                if not path.exists():
                    write_bytes(path, os.urandom(16).hex().encode(), private=True)
        return path.read_text("ascii").strip()
    except (OSError, HeldError) as error:
        raise UserError(
            f"{path} cannot be kept: {getattr(error, 'strerror', None) or error}.", "Make its folder writable for you."
        ) from error
