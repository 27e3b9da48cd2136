"""Waits for a service whose image has its own server: until it is ready, and whether a debugger can attach."""

from __future__ import annotations

import time

from .. import storage
from ..console import Step
from ..debugger.readiness import Events
from ..engines.base import Engine
from ..formatting import shorten
from ..models import Check, Service
from ..redaction import scrub
from .service_requests import (
    ALIVE_SECONDS,
    POLL_SECONDS,
    Ready,
    cannot_report_error,
    ready_status,
    send_check,
    startup_error,
)

#: Seconds between two readiness checks. Azure ML's `period` is meant for services that run for weeks.
ASK_SECONDS = 0.25
#: Seconds in which a ready service has to pass its liveness check.
ALIVE_ANSWER_SECONDS = 3
#: Characters of an unexpected answer that are shown.
_SHOWN = 120
#: Seconds until a program that answers has to accept a debugger: it may import its code with the first request.
WELCOME_SECONDS = 3


def wait_until_ready(service: Service, engine: Engine, step: Step, offset: int = 0) -> Ready:
    """Wait until the service passes its readiness check, or holds for a debugger.

    Args:
        service: The service, whose container runs.
        engine: Its engine.
        step: Where to show what is waited for.
        offset: Where to begin in the file of events, in bytes.

    Raises:
        UserError: It has ended, or the limit of its readiness probe has passed.
    """
    events = Events(service.events, offset)
    disk = storage.DiskWatch(service.events.parent)
    started = looked = time.monotonic()
    asked, answered, successes, check = 0.0, 0.0, 0, service.ready
    listening, refusal, seen, word = False, "", "nothing", ""
    while True:
        for event in events.read():
            kind = event["event"]
            listening = listening or kind == "listening"
            if kind == "gate-failed":
                refusal = str(event.get("message"))
            if kind == "waiting" and listening:
                return Ready(service, holds=True)
        now = time.monotonic()
        if answered and (listening or refusal or now - answered > WELCOME_SECONDS):
            return Ready(
                service,
                holds=False,
                unwelcome="" if listening else refusal or "no Python of it has let one in",
                answered=f"{check.text}: {seen}",
                note=word,
            )
        if not answered and now - asked > ASK_SECONDS:
            asked = now
            good, seen = _send_check_once(check, service.ready_port)
            successes = successes + 1 if good else 0
            if successes >= max(1, check.successes):
                word = _check_liveness(service)
                answered = time.monotonic()
                continue
        if now - looked > ALIVE_SECONDS:
            looked = now
            if not engine.is_alive(service):
                raise startup_error(service, engine, "its program ended")
        if (short := disk.shortage()) is not None:
            raise cannot_report_error(service, engine, short)
        if not answered and now - started > check.seconds:
            limit = f"{check.seconds} s (`readiness_probe`)"
            how = f"{check.text} was not answered as it should within {limit}; what came last: {seen}"
            raise startup_error(service, engine, how)
        step.report_wait(f"an answer to {check.text}, up to {check.seconds} s")
        time.sleep(POLL_SECONDS)


def _send_check_once(check: Check, port: int) -> tuple[bool, str]:
    """Send a check once; returns whether it passed, and a short text about the answer."""
    from http.client import responses

    try:
        status, content = send_check(check, port, check.timeout or 2)
    except ConnectionRefusedError:
        return False, "no connection"
    except TimeoutError:
        return False, f"nothing within {check.timeout or 2} s"
    except OSError as error:
        if isinstance(error, ConnectionError) or "RemoteDisconnected" in str(error):
            # The engine accepts the connection before anything in the container listens.
            return False, f"no answer; a program in a container has to listen on 0.0.0.0, port {check.port}"
        return False, str(error)
    # As Kubernetes counts: https://kubernetes.io/docs/tasks/configure-pod-container
    good = 200 <= status < 400
    text = " ".join(content[: 4 * _SHOWN].decode("utf-8", "replace").split())
    said = f", {shorten(scrub(text), _SHOWN)}" if text and not good else ""
    return good, f"{status} {responses.get(status, '')}".rstrip() + said


def _check_liveness(service: Service) -> str:
    """A note if a ready service does not pass its liveness check; otherwise empty."""
    check = service.alive
    deadline = time.monotonic() + min(check.seconds, ALIVE_ANSWER_SECONDS)
    while True:
        good, seen = _send_check_once(check, service.alive_port)
        if good:
            return ""
        if time.monotonic() > deadline:
            return f"{check.text} has not been answered as it should, so Azure ML would begin it again: {seen}"
        time.sleep(ASK_SECONDS)


def wait_for_answer(service: Service) -> None:
    """Wait until a service answers its readiness check, up to the check's limit."""
    deadline = time.monotonic() + service.ready.seconds
    while time.monotonic() < deadline:
        try:
            ready_status(service, service.ready.timeout)
            return
        except OSError:
            time.sleep(ASK_SECONDS)
