"""Where people and programs sign in: Microsoft Entra's routes for service principals, and a machine's identity."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from .state import State
from .tokens import make_token
from .web import HttpError, Request, Response, Route, answer, route

#: What Entra says to what is wrong, by its number (error-codes of the Microsoft identity platform).
ERRORS = {
    "7000215": ("invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the"
                " client secret value, not the client secret ID, for a secret added to app 'client'."),
    "7000222": ("invalid_client", "The provided client secret keys for app 'client' are expired."),
    "700016": ("unauthorized_client", "Application with identifier 'client' was not found in the directory 'tenant'."),
    "90002": ("invalid_request", "Tenant 'tenant' not found. Check to make sure you have the correct tenant ID."),
}  # fmt: skip


class SignIn:
    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        return [
            route("GET", "/{tenant}/v2.0/.well-known/openid-configuration", self.tenant, authorized=False),
            route("POST", "/{tenant}/oauth2/v2.0/token", self.token, authorized=False),
            route("GET", "/identity", self.identity, authorized=False),
        ]

    def tenant(self, request: Request) -> Any:
        if self._state.sign_in_error == "90002":
            return _refused("90002", 400)
        place = f"{self._state.url}/{request['tenant']}"
        return {
            "issuer": f"{place}/v2.0",
            "authorization_endpoint": f"{place}/oauth2/v2.0/authorize",
            "token_endpoint": f"{place}/oauth2/v2.0/token",
        }

    def token(self, request: Request) -> Any:
        asked = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if self._state.sign_in_error:
            return _refused(self._state.sign_in_error, 401)
        if self._state.principals.get(asked.get("client_id", "")) != asked.get("client_secret"):
            return _refused("7000215", 401)
        audience = asked.get("scope", "").split()[0].removesuffix("/.default")
        return {"token_type": "Bearer", "expires_in": 3600, "access_token": make_token(3600, aud=audience)}

    def identity(self, request: Request) -> Any:
        """A machine's identity, as App Service and compute instances offer it."""
        raise HttpError(400, "BadRequest", "No User Assigned or Delegated Managed Identity found.")


def _refused(number: str, status: int) -> Response:
    kind, words = ERRORS[number]
    told = f"AADSTS{number}: {words} Trace ID: 1 Correlation ID: 2 Timestamp: 2026-11-30 00:00:00Z"
    return answer({"error": kind, "error_description": told, "error_codes": [int(number)]}, status)
