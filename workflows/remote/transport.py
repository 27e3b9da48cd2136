"""paramiko's transport, extended by host certificates and by the message with which the server disconnects."""

from __future__ import annotations

from typing import Any

import paramiko

_CERTIFICATE = "-cert-v01@openssh.com"


class SshTransport(paramiko.Transport):  # type: ignore[misc]
    """A transport that keeps the server's disconnect message.

    Attributes:
        disconnect_message: The server's message when it ended the connection; empty for none.
        certificates_first: Whether a certificate of the server is preferred to a plain key.
    """

    disconnect_message = ""
    certificates_first = False

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The kinds of host keys in the order of preference."""
        kinds: tuple[str, ...] = super().preferred_keys
        return tuple(sorted(kinds, key=lambda kind: kind.endswith(_CERTIFICATE) is not self.certificates_first))

    def _parse_disconnect(self, message: Any) -> None:
        # RFC 4253, section 11.1: a reason code, and the reason.
        message.get_int()
        self.disconnect_message = message.get_string()[:500].decode(errors="replace")
