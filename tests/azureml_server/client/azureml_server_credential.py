"""How tests sign in to the server by SDK v2: any object that gives tokens. Nothing of an SDK is imported."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Any, NamedTuple


class Token(NamedTuple):
    token: str
    expires_on: int


class ServerCredential:
    """Gives tokens that the server takes, for AZUREML_DEBUG_TEST_TOKEN_SECONDS; each for the audience that is asked."""

    def get_token(self, *scopes: str, **_: Any) -> Token:
        expires = int(time.time() + float(os.environ.get("AZUREML_DEBUG_TEST_TOKEN_SECONDS", "3600")))
        claims: dict[str, Any] = {
            "exp": expires,
            "oid": "tester",
            "tid": "tenant",
            "aud": scopes[0].removesuffix("/.default"),
        }
        if "AZUREML_DEBUG_TEST_TOKEN_BEGINS" in os.environ:
            claims["nbf"] = int(time.time() + float(os.environ["AZUREML_DEBUG_TEST_TOKEN_BEGINS"]))
        parts = ({"alg": "none", "typ": "JWT"}, claims)
        head = ".".join(base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts)
        return Token(f"{head}.c2ln", expires)
