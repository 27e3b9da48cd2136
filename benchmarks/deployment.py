"""The deployment story compared with the published chain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from workflows.debugger.dap import DapClient
from workflows.errors import UserError
from workflows.paths import cache_folder

from .harness import INV, ROOT, Bench, LeftOut, docker, new_project
from .measure import Samples, alternate, concatenate, run, seconds

TIMES = 10
ROUNDS, REQUESTS = 7, 20
PYTHONS = ("3.11", "3.12")
#: The lines that the published instructions add at the top of score.py, without the wait.
PUBLISHED = "import debugpy\ndebugpy.listen(('0.0.0.0', 5678))\n"
WORK = """
import json
def init():
    pass
def twice(number):
    return number * 2
def run(raw_data):
    total = 0
    for number in range(json.loads(raw_data)["data"]):
        total += twice(number)
    return total
"""
LINE = WORK.splitlines().index("    return total") + 1

#: Longer than the debuggee waits before it restores full speed.
SETTLE_SECONDS = 1.0


def main(bench: Bench) -> None:
    """Measure the chain, stopping, reloading and requests."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project = new_project(
            Path(folder) / "project", {"service/score.py": (ROOT / "examples/deployment/score.py").read_text()}
        )
        environ = {"AML_SCORE_SCRIPT": "service/score.py", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0"}
        with bench.part("the chain in Docker"):
            docker()
            chain(bench, project, {**environ, "AML_ENGINE": "docker"}, Path(folder))
            stop_and_reload(bench, project, {**environ, "AML_ENGINE": "docker"}, "docker")
        with bench.part("the chain without Docker"):
            stop_and_reload(bench, project, {**environ, "AML_ENGINE": "process"}, "process")
        with bench.part("requests"):
            request_speed(bench, Path(folder))


def chain(bench: Bench, project: Path, environ: dict[str, str], folder: Path) -> None:
    """Compare the complete chain with the published steps as docker commands."""
    run([*INV, "deploy.debug"], project, environ)
    run([*INV, "container.stop"], project, environ)
    published = folder / "published"
    published.mkdir()
    (published / "score.py").write_text(PUBLISHED + (project / "service/score.py").read_text())
    returned: list[float] = []

    def ours() -> float:
        began = time.time()
        run([*INV, "deploy.debug"], project, environ)
        returned.append(time.time() - began)
        moment = next(event["time"] for event in events(project) if event["event"] == "listening")
        run([*INV, "container.stop"], project, environ)
        return float(moment - began)

    def bare() -> float:
        name = "azureml-debug-bench"
        began = time.perf_counter()
        ports = ["-p", "127.0.0.1::5001", "-p", "127.0.0.1::5678"]
        mount = ["-v", f"{published}:/var/azureml-app"]
        run(["docker", "run", "-dit", "--name", name, *ports, *mount, "debug:1", "/bin/bash"], folder)
        run(["docker", "exec", "-d", name, "runsvdir", "/var/runit"], folder)
        pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", name], folder).strip()
        while ":162E 00000000:0000 0A" not in Path(f"/proc/{pid}/net/tcp").read_text():
            time.sleep(0.005)
        took = time.perf_counter() - began
        run(["docker", "rm", "-f", name], folder)
        return took

    found = bench.measure(TIMES, ours=ours, chain=bare)
    bench.ratio(
        "warm inv deploy.debug until a debugger is welcome",
        "the published chain as docker commands",
        found,
        1.0,
        theirs="chain",
    )
    bench.figure("warm inv deploy.debug until it returns, everything serving", returned, "s", 5.0)


def events(project: Path) -> list[dict[str, Any]]:
    """The events that the debuggee of a project's service has announced."""
    path = project / ".azureml-debug/deployment/announce/events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def debug(project: Path, environ: dict[str, str]) -> dict[str, Any]:
    """Run `inv deploy.debug` and return its result."""
    result: dict[str, Any] = json.loads(run([*INV, "deploy.debug", "--json"], project, environ).splitlines()[-1])
    return result


def stop_and_reload(bench: Bench, project: Path, environ: dict[str, str], engine: str) -> None:
    """Measure `container.stop`, and `deploy.reload` of a running and of a paused service."""
    stops, codes, idle, paused = [], set(), [], []
    for _ in range(bench.times(TIMES)):
        result = debug(project, environ)
        idle.append(seconds(lambda: run([*INV, "deploy.reload"], project, environ)))
        with pause(project, result):
            paused.append(seconds(lambda: run([*INV, "deploy.reload"], project, environ)))
        stops.append(seconds(lambda: run([*INV, "container.stop"], project, environ)))
        ended = json.loads((project / ".azureml-debug/deployment/last/ended.json").read_text())
        codes.add(ended["exit_code"])
    bench.figure(f"container.stop ({engine})", stops, "s", 1.0)
    bench.figure(f"container.stop: exit codes 137 ({engine})", [float(137 in codes)], "", 0.0)
    bench.figure(f"deploy.reload ({engine})", idle, "s", 2.0)
    bench.figure(f"deploy.reload while paused at a breakpoint ({engine})", paused, "s", 2.0)


@contextmanager
def pause(project: Path, result: dict[str, Any]) -> Iterator[None]:
    """Keep the service paused at a breakpoint in run()."""
    script = project / "service/score.py"
    line = next(n for n, text in enumerate(script.read_text().splitlines(), 1) if "flowers = " in text)
    client = DapClient.connect("127.0.0.1", result["debug"]["port"], 30)
    client.attach(path_mappings=result["path_mappings"], breakpoints={str(script): [line]}, timeout=30)
    port = int(result["scoring_url"].split(":")[2].split("/")[0])

    def post() -> None:
        with suppress(OSError, Exception):
            score(port, b'{"data": [[1, 2, 3, 4]]}')

    poster = threading.Thread(target=post)
    poster.start()
    client.wait_event("stopped", 30)
    yield
    client.close()
    poster.join()


def score(port: int, body: bytes) -> bytes:
    """Send one request to /score and return the response."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/score", body, {"Content-Type": "application/json"})
    answer = connection.getresponse().read()
    connection.close()
    return answer


def request_speed(bench: Bench, folder: Path) -> None:
    """Compare requests to a service under the debuggee, never attached and after a detach, with the bare server."""
    for minor in PYTHONS[:1] if bench.quick else PYTHONS:
        with bench.part(f"requests with Python {minor}"):
            environment = inference_environment(minor)
            found: dict[str, list[Samples]] = {"never attached": [], "after a detach": []}
            # Two processes of the same program differ by several percent, so each round starts new ones.
            for _ in range(bench.times(ROUNDS)):
                bare, debugged = Server(folder, environment, False), Server(folder, environment, True)
                try:
                    sides: dict[str, Callable[[], float]] = {"bare": bare.time, "ours": debugged.time}
                    found["never attached"].append(alternate(bench.times(REQUESTS), sides))
                    debugged.attach_and_leave()
                    found["after a detach"].append(alternate(bench.times(REQUESTS), sides))
                finally:
                    bare.stop()
                    debugged.stop()
            for when, rounds in found.items():
                what = f"speed of requests, {when}, Python {minor}"
                bench.ratio(what, "the bare server", concatenate(rounds), 0.95, theirs="bare", inverse=True)


def inference_environment(minor: str) -> Path:
    """A virtual environment with the inference server for a Python version, kept in the cache.

    Raises:
        LeftOut: That Python is not installed.
    """
    python = shutil.which(f"python{minor}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        raise LeftOut(f"no Python {minor} here", needed=False)
    folder = cache_folder() / "benchmarks" / minor
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run([python, "-m", "venv", str(folder)], ROOT)
        run(
            [
                str(folder / "bin/python"),
                "-m",
                "pip",
                "install",
                "-q",
                "-r",
                str(ROOT / "env/inference/requirements.txt"),
            ],
            ROOT,
        )
        (folder / "complete").touch()
    return folder


class Server:
    """The inference server, started as the run script does, with or without the debuggee."""

    def __init__(self, folder: Path, environment: Path, debugged: bool) -> None:
        from workflows.debuggee import FOLDER
        from workflows.engines.ports import find_free_port

        self.folder = folder / f"requests-{environment.name}-{debugged}"
        self.folder.mkdir(exist_ok=True)
        (self.folder / "score.py").write_text(WORK)
        self.port, self.debug_port = find_free_port(frozenset()), find_free_port(frozenset())
        environ = {
            **os.environ,
            "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
            "AML_APP_ROOT": str(self.folder),
            "WORKER_TIMEOUT": "0",
            "AZUREML_DEBUGGEE_SERVER_PORT": str(self.port),
            "AZUREML_DEBUGGEE_PORT": str(self.debug_port),
        }
        if debugged:
            environ["GUNICORN_CMD_ARGS"] = f"--config {FOLDER}/gunicorn_conf.py"
        self.process = subprocess.Popen(
            [str(ROOT / "env/inference/runit/gunicorn/run")],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                self.time()
                return
            time.sleep(0.1)
        raise UserError("The inference server did not start.", "Start it by hand to see why.")

    def time(self, work: int = 200_000) -> float:
        """Return the seconds for one request that makes a number of calls."""
        return seconds(lambda: score(self.port, b'{"data": %d}' % work))

    def attach_and_leave(self) -> None:
        """Attach, stop once in run(), and detach."""
        with DapClient.connect("127.0.0.1", self.debug_port, 30) as client:
            script = str(self.folder / "score.py")
            client.attach(breakpoints={script: [LINE]}, timeout=30)
            poster = threading.Thread(target=self.time)
            poster.start()
            client.wait_event("stopped", 60)
            client.disconnect()
            poster.join()
        # The debuggee restores full speed a moment after the detach, in case the debugger attaches again at once.
        time.sleep(SETTLE_SECONDS)
        self.time()

    def stop(self) -> None:
        """End the server."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, 15)
        self.process.wait(30)
