"""A service whose image serves by itself: when it is ready, and whether a debugger is welcome in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .. import storage
from ..console import Step
from ..debugger.readiness import Events
from ..engines.base import Engine
from ..models import Service

if TYPE_CHECKING:
    from .serving import Ready

#: Seconds between two questions whether it is ready. Azure ML's `period` is for what goes on for weeks.
ASK_SECONDS = 0.25
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
    from .serving import ALIVE_SECONDS, LOOK_SECONDS, Ready, died, ready_status, speechless

    events = Events(service.events, offset)
    disk = storage.Watch(service.events.parent)
    started = looked = time.monotonic()
    asked, answered, successes = 0.0, 0.0, 0
    listening, refusal, seen = False, "", "no answer"
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
                service, holds=False, unwelcome="" if listening else refusal or "no Python of it has let one in"
            )
        if not answered and now - asked > ASK_SECONDS:
            asked = now
            try:
                status = ready_status(service, service.ready_timeout or 2)
                # As Kubernetes counts: https://kubernetes.io/docs/tasks/configure-pod-container
                successes = successes + 1 if 200 <= status < 400 else 0
                seen = f"{status}"
            except OSError as error:
                successes, seen = 0, str(error)
            if successes >= max(1, service.ready_successes):
                answered = now
                continue
        if now - looked > ALIVE_SECONDS:
            looked = now
            if not engine.alive(service):
                raise died(service, engine, "its program ended")
        if (short := disk.shortage()) is not None:
            raise speechless(service, engine, short)
        if not answered and now - started > service.ready_seconds:
            where = f"GET {service.ready_path}"
            limit = f"{service.ready_seconds} s (`readiness_probe`)"
            raise died(service, engine, f"{where} was not answered as it should within {limit}: {seen}")
        step.waiting(f"an answer to GET {service.ready_path}, up to {service.ready_seconds} s")
        time.sleep(LOOK_SECONDS)


def wait_for_answer(service: Service) -> None:
    """Wait until a service answers where its readiness is asked, up to its limit."""
    from .serving import ready_status

    deadline = time.monotonic() + service.ready_seconds
    while time.monotonic() < deadline:
        try:
            ready_status(service, service.ready_timeout)
            return
        except OSError:
            time.sleep(ASK_SECONDS)
