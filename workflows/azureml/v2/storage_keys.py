"""Signs requests to a storage account: with nothing, a shared access signature, a token, or the account's key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from ...redaction import keep_secret

#: The version of the storage service's interface (https://learn.microsoft.com/rest/api/storageservices/versioning-for-the-azure-storage-services).
VERSION = "2021-08-06"
#: The scope of tokens for every storage account, in every cloud.
SCOPE = "https://storage.azure.com/.default"
#: Seconds before its expiry from which a token is no longer used.
_EARLY = 120.0


class Key(Protocol):
    """Signs requests. Several threads may use it at once."""

    def sign(self, method: str, address: str, headers: dict[str, str]) -> str:
        """Add the signature to a request's headers or to its address; returns the address."""

    def try_next_credential(self) -> bool:
        """Switch to another signature after a refusal; returns whether there is one."""


class Signature:
    """A shared access signature, which expires after about an hour.

    Args:
        query: The signature, as the query of an address.
        renew: Requests another one; None where that is not possible.
    """

    def __init__(self, query: str, renew: Callable[[], str] | None = None) -> None:
        self._query, self._renew = query.lstrip("?"), renew
        self._keep()

    def _keep(self) -> None:
        for name, value in parse_qsl(self._query):
            if name == "sig" and len(value) > 8:
                keep_secret(value)

    def sign(self, method: str, address: str, headers: dict[str, str]) -> str:
        """See :class:`Key`."""
        return f"{address}{'&' if '?' in address else '?'}{self._query}"

    def try_next_credential(self) -> bool:
        """See :class:`Key`."""
        if self._renew is None:
            return False
        query = self._renew().lstrip("?")
        changed = query != self._query
        self._query = query
        self._keep()
        return changed


class Token:
    """A token of the signed-in user.

    Args:
        credential: Provides tokens.
    """

    def __init__(self, credential: Any) -> None:
        self._credential = credential
        self._token: Any = None

    def sign(self, method: str, address: str, headers: dict[str, str]) -> str:
        """See :class:`Key`."""
        token = self._token
        if token is None or token.expires_on < time.time() + _EARLY:
            self._token = token = self._credential.get_token(SCOPE)
        headers["Authorization"] = f"Bearer {token.token}"
        return address

    def try_next_credential(self) -> bool:
        """See :class:`Key`."""
        return False


class AccountKey:
    """The account's own key.

    Args:
        account: The account's name.
        key: Its key, in base64.
    """

    def __init__(self, account: str, key: str) -> None:
        keep_secret(key)
        self._account, self._key = account, base64.b64decode(key)

    def sign(self, method: str, address: str, headers: dict[str, str]) -> str:
        """See :class:`Key`.

        https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        """
        headers["x-ms-date"] = formatdate(usegmt=True)
        parts = urlsplit(address)
        own = sorted((name.lower(), value) for name, value in headers.items() if name.lower().startswith("x-ms-"))
        query = sorted((name.lower(), value) for name, value in parse_qsl(parts.query, keep_blank_values=True))
        given = {name.lower(): value for name, value in headers.items()}
        # Content-Encoding, -Language, -Length, -MD5, -Type, Date, If-Modified-Since, If-Match, If-None-Match,
        # If-Unmodified-Since, Range.
        lines = [method, "", "", "", "", "", "", "", given.get("if-match", ""), "", "", given.get("range", "")]
        lines += [f"{name}:{value}" for name, value in own]
        lines += [f"/{self._account}{parts.path}", *(f"{name}:{value}" for name, value in query)]
        signed = hmac.new(self._key, "\n".join(lines).encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {self._account}:{base64.b64encode(signed).decode()}"
        return address

    def try_next_credential(self) -> bool:
        """See :class:`Key`."""
        return False


class Anonymous:
    """No signature, for public data; after a refusal, another key is used.

    Args:
        fallback: The key after a refusal; None for no other.
    """

    def __init__(self, fallback: Key | None = None) -> None:
        self._current: Key | None = None
        self._fallback = fallback

    def sign(self, method: str, address: str, headers: dict[str, str]) -> str:
        """See :class:`Key`."""
        return address if self._current is None else self._current.sign(method, address, headers)

    def try_next_credential(self) -> bool:
        """See :class:`Key`."""
        if self._current is not None:
            return self._current.try_next_credential()
        self._current = self._fallback
        return self._current is not None
