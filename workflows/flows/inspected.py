"""A look at a running service without an editor: at a line of it, or at what a request raises."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..debugger.inspect import Inspection, Words
from ..debugger.locations import ALWAYS, Condition
from ..debugger.readiness import Events, read_events
from ..errors import UserError
from ..models import Service
from . import by_itself
from .request import Request
from .serving import exchange, ready_status

#: Lines of an answer that tells of an error, and of a traceback.
ANSWER_LINES = 15
#: Seconds for the debuggee to announce why an answer was an error, once that has come.
_ANNOUNCED_SECONDS = 2.0
#: The answers that are the server's own fault.
_ERROR = 500


@dataclass(frozen=True)
class Look:
    """What is wanted of an inspection.

    Attributes:
        location: ``FILE:LINE``; None to stop where the request raises.
        request: What is sent.
        expressions: What to evaluate at the stop.
        timeout: Seconds for the stop to come, and for the response after it.
        is_given: Whether the person has said what to send.
        number: Of a request that was kept, its number.
        condition: At which of the times that the line runs.
    """

    location: str | None
    request: Request
    expressions: tuple[str, ...] = ()
    timeout: float = 60.0
    is_given: bool = True
    number: int | None = None
    condition: Condition = ALWAYS


def inspect(service: Service, look: Look, seen: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Stop at a line while one request runs, or where it raises; look, and let it go on.

    Args:
        service: The running service.
        look: What is wanted.
        seen: Called with what was seen at the stop, before the response is waited for.

    Raises:
        BadValue: The location cannot be read.
        UserError: The line is not reached, another debugger is attached, and so on.
    """
    from ..debugger import inspect as inspection
    from ..debugger.raised import inspect_raised

    place = None
    if look.location is not None:
        name, line = inspection.parse_location(look.location)
        place = inspection.resolve_source(name, cwd=Path.cwd(), roots=[service.score_script.parent, service.source])
        inspection.check_line(place, line)
    holds = [e["event"] for e in read_events(service.events) if e["event"] in ("waiting", "loaded", "attached")]
    if holds[-1:] == ["loaded"] or not holds:
        _let_others_finish(service)
    posting = _Posting(service, look)

    def show(stop: Inspection) -> None:
        seen(stop.as_json())

    if place is not None:
        found = inspection.inspect_stop(
            service.endpoint,
            place,
            line,
            look.expressions,
            trigger=posting.post,
            timeout=look.timeout,
            summarize=posting.summary,
            seen=show,
            words=Words() if look.is_given else Words(ended=_nothing_given),
            condition=look.condition,
        )
    else:
        found = inspect_raised(
            service.endpoint,
            look.expressions,
            trigger=posting.post,
            timeout=look.timeout,
            summarize=posting.summary,
            seen=show,
            words=_nothing_raised(look),
            by_debugger=service.by_itself,
        )
    result: dict[str, Any] = found.as_json()
    result["response"] = found.trigger_result
    return result


def _nothing_given(place: str, summary: str) -> tuple[str, str]:
    return (
        f"No request was given, so an empty JSON object was posted; {place} was not reached: {summary}",
        "Post what run() takes: --request FILE; to reach imports and init: inv deploy.debug --wait",
    )


def _nothing_raised(look: Look) -> Words:
    which = f" --failed {look.number}" if look.number is not None else ""

    def late(place: str, timeout: float) -> tuple[str, str]:
        return f"Nothing was raised within {timeout:g} s", f"Allow more time: --timeout {2 * timeout:g}"

    def ended(place: str, summary: str) -> tuple[str, str]:
        return (
            f"Nothing was raised that the code does not catch itself: {summary}",
            f"To look at a line while it runs: inv deploy.inspect FILE:LINE{which}",
        )

    return Words(late, ended)


def not_given(response: Mapping[str, Any]) -> UserError | None:
    """The error for a service that fails at the empty object which it was sent for want of a request."""
    if response["status"] < _ERROR:
        return None
    return UserError(
        f"No request was given, so an empty JSON object was posted; it was answered with {response['status']}.",
        "Post what run() takes: --request FILE",
    )


def answer_lines(response: Mapping[str, Any]) -> list[str]:
    """The last lines of what a service has answered, or of the traceback behind it, as people read them."""
    body = response["body"]
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    lines = [line for line in (response.get("traceback") or text).splitlines() if line.strip()]
    if "traceback" in response:
        # The server's own frames come first, and say nothing.
        frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
        own = [number for number in frames if "site-packages" not in lines[number]]
        lines = lines[next(iter(own or frames), 0) :]
    return lines[-ANSWER_LINES:]


def _let_others_finish(service: Service) -> None:
    """Have requests answered that were sent before: the first stop must belong to ours."""
    try:
        ready_status(service, timeout=10)
    except ConnectionRefusedError as error:
        raise UserError(
            "The service is down, or just starting.", "Look at inv container.logs, or: inv deploy.reload"
        ) from error
    except OSError as error:
        raise UserError(
            f"The service does not answer {service.ready.text}: it is busy, or a debugger has paused it.",
            "Let the debugger go on (F5) or disconnect it (Shift+F5), or: inv deploy.reload",
        ) from error


class _Posting:
    """A request on its way to a service, and what the debuggee says of it."""

    def __init__(self, service: Service, look: Look) -> None:
        self._service = service
        request = look.request
        if request.headers is None:
            _path, query, rest = request.path.partition("?")
            request = replace(request, path=service.scoring_path + query + rest)
        self._name = secrets.token_hex(8)
        if not service.by_itself:
            wishes = [f"name={self._name}"]
            wishes += ["again"] if look.number is not None else []
            wishes += ["stop"] if look.location is None else []
            request = replace(request, wishes=tuple(wishes))
        self._request = request
        # What others fail with meanwhile is told by other names.
        self._events = Events(service.events, service.events.stat().st_size if service.events.exists() else 0)

    def post(self) -> dict[str, Any]:
        """Post it, and wait for its answer as long as that takes.

        Raises:
            UserError: None came.
        """
        service = self._service
        if service.by_itself:
            # Held before its first line, nothing of it listens yet.
            by_itself.wait_for_answer(service)
        try:
            # How long is to be waited is counted from the stop on, and not here.
            status, content, kind = exchange(service.scoring_port, self._request, timeout=None)
        except OSError as error:
            raise UserError(
                f"The request to {service.scoring_url} got no answer: {error}.", "Look at: inv container.logs"
            ) from error
        response = {"status": status, "body": _body(content, kind)}
        trace = self._traceback() if status >= _ERROR and self._request.wishes else ""
        return {**response, "traceback": trace} if trace else response

    def _traceback(self) -> str:
        """What was raised behind the answer; empty where that was nothing, or is not known."""
        deadline = time.monotonic() + _ANNOUNCED_SECONDS
        while time.monotonic() < deadline:
            for event in self._events.read():
                if event["event"] == "request-failed" and event.get("name") == self._name:
                    error = event.get("error")
                    return str(error.get("traceback") or "") if isinstance(error, dict) else ""
            time.sleep(0.01)
        return ""

    def summary(self, response: dict[str, Any]) -> tuple[str, list[str]]:
        """An answer in the error for a stop that did not come: a few words, and what it says of an error."""
        text = f"it was answered with {response['status']}"
        if response["status"] >= _ERROR and "traceback" not in response:
            text += "; inv container.logs shows the traceback"
        return text, answer_lines(response) if response["status"] >= 400 else []


def _body(content: bytes, kind: str) -> Any:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return f"<{len(content)} bytes of {kind or 'an unknown kind'}>"
    try:
        return json.loads(text)
    except ValueError:
        return text
