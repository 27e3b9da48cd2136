"""One HTTP request to a server behind a Unix socket, using only the standard library's sockets."""

from __future__ import annotations

import socket
import time

#: Bytes of an answer that are read: a list of thousands of images is smaller.
MOST_BYTES = 64_000_000


def request(
    path: str, method: str, what: str, patience: float | None, most: int = MOST_BYTES, sent: bytes | None = None
) -> tuple[int, bytes]:
    """Send a request and read the complete answer.

    Args:
        path: The socket.
        method: ``GET``, ``POST``, ….
        what: The path, with its query.
        patience: Seconds until the complete answer has to be there; None for no limit.
        most: Bytes of the answer that are read.
        sent: The JSON body of the request; None for none.

    Returns:
        The answer's status and body; status 0 if none came.
    """
    answer = b""
    until = None if patience is None else time.monotonic() + patience
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(path)
            head = f"{method} {what} HTTP/1.0\r\nHost: docker\r\n"
            if sent is not None:
                head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
            connection.sendall(f"{head}\r\n".encode() + (sent or b""))
            parts = list[bytes]()
            size = 0
            while size < most:
                if until is not None:
                    connection.settimeout(max(until - time.monotonic(), 0.001))
                part = connection.recv(65536)
                if not part:
                    break
                parts.append(part)
                size += len(part)
            answer = b"".join(parts)
    except OSError:
        return 0, b""
    above, _, body = answer.partition(b"\r\n\r\n")
    words = above.split(None, 2)[1:2]
    return int(words[0]) if words and words[0].isdigit() else 0, body
