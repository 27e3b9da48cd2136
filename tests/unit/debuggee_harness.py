"""Runs a real debugged child, talks to it, and ends it."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from workflows.debuggee import FOLDER
from workflows.debugger.dap import DapClient, DapEvent, Json

T = TypeVar("T")
C = TypeVar("C", bound="Child")

CHILD = Path(__file__).with_name("debuggee_child.py")
#: Seconds for anything; only reached when something is broken.
LIMIT = 60.0


def line_of(marker: str, file: Path = CHILD) -> int:
    """The line that carries the comment ``# LINE marker``."""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.endswith("# LINE " + marker):
            return number
    raise AssertionError(marker)


@functools.cache
def interpreters() -> list[str]:
    """Each Python from 3.10 to 3.13 here that has debugpy; at least the tests' own, and no other when time matters."""
    versions = {sys.version_info[:2]: sys.executable}
    if os.environ.get("AZUREML_DEBUG_TEST_QUICK"):
        return [sys.executable]
    # CI makes environments with debugpy of the Pythons that it finds, and names them here.
    named = [path for path in os.environ.get("AZUREML_DEBUG_TEST_PYTHONS", "").split(os.pathsep) if path]
    named += [path for minor in range(10, 14) if (path := shutil.which(f"python3.{minor}"))]
    question = "import importlib.util, sys; print(importlib.util.find_spec('debugpy') and sys.version_info[:2])"
    for path in named:
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, SyntaxError):
            asked = subprocess.run(
                [path, "-c", question], capture_output=True, text=True, timeout=20, check=True, cwd="/"
            )
            if found := ast.literal_eval(asked.stdout):
                versions.setdefault(found, path)
    return [versions[version] for version in sorted(versions)]


def name_of(python: str) -> str:
    """A short name for a test's: the folder of its installation."""
    return python.split(os.sep)[-3]


#: With every Python that there is, and with the oldest and the newest: one of each way in which pydevd works.
EVERY = pytest.mark.parametrize("python", interpreters(), ids=name_of)
BOTH = pytest.mark.parametrize("python", sorted({interpreters()[0], interpreters()[-1]}), ids=name_of)

#: Of the cases of a test, each Python between the oldest and the newest tries one in so many.
SHARE = 8


def over(names: str, cases: Iterable[object]) -> pytest.MarkDecorator:
    """Each case of a test with the oldest and the newest Python; those between them have a share of the cases.

    Args:
        names: The test's arguments but for `python`, as pytest takes them.
        cases: Their values; tuples where there are several arguments.
    """
    between = {python: number for number, python in enumerate(interpreters()[1:-1])}

    def values(case: Any) -> tuple[Any, ...]:
        return case if "," in names else (case,)

    return pytest.mark.parametrize(
        f"python,{names}",
        [
            pytest.param(python, *values(case), id=f"{name_of(python)}-{values(case)[0]}")
            for index, case in enumerate(cases)
            for python in interpreters()
            if python not in between or index % SHARE == between[python]
        ],
    )


@functools.cache
def traces(python: str) -> bool:
    """Whether pydevd works through a trace function there; from 3.12 on it does not."""
    question = [python, "-c", "import sys; sys.exit(sys.version_info >= (3, 12))"]
    return subprocess.run(question, timeout=20, check=False).returncode == 0


@functools.cache
def compile_debuggee(python: str) -> None:
    """Compile the debuggee for this Python, as the program does before it starts anything: its processes write none."""
    subprocess.run([python, "-m", "compileall", "-q", FOLDER], timeout=LIMIT, check=True, cwd="/")


def until(look: Callable[[], T], what: str, limit: float = LIMIT) -> T:
    """Wait until ``look`` gives something true, and return it."""
    deadline = time.monotonic() + limit
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.01)


def free_port(count: int = 1) -> int:
    """The first of as many consecutive ports on which nobody listens."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            base = int(first.getsockname()[1])
        try:
            for port in range(base, base + count):
                socket.create_server(("127.0.0.1", port)).close()
        except (OSError, OverflowError):
            continue
        return base


class Child:
    """A debugged process. A context manager that ends it, and its group's other members, by id.

    With ``command``, a text for bash, it is whatever that starts.
    """

    def __init__(
        self,
        folder: Path,
        python: str = sys.executable,
        script: Path = CHILD,
        variables: Mapping[str, str] | None = None,
        command: str | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        compile_debuggee(python)
        self.events_file = folder / "events"
        self.errors_file = folder / "stderr"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYDEV", "DEBUGPY"))}
        environment |= {
            "DEBUGGEE_FOLDER": FOLDER,
            "AZUREML_DEBUGGEE_PORT": "0",
            "AZUREML_DEBUGGEE_EVENTS": str(self.events_file),
            # The children's import path is the script's folder; bytecode there is nobody's.
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(CHILD.parent),
            **(variables or {}),
        }
        with open(self.errors_file, "wb") as errors:
            self.process = subprocess.Popen(
                [python, str(script)] if command is None else ["bash", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        self.lines: list[str] = []
        self._answers_seen = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        # The group: whatever the child has forked ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def tell(self, line: str) -> None:
        """Have the child execute a line, without waiting for the answer."""
        assert self.process.stdin is not None and "\n" not in line
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self, limit: float = LIMIT) -> Any:
        """The next answer."""

        def look() -> list[str]:
            return [line for line in self.lines if line.startswith("= ")][self._answers_seen :]

        text = until(lambda: look() or (self.process.poll() is not None and ["= 'ended'"]), "an answer", limit)
        assert text
        self._answers_seen += 1
        value = ast.literal_eval(text[0][2:])
        assert not str(value).startswith("Traceback"), value
        return value

    def ask(self, line: str, limit: float = LIMIT) -> Any:
        """Have the child execute a line, and return what it gives."""
        self.tell(line)
        return self.answer(limit)

    def events(self, name: str) -> list[Json]:
        """What has been announced under this name."""
        if not self.events_file.exists():
            return []
        records = [json.loads(line) for line in self.events_file.read_text().splitlines()]
        return [record for record in records if record["event"] == name]

    def event(self, name: str, limit: float = LIMIT) -> Json:
        """The first announcement of this name, waited for."""
        return until(lambda: self.events(name), name + "; " + self.errors(), limit)[0]

    def said(self, line: str) -> None:
        """Wait until the child's log has this very line."""
        until(lambda: line in self.lines, f"{line!r} in {self.lines}")

    def errors(self) -> str:
        """Its standard error so far, without pydevd's and Python's remarks about starting threads and forks."""
        remarks = ("thread._ident is None", "use of fork() may lead to deadlocks")
        lines = self.errors_file.read_text().splitlines()
        return "\n".join(line for line in lines if not any(remark in line for remark in remarks))

    @property
    def port(self) -> int:
        """Where its gate listens."""
        return int(self.event("listening")["port"])

    def connect(self) -> socket.socket:
        """A bare connection to the gate."""
        return socket.create_connection(("127.0.0.1", self.port), LIMIT)

    @contextlib.contextmanager
    def attached(self, *markers: str, file: Path = CHILD, port: int | None = None) -> Iterator[DapClient]:
        """A debug session with breakpoints at the marked lines; it ends by an orderly detach."""
        with DapClient.connect("127.0.0.1", port or self.port, LIMIT) as client:
            lines = [line_of(marker, file) for marker in markers]
            client.attach(breakpoints={str(file): lines}, timeout=LIMIT)
            yield client
            client.disconnect(timeout=LIMIT)

    def at_full_speed(self) -> None:
        """Wait until no thread carries a trace function; from 3.12 on none ever does."""
        until(lambda: self.ask("traced()") == [], "no thread is traced")

    def ended(self) -> int:
        """Its exit code, waited for, and what it has said last, unless a child of its own may still say something."""
        code = self.process.wait(LIMIT)
        self._reader.join(2.0)
        return code


def stopped(client: DapClient) -> tuple[str, int, int]:
    """Wait for a stop: the function, the line, the thread."""
    event: DapEvent = client.wait_event("stopped", LIMIT)
    thread = int(event.body["threadId"])
    frame = client.request("stackTrace", {"threadId": thread, "levels": 1}, LIMIT)["stackFrames"][0]
    return str(frame["name"]), int(frame["line"]), thread


def resume(client: DapClient, thread: int) -> None:
    """Let the stopped program go on."""
    client.request("continue", {"threadId": thread}, LIMIT)


def evaluate(client: DapClient, thread: int, expression: str, context: str = "repl") -> str:
    """An expression's value in the innermost frame. The context ``clipboard`` is not cut off."""
    frame = client.request("stackTrace", {"threadId": thread, "levels": 1}, LIMIT)["stackFrames"][0]["id"]
    result = client.request("evaluate", {"expression": expression, "frameId": frame, "context": context}, LIMIT)
    return str(result["result"])


class Mortal:
    """A debugger that can die in any way: its client speaks through a wire that is cut."""

    def __init__(self, port: int) -> None:
        self._outer = socket.create_connection(("127.0.0.1", port), LIMIT)
        self._near, far = socket.socketpair()
        self.client = DapClient(far)
        self._over = False
        self._wire = threading.Thread(target=self._carry, daemon=True)
        self._wire.start()

    def _carry(self) -> None:
        while not self._over:
            for end in select.select([self._outer, self._near], [], [], 0.01)[0]:
                data = end.recv(65536)
                if not data:
                    return
                (self._near if end is self._outer else self._outer).sendall(data)

    def stop_reading(self) -> None:
        """Stay connected, deaf and mute."""
        self._over = True
        self._wire.join(LIMIT)

    def die(self, how: Callable[[socket.socket], None]) -> None:
        """End the connection: ``how`` closes it."""
        self.stop_reading()
        how(self._outer)
        self._near.close()
        self.client.close()


def leave(connection: socket.socket) -> None:
    """Close with FIN, if all that came has been read."""
    connection.close()


def reset(connection: socket.socket) -> None:
    """Close as a dying program does: with RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
