"""`deploy.inspect` with every kind of request that the server takes, and what it says when a request goes wrong."""

from __future__ import annotations

import json
import signal

from projects import ANY_ENGINE, Project

RAW = '''"""Takes the request itself."""
import time

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request):
    kind = request.content_type
    data = request.get_data(cache=True, parse_form_data=False)
    form = dict(request.form)
    files = {name: file.read() for name, file in request.files.items()}
    query = dict(request.args)
    method = request.method
    stop = 1
    if query.get("do") == "early":
        return AMLResponse("x\\nno `age`", 400)
    after = 2
    if query.get("do") == "sleep":
        time.sleep(float(query["seconds"]))
    if query.get("do") == "die":
        import os

        os._exit(3)
    if query.get("do") == "refuse":
        return AMLResponse("first\\n" * 30 + "the field `age` is missing\\n", 400)
    return AMLResponse(b"\\x89PNG\\xff", 200)
'''
LINE = next(number for number, line in enumerate(RAW.splitlines(), 1) if "stop = 1" in line)
VALUES = ("kind", "data", "form", "files", "query", "method")


def inspect(project: Project, *arguments: str) -> dict[str, object]:
    evaluated = [word for name in VALUES for word in ("--eval", name)]
    result = project.ok("deploy.inspect", f"score.py:{LINE}", *evaluated, "--json", *arguments).json
    found: dict[str, object] = {name: result["values"][name] for name in VALUES}
    found["response"] = result["response"]
    return found


@ANY_ENGINE
def test_any_body_form_and_query_arrives_as_it_was_typed(project: Project) -> None:
    project.write_score(RAW)
    project.debug()
    (project.folder / "a picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\x00")
    (project.folder / "table.csv").write_text("a,b\n1,2\n")
    (project.folder / "noname").write_text('{"a": 1}')
    seen = inspect(project, "--request", "a picture.png")
    assert (seen["kind"], seen["data"]) == ("'image/png'", repr(b"\x89PNG\r\n\x1a\n\xff\x00"))
    # An answer that is not text is told by its size and kind.
    assert str(seen["response"]).startswith("{'status': 200, 'body': '<5 bytes of ")
    assert inspect(project, "--request", "table.csv")["kind"] == "'text/csv'"
    assert inspect(project, "--request", "noname")["kind"] == "'application/json'"
    seen = inspect(project, "--request", "noname", "--content-type", "text/plain; charset=utf-8")
    assert (seen["kind"], seen["data"]) == ("'text/plain; charset=utf-8'", repr(b'{"a": 1}'))
    seen = inspect(project, "--form", "name=J\u00fcrgen & co", "--form", "file=@a picture.png")
    assert seen["form"] == repr({"name": "J\u00fcrgen & co"})
    assert seen["files"] == repr({"file": b"\x89PNG\r\n\x1a\n\xff\x00"})
    seen = inspect(project, "--form", "a=1", "--form", "b=x y")
    assert (seen["form"], seen["kind"]) == (repr({"a": "1", "b": "x y"}), "'application/x-www-form-urlencoded'")
    seen = inspect(project, "--method", "get", "--query", "a=1", "--query", "b=x&y")
    assert (seen["method"], seen["query"], seen["data"]) == ("'GET'", repr({"a": "1", "b": "x&y"}), "b''")

    what_excludes_each_other_in_a_request_is_refused(project)
    # A line that an error kept from running shows the end of the answer.
    result = project.inv("deploy.inspect", f"score.py:{LINE + 3}", "--query", "do=early")
    result.says("was not reached", "answered with 400", "inv deploy.debug --wait")
    assert "no `age`" in result.err


def what_excludes_each_other_in_a_request_is_refused(project: Project) -> None:
    place = f"score.py:{LINE}"
    for arguments in (
        ("--method", "PUT"),
        ("--method", "GET", "--request", "noname"),
        ("--form", "a"),
        ("--query", "=a"),
        ("--form", "a=1", "--request", "noname"),
        ("--content-type", "png"),
        ("--content-type", "text/plain\r\nX: y"),
        ("--form", "a=1", "--content-type", "application/json"),
    ):
        result = project.inv("deploy.inspect", place, *arguments)
        assert result.code == 2 and "Traceback" not in result.err, result
    project.inv("deploy.inspect", place, "--form", "a=@nowhere.png").says("nowhere.png cannot be read", "--form")


def test_what_was_seen_is_shown_whatever_becomes_of_the_request(project: Project) -> None:
    project.write_score(RAW)
    project.debug()
    place = (f"score.py:{LINE}", "--eval", "query")
    result = project.inv("deploy.inspect", *place, "--query", "do=refuse")
    assert result.code == 0
    assert "Response 400" in result.out and "the field `age` is missing" in result.out
    assert result.out.count("first") == 14
    # The timeout is what ends the wait, and says so.
    sleep = ("--query", "do=sleep", "--query", "seconds=30", "--timeout", "2")
    result = project.inv("deploy.inspect", *place, *sleep)
    result.says("did not end within 2 s: --timeout ended the wait", "--timeout 4")
    assert f"Stopped in run at service/score.py:{LINE}" in result.out and "'do': 'sleep'" in result.out
    project.ok("deploy.reload")
    # So does Ctrl-C, here with --json.
    child = project.start("deploy.inspect", *place, "--json", *sleep[:-2])
    assert child.stderr is not None
    seen = list[str]()
    for line in child.stderr:
        seen.append(line)
        if "query = " in line and "Values" in "".join(seen):
            break
    child.send_signal(signal.SIGINT)
    result = project.finish(child, 60)
    assert json.loads(result.out)["values"]["query"] == repr({"do": "sleep", "seconds": "30"})
    assert json.loads(result.out)["response"] is None
    assert "Interrupted" in result.err
    project.ok("deploy.reload")
    result = project.inv("deploy.inspect", *place, "--json", "--query", "do=die")
    result.says("got no answer", "inv container.logs")
    assert result.json["values"]["query"] == repr({"do": "die"})
