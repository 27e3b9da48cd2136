"""The error of a refused login, which callers distinguish from other errors of connecting."""

from __future__ import annotations

from ..errors import UserError


class LoginFailed(UserError):
    """The machine was reached, but it refused the login."""
