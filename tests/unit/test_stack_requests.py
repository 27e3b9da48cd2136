"""Stacks of running programs: asked at the gate, with nobody attached; alike ones in groups."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from debuggee_harness import BOTH, CHILD, EVERY, LIMIT, Child, evaluate, line_of, stopped, until
from invoke import Exit

from workflows.console import Console
from workflows.debuggee.azureml_debuggee.stack_requests import is_request
from workflows.debugger import stacks
from workflows.debugger.stack_groups import Group, ProcessStacks, format_ranges, group_alike, group_values
from workflows.errors import BadValue, UserError
from workflows.flows.stacks import read_stacks as look_at
from workflows.models import DebugEndpoint, PathMapping
from workflows.tasks import _stacks
from workflows.tasks._stacks import show

OWN = {"AZUREML_DEBUGGEE_CODE": str(CHILD)}


def ask(child: Child, *expressions: str, seconds: float = LIMIT) -> dict[str, Any]:
    return stacks.request_stacks(DebugEndpoint("127.0.0.1", child.port, ()), expressions, seconds)


def functions(process: dict[str, Any], thread: str = "MainThread") -> list[str]:
    (found,) = [one for one in process["threads"] if one["name"] == thread]
    return [frame["function"].rpartition(".")[2] for frame in found["frames"]]


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", None),
        (b"STA", None),
        (b"STACKS {", None),
        (b"STACKS {}\n", True),
        (b"STACKS " + b"x" * 65536, False),
        (b"STOP", False),
        (b"Content-Length: 3\r\n\r\n{", False),
    ],
)
def test_only_a_whole_line_is_a_request_for_stacks(data: bytes, verdict: bool | None) -> None:
    assert is_request(data) is verdict


@EVERY
def test_every_thread_and_task_is_shown_while_the_program_runs_on(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python, variables=OWN) as child:
        child.ask("exec('def deep(ready, end):\\n ready.set()\\n end.wait()\\n')")
        child.ask(
            "exec('import asyncio\\nasync def inner():\\n await asyncio.sleep(600)\\n"
            "async def outer():\\n await inner()')"
        )
        child.ask("exec('ready, end = threading.Event(), threading.Event()')")
        child.ask("threading.Thread(target=deep, args=(ready, end), name='loader', daemon=True).start()")
        child.ask("threading.Thread(target=lambda: asyncio.run(outer()), name='loop', daemon=True).start()")
        child.ask("ready.wait()")
        (process,) = until(
            lambda: (found := ask(child, "number")["processes"]) and found[0]["tasks"] and found, "the task"
        )
        assert process["pid"] == child.process.pid
        assert "deep" in functions(process, "loader")
        (task,) = process["tasks"]
        assert [frame["function"] for frame in task["frames"]][:2] == ["outer", "inner"]
        assert "main" in process["threads"][0]["name"].lower() and process["threads"][0]["main"]
        # None of the debuggee's own threads, and no pydevd: nobody has attached.
        assert not any("azureml" in thread["name"] for thread in process["threads"])
        assert child.ask("'pydevd' in sys.modules") is False
        assert child.errors() == ""


def test_expressions_are_evaluated_in_the_innermost_frame_of_the_steps_own_code(tmp_path: Path) -> None:
    with Child(tmp_path, variables=OWN) as child:
        (process,) = ask(child, "1 + 1", "nobody_knows", "1 / 0", "[", "'x' * 100000", "exec('while True: pass')")[
            "processes"
        ]
        told = process["values"]
        assert told["1 + 1"] == {"value": "2"}
        assert told["nobody_knows"]["error"].startswith("NameError")
        assert told["1 / 0"] == {"error": "ZeroDivisionError: division by zero"}
        assert told["["]["error"].startswith("SyntaxError")
        assert told["'x' * 100000"]["value"].endswith("(100002 characters)")
        assert told["exec('while True: pass')"] == {"error": "did not end within 1 s"}
        # It has been ended, and the program goes on.
        until(lambda: not child.ask("[t.name for t in threading.enumerate() if 'evaluation' in t.name]"), "its end")
        assert child.ask("1") == 1


def test_a_program_that_is_stopped_in_a_debugger_says_so(tmp_path: Path) -> None:
    with Child(tmp_path, variables=OWN) as child, child.attached("tick") as client:
        _name, _line, thread = stopped(client)
        (process,) = ask(child)["processes"]
        (main,) = [one for one in process["threads"] if one["main"]]
        assert main["paused"] and main["frames"][-1]["function"] == "tick"
        assert main["frames"][-1]["line"] == line_of("tick") and main["frames"][-1]["own"]
        # The session is not disturbed.
        assert evaluate(client, thread, "number + 0") == evaluate(client, thread, "number")


@BOTH
def test_a_very_deep_stack_is_shown_by_its_ends(python: str, tmp_path: Path) -> None:
    program = "def down(n):\\n return down(n - 1) if n else end.wait()\\n"
    with Child(tmp_path, python, variables=OWN) as child:
        child.ask(f"exec('sys.setrecursionlimit(20000); threading.stack_size(512 * 1024 * 1024)\\n{program}')")
        child.ask("exec('end = threading.Event()')")
        child.ask("threading.Thread(target=down, args=(9000,), name='deep', daemon=True).start()")

        def look() -> list[dict[str, Any]]:
            found = [one for one in ask(child)["processes"][0]["threads"] if one["name"] == "deep"]
            frames: list[dict[str, Any]] = found[0]["frames"] if found else []
            return frames if any(frame.get("left_out", 0) > 8000 for frame in frames) else []

        assert len(until(look, "the bottom")) == 200


def test_a_gate_with_a_token_tells_nobody_without_it(tmp_path: Path) -> None:
    token = "a-token"
    digest = hashlib.sha256(token.encode()).hexdigest()
    with Child(tmp_path, variables={"AZUREML_DEBUGGEE_TOKEN": digest}) as child:
        with pytest.raises(stacks.NoAnswer):
            ask(child, seconds=5)
        with child.connect() as peer:
            peer.sendall(f"AUTH {token}\nSTACKS {{}}\n".encode())
            peer.settimeout(LIMIT)
            text = peer.makefile("rb").read()
        assert text.startswith(b"OK\n") and json.loads(text[3:])["processes"][0]["pid"] == child.process.pid


@pytest.mark.parametrize("text", ["", "{", "[]", '{"expressions": 3}', '{"expressions": [1]}', "\x00", "[" * 9000])
def test_nonsense_is_dropped_and_the_gate_stays_open(text: str, tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        with child.connect() as peer:
            peer.sendall(b"STACKS " + text.encode() + b"\n")
            peer.settimeout(LIMIT)
            assert peer.recv(1) == b""
        assert ask(child)["processes"]
        assert "Traceback" not in child.errors()


def test_many_that_ask_at_once_and_leave_do_no_harm(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        peers = [child.connect() for _ in range(40)]
        for peer in peers:
            peer.sendall(b"STACKS {}\n")
        for peer in peers:
            peer.close()
        until(lambda: _answers(child), "an answer")
        assert child.ask("1") == 1


def _answers(child: Child) -> bool:
    try:
        return bool(ask(child)["processes"])
    except stacks.NoAnswer:
        return False


def test_an_interpreter_that_c_code_holds_is_told_as_silent(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Child(tmp_path, variables=OWN) as child:
        assert child.port
        # It opens once there is a writer.
        child.tell(f"__import__('ctypes').PyDLL(None).open({os.fsencode(fifo)!r}, 0) > 0")
        until(lambda: _is_silent(child), "silence")
        fifo.open("w").close()
        assert child.answer() is True
        assert ask(child)["processes"]


def _is_silent(child: Child) -> bool:
    try:
        ask(child, seconds=1.0)
    except stacks.Silent:
        return True
    return False


def test_what_listens_and_is_no_program_of_ours_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b'{"a": 1}', b""):
                peer, _address = server.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = DebugEndpoint("127.0.0.1", server.getsockname()[1], ())
        for said in ("older version", "is not a debugged program", "older version"):
            with pytest.raises(stacks.NoAnswer, match=said):
                stacks.request_stacks(endpoint, (), LIMIT)
        thread.join(LIMIT)
    with pytest.raises(stacks.NoAnswer, match="nothing listens"):
        stacks.request_stacks(endpoint, (), LIMIT)


def test_files_are_named_as_they_are_called_here() -> None:
    mappings = (PathMapping(Path("/home/me/code"), "/mnt/code"), PathMapping(Path("/home/me/lib"), "/mnt/code/lib"))
    assert stacks.to_local("/mnt/code/train.py", mappings) == "/home/me/code/train.py"
    assert stacks.to_local("/mnt/code/lib/a b.py", mappings) == "/home/me/lib/a b.py"
    assert stacks.to_local("/mnt/codes/train.py", mappings) == "/mnt/codes/train.py"


# Groups ---------------------------------------------------------------------------------------------


def frame(file: str, line: int, function: str, own: bool) -> dict[str, Any]:
    return {"file": file, "line": line, "function": function, "own": own}


def process(*frames: dict[str, Any], values: dict[str, Any] | None = None) -> dict[str, Any]:
    thread = {"name": "MainThread", "ident": 1, "main": True, "paused": False, "holds": False, "frames": list(frames)}
    return {"pid": 1, "process": None, "threads": [thread], "tasks": [], "values": values or {}}


def at_barrier(rank: int, polls: int) -> ProcessStacks:
    return ProcessStacks(
        "train",
        rank,
        process(
            frame("/code/train.py", 88, "main", True),
            frame("/lib/torch/distributed.py", 700 + polls, "all_reduce", False),
            frame("/lib/torch/store.py", polls, "wait" if polls % 2 else "poll", False),
            values={"step": {"value": "7"}},
        ),
    )


def test_ranks_that_stand_alike_are_one_group_and_the_odd_one_comes_first() -> None:
    odd = ProcessStacks(
        "train",
        7,
        process(
            frame("/code/train.py", 41, "read", True),
            frame("/lib/numpy/npyio.py", 3, "load", False),
            values={"step": {"value": "6"}},
        ),
    )
    found = [*(at_barrier(rank, rank) for rank in range(7)), odd]
    told = [f"{one.name}: {one.summary}" for one in group_alike(found)]
    assert told == ["rank 7: load < train.py:41", "ranks 0-6: all_reduce < train.py:88"]
    assert [(text, [one.rank for one in members]) for text, members in group_values(found, "step")] == [
        ("6", [7]),
        ("7", list(range(7))),
    ]


def test_a_stack_that_ends_in_own_code_or_has_none_is_named() -> None:
    assert Group("a", [frame("/code/train.py", 5, "load", True)]).summary == "load at train.py:5"
    assert Group("a", [frame("/lib/x.py", 9, "run", False)]).summary == "run at x.py:9"
    assert Group("a", []).summary == "no Python code"


def test_ranks_are_named_briefly() -> None:
    assert format_ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert format_ranges([3]) == "3" and format_ranges([]) == ""


# Shown ----------------------------------------------------------------------------------------------


def ranks_with(*told: str, step: str = "train") -> list[ProcessStacks]:
    return [
        ProcessStacks(step, rank, process(frame("/code/a.py", 1, "f", True), values={"x": {"value": value}}))
        for rank, value in enumerate(told)
    ]


def test_a_value_is_marked_where_most_have_another_and_each_step_is_for_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for found, marked in (
        (ranks_with("1", "1", "2"), ["x = 2  (rank 2)"]),
        (ranks_with("1", "2", "3"), []),
        ([*ranks_with("1", "1"), *ranks_with("5", "5", step="score")], []),
        ([*ranks_with("1", "1"), *ranks_with("5", "5", "1", step="score")], ["score: x = 1  (rank 2)"]),
    ):
        show(Console(), lambda found=found: found, ["x"], watch=False, all_code=False)  # type: ignore[misc]
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition("  <-")[0].strip() for line in lines if "<- differs" in line] == marked


def test_what_is_watched_ends_well_where_the_program_ends_while_it_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stacks, "WATCH_SECONDS", 0.0)
    ended = [ProcessStacks("train", 0, None, trouble="the program has just ended")]
    looks = [ranks_with("1"), ended]

    def look() -> list[ProcessStacks]:
        if not looks:
            raise UserError("It is over.", "Again.")
        return looks.pop(0)

    show(Console(as_json=True), look, [], watch=True, all_code=False, run_id="a-1")
    seen = capsys.readouterr()
    told = json.loads(seen.out)
    assert told["run_id"] == "a-1" and [one["rank"] for one in told["processes"]] == [0]
    assert "the program has just ended" in seen.err
    # Where nothing has been seen yet there is nothing to watch.
    looks = [ended]
    with pytest.raises(UserError, match="No stack could be read"):
        show(Console(as_json=True), look, [], watch=True, all_code=False)


@pytest.mark.parametrize("interrupted", ["look", "pause"])
def test_ctrl_c_gives_the_last_look_with_its_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_stacks, "WATCH_SECONDS", 0.0)
    if interrupted == "pause":
        monkeypatch.setattr(time, "sleep", interrupt)
    looks = [ranks_with("1")]

    def look() -> list[ProcessStacks]:
        if not looks:
            interrupt()
        return looks.pop()

    with pytest.raises(Exit) as ended:
        show(Console(as_json=True), look, [], watch=True, all_code=False, run_id="a-1")
    assert ended.value.code == 130 and json.loads(capsys.readouterr().out)["run_id"] == "a-1"


@pytest.mark.parametrize(("expression", "said"), [(" ", "is empty"), ("x" * 70_000, "is too long")])
def test_an_expression_that_cannot_be_asked_for_is_refused(expression: str, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        look_at([], [expression])
