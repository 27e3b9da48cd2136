"""Requests to a service, and the errors for a service that does not answer."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .. import command_log, storage
from ..engines.base import Engine
from ..errors import UserError
from ..models import Check, Service
from .request import WISHES, Request

#: Seconds between two reads of the service's events, which are a small local file.
POLL_SECONDS = 0.01
#: Seconds between two checks whether the engine still runs the service.
ALIVE_SECONDS = 0.5


@dataclass(frozen=True)
class Ready:
    """A service that serves, or holds for a debugger.

    Attributes:
        service: The service.
        holds: Whether it holds for a debugger.
        unwelcome: Why it does not accept a debugger; empty if it does.
        answered: The readiness check and its answer; empty if the debuggee has reported that the service is ready.
        note: A further note for the user, or empty.
        text: One line for the user.
    """

    service: Service
    holds: bool
    unwelcome: str = ""
    answered: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """One line for the user."""
        script, endpoint = self.service.score_script.name, self.service.endpoint
        loaded = "loaded"
        if self.service.by_itself:
            script, loaded = "the image's own program", "begun"
        if self.holds:
            return (
                f"holds for a debugger on {endpoint.host}:{endpoint.port}, up to {self.service.debug_timeout} s; "
                f"{script} {f'is not {loaded} yet' if self.service.wait else 'waits by itself'}"
            )
        if self.answered:
            script += f" ({self.answered})"
        if self.unwelcome:
            return f"{script} serves; no debugger can be let in yet: {self.unwelcome}"
        return f"{script} serves, debugger welcome on {endpoint.host}:{endpoint.port}"


def send_get(service: Service, path: str, timeout: float) -> int:
    """Send a GET request; returns the status of the answer.

    Raises:
        OSError: It could not be sent, or nothing came back in time.
    """
    return send_request(service.scoring_port, Request("GET", path, None, ""), timeout)[0]


def ready_status(service: Service, timeout: float) -> int:
    """Send the service's readiness check; returns the status of the answer.

    Raises:
        OSError: Nothing came back in time.
    """
    return send_check(service.ready, service.ready_port, timeout)[0]


def send_check(check: Check, port: int, timeout: float) -> tuple[int, bytes]:
    """Send a readiness or liveness check; returns the status and the body of the answer.

    Args:
        check: The check.
        port: The port on 127.0.0.1.
        timeout: Seconds for the answer.

    Raises:
        OSError: Nothing came back in time.
    """
    request = Request(check.method, check.path, None, "")
    return send_request(port, request, timeout, secure=check.scheme == "https")[:2]


def send_request(port: int, request: Request, timeout: float | None, secure: bool = False) -> tuple[int, bytes, str]:
    """Send a request to a service; returns status, body and content type of the response.

    Args:
        port: The port on 127.0.0.1.
        request: The request.
        timeout: Seconds for the answer; None for no limit.
        secure: Whether to use https. As in a probe of Kubernetes, the certificate is not verified.

    Raises:
        OSError: It could not be sent, or nothing came back in time.
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    begun, came = time.perf_counter(), "no answer"
    connection = HTTPConnection("127.0.0.1", port, timeout=timeout)
    if secure:
        import ssl

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
    try:
        if request.headers is None:
            headers = dict(request.extra)
            if request.content_type:
                headers["Content-Type"] = request.content_type
            if request.wishes:
                headers[WISHES] = ", ".join(request.wishes)
            connection.request(request.method, request.path, request.body, headers)
        else:
            request.send_as_it_was(connection)
        response = connection.getresponse()
        came = str(response.status)
        return response.status, response.read(), response.headers.get_content_type()
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
        command_log.log_request(request.method, f"http://127.0.0.1:{port}{request.path}", came, begun)


def startup_error(service: Service, engine: Engine, how: str) -> UserError:
    """The error for a service that did not start, with the end of its log."""
    lines = _last_lines(service, engine)
    problem = f"The service {service.name} did not come up: {how}."
    # Check the disk first: a program that cannot write rarely reports that as the cause.
    short = next(filter(None, map(storage.shortage, (service.session, Path(tempfile.gettempdir())))), None)
    if short is None and storage.find_disk_error(lines) is not None and engine.name == "docker":
        from ..engines.docker_images import engine_disk_full_error

        short = engine_disk_full_error()
    if short is not None:
        return UserError(f"{problem} {short.problem}", short.remedy, details=lines)
    return UserError(problem, "The whole log: inv container.logs", details=lines)


def cannot_report_error(service: Service, engine: Engine, short: UserError) -> UserError:
    """The error for a service that cannot write its events any more."""
    try:
        serves = send_get(service, "/", timeout=5) == 200
    except OSError:
        serves = False
    state = "serves, but cannot announce it" if serves else "cannot announce whether it serves"
    return UserError(
        f"The service {service.name} {state}: {short.problem}", short.remedy, details=_last_lines(service, engine)
    )


def _last_lines(service: Service, engine: Engine) -> list[str]:
    """The end of the service's log."""
    try:
        log = b"".join(engine.logs(service, follow=False))[-64 * 1024 :]
        return log.decode("utf-8", "replace").splitlines()[-15:]
    except Exception:
        # The error itself matters more than an unreadable log.
        return []
