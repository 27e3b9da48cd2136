"""Child processes of a debugged program: each is a session of its own, and costs nothing while nobody attends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import Hostile
from debuggee_harness import BOTH, EVERY, LIMIT, free_port, line_of, until
from step_harness import Step, debugpy_of
from users import OTHER, needs_users

from workflows.debugger.dap import DapClient
from workflows.debugger.sessions import Breakpoint, DebugSession
from workflows.engines.ports import find_free_port
from workflows.models import DebugEndpoint

#: Forks of the whole suite; `--hostile N` makes N.
FORKS = 15

WORK = """
def work(number):
    y = number * 2  # LINE child
    return y
"""
#: Each starts children that run `work`, which prints what the child has made of 21. Those of a group are tried by one
#: step, one after the other.
PROGRAMS = {
    "subprocess": """
        import subprocess, sys
        subprocess.run([sys.executable, "worker.py"], check=True)
        """,
    "a cleared environment": """
        import subprocess, sys
        subprocess.run([sys.executable, "worker.py"], check=True, env={})
        """,
    "a PYTHONPATH of its own": """
        import os, subprocess, sys
        subprocess.run([sys.executable, "worker.py"], check=True, env={**os.environ, "PYTHONPATH": "src"})
        """,
    "isolated": """
        import subprocess, sys
        subprocess.run([sys.executable, "-I", "-u", "worker.py"], check=True)
        """,
    "without site": """
        import subprocess, sys
        subprocess.run([sys.executable, "-S", "worker.py"], check=True)
        """,
    "isolated, without site": """
        import subprocess, sys
        subprocess.run([sys.executable, "-I", "-S", "worker.py"], check=True)
        """,
    "isolated, without site, in one word": """
        import subprocess, sys
        subprocess.run([sys.executable, "-IS", "worker.py"], check=True)
        """,
    "a script called as ours is": """
        import subprocess, sys
        open("launch.py", "w").write("import worker; worker.main()")
        subprocess.run([sys.executable, "launch.py"], check=True)
        """,
    "a module": """
        import subprocess, sys
        subprocess.run([sys.executable, "-m", "worker"], check=True)
        """,
    "code that imports it": """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "import worker; worker.main()"], check=True)
        """,
    "a shell": """
        import subprocess, sys
        subprocess.run(f"true; {sys.executable} worker.py; true", shell=True, check=True)
        """,
    "system": """
        import os, sys
        assert os.system(f"{sys.executable} worker.py; true") == 0
        """,
    "a preexec_fn": """
        import os, subprocess, sys
        subprocess.run([sys.executable, "worker.py"], check=True, preexec_fn=os.getpid)
        """,
    "spawn": """
        import os, sys
        assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "worker.py"]) == 0
        """,
    "posix_spawn": """
        import os, sys
        os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "worker.py"], os.environ), 0)
        """,
    "fork": """
        import os, worker
        if os.fork() == 0:
            worker.main()
            os._exit(0)
        os.wait()
        """,
    "fork and exec": """
        import os, sys
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "worker.py"])
        os.wait()
        """,
    "fork and isolated exec": """
        import os, sys
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-I", "worker.py"])
        os.wait()
        """,
    "a child of a child": """
        import os, subprocess, sys
        if os.fork() == 0:
            code = "import subprocess, sys; subprocess.run([sys.executable, 'worker.py'])"
            subprocess.run([sys.executable, "-c", code], check=True)
            os._exit(0)
        os.wait()
        """,
    **{
        f"multiprocessing by {method}": f"""
        import multiprocessing, worker
        if __name__ == "__main__":
            with multiprocessing.get_context("{method}").Pool(2) as pool:
                print("made", pool.apply(worker.work, [21]), flush=True)
        """
        for method in ("fork", "spawn", "forkserver")
    },
    "a process pool": """
        import worker
        from concurrent.futures import ProcessPoolExecutor
        if __name__ == "__main__":
            with ProcessPoolExecutor(2) as pool:
                print("made", pool.submit(worker.work, 21).result(), flush=True)
        """,
}  # fmt: skip

#: The programs of one step: those after a fork wait for any child, and multiprocessing has children that stay.
GROUPS = {
    "started by Python's own modules": [*PROGRAMS][: [*PROGRAMS].index("multiprocessing by fork")],
    "of multiprocessing": [*PROGRAMS][[*PROGRAMS].index("multiprocessing by fork") :],
}


def has_debugpy(python: str) -> bool:
    """Whether there is no such Python, or it has debugpy."""
    found = os.path.exists(python)
    return not found or subprocess.run([python, "-c", "import debugpy"], capture_output=True, cwd="/").returncode == 0


def begin(folder: Path, source: str, python: str = sys.executable, **more: str) -> Step:
    """A step that holds, with a worker beside its script."""
    step = Step(folder, "{python} train.py", python, source, **{"WAIT": "1", "CHILDREN": "1", "TIMEOUT": "60", **more})
    write_worker(step)
    return step


def write_worker(step: Step) -> None:
    """Put the worker beside the step's script, which holds before its first line, so that there is time."""
    (step.code / "worker.py").write_text(
        WORK + "\n\ndef main():\n    import os\n    # Whole, among many.\n    os.write(1, b'made %d\\n' % work(21))\n"
        "\n\ndef wait_for_all(count):\n    import os, time\n    os.makedirs('done', exist_ok=True)\n"
        "    open(f'done/{os.getpid()}', 'w').close()\n    while len(os.listdir('done')) < count: time.sleep(0.01)\n"
        "\n\nif __name__ == '__main__':\n    main()\n"
    )


def session(step: Step, port: int | None = None) -> DebugSession:
    """A debugger with a breakpoint in the worker, there and in the children."""
    endpoint = DebugEndpoint("127.0.0.1", port or step.port, ())
    return DebugSession(endpoint, breakpoints=[Breakpoint(str(step.code / "worker.py"), 3)], timeout=LIMIT)


def next_stop(client: DebugSession, itself: bool = False) -> int | None:
    """Wait until a child stops, and let it go on: its process id; None where the program ended before.

    With ``itself`` the program may stop as well: 0.
    """
    while True:
        happening = client.wait(LIMIT)
        assert happening is not None, "nothing stopped"
        if happening.kind == "ended":
            return None
        stop = happening.stop
        if stop is not None:
            assert itself or stop.child is not None, "the program itself stopped"
            assert stop.child is None or (stop.frame.function, stop.frame.line) == ("work", 3)
            client.go_on(stop)
            return stop.child or 0


@BOTH
@pytest.mark.parametrize("ways", GROUPS)
def test_a_breakpoint_is_hit_in_a_child(python: str, ways: str, tmp_path: Path) -> None:
    programs = {how: textwrap.dedent(PROGRAMS[how]).strip() for how in GROUPS[ways]}
    source = "".join(f"print({how!r}, flush=True)\n{text}\n" for how, text in programs.items())
    # What multiprocessing spawns imports the script.
    source = 'if __name__ == "__main__":\n' + textwrap.indent(source, "    ")
    with begin(tmp_path, source, python, DEBUGPY=debugpy_of(python)) as step:
        with session(step) as client:
            for how in programs:
                pid = next_stop(client)
                assert pid not in (None, step.process.pid), how
            assert next_stop(client) is None
        assert step.ended() == 0
        said = [line for line in step.lines if line in programs or line.startswith("made")]
        assert said == [line for how in programs for line in (how, "made 42")]
        assert step.errors() == ""
        assert list(tmp_path.glob("azureml-debuggee-*")) == []


@BOTH
def test_a_debugger_that_comes_later_stops_in_children_that_run_already(python: str, tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys, time, worker
        code = "import time, worker\\nwhile True: worker.work(1); time.sleep(0.05)"
        child = subprocess.Popen([sys.executable, "-c", code])
        pid = os.fork()
        while not pid:
            worker.work(1)
            time.sleep(0.05)
        print("begun", flush=True)
        sys.stdin.readline()
        child.kill()
        os.kill(pid, 9)
        """
    with begin(tmp_path, source, python, WAIT="0") as step:
        step.said("begun")
        for _ in range(2):
            with session(step) as client:
                pids: set[int] = set()
                while len(pids) < 2:
                    stopped = next_stop(client)
                    assert stopped is not None
                    pids.add(stopped)
        step.tell("")
        assert step.ended() == 0
        assert step.errors() == ""


@BOTH
@pytest.mark.parametrize("wants", [True, False])
def test_a_child_that_nobody_attends_to_runs_on(python: str, wants: bool, tmp_path: Path) -> None:
    source = """
        import subprocess, sys, time
        for _ in range(3):
            subprocess.run([sys.executable, "worker.py"], check=True)
        """
    with begin(tmp_path, source, python) as step:
        with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
            client.attach(sub_process=wants, timeout=LIMIT)
            assert step.ended() == 0
            client.disconnect(timeout=LIMIT)
        assert [line for line in step.lines if line.startswith("made")] == ["made 42"] * 3
        # It is asked for once, and not again.
        assert step.errors().count("no debugger has attached to it") == int(wants)


@EVERY
def test_the_thread_of_a_child_runs_before_the_child_does(python: str, tmp_path: Path) -> None:
    # Python 3.10 crashes if it ends before, which one of some hundred children did on a busy machine.
    source = """
        import subprocess, sys
        count = "import _thread, os; os.write(1, b'made %d' % _thread._count())"
        for _ in range(5):
            subprocess.run([sys.executable, "-c", count], check=True)
            print(flush=True)
        """
    with begin(tmp_path, source, python, WAIT="0") as step:
        assert step.ended() == 0
        assert [line for line in step.lines if line.startswith("made")] == ["made 1"] * 5


@BOTH
def test_processes_that_a_launcher_starts_side_by_side_are_debugged_behind_one_port(
    python: str, tmp_path: Path
) -> None:
    source = """
        import worker
        worker.main()
        worker.wait_for_all(3)
        """
    (tmp_path / "launch.py").write_text(
        "import subprocess, sys\n"
        "children = [subprocess.Popen([sys.executable, 'train.py']) for _ in range(3)]\n"
        "assert [child.wait() for child in children] == [0] * 3\n"
    )
    more = {"WAIT": "1", "CHILDREN": "1", "TIMEOUT": "60", "PORT": str(find_free_port(frozenset()))}
    with Step(tmp_path, "{python} ../launch.py", python, source, **more) as step:
        write_worker(step)
        with session(step) as client:
            pids = {next_stop(client, itself=True) for _ in range(3)}
            assert len(pids) == 3, step.errors()
        assert step.ended() == 0
        assert step.lines.count("made 42") == 3
        assert step.lines.count("Debugger attached = True") == 1


@pytest.mark.parametrize(("ranks", "made"), [("all", 3), ("all", 2), ("1", 2), ("0", 1)])
def test_the_ranks_that_a_launcher_makes_are_debugged_as_asked(ranks: str, made: int, tmp_path: Path) -> None:
    source = """
        import os, worker
        worker.main()
        os.write(1, f"rank {os.environ['RANK']} over\\n".encode())  # at once: others write there, too
        worker.wait_for_all(3)
        """
    (tmp_path / "launch.py").write_text(
        "import os, subprocess, sys\n"
        "children = [\n"
        "    subprocess.Popen([sys.executable, 'train.py'], env={**os.environ, 'RANK': rank}) for rank in '012'\n"
        "]\n"
        "assert [child.wait() for child in children] == [0] * 3\n"
    )
    port = free_port(3)
    more = {"WAIT": "1", "CHILDREN": "1", "TIMEOUT": "60", "RANKS": ranks, "MADE": str(made), "PORT": str(port)}
    with Step(tmp_path, "{python} ../launch.py", source=source, **more) as step:
        write_worker(step)
        wanted = [0, 1, 2] if ranks == "all" else [int(ranks)]
        own = [rank for rank in wanted if rank < made]
        until(lambda: {event["rank"] for event in step.events("waiting")} == set(own), "its ranks hold")
        assert {event["rank"]: event["port"] for event in step.events("listening")} == {r: port + r for r in own}
        with contextlib.ExitStack() as sessions:
            pids = set()
            for rank in own:
                client = sessions.enter_context(session(step, port=port + rank))
                # What has no port of its own is debugged behind the first one.
                for _ in range(1 + (len(wanted) - len(own) if rank == 0 else 0)):
                    pids.add((rank, next_stop(client, itself=True)))
            assert len(pids) == len(wanted)
        assert step.ended() == 0
        assert sorted(line for line in step.lines if line.endswith("over")) == [f"rank {r} over" for r in range(3)]
        assert step.lines.count("Debugger attached = True") == len(own)


def test_many_children_at_once_all_run_to_their_end(tmp_path: Path) -> None:
    # More than are accepted in one go. By forks, which come in quicker succession than programs that start.
    source = """
        import os, worker
        children = []
        for _ in range(70):
            children.append(os.fork())
            if not children[-1]:
                worker.main()
                os._exit(0)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 70
        """
    with begin(tmp_path, source) as step:
        with session(step) as client:
            count = 0
            while next_stop(client) is not None:
                count += 1
        assert step.ended() == 0
        assert step.lines.count("made 42") == 70
        assert count > 0


@BOTH
def test_a_child_that_dies_while_it_is_attached_ends_only_its_own_session(python: str, tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys, worker
        if os.fork() == 0:
            worker.work(1)
            os.kill(os.getpid(), 9)
        assert os.wait()[1] == 9
        subprocess.run([sys.executable, "worker.py"], check=True)
        """
    with begin(tmp_path, source, python) as step:
        with session(step) as client:
            assert {next_stop(client), next_stop(client)}.isdisjoint({None, step.process.pid})
            assert next_stop(client) is None
        assert step.ended() == 0
        assert step.lines[-1] == "made 42"


@BOTH
def test_a_child_that_closes_every_descriptor_keeps_its_files(python: str, tmp_path: Path) -> None:
    source = """
        import os, worker
        if os.fork() == 0:
            worker.work(1)
            os.closerange(3, 1000)
            files = [open(f"file{number}", "w+") for number in range(40)]
            import time
            time.sleep(1)
            for number, file in enumerate(files):
                file.write(str(number))
                file.close()
                assert open(f"file{number}").read() == str(number)
            print("kept", flush=True)
            os._exit(0)
        assert os.wait()[1] == 0
        """
    with begin(tmp_path, source, python) as step:
        with session(step) as client:
            assert next_stop(client) is not None
            assert next_stop(client) is None
        assert step.ended() == 0
        assert step.lines[-1] == "kept"


@BOTH
def test_a_thread_may_fork_while_the_debugger_has_the_program_paused(python: str, tmp_path: Path) -> None:
    source = """
        import os, threading, time, worker
        over = []
        def fork():
            while not over:
                if os.fork() == 0:
                    os._exit(0)
                os.wait()
                time.sleep(0.01)
        thread = threading.Thread(target=fork)
        thread.start()
        for number in range(10):
            worker.work(number)
        over.append(True)
        thread.join()
        print("done", flush=True)
        """
    with begin(tmp_path, source, python) as step:
        with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
            client.attach(breakpoints={str(step.code / "worker.py"): [3]}, timeout=LIMIT)
            for _ in range(10):
                event = client.wait_event("stopped", LIMIT)
                client.request("continue", {"threadId": event.body["threadId"]}, LIMIT)
            client.wait_event("terminated", LIMIT)
            client.disconnect(timeout=LIMIT)
        assert step.ended() == 0
        assert step.lines[-1] == "done"


@BOTH
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("attends", [True, False], ids=["attended", "left alone"])
def test_a_program_that_forks_children_is_debugged_to_its_end(
    python: str, attends: bool, request: pytest.FixtureRequest, hostile: Hostile, tmp_path: Path
) -> None:
    forks = FORKS if request.config.option.hostile is None else hostile.count
    source = f"""
        import os, worker
        for number in range({forks}):
            pid = os.fork()
            if not pid:
                worker.work(number)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            number += 1  # LINE forked
        print("forked", number, flush=True)
        """
    with begin(tmp_path, source, python) as step:
        endpoint, paths = DebugEndpoint("127.0.0.1", step.port, ()), (step.code / "worker.py", step.script)
        places = [Breakpoint(str(paths[0]), 3), Breakpoint(str(paths[1]), line_of("forked", step.script))]
        # Libraries left out, as an editor does.
        with DebugSession(endpoint, breakpoints=places, just_my_code=True, children=attends, timeout=LIMIT) as client:
            stops = [next_stop(client, itself=True) for _ in range(forks * (1 + attends))]
            assert stops.count(0) == forks and len(set(stops)) == 1 + forks * attends
            assert next_stop(client) is None
        assert step.ended() == 0
        assert step.lines[-1] == f"forked {forks}"


BARE = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if not has_debugpy(path)), "")


@pytest.mark.skipif(not BARE, reason="there is no Python without debugpy")
def test_a_child_of_a_python_without_debugpy_runs_on_and_it_is_said(tmp_path: Path) -> None:
    source = f"""
        import subprocess
        for _ in range(2):
            subprocess.run(["{BARE}", "worker.py"], check=True)
        """
    with begin(tmp_path, source) as step:
        with session(step) as client:
            assert next_stop(client) is None
        assert step.ended() == 0
        assert step.lines.count("made 42") == 2
        lines = step.errors().splitlines()
        assert len(lines) == 2 and all("cannot be debugged: ModuleNotFoundError" in line for line in lines)


@needs_users
@pytest.mark.skipif(not BARE, reason="there is no Python that every user can run")
def test_a_child_of_another_user_runs_on_undebugged(tmp_path: Path) -> None:
    source = f"""
        import subprocess
        subprocess.run(["{BARE}", "-c", "print('made', 42)"], check=True, user={OTHER})
        """
    with begin(tmp_path, source) as step:
        with session(step) as client:
            assert next_stop(client) is None
        assert step.ended() == 0
        assert step.lines[-1] == "made 42"


@needs_users
@BOTH
@pytest.mark.parametrize("when", ["before", "while attached"])
def test_a_child_that_changes_its_user_ends_as_it_would_have(python: str, when: str, tmp_path: Path) -> None:
    change = f"os.setgid({OTHER}); os.setuid({OTHER})"
    source = f"""
        import os, worker
        if os.fork() == 0:
            {"worker.work(1)" if when != "before" else change}
            {change}
            worker.work(2)
            os.write(1, b"child over\\n")
            os._exit(0)
        assert os.wait()[1] == 0
        """
    with begin(tmp_path, source, python) as step:
        with session(step) as client:
            stops = 0
            while next_stop(client) is not None:
                stops += 1
        # From the moment of the fork on it is one that the debugger is in.
        assert stops == (2 if when != "before" else 1)
        assert step.ended() == 0
        assert step.lines[-1] == "child over"


def test_without_children_they_are_plain_processes(tmp_path: Path) -> None:
    with begin(tmp_path, PROGRAMS["subprocess"], CHILDREN="0") as step:
        with session(step) as client:
            assert next_stop(client) is None
        assert step.ended() == 0
        assert step.lines[-1] == "made 42"
