"""Waits until a service serves, reloads score.py in it, and makes the errors for a script that cannot be loaded."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import storage
from ..console import Step
from ..debugger.readiness import Events, current_worker, read_events
from ..engines.base import Engine
from ..errors import UserError
from ..models import Service
from ..paths import shown
from . import custom_server, missing_imports
from .service_requests import ALIVE_SECONDS, POLL_SECONDS, Ready, cannot_report_error, send_get, startup_error

#: The command that loads corrected code in an existing service.
RELOAD = "inv deploy.reload"
#: Seconds that the server may take to start, and to load score.py with a model that may have many gigabytes.
START_SECONDS, LOAD_SECONDS = 120, 3600
#: Seconds for the answer to GET /, once score.py is loaded.
HEALTH_SECONDS = 30
#: Seconds for the server's master to end after its worker could not be loaded.
END_SECONDS = 5


def holds_unloaded(service: Service) -> bool:
    """Whether a service with ``--wait`` still holds before its score.py is loaded."""
    # A client that connects and leaves again does not end the hold.
    passing = ("listening", "client", "client-left", "attach-failed")
    seen = [event["event"] for event in read_events(service.events) if event["event"] not in passing]
    return service.wait and seen[-1:] == ["waiting"]


def wait_until_ready(
    service: Service, engine: Engine, step: Step, offset: int = 0, again: str = "inv deploy.debug"
) -> Ready:
    """Wait until the service serves or holds, according to its debuggee's events.

    Args:
        service: The started service.
        engine: Its engine.
        step: Where to show what is waited for.
        offset: Where to begin in the file of events, in bytes.
        again: The command to type once score.py is corrected.

    Raises:
        UserError: score.py cannot be loaded, the service died, or a limit passed.
    """
    if service.by_itself:
        return custom_server.wait_until_ready(service, engine, step, offset)
    events = Events(service.events, offset)
    disk = storage.DiskWatch(service.events.parent)
    started = looked = time.monotonic()
    worker, listening, loaded = False, False, False
    while True:
        for event in events.read():
            kind = event["event"]
            worker = worker or kind == "worker"
            listening = listening or kind == "listening"
            loaded = loaded or kind == "loaded"
            if kind == "waiting" and listening:
                return Ready(service, holds=True)
            if kind == "failed":
                _wait_for_exit(events)
                raise _load_error(service, event, again)
            if kind == "gate-failed":
                raise _no_debugger(str(event.get("message")))
            if kind == "worker-exited":
                raise startup_error(service, engine, "its worker ended before score.py was loaded")
            if kind == "exited":
                signal = event.get("signal")
                how = f"by signal {signal}" if event.get("code") == -1 else f"with exit code {event.get('code')}"
                raise startup_error(service, engine, f"it ended {how}")
        if loaded and listening:
            _wait_for_answer(service, engine, step)
            return Ready(service, holds=False)
        now = time.monotonic()
        if now - looked > ALIVE_SECONDS:
            looked = now
            if not engine.is_alive(service):
                raise startup_error(service, engine, "it ended")
        if (short := disk.shortage()) is not None:
            raise cannot_report_error(service, engine, short)
        limit = LOAD_SECONDS if worker else START_SECONDS
        if now - started > limit:
            raise startup_error(service, engine, f"it was not ready after {limit} s")
        what = f"{service.score_script.name} to be loaded" if worker else "the inference server"
        step.report_wait(f"{what}, up to {limit} s")
        time.sleep(POLL_SECONDS)


def _wait_for_exit(events: Events) -> None:
    """Wait until the master ends after its worker has failed, so that a reload does not find it ending."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        if any(event["event"] == "exited" for event in events.read()):
            return
        time.sleep(POLL_SECONDS)


def reload(service: Service, engine: Engine, step: Step) -> Ready:
    """Load the edited score.py in the running service.

    Raises:
        UserError: It cannot be loaded. The service stays, so that another reload can succeed.
    """
    offset = service.events.stat().st_size if service.events.exists() else 0
    if service.by_itself:
        engine.restart_worker(service, 0)
        engine.ensure_forwarder(service)
        return custom_server.wait_until_ready(service, engine, step, offset)
    seen = read_events(service.events)
    gone = bool(seen) and seen[-1]["event"] in ("exited", "failed")
    service = engine.restart_worker(service, 0 if gone else current_worker(service.events))
    from .. import sessions

    sessions.save(service)
    # The end of the old worker is also reported after the offset, and does not concern the new one.
    return _wait_for_new_worker(service, engine, step, offset)


def _wait_for_new_worker(service: Service, engine: Engine, step: Step, offset: int) -> Ready:
    events = Events(service.events, offset)
    disk = storage.DiskWatch(service.events.parent)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        before = events.offset
        for event in events.read():
            if event["event"] == "worker":
                return wait_until_ready(service, engine, step, _offset_of(service, event, before), RELOAD)
        if not engine.is_alive(service):
            raise startup_error(service, engine, "it ended")
        if (short := disk.shortage()) is not None:
            raise cannot_report_error(service, engine, short)
        step.report_wait(f"a new worker, up to {START_SECONDS} s")
        time.sleep(POLL_SECONDS)
    raise startup_error(service, engine, f"no new worker came within {START_SECONDS} s")


def _offset_of(service: Service, wanted: dict[str, Any], start: int) -> int:
    """The place of an event in the file of events, in bytes."""
    import json

    with open(service.events, "rb") as file:
        file.seek(start)
        for line in file:
            if json.loads(line) == wanted:
                return start
            start += len(line)
    return start


def _wait_for_answer(service: Service, engine: Engine, step: Step) -> None:
    """Wait for an answer to GET /, which takes only a moment once score.py is loaded."""
    # The limit is never shorter than the one that the user has set.
    limit = max(HEALTH_SECONDS, service.ready.seconds)
    deadline, successes, seen = time.monotonic() + limit, 0, "nothing"
    while True:
        try:
            status = send_get(service, "/", timeout=service.ready.timeout or 5)
            successes, seen = successes + 1 if status == 200 else 0, str(status)
            if successes >= service.ready.successes:
                return
        except OSError as error:
            successes, seen = 0, str(error)
        if time.monotonic() > deadline or not engine.is_alive(service):
            raise startup_error(
                service, engine, f"GET / was not answered with 200 within {limit} s; what came last: {seen}"
            )
        step.report_wait(f"an answer to GET /, up to {limit} s")
        time.sleep(POLL_SECONDS)


def _load_error(service: Service, event: dict[str, Any], again: str) -> UserError:
    """The error for a score.py that could not be loaded, at its place."""
    from . import snapshots

    file = event.get("file")
    error = script_error(service.score_script, service.local_path(file) if file else service.score_script, event, again)
    if service.engine == "docker" and f"[Errno {errno.EROFS}]" in error.problem:
        # Its folder and the model's folder are the user's own files.
        name = service.score_script.name
        error.remedy = f"Write to a folder of tempfile.mkdtemp(): {name} and the model are there for reading only."
    if event.get("type") == "ModuleNotFoundError":
        error.remedy = (
            missing_imports.remedy_for_import(service, str(event.get("message")), "inv deploy.debug") or error.remedy
        )
    name = str(event.get("message")).strip("'")
    if event.get("type") == "KeyError" and name in os.environ:
        error.remedy = f"{name} is set here, and a service has what is named: inv deploy.debug --env {name}"
    if snapshots.files_of_service(service.project):
        error.remedy = f"{error.remedy.rstrip('.')}. Its variables: inv deploy.snapshot"
    return error


def script_error(script: Path, place: Path, event: Mapping[str, Any], again: str) -> UserError:
    """The error for a wrong score.py, at its place.

    Args:
        script: The entry script.
        place: The file with the error, which may be an imported one.
        event: The error's `type`, `message` and `line`.
        again: The command to type once it is corrected.
    """
    message = str(event.get("message") or "").strip() or "no message"
    kind = str(event.get("type"))
    name = script.name
    if kind == "UserScriptError":
        # The server's message: "it does not have a init() function", or "a run() function".
        missing = next((word for word in ("init()", "run()") if f"a {word}" in message), None)
        problem = f"{name} has no function {missing}." if missing else message
        return UserError(problem, f"Correct {name}, then: {again}", file=shown(script))
    remedy = f"Correct it, then: {again}"
    if kind != "SyntaxError":
        remedy += ". The whole traceback: inv container.logs"
    if kind == "ModuleNotFoundError":
        remedy = (
            "Correct the import, or add the package to requirements.txt or conda.yml of the inference environment "
            f"(env/inference, unless you name another), then: {'inv deploy.debug' if again == RELOAD else again}"
        )
    return UserError(f"{kind}: {message}", remedy, file=shown(place), line=event.get("line"))


def _no_debugger(message: str) -> UserError:
    remedy = "Free the port or choose another: --debug-port 0."
    if "debugpy" in message:
        remedy = "Add debugpy to the environment's requirements.txt or conda.yml, then: inv deploy.debug"
    return UserError(f"No debugger can attach: {message}.", remedy)
