"""Explains in this program's two lines why a sign-in was refused, from Microsoft Entra's error number.

The numbers are documented by the Microsoft identity platform (reference-error-codes).
"""

from __future__ import annotations

import re

from ...errors import UserError
from ..errors import SIGNING_IN, SignInRefused, explain, is_transient, message_of

_AGAIN = "Sign in again: az login."
_PORTAL = "https://portal.azure.com, App registrations"
_REMEDIES = {
    "7000215": "Correct AZURE_CLIENT_SECRET: it is the secret's value, not its id.",
    "7000222": f"It has expired: make a new one at {_PORTAL}, and set AZURE_CLIENT_SECRET.",
    "700016": f"Correct AZURE_CLIENT_ID or AZURE_TENANT_ID; see {_PORTAL}.",
    "90002": "Correct AZURE_TENANT_ID.",
    "900023": "Correct AZURE_TENANT_ID.",
    **dict.fromkeys(("50076", "50078", "50079", "50132", "50133", "50173", "70043", "700082", "700084"), _AGAIN),
    **dict.fromkeys(("53000", "53003", "530003"), "Your organisation's rules refuse it: ask its administrator."),
}
#: msal's message for a tenant that does not exist: it has no number.
_NO_TENANT = "Unable to get authority configuration"


def explain_sign_in_error(auth: str, error: Exception) -> Exception:
    """The UserError for an error that a credential raised.

    Args:
        auth: The value of AML_AUTH.
        error: What was raised.

    Returns:
        The error itself where it is transient, such as a failed connection.
    """
    if isinstance(error, UserError) or is_transient(error):
        return error
    words = _plain(message_of(error))
    if ":" in auth:
        return _own(auth, error, words)
    number = re.search(r"AADSTS(\d+)", words)
    known = _REMEDIES.get(number[1]) if number else None
    if _NO_TENANT in words:
        words, known = "there is no such tenant.", _REMEDIES["90002"]
    if auth == "managed-identity":
        return SignInRefused(
            f"No managed identity signs in here: {words}",
            "Give this machine an identity, or set AML_AUTH=interactive or service-principal.",
        )
    explained = explain(error, SIGNING_IN)
    if not isinstance(explained, UserError):
        return explained
    return SignInRefused(f"Signing in to Azure failed: {words}", known or explained.remedy)


def _own(auth: str, error: Exception, words: str) -> UserError:
    return SignInRefused(
        f"What AML_AUTH={auth} made does not sign in: {type(error).__name__}: {words}",
        "Its get_token(*scopes) has to return a token with `token` and `expires_on`; correct it, or sign in again.",
    )


def _plain(words: str) -> str:
    """The message without the parts that only Microsoft's support can use."""
    words = words.removeprefix("Authentication failed: ")
    return re.sub(r"\s*Trace ID: .*", "", words, flags=re.DOTALL)
