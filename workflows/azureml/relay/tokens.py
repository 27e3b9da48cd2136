"""The tokens for compute instances: kept in memory, renewed in time, and passed to other processes only by a pipe."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...redaction import keep_secret
from ..access import token_claims
from ..errors import SIGNING_IN, Report, attempt
from ..v2.clouds import Cloud, find_cloud
from ..v2.credentials import make_credential

if TYPE_CHECKING:
    from ...remote.instances import Instance

#: Seconds before its expiry from which a token is no longer used.
_EARLY = 300.0


@dataclass
class _Kept:
    """What was obtained in this process with one way to sign in."""

    cloud: Cloud | None = None
    credential: Any = None
    token: str = ""
    expires: float = 0.0


_KEPT: dict[tuple[str, str], _Kept] = {}
_LOCK = threading.Lock()


def _kept(instance: Instance) -> _Kept:
    return _KEPT.setdefault((instance.auth, instance.project), _Kept())


def cloud(instance: Instance) -> Cloud:
    """The cloud that an instance is in.

    Raises:
        UserError: A variable names none.
        requests.RequestException: The request failed.
    """
    kept = _kept(instance)
    if kept.cloud is None:
        kept.cloud = find_cloud()
    return kept.cloud


def token(instance: Instance, refused: str = "", report: Report | None = None) -> str:
    """A valid token for the resource manager.

    Args:
        instance: The instance, whose settings name who signs in.
        refused: A token that was refused: another one is requested.
        report: Called with what is being waited for; None where the caller retries by itself.

    Raises:
        UserError: Nobody is signed in.
    """
    with _LOCK:
        kept = _kept(instance)
        if kept.token and kept.token != refused and kept.expires - time.time() > _EARLY:
            return kept.token

        def sign_in() -> Any:
            where = cloud(instance)
            if kept.credential is None:
                kept.credential = make_credential(instance.settings(), where)
            return kept.credential.get_token(where.scope)

        made = attempt(sign_in, SIGNING_IN, report) if report else attempt(sign_in, SIGNING_IN, lambda line: None, 0.0)
        keep_secret(made.token)
        kept.token, kept.expires = made.token, float(made.expires_on)
        return kept.token


def claims(instance: Instance) -> dict[str, Any]:
    """The claims of the current token about the signed-in user; empty where there are none."""
    return token_claims(_kept(instance).token)


def export_token(instance: Instance) -> dict[str, Any]:
    """The current token, for a pipe to another process of this program; never for a file or a command line."""
    kept = _kept(instance)
    return {"token": kept.token, "expires": kept.expires}


def import_token(instance: Instance, exported: dict[str, Any]) -> None:
    """Use the token that :func:`export_token` returned in another process."""
    kept = _kept(instance)
    kept.token, kept.expires = str(exported["token"]), float(exported["expires"])
    if kept.token:
        keep_secret(kept.token)
