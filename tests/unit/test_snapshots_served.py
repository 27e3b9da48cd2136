"""A snapshot in an editor: a real server in a process of its own, and a real client of the protocol."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from snapshot_files import SOURCE, Builder, failed_training

from workflows import process_identity as identity
from workflows.debugger.dap import DapClient, DapError
from workflows.debugger.frames import evaluate, read_locals, read_stack
from workflows.engines import reservations
from workflows.engines.ports import find_free_port
from workflows.errors import PortHeld, UserError
from workflows.loopback import listen
from workflows.models import PathMapping
from workflows.snapshots import server_process

Serve = Callable[..., int]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts the program's own server on a snapshot; its port. What is left of it at the end is ended."""
    started: list[int] = []

    def start(builder: Builder | None = None, code: Path | None = None, port: int = 0, wait: float = 60) -> int:
        path = (builder or failed_training()).write(tmp_path / "snapshot-train-rank0-77.json")
        mappings = [PathMapping(code, "/mnt/work")] if code else []
        started.append(server_process.start_server(path, mappings, [], port, tmp_path, wait))
        return started[-1]

    yield start
    for port in started:
        server_process.end_server(port)


def attached(port: int, **more: Any) -> DapClient:
    client = DapClient.connect("127.0.0.1", port, 10)
    client.attach(timeout=20, **more)
    return client


def is_over(port: int, pid: dict[str, Any]) -> bool:
    """Whether the process that served a port ends by itself, within what a slow machine takes."""
    done = threading.Event()
    for _ in range(400):
        if not identity.is_alive(pid):
            return True
        done.wait(0.05)
    return False


def process_of(port: int) -> dict[str, Any]:
    noted = reservations.read_reservation(port)
    assert noted is not None
    return noted


def test_an_editor_finds_the_program_stopped_at_its_exception(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(SOURCE)
    port = serve(code=tmp_path / "code")
    process = process_of(port)
    with attached(port) as client:
        stop = client.wait_event("stopped", 10)
        assert stop.body["reason"] == "exception" and stop.body["text"] == "ZeroDivisionError: division by zero"
        threads = client.request("threads")["threads"]
        assert [one["name"] for one in threads] == ["MainThread", "cause: KeyError", "loader"]
        stack = read_stack(client, stop.body["threadId"])
        assert [(one.function, one.line) for one in stack] == [("use", 3), ("train", 8), ("<module>", 12)]
        assert stack[1].file == str(tmp_path / "code" / "train.py")
        values = read_locals(client, stack[1])
        assert values["rate"] == "0" and values["token"] == "<left out: its name looks secret>"
        assert values["text"] == "'abc\\x1b[31m' ..."
        assert evaluate(client, stack[1], "options['lr']", 5) == "0.1"
        assert evaluate(client, stack[1], "nowhere", 5) == "not recorded: there is no nowhere in this frame"
        assert "in which nothing can be run" in evaluate(client, stack[1], "len(rows)", 5)
        told = client.request("exceptionInfo", {"threadId": 1})
        assert told["exceptionId"] == "ZeroDivisionError" and told["description"] == "division by zero\nin epoch 3"
        assert told["details"]["innerException"][0]["typeName"] == "KeyError"
        assert "return total / rate" in told["details"]["stackTrace"]
        client.disconnect()
    assert is_over(port, process), "the server goes on after the session"


def test_frames_of_libraries_are_not_the_ones_that_an_editor_goes_to(serve: Serve, tmp_path: Path) -> None:
    with attached(serve()) as client:
        frames = client.request("stackTrace", {"threadId": 1})["stackFrames"]
        assert [one["source"].get("presentationHint") for one in frames] == ["deemphasize", None, None]
        some = client.request("stackTrace", {"threadId": 1, "startFrame": 1, "levels": 1})
        assert [one["name"] for one in some["stackFrames"]] == ["train"] and some["totalFrames"] == 3


def test_a_list_of_a_million_comes_in_pages(serve: Serve) -> None:
    with attached(serve()) as client:
        frame = client.request("stackTrace", {"threadId": 1})["stackFrames"][1]
        scopes = client.request("scopes", {"frameId": frame["id"]})["scopes"]
        rows = {
            one["name"]: one
            for one in client.request("variables", {"variablesReference": scopes[0]["variablesReference"]})["variables"]
        }
        assert (rows["rows"]["indexedVariables"], rows["rows"]["namedVariables"]) == (300, 1)

        def page(name: str, **more: Any) -> dict[str, str]:
            listed = client.request("variables", {"variablesReference": rows[name]["variablesReference"], **more})
            return {one["name"]: one["value"] for one in listed["variables"]}

        assert page("rows", filter="indexed", start=100, count=3) == {"[100]": "100", "[101]": "101", "[102]": "102"}
        assert page("rows", filter="named") == {"(left out)": "999,700 more"}
        assert page("rows", filter="indexed", start=299, count=50) == {"[299]": "299"}
        assert page("options") == {"'lr'": "0.1", "'name'": "'first'", "('a', 1)": "[1, 2]", "3": "None"}
        assert page("weights", filter="named")["shape"] == "(3, 4)"
        # What holds itself can be opened again and again.
        reference, names = rows["model"]["variablesReference"], set()
        for _ in range(5):
            listed = client.request("variables", {"variablesReference": reference})["variables"]
            names.add(tuple(one["name"] for one in listed))
            reference = next(one["variablesReference"] for one in listed if one["name"] == "me")
        assert names == {("layers", "owner", "me")} and reference == rows["model"]["variablesReference"]
        made = client.request("evaluate", {"expression": "rows[2:4]", "frameId": frame["id"], "context": "watch"})
        listed = client.request("variables", {"variablesReference": made["variablesReference"]})["variables"]
        assert made["result"] == "[2, 3]" and [one["value"] for one in listed] == ["2", "3"]
        layers = client.request("variables", {"variablesReference": reference})["variables"][0]
        assert layers["evaluateName"].endswith(".layers")
        assert evaluate(client, read_stack(client, 1)[1], layers["evaluateName"], 5) == "[64, 10]"


def test_source_that_has_changed_is_shown_as_it_was_recorded(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print('another one')\n")
    with attached(serve(code=tmp_path / "code")) as client:
        source = client.request("stackTrace", {"threadId": 1})["stackFrames"][1]["source"]
        assert source["sourceReference"] > 0 and source["path"] == "/mnt/work/train.py"
        found = client.request("source", {"sourceReference": source["sourceReference"], "source": source})
        assert found["content"] == SOURCE
        with pytest.raises(DapError, match="no such source"):
            client.request("source", {"sourceReference": 99})


def test_a_client_s_own_path_mappings_count(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(SOURCE)
    given = [{"localRoot": str(tmp_path / "code"), "remoteRoot": "/mnt/work"}, {"localRoot": "x", "remoteRoot": "."}]
    with attached(serve(), path_mappings=given) as client:
        assert read_stack(client, 1)[1].file == str(tmp_path / "code" / "train.py")


@pytest.mark.parametrize("move", ["continue", "next", "stepIn", "stepOut", "pause", "setVariable"])
def test_whoever_steps_is_told_that_this_is_a_snapshot(serve: Serve, move: str) -> None:
    with attached(serve()) as client:
        with pytest.raises(DapError, match="This is a snapshot of a failure: nothing of it runs any more"):
            client.request(move, {"threadId": 1})
        assert client.request("threads")["threads"], "the session goes on"


def test_breakpoints_are_taken_and_never_hit(serve: Serve) -> None:
    with DapClient.connect("127.0.0.1", serve(), 10) as client:
        found = client.attach(breakpoints={"/mnt/work/train.py": [3, 4]}, exception_filters=["uncaught"], timeout=20)
        assert [one["verified"] for one in found["/mnt/work/train.py"]] == [False, False]


@pytest.mark.parametrize(
    ("request_", "arguments"),
    [
        ("variables", {"variablesReference": 10**12}),
        ("variables", {"variablesReference": -1}),
        ("variables", {}),
        ("scopes", {"frameId": 99}),
        ("scopes", {"frameId": "x"}),
        ("stackTrace", {"threadId": 4}),
        ("evaluate", {"expression": "rows", "frameId": 99}),
        ("exceptionInfo", {"threadId": 3}),
        ("take", {}),
        ("__init__", {}),
        ("no such request", {}),
    ],
)
def test_what_is_not_there_is_refused_and_the_session_goes_on(
    serve: Serve, request_: str, arguments: dict[str, Any]
) -> None:
    with attached(serve()) as client:
        with pytest.raises(DapError):
            client.request(request_, arguments)
        assert len(client.request("threads")["threads"]) == 3


def test_who_looks_at_the_port_and_goes_ends_nothing(serve: Serve) -> None:
    port = serve()
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"Content-Length: 5\r\n\r\n[1,2]", b"\x00" * 20_000):
        with socket.create_connection(("127.0.0.1", port), 5) as peer:
            peer.sendall(data)
    with attached(port) as client, attached(port) as other:
        assert client.request("threads") == other.request("threads")
        client.disconnect()
        assert other.request("threads"), "the other session goes on"


def test_the_server_ends_when_nobody_comes(serve: Serve) -> None:
    port = serve(wait=0.5)
    assert is_over(port, process_of(port))


@pytest.mark.parametrize("reserved", [True, False])
def test_another_one_takes_the_place_of_one_that_still_waits(reserved: bool, serve: Serve) -> None:
    port = serve()
    first = process_of(port)
    if not reserved:
        reservations.release([port])
    assert serve(port=port) == port
    assert not identity.is_alive(first)
    with attached(port) as client:
        assert client.wait_event("stopped", 10)


def test_a_port_of_another_program_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    with listen(find_free_port(frozenset()), 16) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortHeld, match=str(port)):
            serve(port=port)


def test_a_file_that_is_no_snapshot_is_told_before_anything_listens(tmp_path: Path) -> None:
    path = tmp_path / "snapshot-x.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="not a snapshot that can be read"):
        server_process.start_server(path, [], [], 0, tmp_path)


#: Asks as another user, and says what it is answered.
STRANGER = """
import encodings.idna, os, socket, sys
os.setuid(65534)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as peer:
    body = b'{"seq":1,"type":"request","command":"initialize","arguments":{}}'
    peer.sendall(b"Content-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
    peer.settimeout(10)
    try:
        print(len(peer.recv(1000)))
    except OSError:
        print(0)
"""


def test_no_other_user_of_this_machine_sees_the_values(serve: Serve) -> None:
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    port = serve()
    asked = [sys.executable, "-c", STRANGER, str(port)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "0"
    with attached(port) as client:
        assert client.request("threads")["threads"], "its own user is let in"
