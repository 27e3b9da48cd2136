"""Projects for the tests: a folder as a person has it, and `inv` typed in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ready import Command, Ready, ready

ROOT = Path(__file__).resolve().parents[2]
#: For what is decided before an engine is asked for anything, or without one: shown once, where it takes least.
ANY_ENGINE = pytest.mark.parametrize("engine", ["process"], indirect=True)
#: Seconds for anything on a busy machine; only reached when something is broken.
LIMIT = 150.0
#: What Microsoft's Python Debugger takes in launch.json.
ATTACH_SCHEMA = json.loads((Path(__file__).parent / "vscode" / "attach.schema.json").read_text())
PLAIN = '''"""A service."""
import json

model = None


def init():
    global model
    model = 10


def run(raw_data):
    numbers = json.loads(raw_data)["data"]
    total = sum(numbers)
    answer = total * model
    return {"answer": answer}
'''
#: The line of PLAIN at which `total` is known and `answer` is not.
PLAIN_LINE = 15


@dataclass(frozen=True)
class Result:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.out.strip().splitlines()[-1])
        return value

    def says(self, *parts: str, code: int = 1) -> None:
        """Assert the form of a failure: exit 1 (130: by Ctrl-C), what is wrong, what to do, no traceback."""
        assert self.code == code, self
        assert "Traceback" not in self.err, self.err
        wrong, todo = self.err.strip().splitlines()[-2:]
        assert "error: " in wrong and todo, self.err
        for part in parts:
            assert part in f"{wrong}\n{todo}", self.err


@dataclass
class Project:
    """A person's project."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    children: list[subprocess.Popen[str]] = field(default_factory=list)
    #: Typed before the command: what makes this machine the laptop of `hosts`.
    prefix: tuple[str, ...] = ()
    #: The interpreter that runs the program.
    python: str = sys.executable
    #: The module that Python runs for a command: `workflows` for `azureml-debug`.
    module: str = "invoke"
    #: What commands are forks of, where it is not the one of their Python and environment.
    source: Ready | None = None

    @property
    def score(self) -> Path:
        return self.folder / "service" / "score.py"

    @property
    def state(self) -> Path:
        return self.folder / ".azureml-debug" / "deployment"

    def write_score(self, text: str) -> None:
        """Replace score.py as an editor does: a new file renamed over the old one."""
        new = self.score.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, self.score)

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {**os.environ, **self.environ, **(more or {})}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Type a command and do not wait for it."""
        environ = self._environment(more)
        source = self.source
        if source is None and not self.prefix and self.module == "invoke":
            source = ready(self.python, ROOT, environ)
        if source is not None and source.takes(self.folder, environ):
            child: subprocess.Popen[str] = Command(source, ["-m", "invoke", *arguments], cwd=self.folder, env=environ)
        else:
            child = subprocess.Popen(
                [*self.prefix, self.python, "-m", self.module, *arguments],
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def finish(self, child: subprocess.Popen[str], seconds: float = 240) -> Result:
        """Wait for a command; the limit only keeps a broken test from hanging."""
        out, err = child.communicate(timeout=seconds)
        return Result(child.returncode, out, err)

    def inv(self, *arguments: str, **more: str) -> Result:
        """Type a command."""
        return self.finish(self.start(*arguments, **more))

    def ok(self, *arguments: str, **more: str) -> Result:
        """Type a command that has to work."""
        result = self.inv(*arguments, **more)
        assert result.code == 0, result.err + result.out
        return result

    def debug(self, *arguments: str, **more: str) -> dict[str, Any]:
        """`deploy.debug --json`, which has to work."""
        return self.ok("deploy.debug", "--json", *arguments, **more).json

    def events(self) -> list[dict[str, Any]]:
        path = self.state / "announce" / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def launch(self) -> dict[str, dict[str, Any]]:
        """The configurations in launch.json by name, each of them what the debugger extension takes."""
        import jsonschema

        text = (self.folder / ".vscode" / "launch.json").read_text()
        found = {entry["name"]: entry for entry in json.loads(text)["configurations"]}
        for entry in found.values():
            jsonschema.validate(entry, ATTACH_SCHEMA)
        return found

    def clean_up(self) -> None:
        """End what a test has left."""
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        if (self.state / "session.json").exists():
            self.inv("container.stop")
            for pipe in (self.children[-1].stdout, self.children[-1].stderr):
                if pipe is not None:
                    pipe.close()


def get(url: str, timeout: float = 30) -> tuple[int, bytes]:
    """Status and body of a GET."""
    return _request("GET", url, None, timeout)


def post(url: str, value: Any = None, timeout: float = 30) -> Any:
    """Post a request to a service and return what it answers."""
    body = json.dumps({"data": [1, 2, 3]} if value is None else value).encode()
    status, content = _request("POST", url, body, timeout)
    assert status == 200, (status, content)
    return json.loads(content)


def _request(method: str, url: str, body: bytes | None, timeout: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    with contextlib.closing(HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)) as connection:
        connection.request(method, parts.path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            return response.status, response.read()


def quiet_port() -> int:
    """A free port below those that the system gives to whoever connects to something."""
    from workflows.engines.ports import is_free

    # The processes of pytest's workers have consecutive ids.
    first = 20000 + os.getpid() * 1009 % 11000
    return next(port for port in range(first, 32000) if is_free(port))


def until(condition: Callable[[], Any], what: str, seconds: float = LIMIT, pause: float = 0.02) -> Any:
    """Look until a condition holds, every `pause` seconds; the limit only keeps a broken test from hanging."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(pause)


def cache_of_its_own(folder: Path) -> Path:
    """A cache for one test, but for the environments in it: those that others have built, or will use, too."""
    own, shared = (cache / "azureml-debug" for cache in (folder / "cache", Path(os.environ["XDG_CACHE_HOME"])))
    own.mkdir(mode=0o700, parents=True)
    (shared / "environments").mkdir(mode=0o700, parents=True, exist_ok=True)
    (own / "environments").symlink_to(shared / "environments")
    return own.parent


def listeners(port: int) -> list[str]:
    """Addresses on which somebody on this machine listens on a port."""
    import psutil

    return [
        str(next(iter(entry.laddr)))
        for entry in psutil.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN and entry.laddr[1:] == (port,)
    ]
