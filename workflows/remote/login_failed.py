"""The errors of connecting that callers tell apart."""

from __future__ import annotations

from ..errors import UserError


class LoginFailed(UserError):
    """The machine was reached and the login was refused."""
