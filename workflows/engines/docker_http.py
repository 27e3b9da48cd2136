"""Requests to the engine over its Unix socket, noted in the command log."""

from __future__ import annotations

import time

from .. import unix_http
from ..command_log import log_request
from ..unix_http import MOST_BYTES


def send_request(
    path: str, method: str, what: str, patience: float | None, most: int = MOST_BYTES, sent: bytes | None = None
) -> tuple[int, bytes]:
    """Ask, and read the answer to its end; as :func:`workflows.unix_http.request`."""
    begun = time.perf_counter()
    status, body = unix_http.request(path, method, what, patience, most, sent)
    log_request(method, f"unix:{path}{what}", status or "no answer", begun, often=method in ("GET", "HEAD"))
    return status, body
