"""Has each request that is sent by the package requests written down: those of the SDKs and of this program.

Whatever session, adapter of an SDK's or retry sends one, it passes `HTTPAdapter.send`. Imported beside each SDK.
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
    # An engine is asked all the time how something is; it is behind a socket, or ssh.
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
