"""The waiting times in a debug session, compared with bare debugpy, over DAP with the requests of an editor."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.debugger.dap import DapClient
from workflows.errors import UserError

from .harness import INV, ROOT, Bench, new_project
from .listeners import program, training_python, with_debugpy
from .measure import run, seconds

#: The rounds of requests that take milliseconds, of F10 after a pause, and of what needs a new program each time.
REQUESTS, STEPS, ATTACHES = 50, 20, 10
#: The least seconds between two keys of a user.
PAUSE = 0.3
#: The most seconds for any operation; reached only if something is broken.
LIMIT = 30.0
ENVIRON = {"AML_ENGINE": "process", "AML_DEBUG_PORT": "0"}
SCRIPT = ROOT / "benchmarks" / "debugged.py"
LINE = next(n for n, text in enumerate(SCRIPT.read_text().splitlines(), 1) if text.endswith("# LINE step"))


def main(bench: Bench) -> None:
    """Measure steps, what is shown after them, and attaching."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project = new_project(Path(folder), {SCRIPT.name: SCRIPT.read_text()})
        with bench.part("steps"), experiment(project) as ours, bare(project) as theirs:
            steps(bench, Session.begin(ours), Session.begin(theirs.start()))
        with bench.part("the first attach"):
            first_attach(bench, project)
        with bench.part("attaching again"), experiment(project) as ours, bare(project) as theirs:
            reattach(bench, ours, theirs.start())


@dataclass(frozen=True)
class Place:
    """Where a debugger attaches: the port, the script's path in the editor, and the path mappings."""

    port: int
    script: Path
    mappings: tuple[dict[str, str], ...] = ()


@contextlib.contextmanager
def experiment(project: Path, script: str = SCRIPT.name, environ: Mapping[str, str] = ENVIRON) -> Iterator[Place]:
    """A script as `inv experiment.debug --no-wait` starts it; by default the program of this benchmark."""
    typed = [*INV, "experiment.debug", "bench", "--script", script, "--no-wait", "--json"]
    result: dict[str, Any] = json.loads(run(typed, project, environ).splitlines()[-1])
    (endpoint,) = result["endpoints"]
    try:
        yield Place(endpoint["port"], project / script, tuple(endpoint["path_mappings"]))
    finally:
        run([*INV, "experiment.cancel"], project, environ)


class Bare:
    """The program with bare debugpy, which it starts on request."""

    def __init__(self, process: Any, file: Path, script: Path) -> None:
        self._process, self._file, self._script = process, file, script

    def start(self) -> Place:
        """Make it call debugpy.listen, and return where it listens."""
        self._process.stdin.write(b"\n")
        self._process.stdin.close()
        deadline = time.monotonic() + LIMIT
        while not self._file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise UserError("The program with bare debugpy does not listen.", "See that debugpy is installed.")
            time.sleep(0.002)
        return Place(int(self._file.read_text()), self._script)


@contextlib.contextmanager
def bare(project: Path) -> Iterator[Bare]:
    """The program with bare debugpy, in the same environment."""
    file = project / "port"
    file.unlink(missing_ok=True)
    script = project / SCRIPT.name
    with program(
        [str(training_python()), str(script), str(file)], project, with_debugpy(), takes_input=True
    ) as process:
        # Give the program time to start reading standard input.
        time.sleep(0.2)
        yield Bare(process, file, script)


def attach(place: Place, line: int = LINE) -> tuple[DapClient, int]:
    """Attach with a breakpoint (in `step` by default), wait for the stop, and return the client and the thread."""
    client = DapClient.connect("127.0.0.1", place.port, LIMIT)
    try:
        client.attach(path_mappings=place.mappings, breakpoints={str(place.script): [line]}, timeout=LIMIT)
        return client, int(client.wait_event("stopped", LIMIT).body["threadId"])
    except BaseException:
        client.close()
        raise


class Session:
    """A debug session that is stopped at a breakpoint."""

    def __init__(self, client: DapClient, thread: int) -> None:
        self._client, self._thread = client, thread
        self._look()

    @classmethod
    def begin(cls, place: Place) -> Session:
        """Attach and wait for the first stop."""
        return cls(*attach(place))

    def _look(self) -> None:
        frames = self._client.request("stackTrace", {"threadId": self._thread}, LIMIT)["stackFrames"]
        self._frame = frames[0]["id"]
        scopes = self._client.request("scopes", {"frameId": self._frame}, LIMIT)["scopes"]
        self._scope = scopes[0]["variablesReference"]

    def next(self) -> None:
        """Make one step and wait for the stop."""
        self._client.request("next", {"threadId": self._thread}, LIMIT)
        self._client.wait_event("stopped", LIMIT)

    def press_f10(self) -> float:
        """Make one step, and return the seconds until an editor would show everything, with two watched expressions."""
        time.sleep(PAUSE)
        return seconds(self._press_f10)

    def _press_f10(self) -> None:
        self.next()
        self._client.request("threads", None, LIMIT)
        self._look()
        self.variables()
        # Editors send the requests for watched expressions without waiting in between.
        watched = [self._client.send("evaluate", {"expression": one, "frameId": self._frame}) for one in ("1", "2")]
        for one in watched:
            self._client.wait_response(one, LIMIT)

    def evaluate(self) -> None:
        """Evaluate an expression with a small value."""
        self._client.request("evaluate", {"expression": "1 + 1", "frameId": self._frame, "context": "repl"}, LIMIT)

    def variables(self) -> None:
        """Request the variables of the innermost frame."""
        self._client.request("variables", {"variablesReference": self._scope}, LIMIT)


def steps(bench: Bench, ours: Session, theirs: Session) -> None:
    """Measure a step, and the requests after it."""
    against = "bare debugpy"
    f10 = bench.measure(STEPS, ours=ours.press_f10, bare=theirs.press_f10)
    bench.ratio("F10 until all is shown", against, f10, 0.1, theirs="bare")
    bench.figure("F10 until all is shown", f10, "s", 0.04)
    for what, limit, mine, other in (
        ("evaluate of a small value", 0.006, ours.evaluate, theirs.evaluate),
        ("variables of a frame", 0.006, ours.variables, theirs.variables),
        ("one step (next) until stopped", 0.01, ours.next, theirs.next),
    ):
        found = bench.measure(REQUESTS, ours=lambda it=mine: seconds(it), bare=lambda it=other: seconds(it))  # type: ignore[misc]
        bench.ratio(what, against, found, 1.0, theirs="bare")
        bench.figure(what, found, "s", limit)


def first_attach(bench: Bench, project: Path) -> None:
    """Measure the first attach to a new program until it has stopped."""

    def ours() -> float:
        with experiment(project) as place:
            return seconds(lambda: attach(place)[0].close())

    def theirs() -> float:
        with bare(project) as waiting:
            return seconds(lambda: attach(waiting.start())[0].close())

    found = bench.measure(ATTACHES, ours=ours, bare=theirs)
    bench.ratio("first attach until stopped", "bare debugpy with its own start", found, 1.0, theirs="bare")
    bench.figure("first attach until stopped", found, "s", 0.5)


def reattach(bench: Bench, ours: Place, theirs: Place) -> None:
    """Measure later attaches to the same program until it has stopped."""

    def again(place: Place) -> float:
        began = time.perf_counter()
        client, _thread = attach(place)
        took = time.perf_counter() - began
        client.disconnect(timeout=LIMIT)
        return took

    for place in (ours, theirs):
        again(place)
    found = bench.measure(ATTACHES, ours=lambda: again(ours), bare=lambda: again(theirs))
    bench.ratio("reattach until stopped", "bare debugpy", found, 0.3, theirs="bare")
    bench.figure("reattach until stopped", found, "s", 0.1)
