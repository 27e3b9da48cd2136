"""Detects a dead SSH connection where neither the system nor a proxy reports it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

#: Seconds between two keepalive requests, which every SSH server answers.
ASK_SECONDS = 5.0
#: Seconds without a packet from the server after which the connection is closed.
SILENT_SECONDS = 30.0


def watch(transport: Any) -> None:
    """Close a paramiko transport when the server is silent, so that its users get an error instead of waiting.

    This works as ServerAliveInterval of ssh_config(5): the server answers even a request that it does not know
    (RFC 4254, section 4). Every packet counts as a sign of life, so large or late answers do no harm.
    """
    last_packet = [time.monotonic()]
    read = transport.packetizer.read_message

    def read_message() -> Any:
        found = read()
        last_packet[0] = time.monotonic()
        return found

    transport.packetizer.read_message = read_message

    def send_requests() -> None:
        with contextlib.suppress(Exception):
            # An error means that the connection is gone, which its users notice themselves.
            while transport.is_active():
                transport.global_request("keepalive@openssh.com", wait=True)
                time.sleep(ASK_SECONDS)

    def close_when_silent() -> None:
        while transport.is_active():
            if time.monotonic() - last_packet[0] > SILENT_SECONDS:
                transport.close()
                return
            time.sleep(min(1.0, ASK_SECONDS))

    for work in (send_requests, close_when_silent):
        threading.Thread(target=work, daemon=True).start()
