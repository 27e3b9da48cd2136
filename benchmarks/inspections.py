"""Inspections, compared with debugpy's own logpoints and requests over bare DAP."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workflows.debugger.dap import DapClient
from workflows.debugger.sessions import Breakpoint, DebugSession, Stop
from workflows.errors import UserError
from workflows.models import DebugEndpoint

from .harness import ROOT, Bench
from .listeners import program, training_python, with_debugpy
from .measure import Samples, seconds

#: How often the line runs whose values are logged; a thousandth of it if ``quick``.
PASSES = 100_000
ROUNDS, READS = 10, 50
#: The most seconds for any operation; reached only if something is broken.
LIMIT = 600.0
SCRIPT = ROOT / "benchmarks" / "logged_program.py"
LINE = next(n for n, text in enumerate(SCRIPT.read_text().splitlines(), 1) if text.endswith("# LINE work"))


def main(bench: Bench) -> None:
    """Measure logged values, and what is read at a stop."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        with bench.part("logged values"), listening(Path(folder)) as one:
            logged(bench, one)
        with bench.part("a stop"), listening(Path(folder)) as mine, listening(Path(folder)) as other:
            read(bench, mine, other)


@dataclass(frozen=True)
class Listening:
    """The program with bare debugpy."""

    process: subprocess.Popen[bytes]
    port: int

    def run(self, passes: int) -> None:
        """Make the program run the line a number of times."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{passes}\n".encode())
        self.process.stdin.flush()


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[Listening]:
    """Run the program with bare debugpy, and end it afterwards."""
    file = folder / "port"
    file.unlink(missing_ok=True)
    command = [str(training_python()), str(SCRIPT), str(file)]
    with program(command, folder, with_debugpy(), takes_input=True) as process:
        deadline = time.monotonic() + LIMIT
        while not file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError("The program with bare debugpy does not listen.", "See that debugpy is installed.")
            time.sleep(0.01)
        yield Listening(process, int(file.read_text()))


def logged(bench: Bench, one: Listening) -> None:
    """Measure the time from the first run of the line until every value has arrived."""
    passes = PASSES // 1000 if bench.quick else PASSES

    def ours() -> float:
        wanted = Breakpoint(str(SCRIPT), LINE, log="double")
        with DebugSession(DebugEndpoint("127.0.0.1", one.port, ()), breakpoints=[wanted]) as session:
            began = time.perf_counter()
            one.run(passes)
            received = 0
            while received < passes:
                happening = session.wait(LIMIT)
                if happening is None or happening.dropped:
                    raise UserError(f"Only {received} of {passes} values arrived.", "See benchmarks/inspections.py.")
                received += happening.kind == "logged"
            return time.perf_counter() - began

    def logpoint() -> float:
        with DapClient.connect("127.0.0.1", one.port, LIMIT) as client:
            points = {str(SCRIPT): [{"line": LINE, "logMessage": "{double}"}]}
            client.attach(breakpoints=points, just_my_code=False, timeout=LIMIT)
            began = time.perf_counter()
            one.run(passes)
            for _ in range(passes):
                client.wait_event("output", LIMIT)
            took = time.perf_counter() - began
            client.disconnect(timeout=LIMIT)
            return took

    found = bench.measure(ROUNDS, ours=ours, logpoint=logpoint)
    what = f"inspect --log on a line that is passed {PASSES:,} times"
    bench.ratio(what, "a logpoint of debugpy's, over bare DAP", found, 2.0, theirs="logpoint")


def read(bench: Bench, mine: Listening, other: Listening) -> None:
    """Measure reading the stack and the locals of its innermost frame at a stop."""
    path = str(SCRIPT)
    with (
        DebugSession(DebugEndpoint("127.0.0.1", mine.port, ()), breakpoints=[Breakpoint(path, LINE)]) as session,
        DapClient.connect("127.0.0.1", other.port, LIMIT) as client,
    ):
        client.attach(breakpoints={path: [LINE]}, just_my_code=False, timeout=LIMIT)
        mine.run(1)
        other.run(1)
        happening = session.wait(LIMIT)
        if happening is None or happening.stop is None:
            raise UserError("The program has not stopped.", "See benchmarks/inspections.py.")
        stop: Stop = happening.stop
        thread = int(client.wait_event("stopped", LIMIT).body["threadId"])

        def ours() -> None:
            session.stack(stop)
            session.locals(stop)

        def bare() -> None:
            frames = client.request("stackTrace", {"threadId": thread}, LIMIT)["stackFrames"]
            scopes = client.request("scopes", {"frameId": frames[0]["id"]}, LIMIT)["scopes"]
            client.request("variables", {"variablesReference": scopes[0]["variablesReference"]}, LIMIT)

        found = bench.measure(READS, ours=lambda: seconds(ours), bare=lambda: seconds(bare))
        client.disconnect(timeout=LIMIT)
    bench.ratio("reading the stack with locals", "bare DAP", found, None, theirs="bare")
    bench.figure("reading the stack with locals, above bare DAP", extra_seconds(found), "s", 0.02)


def extra_seconds(found: Samples) -> list[float]:
    """How much longer ours takes, for each round."""
    return [ours - bare for ours, bare in zip(found.values["ours"], found.values["bare"], strict=True)]
