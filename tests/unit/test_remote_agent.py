"""The side of `--remote` that runs on the other machine, as a process of its own that is talked to in frames."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Hostile

from workflows.remote import bootstrap, frames
from workflows.remote.agent import following
from workflows.remote.agent.task import Task

TTY = {"columns": 80, "lines": 24, "term": "xterm"}


class Agent:
    """An agent, and what it has said."""

    def __init__(self, home: Path) -> None:
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        program = home / "agent.py"
        program.write_bytes(bootstrap.agent_source())
        command = [sys.executable, "-I", "-S", "-u", str(program)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        self._said: queue.Queue[tuple[bytes, bytes]] = queue.Queue()
        assert self.process.stdout is not None
        assert self.process.stdout.read(len(frames.GREETING)) == frames.GREETING
        threading.Thread(target=self._read, daemon=True).start()
        assert "python" in self.message()

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        with contextlib.suppress(ValueError):
            while header := stream.read(frames.HEADER.size):
                kind, length = frames.HEADER.unpack(header)
                self._said.put((kind, stream.read(length)))

    def raw(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, **value: Any) -> None:
        self.raw(frames.message(value))

    def frame(self, seconds: float = 60) -> tuple[bytes, bytes]:
        return self._said.get(timeout=seconds)

    def message(self, seconds: float = 60) -> dict[str, Any]:
        """The next message; what a task says is left out."""
        while True:
            kind, payload = self.frame(seconds)
            if kind == frames.MESSAGE:
                return frames.read(payload)

    def until(self, wanted: Callable[[bytes], bool], seconds: float = 100) -> bytes:
        """What a task says, until it is what is waited for."""
        said, deadline = b"", time.monotonic() + seconds
        while not wanted(said):
            kind, payload = self.frame(max(0.1, deadline - time.monotonic()))
            said += payload if kind != frames.MESSAGE else b""
        return said

    def start(self, root: Path, name: str, script: str, **more: Any) -> Path:
        """Start a task; its folder."""
        argv = [sys.executable, "-c", script]
        self.send(do="task", task=name, root=str(root), cwd=str(root), argv=argv, environ={}, **more)
        return Path(self.message()["started"])

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.close()


def report(folder: Path, **owner: Any) -> Path:
    """The report of a command that has started, or attached to, a run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.jsonl"
    path.write_text(json.dumps({"configurations": {"owner": owner}}) + "\n")
    return path


def add(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def run_folder(folder: Path) -> Path:
    """A run that goes on for as long as this process does."""
    folder.mkdir()
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    runner = {"pid": os.getpid(), "started": stat[19], "host": os.uname().nodename}
    (folder / "run.json").write_text('{"status": "Running"}')
    (folder / "runner.json").write_text(json.dumps(runner))
    return folder


def test_what_the_first_command_reports_is_heard_after_a_second_has_attached(agent: Agent, tmp_path: Path) -> None:
    run = str(run_folder(tmp_path / "run"))
    first, second = (report(tmp_path / "tasks" / name, run=run) for name in ("1", "2"))
    other = report(tmp_path / "tasks" / "3", run="another")
    reports = {str(first): first.stat().st_size, str(second): second.stat().st_size}
    agent.send(do="watch", keeper="k")
    agent.send(name="it", owner={"run": run, "boot": ""}, number=1, reports=reports)
    add(first, '{"step": 1}\n{"half of a li')
    heard = agent.message()
    assert (heard["report"], heard["path"]) == ({"step": 1}, str(first))
    # Half a line, from a disk that was full, costs itself alone.
    add(first, '{"lost": 1}\n{"step": 2}\n')
    assert agent.message()["report"] == {"step": 2}
    add(second, '{"step": 3}\n')
    assert agent.message()["path"] == str(second)
    add(other, '{"step": 4}\n')
    (tmp_path / "run" / "run.json").write_text('{"status": "Completed"}')
    assert agent.message() == {"name": "it", "over": True, "number": 1}


def test_a_keeper_that_knows_of_the_second_command_alone_hears_the_first(agent: Agent, tmp_path: Path) -> None:
    run = str(run_folder(tmp_path / "run"))
    first, second = (report(tmp_path / "tasks" / name, run=run) for name in ("1", "2"))
    agent.send(do="watch", keeper="k")
    agent.send(name="it", owner={"run": run, "boot": ""}, number=1, reports={str(second): second.stat().st_size})
    time.sleep(0.5)
    add(first, '{"step": 1}\n')
    heard = agent.message()
    assert (heard["report"], heard["path"]) == ({"step": 1}, str(first))


def test_the_report_of_a_run_that_goes_on_outlives_any_number_of_commands(agent: Agent, tmp_path: Path) -> None:
    tasks = tmp_path / ".azureml-debug" / "remote" / "tasks"
    live = report(tasks / "01", run=str(run_folder(tmp_path / "run")))
    over = report(tasks / "02", run=str(tmp_path / "gone"))
    for number in range(10, 23):
        agent.start(tmp_path, str(number), "print('x')")
        while "done" not in agent.message():
            pass
    assert live.exists() and not over.exists()
    assert len(list(tasks.iterdir())) <= 12


def test_a_large_paste_arrives_whole_while_nobody_reads(agent: Agent, tmp_path: Path) -> None:
    script = (
        "import sys, time\nprint('ready', flush=True)\ntime.sleep(0.5)\n"
        "for line in sys.stdin:\n    print('got', line.strip(), '.' * 500, flush=True)\n"
        "    if line.startswith('end'): break\n"
    )
    agent.start(tmp_path, "1", script, tty=TTY, interactive=True)
    agent.until(lambda said: b"ready" in said)
    lines = [f"line {number} " + "x" * 60 for number in range(2000)]
    text = "\n".join([*lines, "end", ""]).encode()
    for at in range(0, len(text), 4096):
        agent.raw(frames.frame(frames.TYPED, text[at : at + 4096]))
    said = agent.until(lambda said: b"got end" in said)
    assert [line for line in lines if f"got {line}".encode() not in said] == []


def test_what_is_typed_at_once_and_the_size_of_the_window_arrive(agent: Agent, tmp_path: Path) -> None:
    script = (
        "import os, signal\nsignal.signal(signal.SIGWINCH, lambda *a: print('size', *os.get_terminal_size()))\n"
        "print('read', input())\nprint('size', *os.get_terminal_size())\nprint('read', input())\n"
    )
    agent.start(tmp_path, "1", script, tty=TTY, interactive=True)
    agent.raw(frames.frame(frames.TYPED, b"at once\n"))
    agent.until(lambda said: b"read at once\r\nsize 80 24" in said)
    agent.send(columns=132, lines=50)
    agent.until(lambda said: b"size 132 50" in said)
    agent.raw(frames.frame(frames.TYPED, b"more\n"))
    agent.until(lambda said: b"read more" in said)


def test_typing_into_a_task_that_nobody_holds_any_more_keeps_nobody(tmp_path: Path) -> None:
    task = Task(str(tmp_path))
    os.mkfifo(task.control)
    inbox: queue.Queue[tuple[bytes, bytes]] = queue.Queue()
    inbox.put((frames.TYPED, b"x"))
    wire: Any = SimpleNamespace(inbox=inbox)
    listened: list[bool] = []
    heard = following.LastContact()
    listening = threading.Thread(
        target=lambda: listened.append(following._pass_on_input(wire, task, heard)), daemon=True
    )
    listening.start()
    listening.join(10)
    assert listened == [True]


def _opened(agent: Agent, home: Path) -> Path:
    agent.send(do="open", folder="project", project="p", owner="me", version="1", sync="")
    assert agent.message()["done"]
    return home / "project"


def test_what_is_sent_stays_below_the_projects_folder_there(tmp_path: Path) -> None:
    (tmp_path / "beside.txt").write_text("mine")
    names = ["../x", "a/../../x", str(tmp_path / "beside.txt"), "", ".", "a//b", "x\0y", "a" * 300, None, 7, ["a"]]
    heads = [{"path": name, "size": 1, "time": 1, "mode": 0o755} for name in names]
    heads += [{"path": "a", "size": size, "time": 1, "mode": 0o644} for size in (-1, None, "1", 1 << 70)]
    heads += [{"path": "a", "size": 1, "time": None, "mode": 0o644}, {"path": "a"}, {}]
    heads += [{"path": "d/l", "size": 1, "time": 1, "mode": 0o777, "link": to} for to in ("../../x", "/etc", "a\0")]
    for head in heads:
        agent = Agent(tmp_path)
        _opened(agent, tmp_path)
        agent.send(do="files", delete=[])
        # At once: it may end at the first.
        agent.raw(frames.message(head) + frames.frame(frames.CONTENT, b"x"))
        problem, _remedy = agent.message()["failure"]
        assert "was sent" in problem, head
        agent.close()
        assert not list((tmp_path / "project").glob("[!.]*")), head
    assert (tmp_path / "beside.txt").read_text() == "mine" and not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["../beside.txt", "BESIDE", "a/../../beside.txt", "", None])
def test_nothing_beside_the_projects_folder_is_deleted(tmp_path: Path, name: str | None) -> None:
    (tmp_path / "beside.txt").write_text("mine")
    agent = Agent(tmp_path)
    _opened(agent, tmp_path)
    agent.send(do="files", delete=[str(tmp_path / "beside.txt") if name == "BESIDE" else name])
    assert "was sent" in agent.message()["failure"][0]
    agent.close()
    assert (tmp_path / "beside.txt").read_text() == "mine"


def test_more_of_a_file_than_was_announced_is_not_taken(tmp_path: Path) -> None:
    for content in (b"xx", b""):
        agent = Agent(tmp_path)
        folder = _opened(agent, tmp_path)
        agent.send(do="files", delete=[])
        agent.send(path="a", size=1, time=1, mode=0o644)
        agent.raw(frames.frame(frames.CONTENT, content))
        assert "not what was announced" in agent.message()["failure"][0]
        agent.close()
        assert os.listdir(folder) == [".azureml-debug"]


def test_a_pipe_or_a_device_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / ".azureml").mkdir()
    os.mkfifo(tmp_path / ".azureml" / "x.runconfig")
    agent = Agent(tmp_path)
    for path in (str(tmp_path / ".azureml" / "x.runconfig"), "/dev/zero", str(tmp_path)):
        agent.send(do="get", paths=[path])
        assert "failure" in agent.message()
    agent.send(do="digests", root=str(tmp_path), pattern=".azureml/*.runconfig")
    assert agent.message()["digests"] == {}
    agent.close()


def test_whatever_is_asked_is_answered_or_ends_the_agent(hostile: Hostile, tmp_path: Path) -> None:
    (tmp_path / "beside.txt").write_text("mine")
    names = ["open", "program", "files", "close", "get", "digests", "facts", "resume", "try", "environment", "x"]
    beside = str(tmp_path / "beside.txt")
    odd: list[Any] = [None, True, -1, 10**30, "", "../x", beside, "\0", "x" * 5000, [], {}, [None], {"a": 1}, "project"]
    fields = ["project", "owner", "version", "sync", "key", "root", "paths", "pattern", "task", "offset", "delete"]
    fields += ["path", "size", "files", "end", "keeper"]
    agent, count = Agent(tmp_path), 0
    for index in range(hostile.count):
        rng = hostile.random(index)
        if rng.random() < 0.1:
            kind, length = (
                rng.choice([b"J", b"D", b"I", b"Z", b"\0"]),
                rng.choice([0, 1, 1 << 20, 1 << 31, (1 << 32) - 1]),
            )
            data = frames.HEADER.pack(kind, length) + rng.randbytes(rng.randint(0, 100))
        else:
            asked: dict[str, Any] = {name: rng.choice(odd) for name in rng.sample(fields, rng.randint(0, 6))}
            data = frames.message({"do": rng.choice([*names, *odd]), **asked})
        with contextlib.suppress(BrokenPipeError):
            agent.raw(data)
        # Whatever was half sent ends here.
        with contextlib.suppress(queue.Empty):
            agent.frame(0.05)
            count += 1
        if rng.random() < 0.3 or agent.process.poll() is not None:
            agent.close()
            agent = Agent(tmp_path)
    agent.close()
    assert count > hostile.count // 3 and (tmp_path / "beside.txt").read_text() == "mine"
    assert not (tmp_path / "x").exists() and not (tmp_path.parent / "x").exists()


def test_the_agents_modules_are_all_sent_and_know_only_those_in_front_of_them() -> None:
    there = {path.stem for path in Path(following.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(bootstrap._MODULES) == there
    for number, name in enumerate(bootstrap._MODULES):
        text = (Path(following.__file__).parent / f"{name}.py").read_text("utf-8")
        tree = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
        own = [node for node in tree if isinstance(node, ast.ImportFrom) and node.level]
        known = {node.module or one.name for node in own for one in node.names}
        assert known <= set(bootstrap._MODULES[:number]), name
        others = {one.name for node in tree if isinstance(node, ast.Import) for one in node.names}
        others |= {str(node.module) for node in tree if isinstance(node, ast.ImportFrom) and not node.level}
        assert {one.partition(".")[0] for one in others} <= sys.stdlib_module_names, name
