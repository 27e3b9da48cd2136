"""An SSH agent with keys of security keys, and their signatures made in software; nothing else of it is made up.

OpenSSH's own agent asks the hardware. The protocol: draft-miller-ssh-agent; the signatures: PROTOCOL.u2f.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

APPLICATION = b"ssh:"


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))


class SecurityKey:
    """A key in a security key, of the kind `ed25519` or `ecdsa`."""

    def __init__(self, kind: str) -> None:
        self._key: Any
        if kind == "ed25519":
            self._key = ed25519.Ed25519PrivateKey.generate()
            self._name = b"sk-ssh-ed25519@openssh.com"
            raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
            self.blob = string(self._name) + string(raw) + string(APPLICATION)
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._name = b"sk-ecdsa-sha2-nistp256@openssh.com"
            point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            self.blob = string(self._name) + string(b"nistp256") + string(point) + string(APPLICATION)

    @property
    def name(self) -> str:
        return self._name.decode()

    def sign(self, data: bytes) -> bytes:
        # A person has touched it, and it has signed seven times.
        more = bytes([1]) + struct.pack(">I", 7)
        message = hashlib.sha256(APPLICATION).digest() + more + hashlib.sha256(data).digest()
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            signature = self._key.sign(message)
        else:
            r, s = utils.decode_dss_signature(self._key.sign(message, ec.ECDSA(hashes.SHA256())))
            signature = mpint(r) + mpint(s)
        return string(self._name) + string(signature) + more


@contextlib.contextmanager
def security_agent(path: Path, *keys: SecurityKey) -> Iterator[None]:
    """An agent that has these keys."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    os.chmod(path, 0o600)
    listener.listen()

    def answer(request: bytes) -> bytes:
        if request[0] == 11:
            listed = b"".join(string(key.blob) + string(b"a security key") for key in keys)
            return bytes([12]) + struct.pack(">I", len(keys)) + listed
        if request[0] == 13:
            (size,) = struct.unpack_from(">I", request, 1)
            blob, rest = request[5 : 5 + size], request[5 + size :]
            (size,) = struct.unpack_from(">I", rest)
            for key in keys:
                if key.blob == blob:
                    return bytes([14]) + string(key.sign(rest[4 : 4 + size]))
        return bytes([5])

    def serve(client: socket.socket) -> None:
        with client, client.makefile("rwb") as stream:
            while head := stream.read(4):
                stream.write(string(answer(stream.read(*struct.unpack(">I", head)))))
                stream.flush()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        path.unlink()
