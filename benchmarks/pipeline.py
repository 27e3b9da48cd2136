"""The pipeline story against scripts started by hand under debugpy, both sides in one run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from workflows.paths import cache_folder

from .measure import Report, alternate, medians, run, seconds

ROOT = Path(__file__).resolve().parent.parent
INV = [sys.executable, "-m", "invoke"]
TIMES, ROUNDS, RANKS = 7, 7, 64
WORK = """\
total = 0
def twice(number):
    return number * 2
import sys, time
started = time.perf_counter()
for number in range(int(sys.argv[1])):
    total += twice(number)
print("took", time.perf_counter() - started)
"""


def main() -> None:
    """Measure and write benchmarks/pipeline.json."""
    report = Report("pipeline")
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project = Path(folder)
        (project / "tasks.py").write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom workflows import namespace as ns\n"
        )
        (project / "work").mkdir()
        (project / "work" / "work.py").write_text(WORK)
        _write_pipeline(project, "python work.py 10")
        for engine in ("process", "docker") if _docker() else ("process",):
            environ = {"AML_ENGINE": engine, "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}
            run([*INV, "pipeline.submit", "--no-debug", "--follow"], project, environ)
            until_waiting(report, project, environ, engine)
        environ = {"AML_ENGINE": "process", "AML_PIPELINE_FILE": "pipeline.yml", "AML_DEBUG_PORT": "0"}
        many_ranks(report, project, environ)
        plain_speed(report, project, environ)
    following(report)
    report.write()


def _write_pipeline(project: Path, command: str, more: str = "") -> None:
    (project / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  work:\n    code: ./work\n    environment: azureml:any@latest\n"
        f"{more}    command: {command}\n"
    )


def _docker() -> bool:
    found = shutil.which("docker")
    return bool(found) and subprocess.run([found or "", "info"], capture_output=True, check=False).returncode == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(ports: set[int], namespace: str = "/proc/net") -> set[int]:
    """Those of some ports on which somebody listens; found out without connecting."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"{namespace}/{name}") as table:
            for line in table.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found & ports


def _await(ports: set[int], namespace: str = "/proc/net") -> None:
    deadline = time.monotonic() + 300
    while _listens(ports, namespace) != ports:
        if time.monotonic() > deadline:
            raise SystemExit("nothing listens")
        time.sleep(0.002)


def _training_python() -> Path:
    """The interpreter of the environment that steps run in."""
    from workflows.environments.definition import load_definition
    from workflows.environments.references import REQUIRED
    from workflows.environments.virtual import find_environment

    folder = ROOT / "env" / "training"
    built = find_environment(
        load_definition(folder, required=REQUIRED, default_dockerfile=folder / "Dockerfile"), cache_folder()
    )
    if built is None:
        raise SystemExit("the training environment is not built")
    return built.python


def until_waiting(report: Report, project: Path, environ: dict[str, str], engine: str) -> None:
    """From `pipeline.debug` typed to the first step waiting, against the same by hand."""

    def ours() -> float:
        try:
            return seconds(lambda: run([*INV, "pipeline.debug"], project, environ))
        finally:
            run([*INV, "pipeline.cancel"], project, environ)

    @contextlib.contextmanager
    def by_hand() -> Iterator[None]:
        port = _free_port()
        debugpy = ["-m", "debugpy", "--listen", f"127.0.0.1:{port}", "--wait-for-client", "work.py", "10"]
        if engine == "process":
            quiet = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
            # Its adapter outlives it, and would keep this program's own output open.
            child = subprocess.Popen(
                [str(_training_python()), *debugpy],
                cwd=project / "work",
                env=quiet,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _await({port})
            yield
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            return
        debugpy[3] = f"0.0.0.0:{port}"
        plans = sorted((project / ".azureml-debug" / "runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
        image = json.loads(plans[-1].read_text())["steps"][0]["image"]["name"]
        mount = f"type=bind,source={project / 'work'},target=/work"
        container = run(
            [
                "docker",
                "run",
                "-d",
                "--rm",
                "-w",
                "/work",
                "--mount",
                mount,
                "-p",
                f"127.0.0.1:{port}:{port}",
                image,
                "python",
                *debugpy,
            ],
            project,
        ).strip()
        pid = run(["docker", "inspect", "-f", "{{.State.Pid}}", container], project).strip()
        _await({port}, f"/proc/{pid}/net")
        yield
        run(["docker", "kill", container], project)

    def bare() -> float:
        started = time.perf_counter()
        with by_hand():
            took = time.perf_counter() - started
        # What every command of Invoke's costs before its task begins.
        return took + seconds(lambda: run([*INV, "--list"], project))

    found = medians(alternate(TIMES, ours=ours, bare=bare))
    report.row(
        f"pipeline.debug until the first step waits ({engine}) / python -m debugpy by hand + inv",
        found["ours"] / found["bare"],
        "times",
        1.5,
        ours=found["ours"],
        by_hand=found["bare"],
    )
    # From the announcement in the step's log to launch.json.
    gaps = []
    for _ in range(TIMES):
        (project / ".vscode" / "launch.json").unlink(missing_ok=True)
        text = run([*INV, "pipeline.debug", "--json"], project, environ)
        result = json.loads(text.splitlines()[-1])
        events = Path(result["endpoints"][0]["log"]).parents[1] / "announce" / "events.jsonl"
        waiting = next(e for e in map(json.loads, events.read_text().splitlines()) if e["event"] == "waiting")
        gaps.append((project / ".vscode" / "launch.json").stat().st_mtime - waiting["time"])
        run([*INV, "pipeline.cancel"], project, environ)
    report.row(f"from the log line to launch.json ({engine})", sorted(gaps)[len(gaps) // 2] * 1000, "ms", 100)


def many_ranks(report: Report, project: Path, environ: dict[str, str]) -> None:
    """64 ranks, all waiting with their configurations written, against 64 bare listeners."""
    more = f"    distribution: {{type: pytorch, process_count_per_instance: {RANKS}}}\n"
    _write_pipeline(project, "python work.py 10", more)

    def ours() -> float:
        try:
            return seconds(lambda: run([*INV, "pipeline.debug", "--rank", "all"], project, environ))
        finally:
            run([*INV, "pipeline.cancel"], project, environ)

    def bare() -> float:
        python = str(_training_python())
        # Below those that the system gives out by itself, such as to the adapters.
        bases = range(10000, 30000, RANKS)
        base = next(base for base in bases if all(_is_free(base + rank) for rank in range(RANKS)))
        started = time.perf_counter()
        children = []
        for rank in range(RANKS):
            code = f"import debugpy, time; debugpy.listen(('127.0.0.1', {base + rank})); time.sleep(600)"
            children.append(
                subprocess.Popen([python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        _await({base + rank for rank in range(RANKS)})
        took = time.perf_counter() - started
        for child in children:
            child.kill()
            child.wait()
        time.sleep(1)
        return took

    found = medians(alternate(3, ours=ours, bare=bare))
    report.row(
        f"{RANKS} ranks waiting, configurations written / {RANKS} bare debugpy.listen",
        found["ours"] / found["bare"],
        "times",
        1.5,
        ours=found["ours"],
        bare=found["bare"],
    )


def _is_free(port: int) -> bool:
    from workflows.engines.ports import is_free

    return port < 65536 and is_free(port)


def plain_speed(report: Report, project: Path, environ: dict[str, str]) -> None:
    """A step that is not debugged, against the bare script in the same environment."""
    count = "6000000"
    _write_pipeline(project, f"python work.py {count}")

    def took(text: str) -> float:
        return float(next(line for line in text.splitlines() if "took" in line).split()[-1])

    def ours() -> float:
        return took(run([*INV, "pipeline.submit", "--no-debug", "--follow"], project, environ))

    def bare() -> float:
        return took(run([str(_training_python()), "work.py", count], project / "work"))

    found = medians(alternate(ROUNDS, ours=ours, bare=bare))
    report.row(
        "a step that is not debugged / its bare run time",
        found["ours"] / found["bare"],
        "times",
        1.03,
        ours=found["ours"],
        bare=found["bare"],
    )


def following(report: Report) -> None:
    """How a growing log is followed."""
    from .following import latency, rates

    found = rates(1024)
    report.row(
        "a log of 1 GB followed / tail -f",
        found["ratio"],
        "of bare speed",
        0.5,
        ours=found["ours"],
        tail=found["tail"],
        peak_mib=found["peak"],
    )
    seen = latency()
    report.row("from a line written to it shown, the slowest of 200", seen["max"], "ms", 100, median=seen["p50"])
