"""Following a log, compared with `tail -f`, and the delay until a line is shown."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from workflows.errors import UserError

from .harness import ROOT, Bench, LeftOut
from .measure import Samples, load

MIB = 1024 * 1024
TIMES, ROUNDS, MEGABYTES, LINES = 10, 10, 256, 200
PREFIX = "rank 3"
#: Follows a log as the tasks do until standard input ends, then prints the peak memory in KiB.
OURS = """
import sys, threading
from pathlib import Path
from workflows.console import Console
from workflows.logs.following import follow
from workflows.logs.interleave import Interleaver
from workflows.tasks._log_output import stream, write
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
console, path = Console(), Path(sys.argv[1])
if sys.argv[2] == "follow":
    stream(console, follow(path, over.is_set))
else:
    Interleaver([(sys.argv[3], path, over.is_set)], lambda data: write(console, data)).run(over.is_set)
try:
    # Not getrusage, whose maximum includes the process from which this one was forked.
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line for line in lines if line.startswith("VmHWM")).split()[1], file=sys.stderr)
except OSError:
    print(0, file=sys.stderr)
"""
FOLLOWER = [sys.executable, "-c", OURS]


def main(bench: Bench) -> None:
    """Measure the rate at which a log is followed, and the delay until a line is shown."""
    with bench.part("the rate of a log"):
        rates(bench, 16 if bench.quick else MEGABYTES)
    began = load()
    found = latency(20 if bench.quick else LINES)
    bench.figure("from a line written to it shown", Samples({"ours": found}, (began, load())), "s", 0.1)
    bench.figure(f"from a line written to it shown, the slowest of {len(found)}", [max(found)], "s", 0.1)


def rates(bench: Bench, megabytes: int) -> None:
    """Measure the rate at which a log of some MiB is written to a pipe, in MiB/s."""
    if not shutil.which("tail"):
        raise LeftOut("there is no tail")
    peaks: list[float] = []
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        path = Path(folder) / "log"
        block = b"".join(b"step %05d loss %s\n" % (number, b"0.69314 " * (number % 20)) for number in range(10_000))
        times = megabytes * MIB // len(block) + 1
        size = times * len(block)
        with path.open("wb") as file:
            for _ in range(times):
                file.write(block)

        def ours(expected: int, *how: str) -> float:
            seconds, peak = run_follower([*FOLLOWER, str(path), *how], expected)
            peaks.append(peak)
            return size / MIB / seconds

        def tail() -> float:
            return size / MIB / run_follower(["tail", "-f", "-n", "+1", str(path)], size)[0]

        prefixed = size + times * block.count(b"\n") * len(f"[{PREFIX}] ")
        found = bench.measure(
            TIMES,
            ours=lambda: ours(size, "interleave", ""),
            follow=lambda: ours(size, "follow"),
            prefixed=lambda: ours(prefixed, "interleave", PREFIX),
            tail=tail,
        )
    what, log = "rate at which a log is followed", f"tail -f; {megabytes} MiB"
    bench.ratio(what, log, found, 2.0, ours="tail", theirs="ours", unit="MiB/s")
    bench.figure(f"{what}, a prefix on each line", found, "MiB/s", side="prefixed")
    if any(peaks):
        bench.figure("memory of following a log", peaks, "MiB", 40)


def run_follower(command: Sequence[str], size: int) -> tuple[float, float]:
    """Run a follower; return the seconds from its first byte to its last one, and its peak memory in MiB."""
    with start(command) as process:
        assert process.stdin and process.stdout and process.stderr
        got = len(os.read(process.stdout.fileno(), MIB))
        began = time.perf_counter()
        while got < size:
            piece = len(os.read(process.stdout.fileno(), MIB))
            if not piece:
                errors = process.stderr.read().decode(errors="replace").splitlines()
                raise UserError(
                    f"{command[0]} ended after {got} of {size} bytes.", "Its standard error is above.", details=errors
                )
            got += piece
        took = time.perf_counter() - began
        if command[0] == "tail":
            process.kill()
            return took, 0.0
        process.stdin.close()
        process.stdout.read()
        return took, int(process.stderr.read()) / 1024


def latency(lines: int) -> list[float]:
    """The seconds from writing each of some lines until the follower has written it."""
    found = []
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        path = Path(folder) / "log"
        with (
            start([*FOLLOWER, str(path), "interleave", ""]) as process,
            path.open("ab", buffering=0) as log,
        ):
            assert process.stdin and process.stdout
            # The first line waits for the follower's own start.
            for number in range(lines + 1):
                # The follower polls regularly, so lines are written at random moments.
                time.sleep(random.uniform(0.0, 0.05))
                began = time.perf_counter()
                log.write(b"line %d\n" % number)
                process.stdout.readline()
                found.append(time.perf_counter() - began)
            process.stdin.close()
            process.stdout.read()
    return found[1:]


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a follower with pipes as its standard streams."""
    pipe = subprocess.PIPE
    return subprocess.Popen(list(command), cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=-1)
