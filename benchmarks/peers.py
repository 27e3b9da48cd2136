"""The deployment story compared with docker's own commands and azure-ai-ml's local endpoints.

azure-ai-ml waits most of the time: a fixed 15 s, and between two polls. So each of its commands is started while the
previous one waits, and ten take two minutes; the parts in which it works never overlap.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflows.debugger.dap import DapClient
from workflows.errors import UserError
from workflows.paths import cache_folder

from .deployment import debug, events, score
from .dev_container import ADAPTER
from .harness import INV, ROOT, Bench, LeftOut, docker, new_project
from .listeners import await_ports
from .measure import Samples, load, run, seconds

TIMES = 10
#: The port of the service in its container.
INSIDE = 5001
#: The path at which azure-ai-ml mounts the folder of score.py.
CODE = "/var/azureml-app/service"
#: The most seconds for azure-ai-ml's command, and for a stop at a breakpoint; reached only if something is broken.
COMMAND, STOP = 180, 60
REQUEST = b'{"data": [[1, 2, 3, 4]]}'
AZURE = "azure-ai-ml's local endpoint with vscode_debug"
DEPLOYMENT = """\
name: blue
endpoint_name: {endpoint}
model: {{path: model.json}}
code_configuration: {{code: service, scoring_script: score.py}}
# A finished image, so that it builds nothing: the quickest way it has.
environment:
  image: {image}
  inference_config:
    liveness_route: {{port: 5001, path: /}}
    readiness_route: {{port: 5001, path: /}}
    scoring_route: {{port: 5001, path: /score}}
instance_type: Standard_DS3_v2
instance_count: 1
"""


def main(bench: Bench) -> None:
    """Measure stopping, deploying, and getting an edit to a breakpoint."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as name:
        folder = Path(name)
        docker()
        original = (ROOT / "examples/deployment/score.py").read_text()
        project = new_project(folder / "project", {"service/score.py": original})
        environ = {"AML_SCORE_SCRIPT": "service/score.py", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0"}
        environ["AML_ENGINE"] = "docker"
        image = str(debug(project, environ)["image"])
        run([*INV, "container.stop"], project, environ)
        with bench.part("container.stop"):
            stop(bench, project, environ, image)
        with bench.part("azure-ai-ml"):
            local_endpoint(bench, folder, project, environ, image)


def stop(bench: Bench, project: Path, environ: dict[str, str], image: str) -> None:
    """Compare `container.stop` with `docker stop` of the published container, whose shell ignores the signal."""
    times, before = bench.times(TIMES), load()
    ours, containers = [], []
    published = project.parent / "published"
    shutil.copytree(project / "service", published)
    try:
        for _ in range(times):
            debug(project, environ)
            ours.append(seconds(lambda: run([*INV, "container.stop"], project, environ)))
            mount = f"{published}:/var/azureml-app"
            containers.append(run(["docker", "run", "-dit", "-v", mount, image, "/bin/bash"], project).strip())
            run(["docker", "exec", "-d", containers[-1], "runsvdir", "/var/runit"], project)

        def theirs(container: str) -> float:
            return seconds(lambda: run(["docker", "stop", container], project))

        # This is only waiting, so all containers are stopped at the same time.
        with ThreadPoolExecutor(times) as pool:
            taken = list(pool.map(theirs, containers))
    finally:
        run(["docker", "rm", "-f", *containers], project)
    samples = Samples({"ours": ours, "docker": taken}, (before, load()))
    bench.ratio("inv container.stop", "docker stop of the published container", samples, 0.1, theirs="docker")


def local_endpoint(bench: Bench, folder: Path, project: Path, environ: dict[str, str], image: str) -> None:
    """Compare deploying, and the time from an edit to the stop in the new code, with azure-ai-ml."""
    python = azure_python()
    times, before = bench.times(TIMES), load()
    found: dict[str, list[float]] = {name: [] for name in ("welcome", "edit", "opened", "returned", "again", "whole")}
    deployments: list[LocalEndpoint] = []
    try:
        for number in range(times):
            began = time.time()
            result = debug(project, environ)
            found["welcome"].append(next(one["time"] for one in events(project) if one["event"] == "listening") - began)
            found["edit"].append(edit_and_stop(project, environ, result, number))
            run([*INV, "container.stop"], project, environ)
            deployments.append(LocalEndpoint(folder / f"theirs-{number}", python, image, project / "service"))
            deployments[-1].open()
        for one in deployments:
            one.finish()
            found["opened"].append(one.opened)
            found["returned"].append(one.returned)
            found["again"].append(one.stopped)
            found["whole"].append(one.returned + one.stopped)
    finally:
        for one in deployments:
            one.remove()
    samples = Samples(found, (before, load()))
    deploy, edited = "warm inv deploy.debug until a debugger is welcome", "edit until the new code is stopped in"
    bench.ratio(deploy, f"{AZURE}, until it returns", samples, 0.1, ours="welcome", theirs="returned")
    bench.ratio(edited, f"{AZURE}, deployed again", samples, 0.1, ours="edit", theirs="whole")
    parts = "what of it is no waiting; VS Code's own start is left out"
    opens = f"{AZURE}, until its container runs"
    bench.ratio(deploy, opens, samples, None, ours="welcome", theirs="opened", note=parts)
    again = "the inference server started again under debugpy in its container"
    reload = "the reload of VS Code's window is left out"
    bench.ratio(edited, again, samples, None, ours="edit", theirs="again", note=reload)


def azure_python() -> Path:
    """A Python with azure-ai-ml, in an environment of its own that is kept in the cache.

    Raises:
        LeftOut: azure-ai-ml cannot be installed.
    """
    folder = cache_folder() / "benchmarks" / "azure-ai-ml"
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            run([sys.executable, "-m", "venv", str(folder)], ROOT)
            run([str(python), "-m", "pip", "install", "-q", "azure-ai-ml>=1.35,<2", "docker"], ROOT, timeout=600)
        except UserError as error:
            raise LeftOut(f"azure-ai-ml cannot be installed: {' '.join(error.details[-1:]) or error}") from error
        (folder / "complete").touch()
    return python


def edit(script: Path, number: int) -> int:
    """Insert a new line into `run()` and return its number."""
    lines = [line for line in script.read_text().splitlines() if "edit = " not in line]
    place = next(at for at, line in enumerate(lines) if "flowers = " in line) + 1
    lines.insert(place, f"    edit = {number}")
    script.write_text("\n".join(lines) + "\n")
    return place + 1


def edit_and_stop(project: Path, environ: dict[str, str], result: dict[str, Any], number: int) -> float:
    """The seconds from an edit, over `deploy.reload` and an attach, to the stop at the new line."""
    script = project / "service/score.py"
    began = time.perf_counter()
    line = edit(script, number)
    run([*INV, "deploy.reload"], project, environ)
    with DapClient.connect("127.0.0.1", int(result["debug"]["port"]), STOP) as client:
        client.attach(path_mappings=result["path_mappings"], breakpoints={str(script): [line]}, timeout=STOP)
        port = int(result["scoring_url"].split(":")[2].split("/")[0])
        return stopped_at(client, port, line, began)


def stopped_at(client: DapClient, port: int, line: int, began: float) -> float:
    """The seconds from a given time until a request has stopped at a line. Then the service is released.

    Raises:
        UserError: It stopped somewhere else.
    """

    def post() -> None:
        with suppress(Exception):  # the service may have been stopped
            score(port, REQUEST)

    poster = threading.Thread(target=post, daemon=True)
    poster.start()
    thread = client.wait_event("stopped", STOP).body["threadId"]
    took = time.perf_counter() - began
    (frame,) = client.request("stackTrace", {"threadId": thread, "levels": 1}, STOP)["stackFrames"]
    if frame["line"] != line:
        raise UserError(f"It stopped at line {frame['line']}, not at {line}.", "See what the breakpoint was set to.")
    client.disconnect()
    poster.join(STOP)
    return took


@dataclass
class LocalEndpoint:
    """One deployment by azure-ai-ml, debugged in its container.

    Attributes:
        folder: A new folder.
        python: A Python with azure-ai-ml.
        image: The image to deploy.
        service: The folder of score.py.
        opened: Seconds until its container runs.
        returned: Seconds until its command has ended.
        stopped: Seconds from the start of a debugger and the server to the stop at a line.
    """

    folder: Path
    python: Path
    image: str
    service: Path
    opened: float = 0.0
    returned: float = 0.0
    stopped: float = 0.0
    _window: dict[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _waiter: threading.Thread | None = None

    def open(self) -> None:
        """Start the deployment and wait until its container runs."""
        self.folder.mkdir()
        shutil.copytree(self.service, self.folder / "service")
        (self.folder / "model.json").write_text("{}")
        text = DEPLOYMENT.format(endpoint=f"bench-{os.getpid()}-{self.folder.name}", image=self.image)
        (self.folder / "deployment.yml").write_text(text)
        code = self.folder / "bin/code"
        code.parent.mkdir()
        here = Path(__file__).parent
        code.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{here / "dev_container.py"}" "$@"\n')
        code.chmod(0o755)
        window, log = self.folder / "window.json", self.folder / "log"
        environ = {**os.environ, "HOME": str(self.folder), "BENCH_WINDOW": str(window)}
        environ["PATH"] = f"{code.parent}:{environ['PATH']}"
        command = [str(self.python), str(here / "endpoint_client.py"), "deployment.yml"]
        with log.open("wb") as file:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=self.folder, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        self._process = process

        def wait() -> None:
            process.wait()
            self.returned = time.perf_counter() - began

        self._waiter = threading.Thread(target=wait, daemon=True)
        self._waiter.start()
        while not window.exists():
            if process.poll() is not None or time.perf_counter() - began > COMMAND:
                self._fail("opened no container")
            time.sleep(0.01)
        self.opened = time.perf_counter() - began
        self._window = json.loads(window.read_text())

    def finish(self) -> None:
        """Wait for its command to end, then debug an edit until the stop at the new line."""
        assert self._process is not None and self._waiter is not None
        self._waiter.join(COMMAND)
        if self._process.poll() != 0:
            self._fail("did not end well")
        line = edit(self.folder / "service/score.py", 1)
        inside = ["docker", "exec", "-d", "-w", CODE]
        container, port = str(self._window["container"]), int(self._window["adapter"])
        pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", container], self.folder).strip()
        namespace = f"/proc/{pid}/net"
        began = time.perf_counter()
        adapter = ["python", "-m", "debugpy.adapter", "--host", "0.0.0.0", "--port", str(ADAPTER)]
        run([*inside, container, *adapter], self.folder)
        await_ports({ADAPTER}, namespace)
        with DapClient.connect("127.0.0.1", port, STOP) as client:
            client.request("initialize", {"adapterID": "debugpy", "pathFormat": "path"}, STOP)
            attaching = client.send("attach", {"listen": {"host": "127.0.0.1", "port": 0}, "justMyCode": True})
            listens = client.wait_event("debugpyWaitingForServer", STOP).body["port"]
            server = ["azmlinfsrv", "--entry_script", "score.py"]
            run([*inside, "-e", f"AZUREML_DEBUG_PORT={listens}", container, *server], self.folder)
            client.wait_event("initialized", STOP)
            client.set_breakpoints(f"{CODE}/score.py", [line], STOP)
            client.request("configurationDone", None, STOP)
            client.wait_response(attaching, STOP)
            await_ports({INSIDE}, namespace)
            self.stopped = stopped_at(client, int(self._window["service"]), line, began)

    def remove(self) -> None:
        """End its command and remove its container."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._window:
            run(["docker", "rm", "-f", str(self._window["container"])], self.folder)

    def _fail(self, how: str) -> None:
        lines = (self.folder / "log").read_text(errors="replace").splitlines()[-20:]
        raise UserError(f"azure-ai-ml's command {how}.", "Its last lines are above.", details=lines)
