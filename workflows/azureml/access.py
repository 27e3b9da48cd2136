"""What plain requests to a workspace need: the addresses of its services, and a token that is renewed in time.

Signing in takes an SDK, 80 MB and several seconds. A process that runs for hours does without an SDK: the command that
starts it passes the first token, and a short-lived process (sdk_process.py) signs in again when that token expires.
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
#: Seconds before its expiry at which a token is renewed; lifetime in seconds of a token that names no expiry.
_RENEW_BEFORE, _UNKNOWN_LIFETIME = 300.0, 1200.0
#: Seconds between two attempts at renewing.
_RENEW_PAUSE = 30.0
#: Seconds for the SDK process to import the SDK, sign in and do its task.
SDK_SECONDS = 180.0
_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
_ACCESS = fields(
    {"history": web_address, "manager": web_address, "scope": one_line, "authorization": _token, "expires": real}
)
_ERROR_TYPES = {kind.__name__: kind for kind in (SignInRefused, NotAllowed, NotFound, UserError)}


@dataclass(frozen=True)
class Access:
    """The addresses of a workspace's services, and a token for them.

    Attributes:
        history: Address of its run history service.
        manager: Address of Azure's resource manager.
        scope: The workspace's path in both: ``/subscriptions/…/workspaces/NAME``.
        authorization: The value of the Authorization header; secret.
        expires: When the token expires, in seconds since the epoch.
    """

    history: str
    manager: str
    scope: str
    authorization: str = field(repr=False)
    expires: float

    @property
    def on_this_machine(self) -> bool:
        """Whether the workspace is on this machine, as in tests: then its nodes are, too."""
        return urlsplit(self.history).hostname in _LOCAL_HOSTS

    @classmethod
    def from_v1_workspace(cls, workspace: Any) -> Access:
        """The access of SDK v1's Workspace, with a valid token."""
        header = workspace._auth_object.get_authentication_header()["Authorization"]
        return cls(
            history=workspace.service_context._get_run_history_url(),
            manager=workspace._auth_object._get_cloud_type().endpoints.resource_manager,
            scope=workspace.service_context._get_workspace_scope(),
            authorization=header,
            expires=_expiry_of(header),
        )

    def to_json(self) -> str:
        """The access as JSON, for a pipe to another process of this program; never for a file or a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, content: str) -> Access:
        """The access in the JSON that :meth:`to_json` made.

        Raises:
            Refused: The content is something else.
        """
        found = cls(**_ACCESS(as_json(content, "an access"), "an access"))
        keep_secret(found.authorization.rpartition(" ")[2])
        return found


class RenewingAccess:
    """Keeps an access whose token is valid.

    Args:
        first: The access to begin with; None where there is none yet.
        renew: Makes a new access.
    """

    def __init__(self, first: Access | None, renew: Callable[[], Access]) -> None:
        self._access, self._renew = first, renew
        self._lock = threading.Lock()
        self._tried = 0.0

    def access(self, refused: str = "") -> Access:
        """A valid access, renewed where its token is about to expire.

        Args:
            refused: An authorization that the service has just refused. It is renewed once for all callers.

        Raises:
            UserError: It cannot be renewed. While the old token is valid, this is not raised but tried again later.
        """
        with self._lock:
            known, now = self._access, time.time()
            if known is None or (refused and known.authorization == refused) or now >= known.expires:
                self._access = self._renew()
            elif now > known.expires - _RENEW_BEFORE and time.monotonic() - self._tried > _RENEW_PAUSE:
                self._tried = time.monotonic()
                try:
                    self._access = self._renew()
                except (UserError, Unreachable) as error:
                    log(f"the sign-in could not be renewed yet: {getattr(error, 'problem', error)}")
            assert self._access is not None
            return self._access


def run_sdk_process(folder: Path, what: str) -> Access:
    """Start a process that imports the SDK, signs in, and does a task for a run.

    Args:
        folder: The run's folder.
        what: The task: ``access`` or ``cancel``.

    Returns:
        The access that the process signed in with.

    Raises:
        UserError: It failed.
        Unreachable: It failed, and may succeed later.
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
    failure: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        read = json.loads(last)
        failure = read if isinstance(read, dict) else {}
    problem = str(failure.get("problem") or f"Signing in to the workspace ended with {process.returncode}.")
    if failure.get("passes"):
        raise Unreachable(problem)
    kind = _ERROR_TYPES.get(str(failure.get("kind")), UserError)
    raise kind(problem, str(failure.get("remedy") or "Its log is runner.log in the run's folder."))


def read_first_access(stream: BinaryIO) -> Access | None:
    """Read the access that the starting command wrote to this process's standard input; None where it wrote none."""
    content = stream.read().decode("utf-8", "replace").strip()
    return Access.from_json(content) if content else None


def token_claims(token: str) -> dict[str, Any]:
    """The claims of a JSON web token (RFC 7519); empty for another kind of token."""
    try:
        part = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _expiry_of(header: str) -> float:
    """When a token expires (claim ``exp``), in seconds since the epoch."""
    try:
        return float(token_claims(header.rpartition(" ")[2])["exp"])
    except (KeyError, TypeError, ValueError):
        return time.time() + _UNKNOWN_LIFETIME
