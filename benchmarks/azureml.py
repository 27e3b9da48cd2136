"""Following a run in a workspace: how soon a step can be attached to, and what it costs the service.

The workspace is that of the tests (tests/azureml_server): the real SDK, over HTTP, on this machine.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .measure import Report, run

ROOT = Path(__file__).resolve().parent.parent
TIMES, RANKS = 7, 64
#: Bytes that each of the ranks writes.
SHORT, LONG = 60 * 25, 60 * 25_000
TALK = """\
import sys, time
for part in range(60):
    sys.stdout.write("x" * (int(sys.argv[1]) // 60 - 1) + "\\n")
    sys.stdout.flush()
    time.sleep(0.25)
"""


def main() -> None:
    """Measure and write benchmarks/azureml.json."""
    sys.path[:0] = [str(ROOT / "tests")]
    from azureml_server import AzureMLServer, client_environment, write_configuration

    python = sys.executable
    if importlib.util.find_spec("azureml") is None or importlib.util.find_spec("azureml.core") is None:
        python = os.environ.get("AZUREML_DEBUG_TEST_SDK", "")
    if not python:
        raise SystemExit("Install the extra first (pip install -e '.[azureml]'), or set AZUREML_DEBUG_TEST_SDK.")
    report = Report("azureml")
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder, AzureMLServer(python=python) as server:
        project = Path(folder) / "project"
        (project / "work").mkdir(parents=True)
        (project / "tasks.py").write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom workflows import namespace as ns\n"
        )
        (project / "work" / "work.py").write_text(TALK)
        write_configuration(server, project)
        environ = client_environment(server, Path(folder) / "home", {})
        environ |= {"AML_BACKEND": "azureml", "AML_COMPUTE_TARGET": "cpu", "AML_PIPELINE_FILE": "pipeline.yml"}
        environ["AML_DEBUG_PORT"] = "0"
        until_attachable(report, server, [python, "-m", "invoke"], project, environ)
        many_ranks(report, server, [python, "-m", "invoke"], project, environ)
    report.write()


def _write_pipeline(project: Path, command: str, more: str = "") -> None:
    (project / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  work:\n    code: ./work\n    environment: {image: an-image}\n"
        f"{more}    command: {command}\n"
    )


def until_attachable(report: Report, server: Any, inv: list[str], project: Path, environ: dict[str, str]) -> None:
    """From the line in the service's log to the launch configuration on disk."""
    _write_pipeline(project, "python work.py 1500")
    gaps = []
    # No compute starts a step at once; a follower has begun to follow by then.
    server.behaviour.pauses = {"Queued": 4.0}
    for _ in range(TIMES):
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
    report.row("from the service's log line to launch.json", statistics.median(gaps), "s", 1.0, most=max(gaps))


def many_ranks(report: Report, server: Any, inv: list[str], project: Path, environ: dict[str, str]) -> None:
    """The requests that following many ranks takes, with little and with much in their logs."""
    found = {}
    server.behaviour.pauses = {}
    for size in (SHORT, LONG):
        more = f"    distribution: {{type: mpi, process_count_per_instance: {RANKS}}}\n"
        _write_pipeline(project, f"python work.py {size}", more)
        begin = len(server.requests)
        run([*inv, "pipeline.submit", "--no-debug", "--follow"], project, environ)
        child = server.steps("work")[-1]
        started, ended = (next(at for word, at in child.history if word == one) for one in ("Running", "Finalizing"))
        seen = [one for one in server.requests[begin:] if one.method == "GET"]
        logs = [one for one in seen if "70_driver_log" in one.path]
        found[size] = (len(seen), sum(one.size for one in logs), ended - started)
    (few, _small, short), (many, fetched, long) = found[SHORT], found[LONG]
    report.row(
        f"requests for {RANKS} ranks, 1.5 MB of log each / 1.5 kB each",
        (many / long) / (few / short),
        "times",
        1.25,
        much=many,
        little=few,
    )
    report.row(f"bytes fetched of {RANKS} logs / bytes in them", fetched / (RANKS * LONG), "times", 1.05)
