"""Plain requests to a run history, over real HTTP; and the tokens that they are made with."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from workflows.azureml import access, limited_requests
from workflows.azureml.access import Access, RenewingAccess
from workflows.azureml.errors import SignInRefused, Unreachable, is_transient, message_of, retry_after
from workflows.azureml.history import RunHistory
from workflows.azureml.service import PipelineService
from workflows.errors import UserError
from workflows.received import Refused

SCOPE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
Answer = Callable[[str, dict[str, list[str]], str], tuple[int, bytes, dict[str, str]]]


class History:
    """A service on 127.0.0.1; `answer` says what it does, `asked` what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, list[str]], str]] = []
        self.answer: Answer = lambda path, query, token: (200, b"{}", {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = parts.path, parse_qs(parts.query), self.headers["Authorization"]
                outer.asked.append(asked)
                status, body, headers = outer.answer(*asked)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def access(self, token: str = "one", seconds: float = 3600) -> Access:
        return Access(self.url, self.url + "/", SCOPE, f"Bearer {token}", time.time() + seconds)


@pytest.fixture
def history() -> Iterator[History]:
    made = History()
    yield made
    made.server.shutdown()
    made.server.server_close()


def never() -> Access:
    raise AssertionError("nothing is to be renewed")


def known(history: History) -> RunHistory:
    return RunHistory(RenewingAccess(history.access(), never))


def test_all_pages_of_the_child_runs_are_read(history: History) -> None:
    def answer(path: str, query: dict[str, list[str]], _token: str) -> tuple[int, bytes, dict[str, str]]:
        start = int(query.get("$continuationToken", ["0"])[0])
        value = [{"runId": f"r{start + i}", "status": "Running", "tags": {"a": "b", "c": 1}} for i in range(2)]
        more = {"continuationToken": str(start + 2)} if start < 4 else {"continuationToken": None}
        return 200, json.dumps({"value": value, **more}).encode(), {}

    history.answer = answer
    found = PipelineService(known(history), "a run", lambda: None).children()
    assert [one.run_id for one in found] == [f"r{i}" for i in range(6)]
    assert found[0].tags == {"a": "b"} and found[0].step == "r0"
    assert len(history.asked) == 3
    assert history.asked[0][0] == f"/history/v1.0{SCOPE}/runs/a%20run/children"
    assert history.asked[0][1]["$top"] == ["500"]


def test_a_list_without_end_is_refused(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.azureml.history._PAGES", 20)
    history.answer = lambda *_: (200, b'{"value": [], "continuationToken": "again"}', {})
    with pytest.raises(Refused, match="20 pages"):
        list(known(history).children("run"))
    assert len(history.asked) == 20


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7", b"", b'{"a": NaN}'])
def test_an_answer_that_is_no_object_is_refused(history: History, body: bytes) -> None:
    history.answer = lambda *_: (200, body, {})
    with pytest.raises(Refused):
        known(history).run("run")


def test_an_answer_without_end_is_given_up(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_requests, "_ANSWER_BYTES", 1 << 20)
    history.answer = lambda *_: (200, b" " * (3 << 20), {})
    with pytest.raises(Refused, match="1 MB"):
        known(history).run("run")


def test_a_refused_token_is_renewed_once_for_all_threads(history: History) -> None:
    renewed = []

    def renew() -> Access:
        renewed.append(1)
        return history.access("two")

    history.answer = lambda path, query, token: (200, b'{"ok": 1}', {}) if token == "Bearer two" else (401, b"", {})
    found = RunHistory(RenewingAccess(history.access(), renew))
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(found.run("run"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == [{"ok": 1}] * 8 and len(renewed) == 1


def test_a_renewed_token_that_is_refused_too_ends_it(history: History) -> None:
    history.answer = lambda *_: (401, b'{"error": {"message": "tenant of another"}}', {})
    found = RunHistory(RenewingAccess(history.access(), lambda: history.access("two")))
    with pytest.raises(requests.HTTPError) as caught:
        found.run("run")
    assert not is_transient(caught.value) and message_of(caught.value) == "tenant of another."
    assert len(history.asked) == 2


def test_what_the_service_says_of_a_failure_is_kept(history: History) -> None:
    history.answer = lambda *_: (429, b'{"error": {"message": "slowly"}}', {"Retry-After": "7"})
    with pytest.raises(requests.HTTPError) as caught:
        known(history).run("run")
    assert is_transient(caught.value) and retry_after(caught.value) == 7 and message_of(caught.value) == "slowly."


def test_a_token_is_renewed_before_it_ends_and_used_on_while_that_fails(
    history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    failing: list[Exception] = [Unreachable("no network"), UserError("Not signed in.", "az login")]

    def renew() -> Access:
        if failing:
            raise failing.pop(0)
        return history.access("two")

    keeper = RenewingAccess(history.access(seconds=100), renew)
    assert keeper.access().authorization == "Bearer one"
    # It is not tried again at every request.
    assert keeper.access().authorization == "Bearer one" and len(failing) == 1
    keeper._tried = 0.0
    assert keeper.access().authorization == "Bearer one" and not failing
    keeper._tried = 0.0
    assert keeper.access().authorization == "Bearer two"
    assert "no network" in capsys.readouterr().err


def test_a_token_that_has_ended_is_not_used(history: History) -> None:
    def renew() -> Access:
        raise SignInRefused("Nobody is signed in.", "az login")

    with pytest.raises(SignInRefused):
        RenewingAccess(history.access(seconds=-1), renew).access()


def test_an_access_goes_through_a_pipe_and_shows_no_token(history: History) -> None:
    made = history.access("secret")
    assert Access.from_json(made.to_json()) == made
    assert "secret" not in repr(made)
    for wrong in ("", "[]", "{}", made.to_json().replace("http://", "file://")):
        with pytest.raises(Refused):
            Access.from_json(wrong)


def test_a_token_says_when_it_ends() -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": 1234567890}).encode()).decode().rstrip("=")
    assert access._expiry_of(f"Bearer a.{payload}.b") == 1234567890
    # Of one that says nothing, a time that is short enough.
    assert 0 < access._expiry_of("Bearer opaque") - time.time() <= 1200


def test_the_state_of_a_compute_target_is_told_or_nothing(history: History) -> None:
    nodes = {"currentNodeCount": 1, "scaleSettings": {"maxNodeCount": 4}, "allocationState": "Resizing"}
    nodes["errors"] = [{"error": {"code": "Quota", "message": "no cores left"}}]
    history.answer = lambda *_: (200, json.dumps({"properties": {"properties": nodes}}).encode(), {})
    service = PipelineService(known(history), "run", lambda: None)
    assert service.compute_state("gpu") == "compute gpu: 1 of 4 nodes, Resizing; no cores left"
    assert history.asked[0][0] == f"{SCOPE}/computes/gpu"
    history.answer = lambda *_: (200, b'{"properties": {"computeType": "Kubernetes"}}', {})
    assert service.compute_state("arc") == ""
    history.answer = lambda *_: (500, b"", {})
    assert service.compute_state("gpu") == ""
