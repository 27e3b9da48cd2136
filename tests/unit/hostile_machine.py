"""A machine that lies: a real SSH server on 127.0.0.1 whose helper answers as the real one does, but for one answer.

What it lies in, and how, comes from a source of random numbers: a field of another type, missing or too much, names
that lead out, frames of wrong kinds and lengths, content that is not what was announced, silence, an end.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import paramiko

from workflows.remote import bootstrap, frames

ROOT = "/home/azureuser/azureml-debug/project-12345678"
NAMES = [
    "../../escaped.sh", "/tmp/escaped-by-a-machine", "..", "", ".", "outputs/../../../escaped.sh", "C:\\escaped.sh",
    "outputs\\..\\escaped.sh", "link/escaped.sh", "outputs/a.txt/b", "a\0b", "\x1b]0;escaped\x07", "x" * 5000,
    ".azureml/../escaped.sh", ".azureml/../tasks.py", "tasks.py", "outputs/link/escaped.sh", ".git/hooks/pre-commit",
    ".vscode/tasks.json", "\ud800", "-rf", "~/escaped.sh", ".azureml/link.runconfig",
]  # fmt: skip
PLACES = ["0.0.0.0", "::", "localhost", "-oProxyCommand=x", "a b", "\0", "256.1.1.1", "169.254.169.254", "x" * 300]
NUMBERS = [0, -1, 1, 22, 80, 631, 3306, 65535, 65536, 10**6, 2**31, 2**63, 10**30, 1.5, float("inf"), float("nan")]
OTHERS: list[Any] = [None, True, False, "", "x", [], {}, [[]], {"a": {}}, ["x"] * 3000, {"done": True}, {"exit": 0}]
RUNCONFIG = b"script: train.py\n"


def configurations(count: int = 1) -> dict[str, Any]:
    """What a task reports of what can be attached to."""
    names = [f"Azure Machine Learning Experiment: e{f' (rank {rank})' if count > 1 else ''}" for rank in range(count)]
    entries = [
        {
            "name": name,
            "type": "debugpy",
            "request": "attach",
            "connect": {"host": "127.0.0.1", "port": 5678 + rank},
            "pathMappings": [{"localRoot": "${workspaceFolder}", "remoteRoot": f"{ROOT}"}],
            "justMyCode": True,
        }
        for rank, name in enumerate(names)
    ]
    compounds = [{"name": "Azure Machine Learning Compute: all", "configurations": names, "stopAll": False}]
    return {
        "owner": {"run": f"{ROOT}/.azureml-debug/runs/e_1"},
        "what": "e_1",
        "entries": entries,
        "compounds": compounds if count > 1 else [],
        "in_use": None,
        "ports": {"scoring": 8000},
        "also": {},
    }


#: What the tasks that the tests start there report, by what they are.
REPORTS: dict[str, list[dict[str, Any]]] = {
    "copy": [
        {
            "fetch": [["outputs/a.txt", f"{ROOT}/a.txt"], ["logs/b.txt", f"{ROOT}/b.txt"]],
            "copy": "results",
            "run_id": "e_1",
        },
        {"result": {"run_id": "e_1", "files": []}},
    ],
    "open": [{"fetch": [["outputs/a.txt", f"{ROOT}/a.txt"]], "copy": None, "run_id": "e_1"}],
    "debug": [
        {"configurations": configurations()},
        {"configurations": configurations(3)},
        {"result": {"run_id": "e_1", "endpoints": [{"host": "127.0.0.1", "port": 5678, "file": f"{ROOT}/x.py"}]}},
    ],
    "print": [
        {"configurations": configurations()},
        {
            "result": {
                "debug": {"host": "127.0.0.1", "port": 5678},
                "path_mappings": [{"localRoot": f"{ROOT}/x", "remoteRoot": "/x"}],
                "launch_configuration": "Azure Machine Learning Deployment: Docker Debug",
                "scoring_url": "http://127.0.0.1:8000/score",
            }
        },
    ],
    "code": [{"result": {"container": "debug", "folder": "/var/azureml-app", "docker": {"context": "desktop-linux"}}}],
}


class Liar:
    """The helper on one channel.

    Args:
        rng: Where its lies come from.
        task: What the task that is started there reports; see :data:`REPORTS`.
        turns: How many messages are true before it lies; None for a helper that does not.
    """

    def __init__(self, rng: random.Random, task: str, turns: int | None) -> None:
        self._rng, self._task, self._turns = rng, task, turns
        #: What it has lied in, for whoever looks at what came of it.
        self.lies: list[str] = []
        self._channel: Any = None
        self._input = b""

    def talk(self, channel: Any) -> None:
        """Answer until the other side has enough."""
        self._channel = channel
        channel.settimeout(20)
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
            channel.sendall(bootstrap.GREETING)
            self._line()
            size = int(self._line())
            self._read(size)
            channel.sendall(frames.GREETING)
            self._say(
                {
                    "python": [3, 11, 2],
                    "executable": "/usr/bin/python3",
                    "home": "/home/azureuser",
                    "node": "x",
                    "time": time.time(),
                    "system": "Linux",
                }
            )
            while True:
                request = self._message()
                getattr(self, f"_do_{request.get('do')}", lambda request: None)(request)
        with contextlib.suppress(EOFError, OSError):
            channel.close()

    # Requests

    def _do_open(self, request: dict[str, Any]) -> None:
        self._say({"line": "waiting for another command"})
        old = {"old.py": [1, 2, 0o644, 1, 2]}
        self._done(root=ROOT, sync="abc", files=old, drifted=["old.py"], named=["old.py"])

    def _do_files(self, request: dict[str, Any]) -> None:
        while not self._message().get("end"):
            pass
        self._done(sync="def", kept=["/home/azureuser/kept.py"])

    def _do_program(self, request: dict[str, Any]) -> None:
        self._done(root="/home/azureuser/.cache/azureml-debug/program/x", there=True)

    def _do_close(self, request: dict[str, Any]) -> None:
        self._done()

    _do_try = _do_close

    def _do_environment(self, request: dict[str, Any]) -> None:
        self._say({"line": "pip"})
        self._done(python="/home/azureuser/x/bin/python")

    def _do_task(self, request: dict[str, Any]) -> None:
        self._say({"started": f"{ROOT}/.azureml-debug/remote/tasks/{request['task']}", "boot": "b"})
        self._frame(frames.OUTPUT, b"listening on 127.0.0.1:5678\n")
        for number, report in enumerate(REPORTS[self._task], 1):
            self._say({"report": copy.deepcopy(report), "offset": number * 10})
        self._frame(frames.ERROR, b"done\n")
        self._end_task()

    def _do_resume(self, request: dict[str, Any]) -> None:
        self._end_task()

    def _end_task(self) -> None:
        self._say({"exit": 0})
        self._done()
        if self.lies:
            # It may not have been understood that the task has ended, and a task may go on for as long as it likes.
            time.sleep(0.05)
            self._channel.close()

    def _do_watch(self, request: dict[str, Any]) -> None:
        while True:
            owner = self._message()
            if "owner" in owner:
                report = {"configurations": configurations(2)}
                self._say({"name": owner["name"], "report": report, "path": f"{ROOT}/r.jsonl", "offset": 5})
                self._say({"name": owner["name"], "over": True, "number": owner["number"]})

    def _do_facts(self, request: dict[str, Any]) -> None:
        docker = {"state": "answers", "version": "27.0"}
        self._done(free=1 << 40, total=1 << 41, place="/home", venv=True, docker=docker, sdk="1.2")

    def _do_digests(self, request: dict[str, Any]) -> None:
        self._done(digests={".azureml/new.runconfig": hashlib.sha256(RUNCONFIG).hexdigest()})

    def _do_get(self, request: dict[str, Any]) -> None:
        for _path in request["paths"]:
            self._say({"size": len(RUNCONFIG), "mode": 0o777})
            self._frame(frames.CONTENT, RUNCONFIG)
        self._done()

    # What is said

    def _done(self, **value: Any) -> None:
        self._say({"done": True, **value})

    def _lies(self) -> bool:
        if self._turns is None:
            return False
        self._turns -= 1
        # Now and then it goes on.
        return self._turns == -1 or (self._turns < -1 and self._rng.random() < 0.2)

    def _say(self, value: dict[str, Any]) -> None:
        if not self._lies():
            return self._channel.sendall(frames.message(value))  # type: ignore[no-any-return]
        kind = self._rng.random()
        if kind < 0.75:
            changed = self._changed(value)
            self.lies.append(f"{json.dumps(value)[:200]} was {json.dumps(changed)[:300]}")
            return self._channel.sendall(frames.message(changed))  # type: ignore[no-any-return]
        return self._odd_frame(frames.message(value))

    def _frame(self, kind: bytes, payload: bytes) -> None:
        if self._lies():
            self._odd_frame(frames.frame(kind, payload))
        else:
            self._channel.sendall(frames.frame(kind, payload))

    def _odd_frame(self, true: bytes) -> None:
        rng = self._rng
        kinds = [frames.MESSAGE, frames.OUTPUT, frames.ERROR, frames.CONTENT, frames.TYPED, b"Z", b"\0"]
        choice = rng.randrange(9)
        self.lies.append(f"{true[:60]!r} was odd frame {choice}")
        if choice == 0:
            self._channel.sendall(frames.HEADER.pack(rng.choice(kinds), rng.choice([1 << 31, (1 << 32) - 1, 1 << 27])))
        elif choice == 1:
            self._channel.sendall(true[: rng.randrange(len(true))])
            self._channel.close()
        elif choice == 2:
            self._channel.sendall(
                frames.frame(frames.MESSAGE, rng.choice([b"", b"{", b"[]", b"\xff", b"1", b"[" * 50_000]))
            )
        elif choice == 3:
            self._channel.sendall(frames.frame(rng.choice(kinds), true[5:]))
        elif choice == 4:
            self._channel.sendall(true[:5] + rng.randbytes(len(true) - 5))
        elif choice == 5:
            self._channel.sendall(true * 2)
        elif choice == 6:
            self._channel.sendall(frames.frame(frames.CONTENT, b"") * 50 + true)
        elif choice == 7:
            self._channel.sendall(frames.frame(frames.CONTENT, b"x" * rng.choice([1, 5000, 300_000])))
            self._channel.sendall(true)
        else:
            # Silence, and an end: of a task's silence nobody can know how long it may be.
            time.sleep(0.1)
            self._channel.close()

    def _changed(self, value: dict[str, Any]) -> dict[str, Any]:
        """A message with one or more of its parts replaced, left out or added."""
        rng = self._rng
        value = copy.deepcopy(value)
        for _time in range(rng.choice([1, 1, 1, 2, 4])):
            places = list(_places(value))
            holder, key = rng.choice(places)
            pool: list[Any] = [*NAMES, *PLACES, *NUMBERS, *OTHERS]
            choice = rng.random()
            if choice < 0.15 and isinstance(holder, dict):
                del holder[key]
            elif choice < 0.3 and isinstance(holder, dict):
                holder[rng.choice([*NAMES, "failure", "mismatch", "details", "exit", "done", "report", "python"])] = (
                    rng.choice(pool)
                )
            elif choice < 0.4 and isinstance(holder, list):
                holder *= rng.choice([0, 2, 2000])
            elif choice < 0.6 and isinstance(holder[key], str):
                holder[key] = rng.choice([*NAMES, *PLACES])
            elif choice < 0.7 and type(holder[key]) is int:
                holder[key] = rng.choice(NUMBERS)
            elif choice < 0.75:
                holder[key] = _deep(rng.choice([30, 500]))
            else:
                holder[key] = rng.choice(pool)
            if not value:
                break
        return value

    # What is asked

    def _line(self) -> bytes:
        while b"\n" not in self._input:
            self._more()
        line, _feed, self._input = self._input.partition(b"\n")
        return line

    def _read(self, size: int) -> bytes:
        while len(self._input) < size:
            self._more()
        found, self._input = self._input[:size], self._input[size:]
        return found

    def _more(self) -> None:
        data = self._channel.recv(1 << 16)
        if not data:
            raise EOFError
        self._input += data

    def _message(self) -> dict[str, Any]:
        while True:
            kind, length = frames.HEADER.unpack(self._read(frames.HEADER.size))
            payload = self._read(length)
            if kind == frames.MESSAGE:
                found: dict[str, Any] = json.loads(payload)
                return found


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, one in inner:
        yield value, key
        if isinstance(one, dict | list) and one:
            yield from _places(one)


def _deep(levels: int) -> Any:
    value: Any = "x"
    for _level in range(levels):
        value = [value]
    return value


class Server(paramiko.ServerInterface):  # type: ignore[misc]
    """Lets everybody in, and starts what :attr:`start` makes for whatever is asked for."""

    def __init__(self, start: Callable[[], Liar]) -> None:
        self._start = start

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL  # type: ignore[no-any-return]

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED if kind == "session" else 1

    def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
        threading.Thread(target=self._start().talk, args=(channel,), daemon=True).start()
        return True


class Machine:
    """The machine, with one connection to it, on which every session has a channel of its own."""

    def __init__(self) -> None:
        self.start: Callable[[], Liar] = lambda: Liar(random.Random(0), "debug", None)
        self._listener = socket.create_server(("127.0.0.1", 0))
        key = paramiko.ECDSAKey.generate()
        client = socket.create_connection(self._listener.getsockname())
        served, _peer = self._listener.accept()
        self._listener.close()
        for end in (client, served):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = paramiko.Transport(served)
        self._server.add_server_key(key)
        self._server.start_server(server=Server(lambda: self.start()), event=threading.Event())
        self.transport = paramiko.Transport(client)
        self.transport.start_client(timeout=20)
        self.transport.auth_none("azureuser")

    @property
    def connection(self) -> Any:
        """What Fabric would have; closing it leaves the machine."""
        return SimpleNamespace(transport=self.transport, gateway=None, close=lambda: None)

    def close(self) -> None:
        self.transport.close()
        self._server.close()
