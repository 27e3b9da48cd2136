"""Logs every request that the package requests sends, for the SDKs and for this program.

All sessions, adapters and retries go through `HTTPAdapter.send`. This module is imported together with each SDK.
"""

from __future__ import annotations

import time
from typing import Any

import requests.adapters

from . import command_log

_send = requests.adapters.HTTPAdapter.send


def _watched(self: Any, request: Any, *more: Any, **options: Any) -> Any:
    begun = time.perf_counter()
    method, address = str(request.method), str(request.url)
    # The Docker engine (behind a socket or ssh) is polled all the time.
    often = method == "GET" and address.startswith("http+docker:")
    try:
        answer = _send(self, request, *more, **options)
    except Exception as error:
        command_log.log_request(method, address, error, begun)
        raise
    command_log.log_request(method, address, answer.status_code, begun, often=often)
    return answer


if _send.__module__ == "requests.adapters":
    requests.adapters.HTTPAdapter.send = _watched  # type: ignore[method-assign]
