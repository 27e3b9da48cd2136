"""Tokens as the services issue them. Nobody checks their signatures; their expiry is looked at on both sides."""

from __future__ import annotations

import base64
import json
import time
from typing import Any


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def make_token(seconds: float = 86400, **claims: Any) -> str:
    """A JSON web token."""
    expires = int(time.time() + seconds)
    payload = {"exp": expires, "oid": "tester", "tid": "tenant", "name": "Tester", **claims}
    return f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(payload)}.c2ln"


def claims_of(token: str) -> dict[str, Any]:
    """What a token says; nothing where it is none."""
    try:
        part = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims
