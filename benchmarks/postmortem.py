"""Snapshots of failures, compared with coredumpy; the cost for a run without a failure; stacks of many ranks."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from workflows.debuggee import FOLDER
from workflows.paths import cache_folder

from . import ranks as ranks_bench
from .harness import INV, ROOT, Bench, LeftOut, new_project
from .measure import run

ROUNDS, RUNS, RANKS = 10, 10, 64
COREDUMPY = "coredumpy==0.5.0"
#: Writes a snapshot of a frame with a list of a million numbers, and prints the time.
FAILS = """\
import os, sys, time

def fail(numbers):
    total = sum(numbers)
    raise ValueError("it went wrong")

def ours(error):
    from azureml_debuggee import failures
    failures.write(error, error.__traceback__)

def coredumpy(error):
    import coredumpy
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    coredumpy.dump(trace.tb_frame, path=os.path.join(sys.argv[2], "dump"))

try:
    fail(list(range(int(sys.argv[3]))))
except ValueError as error:
    begun = time.process_time()
    globals()[sys.argv[1]](error)
    print("took", time.process_time() - begun)
    assert os.listdir(sys.argv[2])
"""
#: Computes as scripts do, with calls, caught exceptions, modules and threads.
WORKS = """\
import json, logging, random, sys, threading, time
def work(number):
    try:
        return json.loads(json.dumps({"number": number, "squared": number * number}))["squared"]
    except ValueError:
        return 0
def raises(number):
    try:
        raise KeyError(number)
    except KeyError:
        return number
def all_of_it():
    for number in range(int(sys.argv[1])):
        work(number), raises(number)
threads = [threading.Thread(target=all_of_it) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
# From the start of Python on; other programs' work is not in it.
print("took", time.process_time())
"""
PIPELINE = """\
type: pipeline
jobs:
  work:
    code: ./work
    environment: azureml:any@latest
    command: python works.py {count}
"""


def main(bench: Bench) -> None:
    """Measure writing a snapshot, a run that does not fail, and stacks."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        with bench.part("writing a snapshot"):
            writing(bench, Path(folder))
        with bench.part("a run without a failure"):
            running(bench, Path(folder))
        with bench.part("stacks"):
            measure_stacks(bench, Path(folder))


def writing(bench: Bench, folder: Path) -> None:
    """Compare a snapshot of a frame with a million numbers with coredumpy's dump of it."""
    script = folder / "fails.py"
    script.write_text(FAILS)
    count = 1000 if bench.quick else 1_000_000
    peer = str(_coredumpy())

    def took(name: str, python: str) -> float:
        left = Path(tempfile.mkdtemp(dir=folder))
        environ = {"PYTHONPATH": FOLDER, "AZUREML_DEBUGGEE_SNAPSHOTS": str(left)}
        shown = run([python, str(script), name, str(left), str(count)], folder, environ)
        shutil.rmtree(left)
        return _took(shown)

    found = bench.measure(ROUNDS, ours=lambda: took("ours", sys.executable), theirs=lambda: took("coredumpy", peer))
    note = f"seconds of CPU; the first failure of a process, whose frame has a list of {count:,} numbers"
    bench.figure("a snapshot of a failure", found, "s", 0.3, note=note)
    bench.ratio("a snapshot of a failure", COREDUMPY, found, 0.1, theirs="theirs", note=note)


def running(bench: Bench, folder: Path) -> None:
    """Compare a step that does not fail with and without snapshots."""
    project = new_project(folder / "project", {"work/works.py": WORKS})
    (project / "pipeline.yml").write_text(PIPELINE.format(count=1000 if bench.quick else 100_000))
    environ = {"AML_ENGINE": "process", "AML_PIPELINE_FILE": "pipeline.yml"}

    def took(setting: str) -> float:
        command = [*INV, "pipeline.submit", "--no-debug", "--follow"]
        return _took(run(command, project, {**environ, "AML_SNAPSHOT": setting}))

    took("on")
    found = bench.measure(RUNS, on=lambda: took("on"), off=lambda: took("off"))
    note = "seconds of CPU from the start of Python to the end of the script, which nobody debugs"
    bench.ratio("a step with AML_SNAPSHOT=on", "off", found, 1.01, ours="on", theirs="off", note=note)


def measure_stacks(bench: Bench, folder: Path) -> None:
    """Measure reading the stacks of many sleeping ranks."""
    ranks = 4 if bench.quick else RANKS
    project = new_project(
        folder / "ranks",
        {"work/work.py": "import time\ntime.sleep(600)\n", "pipeline.yml": ranks_bench.PIPELINE.format(ranks=ranks)},
    )
    environ = ranks_bench.ENVIRON
    run([*INV, "pipeline.debug", "--rank", "all", "--no-wait"], project, environ)
    try:

        def ours() -> float:
            began = time.monotonic()
            shown = run([*INV, "pipeline.stacks", "--json"], project, environ)
            took = time.monotonic() - began
            answered = [one for one in json.loads(shown.splitlines()[-1])["processes"] if "threads" in one]
            assert len(answered) == ranks, f"{len(answered)} of {ranks} ranks answered"
            return took

        ours()
        found = bench.measure(RUNS, ours=ours)
        bench.figure(f"`stacks` of {ranks} ranks", found, "s", 2.0, note="with the start of inv")
    finally:
        run([*INV, "pipeline.cancel"], project, environ)


def _took(shown: str) -> float:
    return float(next(line for line in shown.splitlines() if "took" in line).split()[-1])


def _coredumpy() -> Path:
    """A Python with coredumpy, in an environment of its own."""
    folder = cache_folder() / "benchmarks" / COREDUMPY.replace("==", "-")
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(folder)], ROOT)
        try:
            run([str(folder / "bin/python"), "-m", "pip", "install", "-q", COREDUMPY], ROOT)
        except Exception as error:
            raise LeftOut(f"{COREDUMPY} cannot be installed") from error
        (folder / "complete").touch()
    return folder / "bin/python"
