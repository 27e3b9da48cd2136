"""`--remote` compared with the same by hand, on a machine of the tests' own SSH server on loopback."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from workflows.debugger.dap import DapClient

from .harness import INV, ROOT, Bench, LeftOut
from .measure import Samples, load, run, seconds

TIMES, FILES, FEW_FILES, STEPS = 10, 10_000, 500, 40


def main(bench: Bench) -> None:
    """Measure a call, sending a change, and a step."""
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    from hosts import Hosts, what_is_missing

    reason = what_is_missing()
    if reason or shutil.which("rsync") is None:
        raise LeftOut(reason or "rsync is not installed")
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        # The remote machine's user is another one, who has to read the folder.
        os.chmod(folder, 0o755)
        hosts = Hosts(Path(folder) / "cache")
        try:
            host = hosts.loopback
            environ = {**hosts.laptop.environment(host), "PYTHONPATH": str(ROOT), "AML_ENGINE": "process"}
            with bench.part("a second call"):
                second_call(bench, Path(folder) / "project", environ, host)
            with bench.part("synchronising"):
                synchronising(bench, Path(folder) / "tree", environ, hosts, host)
            with bench.part("a step"):
                one_step(bench, Path(folder) / "project", environ)
        finally:
            hosts.close()


def _project(folder: Path) -> None:
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "tasks.py").write_text("from workflows import namespace as ns\n")


def second_call(bench: Bench, project: Path, environ: dict[str, str], host: object) -> None:
    """Compare a task with `--remote`, with nothing to send, with the same task typed on the remote machine."""
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
    found = bench.measure(
        TIMES,
        ours=lambda: seconds(lambda: run(typed, project, environ)),
        there=lambda: seconds(lambda: run(bare, project)),
    )
    more = found.differences("ours", "there")
    bench.figure("a second --remote call, more than the same task typed there", more, "s", 1.0)
    connections = (host.sshd.connections() - before) / bench.times(TIMES)
    bench.figure("SSH connections of one call", [connections], "", 1)


def synchronising(bench: Bench, tree: Path, environ: dict[str, str], hosts: object, host: object) -> None:
    """Compare sending one changed file of ten thousand with rsync over the same SSH server."""
    from host import Host
    from hosts import Hosts

    assert isinstance(hosts, Hosts) and isinstance(host, Host)
    tree.mkdir()
    (tree / "tasks.py").write_text("from workflows import namespace as ns\n")
    chance = random.Random(1)
    files = FEW_FILES if bench.quick else FILES
    for number in range(files):
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
    found = bench.measure(TIMES, ours=changed(sync), rsync=changed(rsync))
    bench.ratio(f"one changed of {files:,} files sent, the whole command", "rsync", found, 2.0, theirs="rsync")


def one_step(bench: Bench, project: Path, environ: dict[str, str]) -> None:
    """Compare `next` of a debug session through the tunnel with one without it."""
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
    # The sessions take turns on the same stopped program.
    places = {"tunnel": int(endpoint["port"]), "direct": int(there)}
    found: dict[str, list[float]] = {name: [] for name in places}
    began = load()
    for _round in range(bench.times(4)):
        for name, port in places.items():
            found[name] += _steps(port, mappings, script, bench.times(STEPS))
    more = Samples(found, (began, load())).differences("tunnel", "direct")
    run([*INV, "experiment.cancel", "--remote"], project, environ)
    run([*INV, "remote.stop"], project, environ)
    bench.figure("one step (next) through the tunnel, more than direct", more, "s", 0.005)


def _steps(port: int, mappings: list[dict[str, str]], script: Path, steps: int) -> list[float]:
    client = DapClient.connect("127.0.0.1", port, 20)
    try:
        client.attach(path_mappings=mappings, breakpoints={str(script): [3]}, timeout=30)
        thread = client.wait_event("stopped", 30).body["threadId"]
        taken = []
        for _step in range(steps):

            def step() -> None:
                client.request("next", {"threadId": thread}, 20)
                client.wait_event("stopped", 20)

            taken.append(seconds(step))
        return taken
    finally:
        client.disconnect()
