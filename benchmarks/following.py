"""Following a log against `tail -f`, both sides in one run, and how soon a line is seen."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .measure import alternate, medians

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
TIMES = 3
PREFIX = "rank 3"
#: Follows a log as the tasks do until standard input ends, then says how many KiB of memory that took.
OURS = """
import sys, threading
from pathlib import Path
from workflows.console import Console
from workflows.logs.following import follow
from workflows.logs.interleave import Interleaver
from workflows.tasks._stream import stream, write
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
console, path = Console(), Path(sys.argv[1])
if sys.argv[2] == "follow":
    stream(console, follow(path, over.is_set))
else:
    Interleaver([(sys.argv[3], path, over.is_set)], lambda data: write(console, data)).run(over.is_set)
try:
    import resource
    unit = 1024 if sys.platform == "darwin" else 1
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit, file=sys.stderr)
except ImportError:
    print(0, file=sys.stderr)
"""
FOLLOWER = [sys.executable, "-c", OURS]


def rates(megabytes: int) -> dict[str, float]:
    """How fast a log of that many MiB goes through a pipe, medians of three in MiB/s.

    Returns:
        `ours`: a log of its own as `pipeline.tail-log` shows it; `tail` (0 where there is none);
        `ratio` of the two; `follow`: the generator; `prefixed`: as one of several logs, with a
        prefix on each line; `peak`: the most memory that ours took, in MiB.
    """
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
            seconds, peak = through([*FOLLOWER, str(path), *how], expected)
            peaks.append(peak)
            return size / MIB / seconds

        def tail() -> float:
            return size / MIB / through(["tail", "-f", "-n", "+1", str(path)], size)[0]

        prefixed = size + times * block.count(b"\n") * len(f"[{PREFIX}] ")
        sides: dict[str, Callable[[], float]] = {
            "ours": lambda: ours(size, "interleave", ""),
            "follow": lambda: ours(size, "follow"),
            "prefixed": lambda: ours(prefixed, "interleave", PREFIX),
        }
        if shutil.which("tail"):
            sides["tail"] = tail
        found = {"tail": 0.0, **medians(alternate(TIMES, **sides))}
    return {**found, "ratio": found["ours"] / (found["tail"] or found["ours"]), "peak": max(peaks)}


def through(command: Sequence[str], size: int) -> tuple[float, float]:
    """Seconds from a follower's first byte to its last one, and the MiB of memory that it says it took."""
    with start(command) as process:
        assert process.stdin and process.stdout and process.stderr
        got = len(os.read(process.stdout.fileno(), MIB))
        began = time.perf_counter()
        while got < size:
            piece = len(os.read(process.stdout.fileno(), MIB))
            if not piece:
                raise SystemExit(f"{command[0]} ended after {got} of {size} bytes: {process.stderr.read()!r}")
            got += piece
        took = time.perf_counter() - began
        if command[0] == "tail":
            process.kill()
            return took, 0.0
        process.stdin.close()
        process.stdout.read()
        return took, int(process.stderr.read()) / 1024


def latency(lines: int = 200) -> dict[str, float]:
    """How long after it is written a line is seen, in milliseconds: `p50` and `max`."""
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
                # The follower looks at regular moments; the lines do not come at such.
                time.sleep(random.uniform(0.0, 0.05))
                began = time.perf_counter()
                log.write(b"line %d\n" % number)
                process.stdout.readline()
                found.append(1000 * (time.perf_counter() - began))
            process.stdin.close()
            process.stdout.read()
    return {"p50": statistics.median(found[1:]), "max": max(found[1:])}


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a follower, with pipes around it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(list(command), cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=-1)


if __name__ == "__main__":
    for name, measured in (("rates", rates(1024)), ("latency", latency())):
        print(name, {what: round(value, 2) for what, value in measured.items()})
