"""Inspects a running service without an editor: at a line, or where a request raises."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..debugger.inspect_places import InspectOptions, Report
from ..debugger.inspect_stop import NotReached
from ..debugger.locations import first_line
from ..debugger.readiness import Events, current_state, read_events
from ..errors import BadValue, UserError
from ..models import Service
from . import custom_server
from .request import Request
from .service_requests import ready_status, send_request

#: How many lines of an answer with an error, or of a traceback, are shown.
ANSWER_LINES = 15
#: Seconds for the debuggee to report the exception behind an answer, once that has arrived.
_ANNOUNCED_SECONDS = 2.0
#: The lowest status of an answer that is a server error.
_ERROR = 500


@dataclass(frozen=True)
class Look:
    """What is wanted of an inspection.

    Attributes:
        locations: Where to stop, as typed; none to stop where the request raises, or at a ``breakpoint()``.
        request: The request to send.
        wanted: What to do there.
        is_given: Whether the user has given the request.
        number: The number of a kept request; None for any other one.
        repeat: How often it is sent, one after the other.
        at_breakpoint: Whether to stop where the code calls ``breakpoint()``; there are no locations then.
    """

    locations: tuple[str, ...]
    request: Request
    wanted: InspectOptions
    is_given: bool = True
    number: int | None = None
    repeat: int = 1
    at_breakpoint: bool = False

    @property
    def by_server(self) -> bool:
        """Whether to stop at exceptions that become an error answer: no place and no exception type is given."""
        return not (self.locations or self.wanted.raised or self.at_breakpoint)


def inspect_service(service: Service, look: Look, tell: Report) -> dict[str, Any]:
    """Stop at lines while requests run, or where one raises; look, and let it go on.

    Args:
        service: The running service.
        look: What is wanted.
        tell: Called with ``stop``, ``step``, ``log`` or ``response`` and what there is to show, as it happens.

    Raises:
        BadValue: A location cannot be read.
        UserError: No line is reached, another debugger is attached, and so on.
    """
    if look.at_breakpoint and not look.is_given:
        return _report_hold(service, tell)
    from ..debugger import inspect_places
    from ..debugger.inspect_exceptions import inspect_raised, is_own_code
    from ..debugger.places import read_place

    roots = [service.score_script.parent, service.source]
    places = [read_place(text, cwd=Path.cwd(), roots=roots) for text in look.locations]
    holds = [e["event"] for e in read_events(service.events) if e["event"] in ("waiting", "loaded", "attached")]
    if holds[-1:] == ["loaded"] or not holds:
        _let_others_finish(service)
    posting = _Posting(service, look, tell)
    wanted = look.wanted
    if look.by_server:
        stop = inspect_raised(
            service.endpoint,
            wanted.expressions,
            trigger=posting.post,
            timeout=wanted.timeout,
            summarize=posting.summary,
            seen=lambda found: tell("stop", found.as_json()),
            messages=_nothing_raised(look),
            by_debugger=service.by_itself,
        )
        return {**stop.as_json(), "response": stop.trigger_result}
    late = NotReached() if look.is_given else NotReached(ended=_nothing_given)
    found = inspect_places.inspect_places(
        service.endpoint,
        places,
        wanted,
        report=tell,
        is_own=is_own_code(service.endpoint.path_mappings),
        trigger=posting.post_all,
        summarize=lambda responses: posting.summary(responses[-1]),
        messages=_none_of_type(wanted.raised) if wanted.raised else late,
    )
    result = {**found.as_json(), "response": found.result[-1]}
    return {**result, "responses": found.result} if look.repeat > 1 else result


def _report_hold(service: Service, tell: Report) -> dict[str, Any]:
    """Report that a service holds; used when neither a place nor a request is given.

    Raises:
        BadValue: It does not hold.
    """
    if current_state(service.events) != "waiting":
        raise BadValue(
            "Nothing says where to stop.", "Name a line, such as score.py:21, or: --on-error --request FILE, --failed"
        )
    place = {"file": str(service.score_script), "line": first_line(service.score_script), "function": "<module>"}
    tell("holds", place)
    return {"stopped": place, "stack": [place], "locals": {}, "values": {}, "response": None, "holds": True}


def _nothing_given(place: str, summary: str) -> tuple[str, str]:
    return (
        f"No request was given, so an empty JSON object was posted; {place} was not reached: {summary}",
        "Post what run() takes: --request FILE; to reach imports and init: inv deploy.debug --wait",
    )


def _none_of_type(kind: str) -> NotReached:
    def ended(place: str, summary: str) -> tuple[str, str]:
        return (
            f"No {kind} was raised, whether caught or not: {summary}",
            "Name it as the code does, with its module where it is not Python's own, such as json.JSONDecodeError.",
        )

    return NotReached(ended=ended)


def _nothing_raised(look: Look) -> NotReached:
    which = f" --failed {look.number}" if look.number is not None else ""

    def late(place: str, timeout: float) -> tuple[str, str]:
        return f"Nothing was raised within {timeout:g} s", f"Allow more time: --timeout {2 * timeout:g}"

    def ended(place: str, summary: str) -> tuple[str, str]:
        return (
            f"Nothing was raised that the code does not catch itself: {summary}",
            f"To look at a line while it runs: inv deploy.inspect FILE:LINE{which}",
        )

    return NotReached(late, ended)


def missing_request_error(response: Mapping[str, Any]) -> UserError | None:
    """The error for a service that fails with the empty object that is sent if no request was given."""
    if response["status"] < _ERROR:
        return None
    return UserError(
        f"No request was given, so an empty JSON object was posted; it was answered with {response['status']}.",
        "Post what run() takes: --request FILE",
    )


def answer_lines(response: Mapping[str, Any]) -> list[str]:
    """The last lines of a service's answer, or of the traceback behind it."""
    body = response["body"]
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    lines = [line for line in (response.get("traceback") or text).splitlines() if line.strip()]
    if "traceback" in response:
        # The frames of the server come first, and are of no interest.
        frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
        own = [number for number in frames if "site-packages" not in lines[number]]
        lines = lines[next(iter(own or frames), 0) :]
    lines = lines[-ANSWER_LINES:]
    if "traceback" in response:
        # Do not begin in the middle of a frame.
        lines = lines[next((number for number, line in enumerate(lines) if line.startswith('  File "')), 0) :]
    return lines


def _let_others_finish(service: Service) -> None:
    """Wait until earlier requests have been answered, so that the first stop belongs to this one."""
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
    """Posts a request to a service, and finds what the debuggee reports about it."""

    def __init__(self, service: Service, look: Look, tell: Report) -> None:
        self._service, self._tell, self._repeat = service, tell, look.repeat
        request = look.request
        if request.headers is None:
            _path, query, rest = request.path.partition("?")
            request = replace(request, path=service.scoring_path + query + rest)
        self._name = secrets.token_hex(8)
        if not service.by_itself:
            wishes = [f"name={self._name}"]
            wishes += ["again"] if look.number is not None else []
            wishes += ["stop"] if look.by_server else []
            request = replace(request, wishes=tuple(wishes))
        self._request = request
        # Failures of other requests have other names.
        self._events = Events(service.events, service.events.stat().st_size if service.events.exists() else 0)

    def post_all(self) -> list[dict[str, Any]]:
        """Post it as often as requested, each time after the previous answer.

        Raises:
            UserError: No answer came.
        """
        answers = []
        for _ in range(self._repeat):
            answers.append(self.post())
            if self._repeat > 1:
                self._tell("response", answers[-1])
        return answers

    def post(self) -> dict[str, Any]:
        """Post it, and wait for its answer without a limit.

        Raises:
            UserError: There was no answer.
        """
        service = self._service
        if service.by_itself:
            # While it holds before its first line, it does not listen yet.
            custom_server.wait_for_answer(service)
        try:
            # The caller applies the limit, which is counted from the stop on.
            status, content, kind = send_request(service.scoring_port, self._request, timeout=None)
        except OSError as error:
            raise UserError(
                f"The request to {service.scoring_url} got no answer: {error}.", "Look at: inv container.logs"
            ) from error
        response = {"status": status, "body": decode_body(content, kind)}
        trace = self._traceback() if status >= _ERROR and self._request.wishes else ""
        return {**response, "traceback": trace} if trace else response

    def _traceback(self) -> str:
        """The traceback of the exception behind the answer; empty if there was none or it is not known."""
        deadline = time.monotonic() + _ANNOUNCED_SECONDS
        while time.monotonic() < deadline:
            for event in self._events.read():
                if event["event"] == "request-failed" and event.get("name") == self._name:
                    error = event.get("error")
                    return str(error.get("traceback") or "") if isinstance(error, dict) else ""
            time.sleep(0.01)
        return ""

    def summary(self, response: dict[str, Any]) -> tuple[str, list[str]]:
        """A short text about an answer, and its lines if it is an error; for the message when nothing has stopped."""
        text = f"it was answered with {response['status']}"
        if response["status"] >= _ERROR and "traceback" not in response:
            text += "; inv container.logs shows the traceback"
        return text, answer_lines(response) if response["status"] >= 400 else []


def decode_body(content: bytes, kind: str) -> Any:
    """Decode an answer: JSON, a text, or a description of anything else."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return f"<{len(content)} bytes of {kind or 'an unknown kind'}>"
    try:
        return json.loads(text)
    except ValueError:
        return text
