"""Requests that failed while a service was debugged: kept, listed, posted again, looked at where they raise."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import stat
import time
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from disks import fill, mounted, what_is_missing
from projects import ANY_ENGINE, PLAIN, PLAIN_LINE, Project, post, until

SCORE = '''"""Takes the request itself, and what it is told to do with it."""
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def look_up(prices, name):
    known = sorted(prices)
    return prices[name]


@rawhttp
def run(request):
    do = request.args.get("do")
    if do == "unread":
        raise RuntimeError("not read")
    if do == "pieces":
        first = request.stream.read(5)
        rest = list(request.stream)
        raise RuntimeError(repr((first, len(rest))))
    if do == "halves":
        raise RuntimeError(len(request.stream.read(6_000_000)) + len(request.stream.read(6_000_000)))
    if do == "form":
        raise RuntimeError(repr((dict(request.form), {name: file.read() for name, file in request.files.items()})))
    data = request.get_data()
    if do == "answer":
        return AMLResponse("busy", 503)
    if do == "catch":
        try:
            look_up({}, "rent")
        except KeyError:
            return AMLResponse("no such price", 500)
    if do == "unfit":
        return {1, 2}
    if do == "exit":
        raise SystemExit("ended")
    if do == "fine":
        return AMLResponse(data, 200)
    return look_up({"food": 3}, data.decode("latin-1"))
'''
RAISES = next(number for number, line in enumerate(SCORE.splitlines(), 1) if "return prices[name]" in line)


def send(
    url: str, body: Any = b"", path: str = "/score", headers: dict[str, str] | None = None, **options: Any
) -> tuple[int, dict[str, str], bytes]:
    """Post something as it is; status, headers and body of the answer."""
    parts = urlsplit(url)
    with contextlib.closing(HTTPConnection(str(parts.hostname), parts.port, timeout=60)) as connection:
        connection.request("POST", path, body, headers or {}, **options)
        with connection.getresponse() as response:
            return response.status, dict(response.headers), response.read()


def listed(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.ok("deploy.requests", "--json").json["requests"]
    return found


def record(project: Project, number: int) -> dict[str, Any]:
    path = project.state / "announce" / "requests" / f"{number:06}.json"
    found: dict[str, Any] = json.loads(until(path.exists, "the request's file") and path.read_text())
    return found


def test_a_failed_request_is_listed_and_posted_again_to_where_it_raises(project: Project) -> None:
    debug = project.debug()
    assert listed(project) == []
    body = b'{"date": [1]}'
    headers = {"Content-Type": "application/json", "Authorization": "Bearer abc", "Cookie": "a=b", "X-Mine": "7"}
    assert send(debug["scoring_url"], body, "/score?code=hidden", headers)[0] == 500
    folder = project.state / "announce" / "requests"
    until(lambda: (folder / "000001.json").exists(), "the request being kept")
    (one,) = listed(project)
    assert (one["number"], one["method"], one["route"], one["status"], one["bytes"]) == (1, "POST", "/score", 500, 13)
    assert (one["exception"], one["file"], one["line"]) == ("KeyError: 'data'", str(project.score), PLAIN_LINE - 2)
    said = project.ok("deploy.requests").out
    assert f"KeyError: 'data' (service/score.py:{PLAIN_LINE - 2})" in said and "hidden" not in said
    # For this user alone, without anybody's credentials.
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    kept = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"Bearer" not in kept and b"a=b" not in kept and b"X-Mine" in kept
    for arguments in (("--failed",), ("--failed", "1"), ("--on-error", "--request", "bad.json")):
        (project.folder / "bad.json").write_bytes(body)
        seen = project.ok("deploy.inspect", *arguments, "--eval", "raw_data", "--json").json
        assert seen["stopped"] == {"file": str(project.score), "line": PLAIN_LINE - 2, "function": "run"}
        assert seen["exception"] == {"type": "KeyError", "message": "'data'"}
        assert seen["locals"] == {"raw_data": repr(body.decode())} == {"raw_data": seen["values"]["raw_data"]}
        assert seen["response"]["status"] == 500 and "KeyError: 'data'" in seen["response"]["traceback"]
    # To look at it again uses up nothing; what was posted from a file is one more.
    assert [one["number"] for one in listed(project)] == [1, 2]
    # With a line, it stops there; and the service goes on.
    place = f"score.py:{PLAIN_LINE - 2}"
    assert project.ok("deploy.inspect", place, "--failed", "1", "--json").json["stopped"]["line"] == PLAIN_LINE - 2
    assert post(debug["scoring_url"]) == {"answer": 60}
    # Mended, it raises nothing, and that is said.
    project.write_score(PLAIN.replace('["data"]', '["date"]'))
    project.ok("deploy.reload")
    result = project.inv("deploy.inspect", "--failed", "1")
    result.says("Nothing was raised", "answered with 200", "inv deploy.inspect FILE:LINE --failed 1")
    assert "score.py was loaded anew since this request failed" in result.out
    project.ok("container.stop")
    assert not folder.exists()
    project.inv("deploy.requests").says("No service of this project is running.", "First: inv deploy.debug")


@ANY_ENGINE
def test_bodies_of_every_kind_are_kept_as_they_came_and_run_gets_what_it_would_get(project: Project) -> None:
    project.write_score(SCORE)
    url = project.debug()["scoring_url"]
    binary = bytes(range(256)) * 500
    boundary = {"Content-Type": "multipart/form-data; boundary=xyz"}
    form = (
        b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--xyz\r\nContent-Disposition: form-data; '
        b'name="f"; filename="f.bin"\r\n\r\n\x00\xff\n\r\n--xyz--\r\n'
    )
    chunked: dict[str, Any] = {"encode_chunked": True, "headers": {"Transfer-Encoding": "chunked"}}
    sent = [
        (binary, "/score", {}, "KeyError"),
        (iter([b"one\n", b"\x00two" * 3000, b"end"]), "/score?do=pieces", chunked, "RuntimeError: (b'one\\n\\x00', 1)"),
        (iter([b"first", b"second"]), "/score?do=unread", chunked, "RuntimeError: not read"),
        (binary, "/score?do=unread", {}, "RuntimeError: not read"),
        (form, "/score?do=form", {"headers": boundary}, r"RuntimeError: ({'a': '1'}, {'f': b'\x00\xff\n'})"),
        (b"", "/score?do=unread", {}, "RuntimeError: not read"),
    ]
    whole = [binary, b"one\n" + b"\x00two" * 3000 + b"end", b"firstsecond", binary, form, b""]
    for number, (body, path, options, _said) in enumerate(sent, 1):
        assert send(url, body, path, **options)[0] == 500
        kept = record(project, number)
        assert kept["whole"] and kept["bytes"] == len(whole[number - 1]) and kept["path"] == path
        assert (project.state / "announce" / "requests" / f"{number:06}.body").read_bytes() == whole[number - 1]
    for one, (*_sent, said) in zip(listed(project), sent, strict=True):
        assert one["exception"].startswith(said)
    # Posted again, run() gets the same.
    for number in (2, 3, 5):
        seen = project.ok("deploy.inspect", "--failed", str(number), "--json").json
        assert ": ".join(seen["exception"].values()) == sent[number - 1][3]
    # What goes well is not kept, and comes back as it is.
    assert send(url, binary, "/score?do=fine")[2] == binary
    assert send(url, iter([b"a", b"b"]), "/score?do=fine", **chunked)[2] == b"ab"
    assert len(listed(project)) == len(sent)


@ANY_ENGINE
def test_what_fails_in_other_ways_is_kept_and_answers_are_what_they_are_without_it(project: Project) -> None:
    project.write_score(SCORE)
    url = project.debug()["scoring_url"]
    answers = [send(url, b"x", f"/score?do={do}") for do in ("answer", "catch", "unfit", "exit")]
    assert [status for status, _headers, _body in answers] == [503, 500, 500, 500]
    assert answers[0][2] == b"busy"
    record(project, 4)
    exceptions = [one["exception"] for one in listed(project)]
    assert exceptions[:2] == [None, None] and exceptions[3] == "SystemExit: ended"
    assert exceptions[2] == "TypeError: Object of type set is not JSON serializable"
    # Nobody but the code itself knows of it.
    result = project.inv("deploy.inspect", "--failed", "2")
    result.says("Nothing was raised that the code does not catch itself", "answered with 500", "FILE:LINE --failed 2")
    assert project.ok("deploy.inspect", f"score.py:{RAISES}", "--failed", "2", "--json").json["locals"]["known"] == "[]"
    # The server's own code raised, of what run() gave it.
    seen = project.ok("deploy.inspect", "--failed", "3", "--json").json
    assert seen["exception"]["type"] == "TypeError" and seen["response"]["status"] == 500
    # Four hundred and so on is the client's fault.
    assert send(url, b"", "/nowhere")[0] == 404
    assert len(listed(project)) == 4
    a_body_that_does_not_come_holds_up_nobody_for_long(project, url)
    answers_are_what_they_are_without_it(project, url)


def a_body_that_does_not_come_holds_up_nobody_for_long(project: Project, url: str) -> None:
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=60) as connection:
        connection.sendall(b"POST /score?do=unread HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nthe beginning")
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert send(url, b"x", "/score?do=fine")[2] == b"x"
    (*_before, one) = listed(project)
    assert one["number"] == 5 and not one["whole"]
    project.inv("deploy.inspect", "--failed").says("(100 bytes) did not all come, so it cannot be posted again")


def answers_are_what_they_are_without_it(project: Project, url: str) -> None:
    def answers() -> list[tuple[int, dict[str, str], bytes]]:
        found = []
        for do in ("fine", "answer", "catch", "unfit", "exit", "unread", "pieces", ""):
            status, headers, body = send(url, b"some\nlines\n", f"/score?do={do}", {"x-request-id": "one"})
            # The times that a call takes differ.
            found.append((status, {k: v for k, v in headers.items() if k not in ("Date", "x-ms-run-fn-exec-ms")}, body))
        return found

    watched = answers()
    log = project.ok("container.logs").out
    assert "failed_requests.py" not in log
    project.write_score("import azureml_debuggee.failed_requests as kept\nkept.watch = lambda *_: None\n" + SCORE)
    project.ok("deploy.reload")
    count = len(listed(project))
    assert answers() == watched
    time.sleep(0.2)
    assert len(listed(project)) == count


@ANY_ENGINE
def test_the_latest_twenty_are_kept_of_each_body_ten_megabytes(project: Project) -> None:
    project.write_score(SCORE)
    url = project.debug()["scoring_url"]
    folder = project.state / "announce" / "requests"
    for number in range(25):
        send(url, f"{number}".encode())
    until(lambda: len([*folder.iterdir()]) == 40, "the oldest being taken away")
    assert [one["number"] for one in listed(project)] == [*range(6, 26)]
    project.inv("deploy.inspect", "--failed", "5").says(
        "Failed request 5 is not kept; kept: 6 to 25", "deploy.requests"
    )
    assert project.inv("deploy.inspect", "--failed=0").code == 2
    big = b"x" * 10_000_001
    for number, path in enumerate(("/score", "/score?do=halves"), 26):
        assert send(url, big, path)[0] == 500
        kept = record(project, number)
        assert (kept["whole"], kept["bytes"]) == (False, len(big))
    assert (folder / "000026.body").stat().st_size == 10_000_000
    project.inv("deploy.inspect", "--failed", "26").says(
        "is larger than the 10.0 MB that are kept, so it cannot be posted again", "--on-error --request FILE"
    )
    assert send(url, big[:-1])[0] == 500
    assert record(project, 28)["whole"]


@ANY_ENGINE
def test_without_a_request_it_says_so_and_on_a_full_disk_a_failed_one_is_answered_and_not_kept(
    project: Project, request: pytest.FixtureRequest
) -> None:
    url = project.debug()["scoring_url"]
    refused = project.inv("deploy.inspect", f"score.py:{PLAIN_LINE}")
    refused.says(
        f"No request was given, so an empty JSON object was posted; score.py:{PLAIN_LINE} was not reached",
        "answered with 500",
        "--request FILE",
    )
    assert "KeyError: 'data'" in refused.err and f"line {PLAIN_LINE - 2}, in run" in refused.err
    # The stop comes before the error, and is shown; the answer was still one to nothing.
    failed = project.inv("deploy.inspect", f"score.py:{PLAIN_LINE - 2}", "--json")
    failed.says("No request was given, so an empty JSON object was posted; it was answered with 500", "--request FILE")
    assert failed.json["locals"] == {"raw_data": "'{}'"} and "KeyError: 'data'" in failed.err
    # One that was given is what was asked for, whatever the answer; its traceback is shown as well.
    (project.folder / "bad.json").write_text("{}")
    given = project.ok("deploy.inspect", f"score.py:{PLAIN_LINE - 2}", "--request", "bad.json").out
    assert "Response 500" in given and given.rstrip().endswith("KeyError: 'data'")
    for arguments in ((), ("score.py:3", "--on-error"), ("--failed", "--request", "bad.json")):
        assert project.inv("deploy.inspect", *arguments).code == 2
    assert project.inv("deploy.inspect", "--on-error").code == 1
    on_a_full_disk_a_failed_request_is_answered_and_nothing_of_it_is_left(project, url, request)


def on_a_full_disk_a_failed_request_is_answered_and_nothing_of_it_is_left(
    project: Project, url: str, request: pytest.FixtureRequest
) -> None:
    if missing := what_is_missing():
        pytest.skip(missing)
    assert listed(project)
    folder = project.state / "announce" / "requests"
    mounting = mounted(folder.with_name("other"), "size=64k")
    disk = mounting.__enter__()
    request.addfinalizer(lambda: mounting.__exit__(None, None, None))
    shutil.rmtree(folder)
    folder.symlink_to(disk)
    filler = fill(disk, 8192)
    assert send(url, b"x" * 20_000)[0] == 500
    until(lambda: "a request that failed could not be kept" in project.ok("container.logs").out, "a word in the log")
    assert [path.name for path in folder.iterdir()] == [filler.name]
    filler.unlink()
    assert send(url, b"{}")[0] == 500
    record(project, 1)
