"""What tells this person on this machine from every other one."""

from __future__ import annotations

import os

from ..errors import UserError
from ..locks import HeldError, hold
from ..paths import state_folder
from ..private import make_folder
from ..project import write_bytes


def person_id() -> str:
    """Tells this person on this machine from every other one; made at the first use, and the same from then on.

    Neither the machine's name nor its network cards do: both change with the network that it is in.

    Raises:
        UserError: It cannot be kept.
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
