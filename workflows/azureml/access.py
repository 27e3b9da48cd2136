"""What plain requests to a workspace need: where its services are, and a token that is renewed in time.

An SDK signs in, and takes 80 MB and seconds for it. A process that stays for hours does without: it is handed the
first token by the command that starts it, and has a process of a moment (sdk_process.py) sign in again when that one
expires.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..background import log, spawn
from ..errors import UserError
from ..received import as_json, fields, one_line, real, web_address
from ..redaction import keep_secret
from .errors import NotAllowed, NotFound, SignInRefused, Unreachable


def _token(value: Any, what: str) -> str:
    return one_line(value, what, 65536)


PROCESS = "workflows.azureml.sdk_process"
#: Seconds before its end from which a token is renewed; seconds that one is used which does not say when it ends.
_EARLY, _UNTOLD = 300.0, 1200.0
#: Seconds between two attempts at renewing.
_AGAIN = 30.0
#: Seconds for the SDK to be imported, to sign in and to do what it is asked for.
SDK_SECONDS = 180.0
_HERE = ("127.0.0.1", "::1", "localhost")
_ACCESS = fields(
    {"history": web_address, "manager": web_address, "scope": one_line, "authorization": _token, "expires": real}
)
_KINDS = {kind.__name__: kind for kind in (SignInRefused, NotAllowed, NotFound, UserError)}


@dataclass(frozen=True)
class Access:
    """The way to a workspace's services.

    Attributes:
        history: Address of its run history service.
        manager: Address of Azure's resource manager.
        scope: The workspace's path in both: ``/subscriptions/…/workspaces/NAME``.
        authorization: The header's value; secret.
        expires: When that ends, in seconds since 1970.
    """

    history: str
    manager: str
    scope: str
    authorization: str = field(repr=False)
    expires: float

    @property
    def on_this_machine(self) -> bool:
        """Whether the workspace itself is on this machine, as a test's is: its nodes are here then, too."""
        return urlsplit(self.history).hostname in _HERE

    @classmethod
    def of(cls, workspace: Any) -> Access:
        """The access of SDK v1's Workspace, with a token that it has or renews."""
        header = workspace._auth_object.get_authentication_header()["Authorization"]
        return cls(
            history=workspace.service_context._get_run_history_url(),
            manager=workspace._auth_object._get_cloud_type().endpoints.resource_manager,
            scope=workspace.service_context._get_workspace_scope(),
            authorization=header,
            expires=_end_of(header),
        )

    def to_json(self) -> str:
        """For a pipe to another process of this program; never for a file or a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, content: str) -> Access:
        """What :meth:`to_json` made.

        Raises:
            Refused: It is something else.
        """
        found = cls(**_ACCESS(as_json(content, "an access"), "an access"))
        keep_secret(found.authorization.rpartition(" ")[2])
        return found


class RenewingAccess:
    """Keeps an access that holds.

    Args:
        first: The access to begin with; None where there is none yet.
        renew: Makes a new one.
    """

    def __init__(self, first: Access | None, renew: Callable[[], Access]) -> None:
        self._access, self._renew = first, renew
        self._lock = threading.Lock()
        self._tried = 0.0

    def access(self, refused: str = "") -> Access:
        """An access that holds, renewed where its token is about to end.

        Args:
            refused: The authorization that the service has just refused: it is renewed, once for all who ask.

        Raises:
            UserError: It cannot be renewed. While the old one holds, that is tried again later.
        """
        with self._lock:
            known, now = self._access, time.time()
            if known is None or (refused and known.authorization == refused) or now >= known.expires:
                self._access = self._renew()
            elif now > known.expires - _EARLY and time.monotonic() - self._tried > _AGAIN:
                self._tried = time.monotonic()
                try:
                    self._access = self._renew()
                except (UserError, Unreachable) as error:
                    log(f"the sign-in is not renewed yet: {getattr(error, 'problem', error)}")
            assert self._access is not None
            return self._access


def run_sdk_process(folder: Path, what: str) -> Access:
    """Have a process of its own import the SDK, sign in, and do something for the run of a folder.

    Args:
        folder: The run's.
        what: ``access``, or ``cancel``.

    Returns:
        The access with which it was done.

    Raises:
        UserError: It cannot be done.
        Unreachable: It cannot be done now, and may be later.
    """
    process = spawn(PROCESS, [str(folder), what], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        output, _ = process.communicate(timeout=SDK_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"signing in has not ended after {SDK_SECONDS:.0f} s") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    lines = output.decode("utf-8", "replace").splitlines()
    last = lines[-1] if lines else ""
    if process.returncode == 0:
        return Access.from_json(last)
    told: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        read = json.loads(last)
        told = read if isinstance(read, dict) else {}
    problem = str(told.get("problem") or f"Signing in to the workspace ended with {process.returncode}.")
    if told.get("passes"):
        raise Unreachable(problem)
    kind = _KINDS.get(str(told.get("kind")), UserError)
    raise kind(problem, str(told.get("remedy") or "Its log is runner.log in the run's folder."))


def read_first_access(stream: BinaryIO) -> Access | None:
    """The access that the command which started this process has written to its standard input, if it did."""
    content = stream.read().decode("utf-8", "replace").strip()
    return Access.from_json(content) if content else None


def token_claims(token: str) -> dict[str, Any]:
    """What a token says of itself (RFC 7519); nothing where it is of another kind."""
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _end_of(header: str) -> float:
    """When a token ends, in seconds since 1970 (claim ``exp``)."""
    try:
        return float(token_claims(header.rpartition(" ")[2])["exp"])
    except (KeyError, TypeError, ValueError):
        return time.time() + _UNTOLD
