"""``AML_AUTH=MODULE:FACTORY``: signs in with what the user's own factory makes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from ..errors import UserError
from ..settings import Settings
from .errors import SIGNING_IN, explain, message_of


def call_factory(settings: Settings, fits: Callable[[Any], bool], returns: str, instead: str) -> Any:
    """Call the factory that AML_AUTH names, and return what it makes.

    Args:
        settings: The settings, whose ``auth`` is ``MODULE:FACTORY``.
        fits: Whether what it makes can be used.
        returns: What it has to return, for messages, such as ``an object with get_token(*scopes)``.
        instead: What a message says about another object after its type, such as ``which gives no tokens``.

    Raises:
        UserError: It cannot be imported, it fails, or it makes something else.
    """
    module, _, factory = settings.auth.partition(":")
    remedy = f"AML_AUTH=MODULE:FACTORY names a callable that returns {returns}."
    if str(settings.project) not in sys.path:
        sys.path.insert(0, str(settings.project))
    try:
        made = getattr(importlib.import_module(module), factory)()
    except Exception as error:
        explained = explain(error, SIGNING_IN)
        if isinstance(explained, UserError):
            raise explained from error
        raise UserError(
            f"AML_AUTH={settings.auth} failed: {type(error).__name__}: {message_of(error)}", remedy
        ) from error
    if not fits(made):
        raise UserError(f"AML_AUTH={settings.auth} made a {type(made).__name__}, {instead}.", remedy)
    return made
