"""Inputs from the web, from a server on this machine."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from workflows.errors import UserError
from workflows.pipelines.definition import Input
from workflows.pipelines.fetching import fetch_all


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves `/good.csv`, breaks off in `/short.csv`, has two with lengths that cannot be, and nothing else."""

    def do_GET(self) -> None:
        lengths = {"/good.csv": "4", "/short.csv": "400", "/large.csv": str(1 << 43), "/odd.csv": "-4"}
        self.send_response(200 if self.path in lengths else 404)
        self.send_header("Content-Length", lengths.get(self.path, "400"))
        self.end_headers()
        self.wfile.write(b"1,2\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_file_is_fetched_once(address: str) -> None:
    said: list[str] = []
    url = f"{address}/good.csv"
    entry = Input("uri_file", url=url)
    for _ in range(2):
        (path,) = fetch_all([entry, entry, Input("string", text="x")], said.append).values()
        assert path.name == "good.csv" and path.read_text() == "1,2\n"
    assert said == ["fetching 127.0.0.1: good.csv, 0.0 MB"]


@pytest.mark.parametrize(("name", "reason"), [("none.csv", "Not Found"), ("short.csv", "after 4 of 400 bytes")])
def test_what_cannot_be_fetched_is_named_with_all_that_has_to_be_typed(
    address: str, tmp_path: Path, name: str, reason: str
) -> None:
    entries = [
        Input("uri_file", url=f"{address}/{part}", option=option, file=tmp_path / "pipeline.yml", line=number)
        for number, (part, option) in enumerate([("good.csv", "a"), (name, "b"), ("more.csv", "s.c"), (name, "b")], 1)
    ]
    with pytest.raises(UserError) as caught:
        fetch_all(entries, lambda _line: None)
    assert f"{address}/{name} cannot be fetched" in caught.value.problem and reason in caught.value.problem
    assert caught.value.line == 2
    assert caught.value.remedy.endswith("name the file: --input b=PATH --input s.c=PATH")
    inputs = tmp_path / "cache" / "azureml-debug" / "inputs"
    assert [path.name for path in inputs.rglob("*") if path.is_file()] == ["good.csv"]
    assert [path.is_dir() for path in inputs.iterdir()] == [True], "the folder of what could not be fetched is left"


@pytest.mark.parametrize("name", ["none.csv", "short.csv", "large.csv", "odd.csv"])
def test_a_fetch_that_failed_leaves_no_folder(address: str, tmp_path: Path, name: str) -> None:
    for url in (f"{address}/{name}", f"http://127.0.0.1:1/{name}"):
        with pytest.raises(UserError):
            fetch_all([Input("uri_file", url=url)], lambda _line: None)
    assert not [*(tmp_path / "cache").rglob("inputs")]


@pytest.mark.parametrize(
    ("user", "path", "shown"),
    [
        ("", "/none.csv?sv=1&sig=Canary%3D1", "/none.csv?sv=1&sig=***"),
        ("user:Canary%21@", "/none.csv", "/none.csv"),
        ("Canary-token@", "/none.csv?page=2", "/none.csv?page=2"),
    ],
)
def test_an_address_that_cannot_be_fetched_is_shown_without_its_secrets(
    address: str, tmp_path: Path, user: str, path: str, shown: str
) -> None:
    host = address.removeprefix("http://")
    with pytest.raises(UserError) as caught:
        fetch_all([Input("uri_file", url=f"http://{user}{host}{path}", option="a")], lambda _line: None)
    assert f"http://{'***@' if user else ''}{host}{shown} cannot be fetched: Not Found." in str(caught.value)
    assert "Canary" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://user:Canary@host:Canary/x", "http://user:Canary/Canary@host/x"])
def test_a_reason_that_would_quote_a_part_of_the_address_keeps_its_secret(address: str) -> None:
    with pytest.raises(UserError, match="cannot be fetched: its host and port cannot be read") as caught:
        fetch_all([Input("uri_file", url=address, option="a")], lambda _line: None)
    assert "Canary" not in str(caught.value)


def test_a_user_and_a_password_are_sent_to_their_host_and_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    heard: list[tuple[str, str | None]] = []

    class Redirects(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append((self.path, self.headers["Authorization"]))
            self.send_response(302 if self.path == "/first.csv" else 200)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/second.csv")  # type: ignore[index]
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Redirects) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://user:pass%21word@127.0.0.1:{server.server_address[1]}/first.csv"
        fetch_all([Input("uri_file", url=url)], lambda _line: None)
        server.shutdown()
    assert heard == [("/first.csv", "Basic dXNlcjpwYXNzIXdvcmQ="), ("/second.csv", None)]


@pytest.mark.parametrize(
    ("name", "reason"), [("large.csv", "there is no room for them"), ("odd.csv", "is not a number")]
)
def test_a_length_that_cannot_be_is_refused_before_anything_is_kept(
    address: str, tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        fetch_all([Input("uri_file", url=f"{address}/{name}")], lambda _line: None)
    assert not [path for path in tmp_path.rglob("*.csv*") if path.is_file()]
