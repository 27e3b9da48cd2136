"""Following a run in a workspace: how soon a debugger can attach to a step, and how many requests it takes.

The workspace is the test server (tests/azureml_server): the real SDK over HTTP on this machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .harness import ROOT, Bench, LeftOut, new_project
from .measure import run, seconds

#: Not the unit `times`, which is for comparisons with another program.
TIMES_AS_MANY = "times as many"
TIMES, RANKS, FEW_RANKS = 10, 64, 4
#: Bytes that each of the ranks writes.
SHORT, LONG = 60 * 25, 60 * 25_000
#: The number of parts in which they are written, four a second.
PARTS, FEW_PARTS = 60, 12
#: The number of DAP round trips.
TRIPS = 300
LOOP = "import time\nwhile True:\n    time.sleep(0.01)\n"
TALK = """\
import sys, time
for part in range(PARTS):
    sys.stdout.write("x" * (int(sys.argv[1]) // PARTS - 1) + "\\n")
    sys.stdout.flush()
    time.sleep(0.25)
"""


@dataclass(frozen=True)
class Side:
    """A workspace, and how commands for it are run.

    Attributes:
        server: The workspace.
        name: The prefix of its figures.
        log: The log file of a step with a single process.
        inv: The command line of Invoke.
        project: The project's folder.
        environ: Its environment.
    """

    server: Any
    name: str
    log: str
    inv: tuple[str, ...]
    project: Path
    environ: dict[str, str]

    def run(self, *arguments: str, **more: str) -> str:
        """Run a command and return its output."""
        return run([*self.inv, *arguments], self.project, {**self.environ, **more})


def main(bench: Bench) -> None:
    """Measure the launch configuration, the requests, and the way through the relay."""
    sys.path[:0] = [str(ROOT / "tests")]
    with _side("azureml.core", "AZUREML_DEBUG_TEST_SDK", "v1", bench.quick) as side:
        _both(bench, side)
    if os.name != "posix" or os.geteuid():
        raise LeftOut("the ssh service of a job is made with mount, which takes root")
    with _side("azure.ai.ml", "AZUREML_DEBUG_TEST_SDK_V2", "v2", bench.quick) as side:
        _both(bench, side)
        with bench.part("the relay"):
            through_the_relay(bench, side)


def _both(bench: Bench, side: Side) -> None:
    with bench.part(f"until a step can be attached to, by SDK {side.environ['AML_SDK']}"):
        until_attachable(bench, side)
    with bench.part(f"ranks, by SDK {side.environ['AML_SDK']}"):
        many_ranks(bench, side)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is not installed
        return False


@contextlib.contextmanager
def _side(module: str, variable: str, sdk: str, quick: bool) -> Iterator[Side]:
    """A workspace that is used with one of the SDKs."""
    from azureml_server import AzureMLServer, client_environment, write_configuration

    python = sys.executable if _is_installed(module) else os.environ.get(variable, "")
    if not python:
        raise LeftOut(f"{module} is not installed, and {variable} is not set")
    layout = "user_logs" if sdk == "v2" else "azureml-logs"
    with (
        tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder,
        AzureMLServer(python=python, secure=sdk == "v2", layout=layout) as server,
    ):
        talk = TALK.replace("PARTS", str(FEW_PARTS if quick else PARTS))
        project = new_project(Path(folder) / "project", {"work/work.py": talk, "work/loop.py": LOOP})
        write_configuration(server, project)
        environ = client_environment(server, Path(folder) / "home", {})
        environ |= {"AML_BACKEND": "azureml", "AML_COMPUTE_TARGET": "cpu", "AML_PIPELINE_FILE": "pipeline.yml"}
        environ |= {"AML_DEBUG_PORT": "0", "AML_SDK": sdk}
        if sdk == "v2":
            environ["AML_AUTH"] = "azureml_server_credential:ServerCredential"
        name = "in a workspace" if sdk == "v1" else "in a workspace, by SDK v2"
        log = "user_logs/std_log.txt" if sdk == "v2" else "azureml-logs/70_driver_log.txt"
        yield Side(server, name, log, (python, "-m", "invoke"), project, environ)


def _write_pipeline(project: Path, command: str, more: str = "") -> None:
    (project / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  work:\n    code: ./work\n    environment: {image: an-image}\n"
        f"{more}    command: {command}\n"
    )


def until_attachable(bench: Bench, side: Side) -> None:
    """Measure the time from the line in the service's log to the launch configuration on disk."""
    server = side.server
    _write_pipeline(side.project, "python work.py 1500")
    gaps = []
    # A real compute target does not start a step at once either. By then the follower is running.
    server.behaviour.pauses = {"Queued": 4.0}
    for _ in range(bench.times(TIMES)):
        configurations = side.project / ".vscode" / "launch.json"
        configurations.unlink(missing_ok=True)
        side.run("pipeline.submit")
        deadline = time.monotonic() + 120
        while not server.steps("work") and time.monotonic() < deadline:
            time.sleep(0.005)
        log = server.state.artifact(server.steps("work")[-1], side.log)
        while not (log.exists() and b"debug_port" in log.read_bytes()) and time.monotonic() < deadline:
            time.sleep(0.005)
        logged = time.time()
        while not configurations.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        gaps.append(configurations.stat().st_mtime - logged)
        side.run("pipeline.cancel")
    bench.figure(f"{side.name}: from the line in the service's log to launch.json", gaps, "s", 1.0)


def many_ranks(bench: Bench, side: Side) -> None:
    """Count the requests for following many ranks, with short and with long logs."""
    server, ranks = side.server, FEW_RANKS if bench.quick else RANKS
    found = {}
    server.behaviour.pauses = {}
    for size in (SHORT, LONG):
        more = f"    distribution: {{type: mpi, process_count_per_instance: {ranks}}}\n"
        _write_pipeline(side.project, f"python work.py {size}", more)
        begin = len(server.requests)
        side.run("pipeline.submit", "--no-debug", "--follow")
        child = server.steps("work")[-1]
        started, ended = (next(at for word, at in child.history if word == one) for one in ("Running", "Finalizing"))
        requests = [one for one in server.requests[begin:] if one.method == "GET"]
        logs = [one for one in requests if "70_driver_log" in one.path or "std_log" in one.path]
        found[size] = (len(requests), sum(one.size for one in logs), ended - started)
    (few, _small, short), (many, fetched, long) = found[SHORT], found[LONG]
    bench.figure(
        f"{side.name}: requests a second to follow {ranks} ranks, with 1.5 MB of log each by 1.5 kB each",
        [(many / long) / (few / short)],
        TIMES_AS_MANY,
        1.25,
        note=f"{many} and {few} requests",
    )
    bench.figure(
        f"{side.name}: bytes fetched of {ranks} logs by bytes in them",
        [fetched / (ranks * LONG)],
        TIMES_AS_MANY,
        1.05,
    )


def through_the_relay(bench: Bench, side: Side) -> None:
    """Compare a DAP round trip through the relay with one directly to the gate."""
    from workflows.debugger.dap import DapClient

    _write_pipeline(side.project, "python loop.py")
    with contextlib.ExitStack() as ending:
        clients = {}
        for way, typed in (("relay", ()), ("network", ("--open-port",))):
            result = json.loads(side.run("pipeline.debug", "--json", *typed, AML_REACH=way).splitlines()[-1])
            ending.callback(side.run, "pipeline.cancel", "--run", result["run_id"])
            (endpoint,) = result["endpoints"]
            client = DapClient.connect(endpoint["host"], endpoint["port"], 20)
            ending.callback(client.disconnect)
            client.attach(timeout=60)
            clients[way] = client

        def trip(way: str) -> Callable[[], float]:
            return lambda: seconds(lambda: clients[way].request("threads", {}, 20)) * 1000

        samples = bench.measure(TRIPS, ours=trip("relay"), direct=trip("network"))
    bench.figure(
        f"{side.name}: what the relay adds to one round trip of DAP",
        samples.differences("ours", "direct"),
        "ms",
        10.0,
    )
