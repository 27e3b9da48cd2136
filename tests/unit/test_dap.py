"""The DAP client against real debugpy, and against the faults that debugpy does not produce."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dap_children import Debuggee, debuggee, fake_peer

from workflows.debugger import dap, dap_connection, dap_framing
from workflows.debugger.dap import DapClient, DapClosed, DapError, DapEvent, DapTimeout, DapUnreachable
from workflows.debugger.dap_framing import FramingError, MessageReader, encode

APP = """\
def handle(text):
    count = len(text)
    return count * 2
"""
LINE = 3


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debuggee]:
    folder = tmp_path_factory.mktemp("program")
    (folder / "app.py").write_text(APP)
    with debuggee(folder) as child:
        yield child


def source_of(program: Debuggee) -> str:
    return str(program.folder / "app.py")


def connect(port: int) -> DapClient:
    return DapClient.connect("127.0.0.1", port, 5)


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run in a thread; the list receives the result or the error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def read_request(connection: socket.socket) -> dict[str, Any]:
    """The next request that a fake peer is sent."""
    reader = MessageReader()
    while True:
        # One byte at a time, so that nothing of a following message is taken.
        for message in reader.feed(connection.recv(1)):
            return message


def response_to(request: dict[str, Any], body: dict[str, Any] | None = None) -> bytes:
    answer = {"type": "response", "request_seq": request["seq"], "command": request["command"]}
    return encode({**answer, "success": True, "body": body})


# Framing


def test_messages_come_out_whole_however_they_are_split() -> None:
    messages = [{"type": "event", "n": n, "text": "größer ☃ \U0001f40d"} for n in range(3)]
    wire = b"".join(map(encode, messages))
    for size in (1, 2, 3, 7, len(wire)):
        reader = MessageReader()
        found = [m for at in range(0, len(wire), size) for m in reader.feed(wire[at : at + size])]
        assert found == messages
        assert not reader.in_the_middle


def test_length_counts_bytes_of_raw_utf8_and_other_headers_are_skipped() -> None:
    body = json.dumps({"text": "größer ☃"}, ensure_ascii=False).encode()
    wire = b"Content-Type: text/json; charset=utf-8\r\ncontent-length:  %d \r\nX: a:b\r\n\r\n" % len(body)
    assert list(MessageReader().feed(wire + body)) == [{"text": "größer ☃"}]


def test_file_names_that_are_not_utf8_survive() -> None:
    message = {"path": b"/tmp/\xff.py".decode("utf-8", "surrogateescape")}
    assert list(MessageReader().feed(encode(message))) == [message]


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"X: 1\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 1e3\r\n\r\n",
        b"Content-Length: \r\n\r\n",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Content-Length: %d\r\n\r\n" % (dap_framing.MAX_BODY + 1),
        b"Content-Length: 2\r\n\r\n[]",
        b"Content-Length: 3\r\n\r\n{x}",
        b"Content-Length: 2\r\n\r\n\xff\xfe",
        b"Content-Length: 200000\r\n\r\n" + b"[" * 200000,
        b"x" * (dap_framing.MAX_HEADER + 1),
        b"x" * (dap_framing.MAX_HEADER + 1) + b"\r\n\r\n",
    ],
)
def test_what_is_not_the_protocol_is_refused(wire: bytes) -> None:
    with pytest.raises(FramingError):
        list(MessageReader().feed(wire))


def test_the_largest_allowed_length_is_accepted() -> None:
    reader = MessageReader()
    assert list(reader.feed(b"Content-Length: %d\r\n\r\n" % dap_framing.MAX_BODY)) == []
    assert reader.in_the_middle


# Against real debugpy


def test_a_session_stops_at_its_breakpoint_and_lets_the_program_go_on(program: Debuggee) -> None:
    path = source_of(program)
    with connect(program.port) as client:
        found = client.attach(breakpoints={path: [LINE]}, timeout=30)
        assert [b["verified"] for b in found[path]] == [True]
        thread, answer = in_thread(lambda: program.ask("four"))
        stop = client.wait_event("stopped", 10)
        assert stop.body["reason"] == "breakpoint"
        stack = client.request("stackTrace", {"threadId": stop.body["threadId"]})["stackFrames"]
        assert (stack[0]["source"]["path"], stack[0]["line"]) == (path, LINE)
        assert answer == []
        client.request("continue", {"threadId": stop.body["threadId"]})
        thread.join(10)
        assert answer == ["8"]
        client.disconnect()
    assert program.ask("abc") == "6"


def test_a_paused_program_goes_on_after_disconnect_and_after_a_bare_close(program: Debuggee) -> None:
    path = source_of(program)
    for end in (DapClient.disconnect, DapClient.close):
        client = connect(program.port)
        client.attach(breakpoints={path: [LINE]}, timeout=30)
        thread, answer = in_thread(lambda: program.ask("four"))
        client.wait_event("stopped", 10)
        end(client)
        thread.join(10)
        assert answer == ["8"]
        # After a bare close the adapter needs a moment, else it never answers again (see DapClient.disconnect).
        time.sleep(0.5)
    assert program.ask("a") == "2"


def test_path_mappings_reach_the_adapter(program: Debuggee) -> None:
    remote = Path(source_of(program)).parent
    mapping = {"localRoot": "/nowhere/here", "remoteRoot": str(remote)}
    with connect(program.port) as client:
        found = client.attach(path_mappings=[mapping], breakpoints={"/nowhere/here/app.py": [LINE]}, timeout=30)
        assert found["/nowhere/here/app.py"][0]["verified"]
        client.disconnect()


def test_a_refused_request_carries_the_adapters_message(program: Debuggee) -> None:
    with connect(program.port) as client:
        with pytest.raises(DapError, match="Session is not initialized yet") as caught:
            client.request("attach", {}, 5)
        assert type(caught.value) is DapError
        client.disconnect()


def test_a_second_client_is_told_that_the_program_is_being_debugged(program: Debuggee) -> None:
    with connect(program.port) as first, connect(program.port) as second:
        first.attach(timeout=30)
        began = time.monotonic()
        with pytest.raises(DapError, match="already being debugged"):
            second.attach(timeout=30)
        assert time.monotonic() - began < 10
        second.disconnect()
        assert first.request("threads")["threads"]
        first.disconnect()
    assert program.ask("a") == "2"


def test_disconnect_can_end_the_program(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with debuggee(tmp_path) as child, connect(child.port) as client:
        client.attach(timeout=30)
        client.disconnect(terminate=True)
        assert child.process.wait(10) is not None


def test_a_program_that_dies_is_reported_as_terminated(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with debuggee(tmp_path) as child, connect(child.port) as client:
        client.attach(timeout=30)
        child.end()
        # The adapter is a process of its own and stays until its client leaves.
        client.wait_event("terminated", 10)
        client.disconnect()


# Against a scripted peer


def test_nothing_listening_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DapUnreachable, match=f"127.0.0.1:{port}"):
        connect(port)


def test_connecting_is_bounded() -> None:
    # A full queue of connections that nobody accepts: the next one gets no answer (Linux).
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = listener.getsockname()[1]
        with pytest.raises(DapTimeout, match=rf"no connection to 127\.0\.0\.1:{port} within 0\.3 s"):
            for _ in range(4):
                stack.enter_context(DapClient.connect("127.0.0.1", port, 0.3))


def test_silence_ends_in_a_timeout_that_names_what_was_waited_for() -> None:
    with fake_peer(lambda connection: None) as port, connect(port) as client:
        began = time.monotonic()
        with pytest.raises(DapTimeout, match=r"no response to initialize within 0\.3 s"):
            client.request("initialize", {}, 0.3)
        with pytest.raises(DapTimeout, match="no event stopped or exited within"):
            client.wait_event(("stopped", "exited"), 0.3)
        assert time.monotonic() - began > 0.5


def test_attach_is_bounded_as_a_whole_when_only_initialize_is_answered() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(response_to(read_request(connection)))

    initialized = pytest.raises(DapTimeout, match="initialized after attach")
    with fake_peer(behave) as port, connect(port) as client, initialized:
        client.attach(timeout=0.5)


def test_initialize_is_sent_before_the_peer_says_anything() -> None:
    seen: list[str] = []
    with (
        fake_peer(lambda c: seen.append(read_request(c)["command"])) as port,
        connect(port) as client,
        pytest.raises(DapTimeout),
    ):
        client.attach(timeout=0.5)
    assert seen == ["initialize"]


def test_a_peer_that_closes_wakes_every_waiter_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each waiter is woken: none would notice by itself.
    monkeypatch.setattr(dap_connection, "_SLICE", 60.0)
    close = threading.Event()

    def behave(connection: socket.socket) -> None:
        close.wait(10)
        connection.shutdown(socket.SHUT_RDWR)

    with fake_peer(behave) as port, connect(port) as client:
        waiters = [
            in_thread(lambda: client.request("threads", None, 60)),
            in_thread(lambda: client.request("evaluate", None, 60)),
            in_thread(lambda: client.wait_event("stopped", 60)),
        ]
        time.sleep(0.1)
        close.set()
        for thread, outcome in waiters:
            thread.join(30)
            assert isinstance(outcome[0], DapClosed)
        with pytest.raises(DapClosed):
            client.request("threads")


def test_what_arrived_before_the_peer_closed_is_still_delivered() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(encode({"type": "event", "event": "stopped", "body": {"threadId": 7}}))
        connection.shutdown(socket.SHUT_RDWR)

    with fake_peer(behave) as port, connect(port) as client:
        with pytest.raises(DapClosed):
            client.wait_event("never", 5)
        assert client.wait_event("stopped", 5).body == {"threadId": 7}


def test_closing_in_the_middle_of_a_message_is_said() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(b"Content-Length: 100\r\n\r\n{")
        connection.shutdown(socket.SHUT_RDWR)

    with (
        fake_peer(behave) as port,
        connect(port) as client,
        pytest.raises(DapClosed, match="in the middle of a message"),
    ):
        client.wait_event("stopped", 5)


def test_a_peer_of_another_protocol_is_named_as_such() -> None:
    with (
        fake_peer(lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port,
        connect(port) as client,
        pytest.raises(DapClosed, match="not a debug adapter"),
    ):
        client.request("initialize", {}, 5)


def test_split_and_merged_packets_reach_their_waiters() -> None:
    def behave(connection: socket.socket) -> None:
        request = read_request(connection)
        event = encode({"type": "event", "event": "output", "body": {"output": "☃" * 50}})
        wire = event + response_to(request, {"x": 1}) + event
        for at in range(0, len(wire), 11):
            connection.sendall(wire[at : at + 11])

    with fake_peer(behave) as port, connect(port) as client:
        assert client.request("threads", None, 5) == {"x": 1}
        assert client.wait_event("output", 5).body == {"output": "☃" * 50}
        assert client.wait_event("output", 5).body == {"output": "☃" * 50}


def test_a_message_of_many_megabytes_arrives_soon() -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(response_to(read_request(connection), {"result": "x" * 20_000_000}))

    with fake_peer(behave) as port, connect(port) as client:
        assert len(client.request("evaluate", None, 10)["result"]) == 20_000_000


def test_an_answer_that_comes_too_late_does_not_answer_the_next_request() -> None:
    late = threading.Event()

    def behave(connection: socket.socket) -> None:
        first = read_request(connection)
        late.wait(5)
        connection.sendall(response_to(first, {"answer": 1}))
        connection.sendall(response_to(read_request(connection), {"answer": 2}))

    with fake_peer(behave) as port, connect(port) as client:
        with pytest.raises(DapTimeout):
            client.request("threads", None, 0.1)
        late.set()
        assert client.request("threads", None, 5) == {"answer": 2}


def test_requests_from_several_threads_get_their_own_answers() -> None:
    def behave(connection: socket.socket) -> None:
        requests = [read_request(connection) for _ in range(8)]
        for request in reversed(requests):
            connection.sendall(response_to(request, {"n": request["arguments"]["n"]}))

    with fake_peer(behave) as port, connect(port) as client:
        running = [in_thread(partial(client.request, "echo", {"n": n}, 5)) for n in range(8)]
        for n, (thread, outcome) in enumerate(running):
            thread.join(10)
            assert outcome == [{"n": n}]


def test_malformed_fields_do_not_end_the_connection() -> None:
    def behave(connection: socket.socket) -> None:
        request = read_request(connection)
        for odd in (
            {"type": "event", "event": 5, "body": "text"},
            {"type": "response", "request_seq": [1], "success": True},
            {"type": "response", "request_seq": 999, "success": True},
            {},
        ):
            connection.sendall(encode(odd))
        connection.sendall(response_to(request, {"x": 1}))

    with fake_peer(behave) as port, connect(port) as client:
        assert client.request("threads", None, 5) == {"x": 1}
        assert client.wait_event("5", 1).body == {}


def test_a_request_of_the_adapters_is_answered_with_a_refusal() -> None:
    answers: list[dict[str, Any]] = []

    def behave(connection: socket.socket) -> None:
        connection.sendall(encode({"seq": 41, "type": "request", "command": "runInTerminal"}))
        answers.append(read_request(connection))
        connection.sendall(encode({"type": "event", "event": "done"}))

    with fake_peer(behave) as port, connect(port) as client:
        client.wait_event("done", 5)
    assert (answers[0]["type"], answers[0]["request_seq"], answers[0]["success"]) == ("response", 41, False)


def test_a_peer_that_stops_reading_does_not_hold_a_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dap_connection, "_SEND_TIMEOUT", 0.5)
    with fake_peer(lambda connection: None) as port, connect(port) as client:
        with pytest.raises(DapTimeout, match="evaluate was not read"):
            client.request("evaluate", {"expression": "x" * 50_000_000}, 60)
        with pytest.raises(DapClosed, match="stopped reading"):
            client.request("threads")


def test_disconnect_returns_only_after_the_adapter_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dap, "_FAREWELL", 60.0)
    # A client that comes earlier ends debugpy's accept thread: the one after it is never answered.
    closed_at: list[float] = []

    def behave(connection: socket.socket) -> None:
        connection.sendall(response_to(read_request(connection)))
        time.sleep(0.3)
        closed_at.append(time.monotonic())
        connection.shutdown(socket.SHUT_RDWR)

    with fake_peer(behave) as port, connect(port) as client:
        client.disconnect()
        assert closed_at
        # A moment after it, and not only when nobody would wait for it any longer.
        assert 0.04 < time.monotonic() - closed_at[0] < 30


def test_disconnect_is_bounded_where_the_adapter_confirms_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dap, "_FAREWELL", 0.2)
    with fake_peer(lambda c: c.sendall(response_to(read_request(c)))) as port, connect(port) as client:
        # It returns.
        client.disconnect()


def test_a_predicate_takes_its_event_and_leaves_the_others() -> None:
    with fake_peer(lambda connection: None) as port, connect(port) as client:
        for number in (1, 2, 3):
            client.post(DapEvent("stopped", {"n": number}))
        assert client.wait_event("stopped", 1, lambda event: event.body["n"] == 2).body == {"n": 2}
        assert [client.wait_event("stopped", 1).body["n"] for _ in range(2)] == [1, 3]


def test_closing_wakes_waiters_ends_the_reader_and_can_be_repeated() -> None:
    with fake_peer(lambda connection: None) as port:
        client = connect(port)
        thread, outcome = in_thread(lambda: client.wait_event("stopped", 60))
        time.sleep(0.1)
        client.close()
        client.close()
        thread.join(5)
        assert isinstance(outcome[0], DapClosed)
        assert not [t for t in threading.enumerate() if t.name == "dap-reader"]
