"""paramiko's transport with what it leaves out: certificates of hosts, and what the server says as it leaves."""

from __future__ import annotations

from typing import Any

import paramiko

_CERTIFICATE = "-cert-v01@openssh.com"


class SshTransport(paramiko.Transport):  # type: ignore[misc]
    """A transport that keeps the server's last word.

    Attributes:
        disconnect_message: What the server has said on ending the connection; empty for nothing.
        certificates_first: Whether the server's certificate is asked for before its key alone.
    """

    disconnect_message = ""
    certificates_first = False

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The kinds of host keys that are asked for, the most wanted one first."""
        kinds: tuple[str, ...] = super().preferred_keys
        return tuple(sorted(kinds, key=lambda kind: kind.endswith(_CERTIFICATE) is not self.certificates_first))

    def _parse_disconnect(self, message: Any) -> None:
        # RFC 4253, section 11.1: a reason's number, and the reason.
        message.get_int()
        self.disconnect_message = message.get_string()[:500].decode(errors="replace")
