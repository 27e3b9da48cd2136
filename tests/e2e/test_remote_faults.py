"""`--remote` when something breaks on the way: each fault is done for real, and nothing is lost by it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hosts import Hosts
from pipelines import FAMILY, PREPARE_LINE, go_on, session, stop_of, value_of
from projects import PLAIN_LINE, post, quiet_port, until
from remotes import RemoteProject, remote_project

DEPLOYMENT = "Azure Machine Learning Deployment: Docker Debug"
#: Says where it is, twenty times a second.
COUNTING = (
    "import sys, time\nfor n in range(1, 201):\n    print(f'line {n} of 200', flush=True)\n    time.sleep(0.03)\n"
)
#: Gives up sooner than a person would like; only here: the other machine does not ask.
HASTY = "import workflows.remote.follower\nworkflows.remote.follower.RECONNECT_SECONDS = 2\n"


@pytest.fixture
def project(tmp_path: Path, hosts: Hosts) -> Iterator[RemoteProject]:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as made:
        yield made


def experiment(project: RemoteProject, script: str, **more: str) -> None:
    """An experiment `sums` of a script."""
    (project.folder / "work.py").write_text(script)
    project.ok("experiment.create", "--remote", "sums", **more)


def said_there(project: RemoteProject, folder: str = "azureml-debug/*") -> str:
    """What the latest run's script has said by now, as it lies on the instance."""
    found = sorted(project.host.path(".").glob(f"{folder}/.azureml-debug/runs/*/azureml-logs/70_driver_log.txt"))
    return found[-1].read_text() if found else ""


def slow_first_step(project: RemoteProject, seconds: int) -> None:
    """Have the first step do something else before it comes to Python."""
    path = project.folder / "pipeline.yml"
    path.write_text(
        path.read_text().replace("      python prepare.py\n", f"      sleep {seconds} &&\n      python prepare.py\n")
    )


def agents(project: RemoteProject) -> list[int]:
    """The program's helpers on the instance; not those that keep what a task says, which end with the task."""
    found = []
    for process in project.host.processes():
        with contextlib.suppress(psutil.Error):
            parent = process.parent()
            # The shell that has started one may stay above it, or be replaced by it.
            served = parent is not None and (parent.name() == "sh" or parent.name().startswith("sshd"))
            if served and "-I -S -u -c" in " ".join(process.cmdline()) and process.name() != "sh":
                found.append(process.pid)
    return found


def problem(project: RemoteProject) -> str:
    """Why the tunnels are not connected; empty when they are."""
    return str(project.ok("remote.tunnels", "--json").json["problem"])


def keeper(project: RemoteProject) -> int:
    text = (project.folder / ".azureml-debug" / "remote" / "keeper.json").read_text()
    return int(json.loads(text)["process"]["pid"])


def test_a_server_that_is_killed_in_mid_run_costs_no_line_and_no_exit_code(project: RemoteProject) -> None:
    experiment(project, f"{COUNTING}sys.exit(3)\n")
    child = project.start("experiment.run", "--remote", "--follow", "sums", "--script", "work.py")
    until(lambda: "line 30 " in said_there(project), "its start")
    project.host.sshd.stop()
    until(lambda: "line 80 " in said_there(project), "that it goes on there")
    project.host.sshd.start()
    result = project.finish(child)
    lines = [line for line in result.out.splitlines() if line.endswith(" of 200")]
    assert lines == [f"line {n} of 200" for n in range(1, 201)]
    assert "The connection to" in result.err and "Connected again" in result.out
    assert result.code == 1, result


def test_a_server_that_is_killed_while_a_step_is_waited_for(project: RemoteProject) -> None:
    slow_first_step(project, 6)
    child = project.start("pipeline.debug", "--remote", "--json")
    until(lambda: list(project.host.path("azureml-debug").glob("*/.azureml-debug/runs/*/run.json")), "its start")
    project.host.sshd.restart()
    result = project.finish(child)
    assert result.code == 0 and result.err.count("The connection to") == 1, result
    assert [one["step"] for one in result.json["endpoints"]] == ["prepare"] and result.out.count("{") == len(
        [mark for mark in result.out.splitlines()[-1] if mark == "{"]
    )
    script = project.folder / "prepare" / "prepare.py"
    with session(project.endpoint(f"{FAMILY} (prepare)"), {script: [PREPARE_LINE]}) as client:
        assert value_of(client, stop_of(client), "numbers") == "[1, 2, 3]"
    project.ok("pipeline.cancel", "--remote")


@pytest.mark.parametrize("way_out", ["limit", "Ctrl-C"])
def test_a_server_that_stays_away_is_given_up_and_the_run_is_picked_up_later(
    project: RemoteProject, way_out: str
) -> None:
    if way_out == "limit":
        (project.folder / "tasks.py").write_text(HASTY + (project.folder / "tasks.py").read_text())
    slow_first_step(project, 4)
    child = project.start("pipeline.debug", "--remote")
    until(lambda: list(project.host.path("azureml-debug").glob("*/.azureml-debug/runs/*/run.json")), "its start")
    project.host.sshd.stop()
    if way_out == "Ctrl-C":
        assert child.stderr is not None
        until(lambda: "Connecting again" in child.stderr.readline(), "the loss")  # type: ignore[union-attr]
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
    result = project.finish(child)
    code = 130 if way_out == "Ctrl-C" else 1
    result.says("what was started there goes on", "inv pipeline.attach --remote", code=code)
    # Long before the limit.
    assert way_out == "limit" or time.monotonic() - began < 30
    project.host.sshd.start()
    (endpoint,) = project.remote("pipeline.attach")["endpoints"]
    assert endpoint["step"] == "prepare" and endpoint["host"] == "127.0.0.1"
    script = project.folder / "prepare" / "prepare.py"
    with session(project.endpoint(f"{FAMILY} (prepare)"), {script: [PREPARE_LINE]}) as client:
        assert value_of(client, stop_of(client), "numbers") == "[1, 2, 3]"
    project.ok("pipeline.cancel", "--remote")


def test_ctrl_c_gives_up_at_once_where_packets_vanish(project: RemoteProject, hosts: Hosts) -> None:
    experiment(project, COUNTING)
    child = project.start("experiment.run", "--remote", "--follow", "sums", "--script", "work.py")
    until(lambda: "line 10 " in said_there(project), "its start")
    with hosts.silent():
        assert child.stderr is not None
        until(lambda: "Connecting again" in child.stderr.readline(), "the loss")  # type: ignore[union-attr]
        time.sleep(1)
        # In the middle of an attempt, which would take twenty seconds.
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        project.finish(child).says("goes on", "inv experiment.attach --remote", code=130)
        assert time.monotonic() - began < 10


def large_outputs(project: RemoteProject) -> None:
    """A run that has written a small file and one of 150 MB."""
    write = "import os\nopen('outputs/a.txt', 'w').write('small')\n"
    experiment(project, f"{write}open('outputs/b.bin', 'wb').write(os.urandom(1 << 20) * 150)\n")
    project.ok("experiment.run", "--remote", "--follow", "sums", "--script", "work.py")


def copying(project: RemoteProject) -> subprocess.Popen[str]:
    """Copy them here; returns in the middle of the large one."""
    child = project.start("experiment.outputs", "--remote", "--copy", "results", "--json")
    until(lambda: list(project.folder.glob("results/outputs/.b.bin.*")), "the copy's beginning")
    return child


def test_files_whose_way_here_is_cut_come_all_the_same(project: RemoteProject) -> None:
    large_outputs(project)
    child = copying(project)
    project.host.sshd.restart()
    result = project.finish(child)
    assert result.code == 0 and "not all files had come here" in result.err, result
    folder = project.folder / "results" / "outputs"
    assert result.json["folder"] == str(project.folder / "results")
    there = next(project.host.path("azureml-debug").glob("*/.azureml-debug/runs/*/outputs/b.bin"))
    assert (folder / "b.bin").read_bytes() == there.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.bin"]


def test_files_that_cannot_come_here_any_more_are_said(project: RemoteProject) -> None:
    (project.folder / "tasks.py").write_text(HASTY + (project.folder / "tasks.py").read_text())
    large_outputs(project)
    child = copying(project)
    project.host.sshd.stop()
    result = project.finish(child)
    result.says("files have not come here", "copy into another folder: inv experiment.outputs --remote --run sums-1-")
    assert [path.name for path in (project.folder / "results" / "outputs").iterdir()] == ["a.txt"]
    project.host.sshd.start()


def test_a_shell_there_knows_the_window_and_ctrl_c_gives_up_a_lost_one(project: RemoteProject) -> None:
    project.remote("deploy.debug")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project.folder)
        environ = {**os.environ, **project.environ, "PS1": "$ ", "TERM": "dumb", "COLUMNS": "80", "LINES": "24"}
        os.execve(sys.executable, [sys.executable, "-m", "invoke", "container.shell", "--remote"], environ)
    said = bytearray()
    done = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            while data := os.read(terminal, 65536):
                said.extend(data)
        done.set()

    threading.Thread(target=read, daemon=True).start()
    for lines, columns in ((31, 101), (47, 133)):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        os.kill(child, signal.SIGWINCH)
        # It takes a moment for the size to get there.
        until(lambda: _typed(terminal, b"stty size\r", said, b"%d %d\r\n" % (lines, columns)), "the size")  # noqa: B023
    project.host.sshd.stop()
    until(lambda: b"Connecting again" in said, "the loss")
    os.write(terminal, b"\x03")
    assert done.wait(15), bytes(said)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert b"what was started there goes on" in said
    project.host.sshd.start()


def _typed(terminal: int, text: bytes, said: bytearray, wanted: bytes) -> bool:
    os.write(terminal, text)
    time.sleep(0.3)
    return wanted in said


def test_a_link_that_is_cut_ends_the_session_and_the_tunnel_comes_back(project: RemoteProject, hosts: Hosts) -> None:
    result = project.remote("deploy.debug")
    ports = sorted(one["local_port"] for one in project.tunnels())
    endpoint = project.endpoint(DEPLOYMENT)
    ended = threading.Event()
    with (
        session(endpoint, {project.score: [PLAIN_LINE]}),
        socket.create_connection(
            ("127.0.0.1", int(result["scoring_url"].split(":")[2].split("/")[0]))
        ) as open_connection,
    ):

        def read() -> None:
            with contextlib.suppress(OSError):
                while open_connection.recv(4096):
                    pass
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        hosts.link_down()
        # Nobody hangs: whoever is connected is told within the time that a dead link takes to be noticed.
        assert ended.wait(40)
        project.wait_for_tunnels(len(ports), connected=False)
        assert problem(project)
        assert "not connected" in project.ok("remote.tunnels").out
    hosts.link_up()
    project.wait_for_tunnels(len(ports))
    assert not problem(project)
    assert sorted(one["local_port"] for one in project.tunnels()) == ports
    with session(project.endpoint(DEPLOYMENT), {project.score: [PLAIN_LINE]}) as client:
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(post(result["scoring_url"])))
        asking.start()
        frame = stop_of(client)
        assert value_of(client, frame, "total") == "6"
        go_on(client, frame)
        asking.join(20)
    assert answers == [{"answer": 60}]
    # What the lost connections have left there ends too.
    until(lambda: len(agents(project)) == 1, "the end of the helpers there")


def test_a_slow_and_lossy_link(project: RemoteProject, hosts: Hosts) -> None:
    project.ok("remote.sync")
    with hosts.slow():
        (project.folder / "new.txt").write_text("new")
        assert project.ok("remote.sync", "--json").json["sent"] == 1
        result = project.remote("deploy.debug")
        with session(project.endpoint(DEPLOYMENT), {project.score: [PLAIN_LINE]}) as client:
            answers: list[object] = []
            asking = threading.Thread(target=lambda: answers.append(post(result["scoring_url"], timeout=60)))
            asking.start()
            frame = stop_of(client, 60)
            assert value_of(client, frame, "total") == "6"
            go_on(client, frame)
            asking.join(60)
        assert answers == [{"answer": 60}]
        project.ok("container.stop", "--remote")


def test_a_disk_that_fills_up_in_mid_run_is_said_and_ends_the_command(project: RemoteProject) -> None:
    small = {"AML_REMOTE_DIR": "small/project"}
    project.host.small_disk("small", 12)
    experiment(project, "for n in range(400_000):\n    print('line', n, 'x' * 80)\nprint('the end')\n", **small)
    result = project.inv("experiment.run", "--remote", "--follow", "sums", "--script", "work.py", **small)
    assert "No space" in result.err + result.out, (result.code, result.err[-2000:], result.out[-500:])
    assert result.code == 1
    until(lambda: not agents(project), "the end of the helper there")
    # What is there works again once there is space.
    project.host.run(
        ["sh", "-c", "rm -rf ~/small/project/.azureml-debug/runs ~/small/project/.azureml-debug/remote/tasks"]
    )
    assert project.remote("experiment.list", **small)["experiments"][0]["name"] == "sums"


def test_an_instance_that_was_restarted(project: RemoteProject) -> None:
    (project.folder / "busy.py").write_text("import time\ntime.sleep(600)\n")
    project.ok("experiment.debug", "--remote", "sums", "--script", "busy.py")
    assert project.tunnels()
    child = project.start("experiment.logs", "--remote", "--follow")
    until(lambda: len(agents(project)) == 2, "the follower")
    time.sleep(1)
    project.host.sshd.stop()
    for process in project.host.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
    project.host.sshd.start()
    project.finish(child).says("ended without a result", "restarted")
    assert project.remote("experiment.show")["status"] == "Interrupted"
    project.wait_for_tunnels(0)
    assert not project.tunnels()


def test_a_command_that_is_killed_here_leaves_its_run_and_nothing_else(project: RemoteProject) -> None:
    experiment(project, COUNTING)
    child = project.start("experiment.run", "--remote", "--follow", "sums", "--script", "work.py")
    until(lambda: "line 10 " in said_there(project), "its start")
    child.kill()
    until(lambda: not agents(project), "the end of the helper there")
    until(lambda: "line 200 " in said_there(project), "the end of the run")
    project.wait_for_run("Completed")
    assert project.remote("experiment.show")["status"] == "Completed"
    (project.folder / "wait.py").write_text("import time\ntime.sleep(600)\n")
    child = project.start("experiment.debug", "--remote", "--follow", "waiting", "--script", "wait.py")
    project.wait_for_tunnels(1)
    assert project.tunnels()
    child.kill()
    until(lambda: len(agents(project)) == 1, "the end of the helper there")
    tunnels = keeper(project)
    assert psutil.pid_exists(tunnels) and project.remote("experiment.show")["status"] == "Running"
    project.ok("experiment.cancel", "--remote")
    until(lambda: not psutil.pid_exists(tunnels), "the end of the tunnels' process")
    until(lambda: not agents(project), "the end of the helper there")


def test_two_commands_at_once_from_one_project(project: RemoteProject) -> None:
    project.ok("remote.sync")
    # Both want the same debug port there, before either listens on it.
    first = project.start("deploy.debug", "--remote", "--json")
    second = project.start("pipeline.debug", "--remote", "--json")
    results = [project.finish(first), project.finish(second)]
    assert [one.code for one in results] == [0, 0], results
    assert len({one["port"] for one in project.tunnels()}) == 5
    assert any("belongs to another session" in one.err for one in results), results
    assert {DEPLOYMENT, f"{FAMILY} (prepare)"} <= set(project.launch())
    owners = {one["belongs_to"] for one in project.tunnels()}
    assert len(owners) == 2, owners
    with session(project.endpoint(DEPLOYMENT), {}), session(project.endpoint(f"{FAMILY} (prepare)"), {}):
        pass
    project.ok("pipeline.cancel", "--remote")


def test_stop_ends_the_tunnels_and_leaves_the_run(project: RemoteProject) -> None:
    # The usual one may be that of a test that runs beside this one.
    project.environ["AML_DEBUG_PORT"] = str(quiet_port())
    project.ok("pipeline.submit", "--no-debug", "--follow")
    assert "newest" not in project.ok("pipeline.status").out
    result = project.remote("pipeline.debug")
    # A run of this machine that is shown as the latest is not taken for the newer one there.
    note = f"note: the newest run is on {project.host.user}@{project.host.address}:{project.host.port}"
    assert f"{note}: inv pipeline.status --remote" in project.ok("pipeline.status").out
    assert "newest" not in project.ok("pipeline.status", "--remote").out
    count = len(project.tunnels())
    process = keeper(project)
    assert project.ok("remote.stop", "--json").json["closed"] == count
    assert not project.tunnels()
    until(lambda: not psutil.pid_exists(process), "the end of the tunnels' process")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", result["endpoints"][0]["port"]), 5)
    assert project.remote("pipeline.status")["status"] == "Running"
    assert project.remote("pipeline.attach")["endpoints"]
    assert len(project.tunnels()) == count
    project.ok("pipeline.cancel", "--remote")


def test_a_keeper_that_is_killed_is_replaced(project: RemoteProject) -> None:
    project.remote("deploy.debug")
    os.kill(keeper(project), signal.SIGKILL)
    assert not project.tunnels()
    project.remote("deploy.attach-config")
    assert len(project.tunnels()) == 2
    with session(project.endpoint(DEPLOYMENT), {}):
        pass
