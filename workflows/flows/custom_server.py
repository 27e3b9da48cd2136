"""A service whose image serves by itself: when it is ready, and whether a debugger is welcome in it."""

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

#: Seconds between two questions whether it is ready. Azure ML's `period` is for what goes on for weeks.
ASK_SECONDS = 0.25
#: Seconds for the question whether it is alive, once it is ready, to be answered as it should.
ALIVE_ANSWER_SECONDS = 3
#: Characters of an answer that are shown where it is not the one that was to come.
_SHOWN = 120
#: Seconds that a program that answers may take to let a debugger in: it may import its code with the first request.
WELCOME_SECONDS = 3


def wait_until_ready(service: Service, engine: Engine, step: Step, offset: int = 0) -> Ready:
    """Wait until it answers where its readiness is asked, or holds for a debugger.

    Args:
        service: The service, whose container runs.
        engine: Its engine.
        step: Where to say what is waited for.
        offset: Where in the announcements to begin, in bytes.

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
    """Ask once: whether the answer is the one that is to come, and what came, in a few words."""
    from http.client import responses

    try:
        status, content = send_check(check, port, check.timeout or 2)
    except ConnectionRefusedError:
        return False, "no connection"
    except TimeoutError:
        return False, f"nothing within {check.timeout or 2} s"
    except OSError as error:
        if isinstance(error, ConnectionError) or "RemoteDisconnected" in str(error):
            # The engine takes the connection before anything in the container listens.
            return False, f"no answer; a program in a container has to listen on 0.0.0.0, port {check.port}"
        return False, str(error)
    # As Kubernetes counts: https://kubernetes.io/docs/tasks/configure-pod-container
    good = 200 <= status < 400
    text = " ".join(content[: 4 * _SHOWN].decode("utf-8", "replace").split())
    said = f", {shorten(scrub(text), _SHOWN)}" if text and not good else ""
    return good, f"{status} {responses.get(status, '')}".rstrip() + said


def _check_liveness(service: Service) -> str:
    """A note where a service that is ready does not say that it is alive; empty where it does."""
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
    """Wait until a service answers where its readiness is asked, up to its limit."""
    deadline = time.monotonic() + service.ready.seconds
    while time.monotonic() < deadline:
        try:
            ready_status(service, service.ready.timeout)
            return
        except OSError:
            time.sleep(ASK_SECONDS)
