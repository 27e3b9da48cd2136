"""A certificate for 127.0.0.1 and for the names that the SDK makes of a storage account's."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def make_certificate(folder: Path, days: float = -1) -> Path:
    """Write `certificate.pem`, with its key beside it.

    Args:
        folder: Where.
        days: In how many days from now it begins to be valid.

    Returns:
        The certificate, which is its own authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "azureml-debug tests")])
    now = datetime.now(timezone.utc)
    names = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        *(
            x509.DNSName(one)
            for one in (
                "localhost",
                "*.blob.localhost",
                "*.api.localhost",
                "*.nodes.localhost",
                "*.local.nodes.localhost",
            )
        ),
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days))
        .not_valid_after(now + timedelta(days=days + 3))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    # pip and others read the same variable: the system's authorities go along.
    system = ssl.get_default_verify_paths().cafile
    known = Path(system).read_bytes() if system and Path(system).is_file() else b""
    (folder / "authorities.pem").write_bytes(path.read_bytes() + known)
    return path


def server_context(folder: Path) -> ssl.SSLContext:
    """TLS with what :func:`make_certificate` made."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
