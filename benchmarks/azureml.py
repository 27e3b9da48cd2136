"""Following a run in a workspace: how soon a step can be attached to, and what it costs the service.

The workspace is that of the tests (tests/azureml_server): the real SDK, over HTTP, on this machine.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .harness import ROOT, Bench, LeftOut, new_project
from .measure import run

#: Not `times`: no side is somebody else's.
TIMES_AS_MANY = "times as many"
TIMES, RANKS, FEW_RANKS = 10, 64, 4
#: Bytes that each of the ranks writes.
SHORT, LONG = 60 * 25, 60 * 25_000
#: In so many parts, four a second.
PARTS, FEW_PARTS = 60, 12
TALK = """\
import sys, time
for part in range(PARTS):
    sys.stdout.write("x" * (int(sys.argv[1]) // PARTS - 1) + "\\n")
    sys.stdout.flush()
    time.sleep(0.25)
"""


def main(bench: Bench) -> None:
    """Measure the launch configuration and the requests."""
    sys.path[:0] = [str(ROOT / "tests")]
    from azureml_server import AzureMLServer, client_environment, write_configuration

    python = sys.executable
    if importlib.util.find_spec("azureml") is None or importlib.util.find_spec("azureml.core") is None:
        python = os.environ.get("AZUREML_DEBUG_TEST_SDK", "")
    if not python:
        raise LeftOut("azureml-core is not installed, and AZUREML_DEBUG_TEST_SDK is not set")
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder, AzureMLServer(python=python) as server:
        project = new_project(
            Path(folder) / "project", {"work/work.py": TALK.replace("PARTS", str(FEW_PARTS if bench.quick else PARTS))}
        )
        write_configuration(server, project)
        environ = client_environment(server, Path(folder) / "home", {})
        environ |= {"AML_BACKEND": "azureml", "AML_COMPUTE_TARGET": "cpu", "AML_PIPELINE_FILE": "pipeline.yml"}
        environ["AML_DEBUG_PORT"] = "0"
        with bench.part("until a step can be attached to"):
            until_attachable(bench, server, [python, "-m", "invoke"], project, environ)
        with bench.part("ranks"):
            many_ranks(bench, server, [python, "-m", "invoke"], project, environ)


def _write_pipeline(project: Path, command: str, more: str = "") -> None:
    (project / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  work:\n    code: ./work\n    environment: {image: an-image}\n"
        f"{more}    command: {command}\n"
    )


def until_attachable(bench: Bench, server: Any, inv: list[str], project: Path, environ: dict[str, str]) -> None:
    """From the line in the service's log to the launch configuration on disk."""
    _write_pipeline(project, "python work.py 1500")
    gaps = []
    # No compute starts a step at once; a follower has begun to follow by then.
    server.behaviour.pauses = {"Queued": 4.0}
    for _ in range(bench.times(TIMES)):
        configurations = project / ".vscode" / "launch.json"
        configurations.unlink(missing_ok=True)
        run([*inv, "pipeline.submit"], project, environ)
        child = server.steps("work")[-1]
        log = server.state.artifact(child, "azureml-logs/70_driver_log.txt")
        deadline = time.monotonic() + 120
        while not (log.exists() and b"debug_port" in log.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.005)
        said = time.time()
        while not configurations.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        gaps.append(configurations.stat().st_mtime - said)
        run([*inv, "pipeline.cancel"], project, environ)
    bench.figure("in a workspace: from the line in the service's log to launch.json", gaps, "s", 1.0)


def many_ranks(bench: Bench, server: Any, inv: list[str], project: Path, environ: dict[str, str]) -> None:
    """The requests that following many ranks takes, with little and with much in their logs."""
    ranks = FEW_RANKS if bench.quick else RANKS
    found = {}
    server.behaviour.pauses = {}
    for size in (SHORT, LONG):
        more = f"    distribution: {{type: mpi, process_count_per_instance: {ranks}}}\n"
        _write_pipeline(project, f"python work.py {size}", more)
        begin = len(server.requests)
        run([*inv, "pipeline.submit", "--no-debug", "--follow"], project, environ)
        child = server.steps("work")[-1]
        started, ended = (next(at for word, at in child.history if word == one) for one in ("Running", "Finalizing"))
        seen = [one for one in server.requests[begin:] if one.method == "GET"]
        logs = [one for one in seen if "70_driver_log" in one.path]
        found[size] = (len(seen), sum(one.size for one in logs), ended - started)
    (few, _small, short), (many, fetched, long) = found[SHORT], found[LONG]
    bench.figure(
        f"in a workspace: requests a second to follow {ranks} ranks, with 1.5 MB of log each by 1.5 kB each",
        [(many / long) / (few / short)],
        TIMES_AS_MANY,
        1.25,
        note=f"{many} and {few} requests",
    )
    bench.figure(
        f"in a workspace: bytes fetched of {ranks} logs by bytes in them",
        [fetched / (ranks * LONG)],
        TIMES_AS_MANY,
        1.05,
    )
