"""A running service: when it serves, a new score.py in it, what it answers."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import storage
from ..console import Step
from ..debugger.readiness import Events, current_worker, read_events
from ..engines.base import Engine
from ..errors import UserError
from ..models import Check, Service
from ..paths import shown
from . import by_itself, imports
from .request import WISHES, Request

#: What puts mended code into a service that is there.
RELOAD = "inv deploy.reload"
#: Seconds between two looks at the announcements, which are a small local file.
LOOK_SECONDS = 0.01
#: Seconds between two questions whether the engine still runs the service.
ALIVE_SECONDS = 0.5
#: Seconds that the server may take to come to life, and score.py to be loaded: a model
#: of many gigabytes takes long.
START_SECONDS, LOAD_SECONDS = 120, 3600
#: Seconds for the answer to GET /, once score.py is loaded.
HEALTH_SECONDS = 30
#: Seconds for the server's master to end after its worker could not be loaded.
END_SECONDS = 5


@dataclass(frozen=True)
class Ready:
    """A service that serves, or holds for a debugger.

    Attributes:
        service: The service.
        holds: Whether it holds for a debugger.
        unwelcome: Why no debugger is welcome in it; empty where one is.
        answered: What was asked whether it is ready, and the answer; empty where the debuggee says it.
        note: What else there is to say of it.
        text: What to tell the person.
    """

    service: Service
    holds: bool
    unwelcome: str = ""
    answered: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """One line for the person."""
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


def holds_unloaded(service: Service) -> bool:
    """Whether a service that was to hold before its score.py is loaded still does."""
    # Whoever only looks in and leaves again ends no hold.
    passing = ("listening", "client", "client-left", "attach-failed")
    seen = [event["event"] for event in read_events(service.events) if event["event"] not in passing]
    return service.wait and seen[-1:] == ["waiting"]


def wait_until_ready(
    service: Service, engine: Engine, step: Step, offset: int = 0, again: str = "inv deploy.debug"
) -> Ready:
    """Wait until the service serves or holds, as its debuggee announces.

    Args:
        service: The started service.
        engine: Its engine.
        step: Where to say what is waited for.
        offset: Where in the announcements to begin, in bytes.
        again: What to type once score.py is mended.

    Raises:
        UserError: score.py cannot be loaded, the service died, or a limit passed.
    """
    if service.by_itself:
        return by_itself.wait_until_ready(service, engine, step, offset)
    events = Events(service.events, offset)
    disk = storage.Watch(service.events.parent)
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
                _see_the_end(events)
                raise _load_error(service, event, again)
            if kind == "gate-failed":
                raise _no_debugger(str(event.get("message")))
            if kind == "worker-exited":
                raise died(service, engine, "its worker ended before score.py was loaded")
            if kind == "exited":
                signal = event.get("signal")
                how = f"by signal {signal}" if event.get("code") == -1 else f"with exit code {event.get('code')}"
                raise died(service, engine, f"it ended {how}")
        if loaded and listening:
            _see_answer(service, engine, step)
            return Ready(service, holds=False)
        now = time.monotonic()
        if now - looked > ALIVE_SECONDS:
            looked = now
            if not engine.alive(service):
                raise died(service, engine, "it ended")
        if (short := disk.shortage()) is not None:
            raise speechless(service, engine, short)
        limit = LOAD_SECONDS if worker else START_SECONDS
        if now - started > limit:
            raise died(service, engine, f"it was not ready after {limit} s")
        what = f"{service.score_script.name} to be loaded" if worker else "the inference server"
        step.waiting(f"{what}, up to {limit} s")
        time.sleep(LOOK_SECONDS)


def _see_the_end(events: Events) -> None:
    """After a worker's refusal, see its master end too: a reload must not meet it half alive."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        if any(event["event"] == "exited" for event in events.read()):
            return
        time.sleep(LOOK_SECONDS)


def reload(service: Service, engine: Engine, step: Step) -> Ready:
    """Put the edited score.py into the running service.

    Raises:
        UserError: It cannot be loaded. The service stays, so that a further reload can mend it.
    """
    offset = service.events.stat().st_size if service.events.exists() else 0
    if service.by_itself:
        engine.restart_worker(service, 0)
        engine.mend(service)
        return by_itself.wait_until_ready(service, engine, step, offset)
    seen = read_events(service.events)
    gone = bool(seen) and seen[-1]["event"] in ("exited", "failed")
    service = engine.restart_worker(service, 0 if gone else current_worker(service.events))
    from .. import sessions

    sessions.save(service)
    # The old worker's end is announced after the offset too; it says nothing of the new one.
    return _wait_for_new_worker(service, engine, step, offset)


def _wait_for_new_worker(service: Service, engine: Engine, step: Step, offset: int) -> Ready:
    events = Events(service.events, offset)
    disk = storage.Watch(service.events.parent)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        before = events.offset
        for event in events.read():
            if event["event"] == "worker":
                return wait_until_ready(service, engine, step, _offset_of(service, event, before), RELOAD)
        if not engine.alive(service):
            raise died(service, engine, "it ended")
        if (short := disk.shortage()) is not None:
            raise speechless(service, engine, short)
        step.waiting(f"a new worker, up to {START_SECONDS} s")
        time.sleep(LOOK_SECONDS)
    raise died(service, engine, f"no new worker came within {START_SECONDS} s")


def _offset_of(service: Service, wanted: dict[str, Any], start: int) -> int:
    """Where in the announcements an event stands, in bytes."""
    import json

    with open(service.events, "rb") as file:
        file.seek(start)
        for line in file:
            if json.loads(line) == wanted:
                return start
            start += len(line)
    return start


def _see_answer(service: Service, engine: Engine, step: Step) -> None:
    """See GET / answered: score.py is loaded, so it takes a moment only."""
    # With a debugger's hold behind it, less than what the person gives it is no limit.
    limit = max(HEALTH_SECONDS, service.ready.seconds)
    deadline, successes, seen = time.monotonic() + limit, 0, "nothing"
    while True:
        try:
            status = get(service, "/", timeout=service.ready.timeout or 5)
            successes, seen = successes + 1 if status == 200 else 0, str(status)
            if successes >= service.ready.successes:
                return
        except OSError as error:
            successes, seen = 0, str(error)
        if time.monotonic() > deadline or not engine.alive(service):
            raise died(service, engine, f"GET / was not answered with 200 within {limit} s; what came last: {seen}")
        step.waiting(f"an answer to GET /, up to {limit} s")
        time.sleep(LOOK_SECONDS)


def get(service: Service, path: str, timeout: float) -> int:
    """The status with which the service answers a GET.

    Raises:
        OSError: It could not be sent, or nothing came back in time.
    """
    return exchange(service.scoring_port, Request("GET", path, None, ""), timeout)[0]


def ready_status(service: Service, timeout: float) -> int:
    """The status with which a service answers where its readiness is asked.

    Raises:
        OSError: Nothing came back in time.
    """
    return ask(service.ready, service.ready_port, timeout)[0]


def ask(check: Check, port: int, timeout: float) -> tuple[int, bytes]:
    """Ask whether a service is ready or alive: the status and the body of its answer.

    Args:
        check: What is asked.
        port: The port on 127.0.0.1 that is asked.
        timeout: Seconds for the answer.

    Raises:
        OSError: Nothing came back in time.
    """
    request = Request(check.method, check.path, None, "")
    return exchange(port, request, timeout, secure=check.scheme == "https")[:2]


def exchange(port: int, request: Request, timeout: float | None, secure: bool = False) -> tuple[int, bytes, str]:
    """One request to a service: status, body and content type of the response.

    Args:
        port: The port on 127.0.0.1.
        request: What is sent.
        timeout: Seconds for the answer; None for no limit.
        secure: Whether https is spoken. As for a probe of Kubernetes, whose certificate it is does not count.

    Raises:
        OSError: It could not be sent, or nothing came back in time.
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

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
        return response.status, response.read(), response.headers.get_content_type()
    except HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _load_error(service: Service, event: dict[str, Any], again: str) -> UserError:
    """What score.py did wrong when it was loaded, at its place."""
    from . import snapshots

    file = event.get("file")
    error = script_error(service.score_script, service.local_path(file) if file else service.score_script, event, again)
    if service.engine == "docker" and f"[Errno {errno.EROFS}]" in error.problem:
        # Its folder and the model's are the person's own.
        name = service.score_script.name
        error.remedy = f"Write to a folder of tempfile.mkdtemp(): {name} and the model are there for reading only."
    if event.get("type") == "ModuleNotFoundError":
        error.remedy = imports.remedy(service, str(event.get("message")), "inv deploy.debug") or error.remedy
    name = str(event.get("message")).strip("'")
    if event.get("type") == "KeyError" and name in os.environ:
        error.remedy = f"{name} is set here, and a service has what is named: inv deploy.debug --env {name}"
    if snapshots.files_of_service(service.project):
        error.remedy = f"{error.remedy.rstrip('.')}; its variables: inv deploy.snapshot"
    return error


def script_error(script: Path, place: Path, event: Mapping[str, Any], again: str) -> UserError:
    """What is wrong with score.py, at its place.

    Args:
        script: The entry script.
        place: The file that is wrong, it or another.
        event: What was seen: `type`, `message` and `line`.
        again: What to type once it is mended.
    """
    message = str(event.get("message") or "").strip() or "no message"
    kind = str(event.get("type"))
    name = script.name
    if kind == "UserScriptError":
        # The server's own words: it does not have a init() or a run() function.
        missing = next((word for word in ("init()", "run()") if f"a {word}" in message), None)
        problem = f"{name} has no function {missing}." if missing else message
        return UserError(problem, f"Correct {name}, then: {again}", file=shown(script))
    remedy = f"Correct it, then: {again}"
    if kind != "SyntaxError":
        remedy += " (the whole traceback: inv container.logs)"
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
    return UserError(f"No debugger can be let in: {message}.", remedy)


def died(service: Service, engine: Engine, how: str) -> UserError:
    """The error for a service that did not come up, with the end of its log."""
    lines = _last_lines(service, engine)
    problem = f"The service {service.name} did not come up: {how}."
    # Where it writes; a program that cannot says many things, and seldom why.
    short = next(filter(None, map(storage.shortage, (service.session, Path(tempfile.gettempdir())))), None)
    if short is None and storage.in_output(lines) is not None and engine.name == "docker":
        from ..engines.docker_images import engine_disk_full

        short = engine_disk_full()
    if short is not None:
        return UserError(f"{problem} {short.problem}", short.remedy, details=lines)
    return UserError(problem, "The whole log: inv container.logs", details=lines)


def speechless(service: Service, engine: Engine, short: UserError) -> UserError:
    """The error for a service that cannot say any more how it gets on."""
    try:
        serves = get(service, "/", timeout=5) == 200
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
        # Whatever keeps the log from being read, the message counts.
        return []
