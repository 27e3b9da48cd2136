"""Notices that the other machine has fallen silent, where neither the system nor a command in between tells."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

#: Seconds between two questions to the SSH server, which any server answers.
ASK_SECONDS = 5.0
#: Seconds without a single packet from it after which the connection is given up.
SILENT_SECONDS = 30.0


def watch(transport: Any) -> None:
    """End a paramiko transport whose other side has fallen silent: whoever waits for it is told then.

    As ServerAliveInterval of ssh_config(5) does it: a request that the server does not know is answered all the
    same (RFC 4254, section 4). A packet of any kind counts, so that one that is large or late does no harm.
    """
    heard = [time.monotonic()]
    read = transport.packetizer.read_message

    def read_message() -> Any:
        found = read()
        heard[0] = time.monotonic()
        return found

    transport.packetizer.read_message = read_message

    def ask() -> None:
        with contextlib.suppress(Exception):
            # Whatever it is, the connection is gone then, and its users are told by it themselves.
            while transport.is_active():
                transport.global_request("keepalive@openssh.com", wait=True)
                time.sleep(ASK_SECONDS)

    def look() -> None:
        while transport.is_active():
            if time.monotonic() - heard[0] > SILENT_SECONDS:
                transport.close()
                return
            time.sleep(min(1.0, ASK_SECONDS))

    for work in (ask, look):
        threading.Thread(target=work, daemon=True).start()
