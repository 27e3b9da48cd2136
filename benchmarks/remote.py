"""`--remote` against the same done by hand, on a machine that the tests' own SSH server makes on loopback."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from workflows.debugger.dap import DapClient

from .measure import Report, alternate, medians, run, seconds

ROOT = Path(__file__).resolve().parent.parent
INV = [sys.executable, "-m", "invoke"]
TIMES, FILES, STEPS = 7, 10_000, 40


def main() -> None:
    """Measure and write benchmarks/remote.json."""
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    from hosts import Hosts, what_is_missing

    reason = what_is_missing()
    if reason or shutil.which("rsync") is None:
        raise SystemExit(f"not measured: {reason or 'rsync is not installed'}")
    report = Report("remote")
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        # The hosts' user is another one.
        os.chmod(folder, 0o755)
        hosts = Hosts(Path(folder) / "cache")
        try:
            host = hosts.loopback
            environ = {**hosts.laptop.environment(host), "PYTHONPATH": str(ROOT), "AML_ENGINE": "process"}
            second_call(report, Path(folder) / "project", environ, host)
            synchronising(report, Path(folder) / "tree", environ, hosts, host)
            one_step(report, Path(folder) / "project", environ)
        finally:
            hosts.close()
    report.write()


def _project(folder: Path) -> None:
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "tasks.py").write_text("from workflows import namespace as ns\n")


def second_call(report: Report, project: Path, environ: dict[str, str], host: object) -> None:
    """A task with `--remote`, nothing changed, against the same typed on the machine itself."""
    from host import Host

    assert isinstance(host, Host)
    _project(project)
    typed = [*INV, "pipeline.list", "--remote"]
    run(typed, project, environ)
    (there,) = (host.folder / "home" / "azureml-debug").iterdir()
    programs = host.folder / "home" / ".cache" / "azureml-debug" / "program"
    (python,) = programs.glob("*-py*/bin/python")
    (files,) = [path for path in programs.glob("files-*") if "." not in path.name]
    own = {"PYTHONPATH": str(files), "AML_ENGINE": "process"}
    bare = host.command([str(python), "-m", "invoke", "pipeline.list"], own, cwd=str(there))
    before = host.sshd.connections()
    found = alternate(
        TIMES,
        remote=lambda: seconds(lambda: run(typed, project, environ)),
        there=lambda: seconds(lambda: run(bare, project)),
    )
    middle = medians(found)
    more = middle["remote"] - middle["there"]
    report.row("a second --remote call, more than the task there", more, "s", 1.0, **middle)
    connections = (host.sshd.connections() - before) / TIMES
    report.row("SSH connections of one call", connections, "connections", 1)


def synchronising(report: Report, tree: Path, environ: dict[str, str], hosts: object, host: object) -> None:
    """One changed file of ten thousand, against rsync over the same SSH server."""
    from host import Host
    from hosts import Hosts

    assert isinstance(hosts, Hosts) and isinstance(host, Host)
    tree.mkdir()
    (tree / "tasks.py").write_text("from workflows import namespace as ns\n")
    chance = random.Random(1)
    for number in range(FILES):
        path = tree / f"package{number // 100}" / f"file {number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x" * chance.randint(10, 2000))
    shell = f"ssh -p {host.port} -i {hosts.laptop.key()} -o BatchMode=yes"
    shell += f" -o UserKnownHostsFile={hosts.laptop.known_hosts}"
    target = f"{host.user}@{host.address}:by-rsync/"
    rsync = ["rsync", "-a", "--delete", "--exclude=.azureml-debug", "-e", shell, f"{tree}/", target]

    def changed(command: list[str]) -> Callable[[], float]:
        def measure() -> float:
            with open(tree / "package3" / "file 333.txt", "a") as file:
                file.write("more\n")
            return seconds(lambda: run(command, tree, environ))

        return measure

    sync = [*INV, "remote.sync"]
    for command in (sync, rsync):
        run(command, tree, environ)
    middle = medians(alternate(TIMES, ours=changed(sync), rsync=changed(rsync)))
    report.row(
        "one changed of 10,000 files, the whole command", middle["ours"] / middle["rsync"], "times", 2.0, **middle
    )


def one_step(report: Report, project: Path, environ: dict[str, str]) -> None:
    """`next` of a debug session through the tunnel, and without it."""
    import json

    script = project / "loop.py"
    script.write_text("number = 0\nwhile True:\n    number += 1\n    number -= 1\n")
    typed = [*INV, "experiment.debug", "--remote", "--json", "steps", "--script", "loop.py"]
    result = json.loads(run(typed, project, environ).splitlines()[-1])
    (endpoint,) = result["endpoints"]
    tunnels = json.loads(run([*INV, "remote.tunnels", "--json"], project, environ).splitlines()[-1])["tunnels"]
    there = next(one["port"] for one in tunnels if one["local_port"] == endpoint["port"])
    root = endpoint["path_mappings"][0]["remoteRoot"]
    mappings = [{"localRoot": str(project), "remoteRoot": root}]
    # In turn: each session alone, on the same stopped program.
    places = {"tunnel": int(endpoint["port"]), "direct": int(there)}
    found: dict[str, list[float]] = {name: [] for name in places}
    for _round in range(4):
        for name, port in places.items():
            found[name] += _steps(port, mappings, script)
    middle = medians(found)
    more = (middle["tunnel"] - middle["direct"]) * 1000
    run([*INV, "experiment.cancel", "--remote"], project, environ)
    run([*INV, "remote.stop"], project, environ)
    report.row("one step (next) through the tunnel, more than direct", more, "ms", 5.0, **middle)


def _steps(port: int, mappings: list[dict[str, str]], script: Path) -> list[float]:
    client = DapClient.connect("127.0.0.1", port, 20)
    try:
        client.attach(path_mappings=mappings, breakpoints={str(script): [3]}, timeout=30)
        thread = client.wait_event("stopped", 30).body["threadId"]
        taken = []
        for _step in range(STEPS):

            def step() -> None:
                client.request("next", {"threadId": thread}, 20)
                client.wait_event("stopped", 20)

            taken.append(seconds(step))
        return taken
    finally:
        client.disconnect()
