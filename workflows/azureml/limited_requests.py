"""Reads from addresses that a workspace names: only http and https, with limits on size and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ..received import MOST_BYTES, Refused, web_address

#: Seconds without a byte after which a connection is given up; seconds for one complete response.
SILENCE_SECONDS, WHOLE_SECONDS = 30.0, 120.0
#: Bytes of a log that are read at once; the most bytes of one log.
PART_BYTES, LOG_BYTES = 8 << 20, 1 << 30
_CHUNK = 1 << 16
#: The most bytes of a response in JSON; a thousand child runs with their tags take two million.
_ANSWER_BYTES = 64 << 20
#: The most bytes of an error response.
_ERROR_BYTES = 1 << 16


def fetch_response(
    http: Any,
    address: str,
    authorization: str,
    parameters: Mapping[str, str],
    body: Mapping[str, object] | None = None,
) -> bytes:
    """Send a GET request, or a POST request where there is a body, and return the content of the response.

    Args:
        http: A session of requests.
        address: The address.
        authorization: The value of the Authorization header.
        parameters: The query parameters.
        body: The body of a POST request, sent as JSON.

    Raises:
        Refused: The address is neither http nor https, or the response is too large.
        requests.RequestException: The request failed; the service's message is in ``response.text``.
    """
    import requests

    web_address(address, "an address")
    headers = {"Authorization": authorization, "Accept": "application/json"}
    until = time.monotonic() + WHOLE_SECONDS
    sent = {"params": parameters, "headers": headers, "timeout": SILENCE_SECONDS, "stream": True}
    with http.get(address, **sent) if body is None else http.post(address, json=dict(body), **sent) as found:
        limit = _ANSWER_BYTES if found.ok else _ERROR_BYTES
        content = bytearray()
        for chunk in found.iter_content(_CHUNK):
            content += chunk
            if len(content) > limit or time.monotonic() > until:
                break
        if not found.ok:
            # requests itself would read a streamed response completely, however long it is.
            found._content = bytes(content[:limit])
            found.raise_for_status()
    if len(content) > limit:
        raise Refused(f"a response of more than {limit >> 20} MB")
    if time.monotonic() > until:
        raise requests.Timeout(f"its answer is not complete after {WHOLE_SECONDS:.0f} s")
    return bytes(content)


def fetch_part(http: Any, address: str, offset: int, limit: int = PART_BYTES) -> bytes:
    """Read a growing file from an offset on; empty where there is nothing new.

    Args:
        http: A session of requests.
        address: The file's address.
        offset: Where to begin, in bytes.
        limit: The most bytes to read.

    Raises:
        Refused: The address is neither http nor https.
        requests.RequestException: The file cannot be read now.
    """
    import requests

    web_address(address, "an address")
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    until = time.monotonic() + WHOLE_SECONDS
    with http.get(address, headers=headers, timeout=SILENCE_SECONDS, stream=True) as answer:
        if answer.status_code in (404, 416):
            # There is nothing new, or the file does not exist yet.
            return b""
        answer.raise_for_status()
        # A server without support for ranges sends the file from the beginning.
        skip = 0 if answer.status_code == 206 else offset
        found = bytearray()
        for chunk in answer.iter_content(_CHUNK):
            found += chunk[skip:]
            skip = max(0, skip - len(chunk))
            if len(found) >= limit:
                break
            if time.monotonic() > until:
                raise requests.Timeout(f"its answer is not complete after {WHOLE_SECONDS:.0f} s")
    return bytes(found[:limit])


def download(
    http: Any,
    address: str,
    target: BinaryIO,
    limit: int = MOST_BYTES,
    check_space: Callable[[int], None] = lambda size: None,
    received: Callable[[int], None] = lambda size: None,
) -> int:
    """Write the content of an address to a file; returns the number of bytes.

    Args:
        http: A session of requests.
        address: The address.
        target: The file, open for writing.
        limit: The most bytes that the content may have.
        check_space: Called with a number of bytes before they are written.
        received: Called with the size of each part that was written.

    Raises:
        Refused: The address is neither http nor https, or there is more content.
        requests.RequestException: The content cannot be read now.
    """
    web_address(address, "an address")
    count = 0
    with http.get(address, timeout=SILENCE_SECONDS, stream=True) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_content(_CHUNK):
            if count % (64 << 20) < len(chunk):
                check_space(len(chunk))
            count += len(chunk)
            if count > limit:
                raise Refused(f"more than {limit:,} bytes of one file")
            target.write(chunk)
            received(len(chunk))
    return count
