"""The tool that posts requests to the service; an answer may take as long as a session stops the service."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from ..errors import UserError
from ..models import Service
from . import runs, tools
from .runs import DEPLOY
from .state import State
from .tools import Answer, Tool

#: Characters of an answer.
_MOST_ANSWER = 20_000
#: Pending requests at most.
_MOST = 32


class Posted:
    """A request that was posted in a thread.

    Args:
        service: The service.
        body: The body.
        content_type: The body's content type.
    """

    def __init__(self, service: Service, body: bytes, content_type: str) -> None:
        from ..flows.request import Request

        self._service = service
        self._request = Request("POST", service.scoring_path, body, content_type)
        self.since = time.monotonic()
        self.done = threading.Event()
        self.answer: Answer = {}
        threading.Thread(target=self._post, name="posted-request", daemon=True).start()

    def _post(self) -> None:
        from ..flows.service_inspection import decode_body
        from ..flows.service_requests import send_request

        try:
            # It is answered once the program continues.
            status, content, kind = send_request(self._service.scoring_port, self._request, timeout=None)
            self.answer = {"status": status, "body": decode_body(content, kind)}
        except OSError as error:
            self.answer = {"error": f"The request to {self._service.scoring_url} got no answer: {error}."}
        finally:
            self.done.set()


def request_tools(state: State) -> list[Tool]:
    """The tool that posts."""

    def post_request(body: Any = None, content_type: str = "application/json", timeout: float = 5.0) -> Answer:
        deadline = time.monotonic() + timeout
        service = runs.present(state).running()
        if service is None or not service.started:
            raise UserError("No service of this project is running.", "Start one: start with story=deploy")
        is_text = isinstance(body, str) and content_type != "application/json"
        data = str(body).encode() if is_text else json.dumps({} if body is None else body).encode()
        if len([one for one in state.requests.values() if not one.done.is_set()]) >= _MOST:
            raise UserError(f"{_MOST} requests have no answer yet.", "Let the service go on: resume, or detach.")
        name = state.add_request(Posted(service, data, content_type))
        return request_result(state, name, deadline)

    return [
        Tool(
            "post_request",
            "Post a request to the service",
            "RUNS CODE: the service answers the request. Posts to the service of this project. Where a breakpoint "
            "stops it, the answer comes once the program goes on: wait with the name in `request` then.",
            {
                "body": {"description": "What is posted: any JSON; a text with another content type."},
                "content_type": tools.text("The kind of it.", default="application/json"),
                "timeout": tools.timeout("the answer"),
            },
            post_request,
            runs_code=True,
        )
    ]


def request_result(state: State, name: str, deadline: float) -> Answer:
    """Wait for a request; returns its answer, or what it waits for.

    Raises:
        UserError: There is no such request, or it got no answer.
    """
    posted = state.requests.get(name)
    if posted is None:
        raise UserError(
            f"There is no request {name[:100]!r}.", f"Existing ones: {', '.join(state.requests) or 'none'}."
        )
    while not posted.done.is_set() and time.monotonic() < deadline:
        if any(one.is_stopped and one.place.story == DEPLOY for one in state.sessions().values()):
            break  # One of our sessions has stopped the service: no answer comes before it continues.
        posted.done.wait(0.05)
    if not posted.done.is_set():
        stopped = [key for key, one in state.sessions().items() if one.is_stopped and one.place.story == DEPLOY]
        waits = f"its answer, for {time.monotonic() - posted.since:.0f} s"
        if stopped:
            waits = f"its answer; the service is stopped in the session {stopped[0]}: see stack, then resume"
        return {"request": name, "state": "waiting", "waits_for": waits}
    if "error" in posted.answer:
        raise UserError(posted.answer["error"], "See logs with story=deploy.")
    answer = state.secrets.mask_deep(posted.answer)
    text = json.dumps(answer["body"], ensure_ascii=False)
    if len(text) > _MOST_ANSWER:
        answer["body"] = f"{text[:_MOST_ANSWER]}… ({len(text)} characters)"
    return {"request": name, "state": "answered", **answer}
