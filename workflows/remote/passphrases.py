"""The passphrases of key files: asked for once, without echo, and never written to a disk."""

from __future__ import annotations

import shlex
import sys

from ..errors import UserError
from ..terminal import printable
from .key_files import load, public_blob

#: The number of attempts to type a passphrase.
_TIMES = 3


class NoPassphrase(UserError):
    """There is no terminal, or the passphrase has been wrong too often."""


class Passphrases:
    """The passphrases of one command.

    Args:
        known: Passphrases by path; those that the user types are added.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known
        self._prompts: dict[str, int] = {}

    def known(self, path: str) -> str | None:
        """A key's passphrase if one was given; it may be wrong."""
        return self._known.get(path)

    def prompt(self, path: str) -> None:
        """Ask the user for a key's passphrase, again if the previous one was wrong.

        Raises:
            NoPassphrase: There is no terminal, or the passphrase was wrong too often.
        """
        import getpass

        if not sys.stdin.isatty():
            raise NoPassphrase(
                f"The key {path} is encrypted, and there is no terminal to ask for its passphrase.",
                f"Give it to the agent first: ssh-add {shlex.quote(path)}",
            )
        if path in self._known:
            sys.stderr.write("That is not its passphrase.\n")
        if self._prompts.get(path, 0) >= _TIMES:
            self._known.pop(path, None)
            raise NoPassphrase(
                f"The passphrase of {path} is not right.", f"Run it again, or: ssh-add {shlex.quote(path)}"
            )
        self._prompts[path] = self._prompts.get(path, 0) + 1
        self._known[path] = getpass.getpass(f"Passphrase of {printable(path)}: ")

    def public_half(self, path: str) -> bytes:
        """The public key of a key file whose passphrase is known, in the SSH wire format."""
        return public_blob(load(path, self._known.get(path)))
