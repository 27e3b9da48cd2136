"""Failed requests to a debugged service, which its debuggee keeps in the session's folder: list and repeat them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..debugger.readiness import current_worker
from ..errors import UserError
from ..formatting import format_size
from ..models import Service
from ..paths import shown
from ..project import read_json
from .request import Request

#: A folder beside the file of the service's events, which is created and removed with it.
FOLDER = "requests"
#: How many bytes of each body the debuggee keeps.
MOST_BYTES = 10 * 1000 * 1000
LIST_COMMAND = "inv deploy.requests"


@dataclass(frozen=True)
class FailedRequest:
    """A request that a service answered with a server error.

    Attributes:
        number: Counted from 1 since the service was started.
        time: When it was answered, in seconds since the epoch.
        method: HTTP's method.
        path: The path with the query.
        headers: Its headers, without those with credentials.
        bytes: The length of its body, in bytes.
        whole: Whether the complete body is kept.
        status: The status of the answer.
        error: ``type``, ``message``, ``file``, ``line`` and ``traceback`` of the exception; None if there was none.
        worker: The process id of the worker in which it failed, in the service's container or on its machine.
        body: The file with its body.
    """

    number: int
    time: float
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    bytes: int
    whole: bool
    status: int
    error: dict[str, Any] | None
    worker: int
    body: Path

    @property
    def route(self) -> str:
        """The path without its query, which may hold a key."""
        return self.path.partition("?")[0]

    @property
    def exception(self) -> str:
        """The exception in one line; empty if there was none."""
        if self.error is None:
            return ""
        message = " ".join(str(self.error.get("message") or "").split())
        return f"{self.error.get('type')}: {message}" if message else str(self.error.get("type"))

    def place(self, service: Service) -> tuple[Path, int] | None:
        """The file on this machine and the line of the user's code that raised; None if it is not known."""
        file, line = (self.error or {}).get("file"), (self.error or {}).get("line")
        return (service.local_path(str(file)), line) if file and isinstance(line, int) else None

    def as_json(self, service: Service) -> dict[str, Any]:
        """The object that ``--json`` shows."""
        place = self.place(service)
        return {
            "number": self.number,
            "time": self.time,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "bytes": self.bytes,
            "whole": self.whole,
            "exception": self.exception or None,
            "file": str(place[0]) if place else None,
            "line": place[1] if place else None,
        }

    def as_text(self, service: Service) -> str:
        """A line of the list."""
        when = time.strftime("%H:%M:%S", time.localtime(self.time))
        place = self.place(service)
        at = f" ({shown(place[0])}:{place[1]})" if place else ""
        size = format_size(self.bytes) + ("" if self.whole else ", cut off")
        said = self.exception[:200] or "(nothing was raised)"
        return f"{self.number:>4}  {when}  {self.method} {self.route}  {self.status}  {size:>10}  {said}{at}"


def list_failed_requests(service: Service) -> list[FailedRequest]:
    """List the kept failed requests of a service, the oldest first."""
    found = []
    folder = service.events.parent / FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        # A request may just be removed for a newer one.
        request = _read_request(path)
        if request is not None:
            found.append(request)
    return sorted(found, key=lambda one: one.number)


def _read_request(path: Path) -> FailedRequest | None:
    values = read_json(path)
    try:
        assert values is not None
        return FailedRequest(
            number=int(values["number"]),
            time=float(values["time"]),
            method=str(values["method"]),
            path=str(values["path"]),
            headers=tuple((str(name), str(value)) for name, value in values["headers"]),
            bytes=int(values["bytes"]),
            whole=bool(values["whole"]),
            status=int(values["status"]),
            error=values["error"] if isinstance(values["error"], dict) else None,
            worker=int(values["worker"]),
            body=path.with_suffix(".body"),
        )
    except (AssertionError, LookupError, TypeError, ValueError):
        return None


def find_request(service: Service, number: int | None) -> FailedRequest:
    """Find a kept request; by default the latest.

    Raises:
        UserError: There is none, or none with this number.
    """
    found = list_failed_requests(service)
    if not found:
        raise UserError(
            "No request to the service has failed since it was started.", "Post one: --on-error --request FILE"
        )
    if number is None:
        return found[-1]
    one = next((one for one in found if one.number == number), None)
    if one is None:
        numbers = f"{found[0].number} to {found[-1].number}" if found[1:] else str(found[0].number)
        raise UserError(f"Failed request {number} is not kept; kept: {numbers}.", f"List them: {LIST_COMMAND}")
    return one


def repeat_request(one: FailedRequest) -> Request:
    """Make the same request again.

    Raises:
        UserError: Its body is not kept, or not completely.
    """
    if not one.whole:
        why = (
            f"is larger than the {format_size(MOST_BYTES)} that are kept"
            if one.bytes > MOST_BYTES
            else "did not all come"
        )
        raise UserError(
            f"The body of request {one.number} ({format_size(one.bytes)}) {why}, so it cannot be posted again.",
            "Post it from its file: inv deploy.inspect --on-error --request FILE",
        )
    try:
        body = one.body.read_bytes()
    except OSError as error:
        raise UserError(
            f"The body of request {one.number} cannot be read: {error.strerror or error}.",
            f"Choose another: {LIST_COMMAND}",
        ) from error
    return Request(one.method, one.path, body, "", headers=one.headers)


def is_of_former_code(one: FailedRequest, service: Service) -> bool:
    """Whether the service has reloaded its code since a request failed."""
    return current_worker(service.events) not in (0, one.worker)
