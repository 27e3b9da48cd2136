"""How requests to a storage account are signed: not at all, by a signature, a token, or the account's key."""

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
#: Seconds before its end from which a token is not used any more.
_EARLY = 120.0


class Key(Protocol):
    """What signs requests; several threads may ask at once."""

    def sign(self, method: str, address: str, headers: dict[str, str]) -> str:
        """Add the signature to a request's headers, or to its address, which is returned."""

    def again(self) -> bool:
        """After a refusal: whether there is another signature to try."""


class Signature:
    """A shared access signature, which ends after an hour or so.

    Args:
        query: The signature, as a part of an address.
        renew: Asks for another one; None where there is no other.
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

    def again(self) -> bool:
        """See :class:`Key`."""
        if self._renew is None:
            return False
        query = self._renew().lstrip("?")
        changed = query != self._query
        self._query = query
        self._keep()
        return changed


class Token:
    """Whoever is signed in.

    Args:
        credential: Gives tokens.
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

    def again(self) -> bool:
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

    def again(self) -> bool:
        """See :class:`Key`."""
        return False


class Anyone:
    """Nobody, as public data is read; where that is refused, whoever may be asked next.

    Args:
        then: Who that is; None for nobody.
    """

    def __init__(self, then: Key | None = None) -> None:
        self._now: Key | None = None
        self._then = then

    def sign(self, method: str, address: str, headers: dict[str, str]) -> str:
        """See :class:`Key`."""
        return address if self._now is None else self._now.sign(method, address, headers)

    def again(self) -> bool:
        """See :class:`Key`."""
        if self._now is not None:
            return self._now.again()
        self._now = self._then
        return self._now is not None
