"""Reads key files of ssh-keygen, OpenSSL and PuTTY, and signs with their keys.

The formats: OpenSSH's own (PROTOCOL.key of its sources), PEM of PKCS#1, SEC 1 and PKCS#8 (RFC 7468), public keys and
certificates, one a line (sshd(8), PROTOCOL.certkeys), and signatures (RFC 4253, 5656, 8332, 8709).
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..reading import read_bytes

#: The most bytes of a key file; the largest keys need 30 kB.
_MOST_BYTES = 1 << 20
_OPENSSH = b"openssh-key-v1\0"
CERTIFICATE = "-cert-v01@openssh.com"
#: The number of strings in a public key after its kind, and in a certificate after its nonce.
_PARTS = {"ssh-rsa": 2, "ssh-dss": 4, "ssh-ed25519": 1, "sk-ssh-ed25519": 2, "sk-ecdsa-sha2-nistp256": 3}


class NotAKey(Exception):
    """A file whose key cannot be used: what is wrong with it, and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy


class NeedsPassphrase(Exception):
    """The key is encrypted, and the passphrase is missing or wrong."""


@dataclass(frozen=True)
class KeyFile:
    """What is known of a key file without its passphrase.

    Attributes:
        path: The file.
        blob: The public key in the SSH wire format; empty if the passphrase is needed to read it.
        public: Whether the file has the public key only.
        encrypted: Whether it needs a passphrase.
    """

    path: str
    blob: bytes
    public: bool = False
    encrypted: bool = False

    @property
    def hardware(self) -> bool:
        """Whether the private key is in a security key, which only ssh's own programs can use."""
        return bool(self.blob) and kind_of(self.blob).startswith("sk-")


def inspect_key_file(path: str) -> KeyFile:
    """Read a key file without its passphrase.

    Raises:
        NotAKey: It has no usable key.
        OSError: It cannot be read.
    """
    data = read_bytes(path, _MOST_BYTES)
    start = data.lstrip()[:200]
    if start.startswith(b"PuTTY-User-Key-File-"):
        target = str(Path(path).with_suffix(""))
        command = shlex.join(["puttygen", path, "-O", "private-openssh", "-o", target])
        raise NotAKey(f"The key {path} is in PuTTY's format (.ppk).", f"Convert it: {command}")
    if re.match(rb"-----?\s?BEGIN (SSH2 |RSA |EC )?PUBLIC KEY", start):
        blob = _public_pem(data)
        if not blob:
            raise NotAKey(
                f"{path} is the public half of a key, and in a form that ssh does not take.", _private_key_hint(path)
            )
        return KeyFile(path, blob, public=True)
    if blob := public_line(data):
        return KeyFile(path, blob, public=True)
    if not re.match(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----", start):
        raise NotAKey(f"{path} is not a private key.", "Name the file that ssh-keygen has made, without .pub.")
    if start.startswith(b"-----BEGIN OPENSSH "):
        return _inspect_openssh(path, data)
    if b"ENCRYPTED" in data[:300]:
        return KeyFile(path, _read_public_key_beside(path), encrypted=True)
    return KeyFile(path, public_blob(load(path, None)))


def load(path: str, passphrase: str | None) -> Any:
    """Load a private key as an object of the cryptography package.

    Raises:
        NeedsPassphrase: It is encrypted, and the passphrase is missing or wrong.
        NotAKey: It is damaged, or of a kind that cannot be used.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    data = read_bytes(path, _MOST_BYTES)
    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data[:200]
    encrypted = _inspect_openssh(path, data).encrypted if openssh else b"ENCRYPTED" in data[:300]
    if encrypted and not passphrase:
        raise NeedsPassphrase
    read = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key: Any = read(data, passphrase.encode() if encrypted and passphrase else None)
    except UnsupportedAlgorithm as error:
        raise NotAKey(f"The key {path} cannot be used: {error}.", "Use an Ed25519, ECDSA or RSA key.") from error
    except (ValueError, TypeError) as error:
        if encrypted:
            raise NeedsPassphrase from error
        raise NotAKey(f"The key {path} is damaged: {error}.", "Take its copy, or make a new one: ssh-keygen") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise NotAKey(f"The key {path} is of a kind that SSH servers do not take.", "Use Ed25519, ECDSA or RSA.")
    return key


def sign(key: Any, data: bytes, algorithm: str) -> bytes:
    """A signature in the SSH wire format.

    Args:
        key: A key that :func:`load` has returned.
        data: The data to sign.
        algorithm: The signature's algorithm, such as ``rsa-sha2-512``.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    if isinstance(key, rsa.RSAPrivateKey):
        chosen = {"rsa-sha2-512": hashes.SHA512, "rsa-sha2-256": hashes.SHA256}.get(algorithm, hashes.SHA1)
        raw = key.sign(data, padding.PKCS1v15(), chosen())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        size = key.curve.key_size
        by_size: hashes.HashAlgorithm = (
            hashes.SHA256() if size <= 256 else hashes.SHA384() if size <= 384 else hashes.SHA512()
        )
        r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(by_size)))
        raw = ssh_string(_mpint(r)) + ssh_string(_mpint(s))
    else:
        raw = key.sign(data)
    return ssh_string(algorithm.encode()) + ssh_string(raw)


def public_blob(key: Any) -> bytes:
    """The public key of a private key in the SSH wire format."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    line: bytes = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return base64.b64decode(line.split()[1])


def public_line(data: bytes) -> bytes:
    """The key or certificate of the first line that has one; empty if there is none."""
    for line in data[:_MOST_BYTES].splitlines():
        words = line.split(None, 2)
        if not words or words[0].startswith(b"#"):
            continue
        if len(words) < 2 or not re.fullmatch(rb"(sk-)?(ssh|ecdsa|rsa)-[\w@.-]+", words[0]):
            return b""
        with_blob = _decode_base64(words[1])
        return with_blob if with_blob and kind_of(with_blob).encode() == words[0] else b""
    return b""


def certificate_in(path: str) -> bytes:
    """The certificate in a file; empty if there is none."""
    try:
        blob = public_line(read_bytes(path, _MOST_BYTES))
    except OSError:
        return b""
    return blob if blob and kind_of(blob).endswith(CERTIFICATE) else b""


def certified_key(certificate: bytes) -> bytes:
    """The public key that a certificate certifies; empty if the certificate cannot be read."""
    kind = kind_of(certificate).removesuffix(CERTIFICATE)
    count = _PARTS.get(kind, 2)
    try:
        rest = _parts(certificate, 2 + count)[2:]
    except ValueError:
        return b""
    plain = kind + ("@openssh.com" if kind.startswith("sk-") else "")
    return b"".join(ssh_string(part) for part in (plain.encode(), *rest))


def kind_of(blob: bytes) -> str:
    """The kind of a public key or certificate; empty if the data is neither."""
    try:
        return _parts(blob, 1)[0].decode("ascii")
    except ValueError:
        return ""


def ssh_string(data: bytes) -> bytes:
    """A string of the SSH protocol: the length, then the data."""
    return struct.pack(">I", len(data)) + data


def _parts(data: bytes, count: int) -> list[bytes]:
    """The first strings of the SSH protocol in some data.

    Raises:
        ValueError: There are fewer strings.
    """
    found, at = [], 0
    for _number in range(count):
        if at + 4 > len(data):
            raise ValueError("too short")
        (size,) = struct.unpack_from(">I", data, at)
        if size > len(data) - at - 4:
            raise ValueError("too short")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _decode_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _inspect_openssh(path: str, data: bytes) -> KeyFile:
    body = data.partition(b"-----BEGIN OPENSSH PRIVATE KEY-----")[2].partition(b"-----END")[0]
    raw = _decode_base64(b"".join(body.split()))
    try:
        if not raw.startswith(_OPENSSH):
            raise ValueError("no key in it")
        rest = raw[len(_OPENSSH) :]
        cipher, kdf, options = _parts(rest, 3)
        (blob,) = _parts(rest[12 + len(cipher) + len(kdf) + len(options) + 4 :], 1)
    except ValueError as error:
        raise NotAKey(f"The key {path} is damaged: {error}.", "Take its copy, or make a new one: ssh-keygen") from error
    return KeyFile(path, blob, encrypted=cipher != b"none")


def _read_public_key_beside(path: str) -> bytes:
    """The public key in the .pub file of a private key; empty if there is none."""
    try:
        return public_line(read_bytes(f"{path}.pub", _MOST_BYTES))
    except OSError:
        return b""


def _public_pem(data: bytes) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if b"BEGIN SSH2 PUBLIC KEY" in data[:200]:
        # RFC 4716: headers with a colon, continued by a backslash, then the key.
        lines = data.replace(b"\\\n", b"").splitlines()[1:]
        return _decode_base64(b"".join(line for line in lines if b":" not in line and not line.startswith(b"--")))
    try:
        line = load_pem_public_key(data).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except (ValueError, UnsupportedAlgorithm):
        return b""
    return base64.b64decode(line.split()[1])


def _private_key_hint(path: str) -> str:
    private = path[: -len(".pub")] if path.endswith(".pub") else ""
    return f"AML_REMOTE_KEY={private}" if private and Path(private).is_file() else "Name the private key's file."
