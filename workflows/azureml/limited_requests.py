"""What is read from addresses that a workspace names: only http and https, and never more than can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ..received import MOST_BYTES, Refused, web_address

#: Seconds without a byte after which a connection is given up, and for one answer as a whole.
SILENCE_SECONDS, WHOLE_SECONDS = 30.0, 120.0
#: Bytes of a log that are read at once, and of one log at all.
PART_BYTES, LOG_BYTES = 8 << 20, 1 << 30
_CHUNK = 1 << 16
#: Bytes of an answer in JSON; a thousand child runs with their tags take two million.
_ANSWER_BYTES = 64 << 20
#: Bytes of an answer that says what is wrong.
_ERROR_BYTES = 1 << 16


def answer(
    http: Any,
    address: str,
    authorization: str,
    parameters: Mapping[str, str],
    body: Mapping[str, object] | None = None,
) -> bytes:
    """What a service answers to a question.

    Args:
        http: A session of requests.
        address: The question.
        authorization: The header that says who asks.
        parameters: What is added to the address.
        body: What is sent along, of questions that are asked by POST.

    Raises:
        Refused: The address is none of http or https, or the answer is too large.
        requests.RequestException: There is none now; what the service says of it is in ``response.text``.
    """
    import requests

    web_address(address, "an address")
    headers = {"Authorization": authorization, "Accept": "application/json"}
    until = time.monotonic() + WHOLE_SECONDS
    sent = {"params": parameters, "headers": headers, "timeout": SILENCE_SECONDS, "stream": True}
    with http.get(address, **sent) if body is None else http.post(address, json=dict(body), **sent) as found:
        most = _ANSWER_BYTES if found.ok else _ERROR_BYTES
        content = bytearray()
        for chunk in found.iter_content(_CHUNK):
            content += chunk
            if len(content) > most or time.monotonic() > until:
                break
        if not found.ok:
            # requests reads an answer that is streamed only as a whole, however long it is.
            found._content = bytes(content[:most])
            found.raise_for_status()
    if len(content) > most:
        raise Refused(f"an answer of more than {most >> 20} MB")
    if time.monotonic() > until:
        raise requests.Timeout(f"its answer is not complete after {WHOLE_SECONDS:.0f} s")
    return bytes(content)


def part(http: Any, address: str, offset: int, most: int = PART_BYTES) -> bytes:
    """What a growing file has from an offset on, at most so much of it; nothing where that is its end.

    Args:
        http: A session of requests.
        address: Where it is.
        offset: Bytes of it that are known.
        most: How many are read.

    Raises:
        Refused: The address is none of http or https.
        requests.RequestException: It cannot be read now.
    """
    import requests

    web_address(address, "an address")
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
    until = time.monotonic() + WHOLE_SECONDS
    with http.get(address, headers=headers, timeout=SILENCE_SECONDS, stream=True) as answer:
        if answer.status_code in (404, 416):
            # Nothing new; or nothing at all yet.
            return b""
        answer.raise_for_status()
        # Who does not know parts sends it from the beginning.
        skip = 0 if answer.status_code == 206 else offset
        found = bytearray()
        for chunk in answer.iter_content(_CHUNK):
            found += chunk[skip:]
            skip = max(0, skip - len(chunk))
            if len(found) >= most:
                break
            if time.monotonic() > until:
                raise requests.Timeout(f"its answer is not complete after {WHOLE_SECONDS:.0f} s")
    return bytes(found[:most])


def download(
    http: Any,
    address: str,
    target: BinaryIO,
    most: int = MOST_BYTES,
    room: Callable[[int], None] = lambda size: None,
    took: Callable[[int], None] = lambda size: None,
) -> int:
    """Write what is at an address into a file; how many bytes that were.

    Args:
        http: A session of requests.
        address: Where it is.
        target: The file, open for writing.
        most: How many there can be.
        room: Told how many more are to come, before they do.
        took: Told of each part that has come, how many bytes it has.

    Raises:
        Refused: The address is none of http or https, or there is more.
        requests.RequestException: It cannot be read now.
    """
    web_address(address, "an address")
    count = 0
    with http.get(address, timeout=SILENCE_SECONDS, stream=True) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_content(_CHUNK):
            if count % (64 << 20) < len(chunk):
                room(len(chunk))
            count += len(chunk)
            if count > most:
                raise Refused(f"more than {most:,} bytes of one file")
            target.write(chunk)
            took(len(chunk))
    return count
