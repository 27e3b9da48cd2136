"""Services of deployed models in the tests: requests on their way, and debug sessions."""

from __future__ import annotations

import threading
from typing import Any

from projects import Project, post

from workflows.debugger.dap import DapClient

CONFIGURATION = "Azure Machine Learning Deployment: Docker Debug"


def attach(project: Project, debug: dict[str, Any], *lines: int) -> DapClient:
    """Attach as an editor does, with breakpoints in score.py."""
    client = DapClient.connect("127.0.0.1", debug["debug"]["port"], 20)
    client.attach(path_mappings=debug["path_mappings"], breakpoints={str(project.score): list(lines)}, timeout=30)
    return client


class Posting(threading.Thread):
    """A request on its way."""

    def __init__(self, url: str, value: Any = None) -> None:
        super().__init__(daemon=True)
        self._url, self._value = url, value
        self.answer: Any = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = post(self._url, self._value)
        except Exception as error:
            self.error = error

    def finish(self) -> Any:
        self.join(30)
        assert not self.is_alive(), "no answer"
        return self.answer


def stop_of(client: DapClient) -> dict[str, Any]:
    event = client.wait_event("stopped", 30)
    thread = event.body["threadId"]
    frames = client.request("stackTrace", {"threadId": thread}, 20)["stackFrames"]
    return {"thread": thread, **frames[0]}


def value_of(client: DapClient, frame: dict[str, Any], expression: str) -> str:
    body = client.request("evaluate", {"expression": expression, "frameId": frame["id"]}, 20)
    return str(body["result"])


def stop_thread_and_continue(client: DapClient) -> dict[str, Any]:
    threads = client.request("threads", None, 20)["threads"]
    client.request("continue", {"threadId": threads[0]["id"]}, 20)
    return stop_of(client)
