"""One debugged process: holds, what is logged, the script's own debugpy calls, forks, ends."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest
from debuggee_harness import (
    BOTH,
    CHILD,
    LIMIT,
    Child,
    evaluate,
    interpreters,
    line_of,
    name_of,
    over,
    resume,
    stopped,
    traces,
    until,
)

from workflows.debuggee import FOLDER
from workflows.debugger.dap import DapClient

TRACING = pytest.mark.parametrize("python", [path for path in interpreters() if traces(path)], ids=name_of)
#: At a script's top, as published, behind what loads the debuggee.
PUBLISHED = """
    import debuggee_child, sys, os, time, threading
    debuggee_child.session = session = debuggee_child.load().start()
    import debugpy
    debugpy.listen(("0.0.0.0", 5678))
    debugpy.wait_for_client()
    print(f"Debugger attached = {debugpy.is_client_connected()} says the script", flush=True)
    debuggee_child.obey()
"""
HELD = {"AZUREML_DEBUGGEE_WAIT": "1"}


def write(folder: Path, source: str) -> Path:
    script = folder / "script.py"
    script.write_text(textwrap.dedent(source))
    return script


# What travels --------------------------------------------------------------------------------------


#: What a file may use of the step's own environment, by its name: inside functions, where it is called for.
OF_THE_STEP = {
    "tags.py": {"azureml"},
    "tables.py": {"pandas"},
    "mltable.py": {"yaml"},
    "mlflow_scoring/score.py": {"mlflow"},
}


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """The packages that some nodes import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("file", sorted(Path(FOLDER).rglob("*.py")), ids=lambda file: os.path.relpath(file, FOLDER))
def test_the_debuggee_is_python_3_8_and_imports_nothing_that_has_to_be_installed(file: Path) -> None:
    tree = ast.parse(file.read_text(), str(file), feature_version=(3, 8))
    bundled = {"_pydev_bundle", "_pydevd_bundle", "_pydevd_sys_monitoring", "pydevd_file_utils"}
    pydevd = {"debugpy", "pydevd"} | bundled
    # hashlib's own, in Python 3.12; and the one that an injected process would have without us.
    pythons = {"_sha2", "sitecustomize"}
    allowed = sys.stdlib_module_names | pydevd | pythons | {"azureml_debuggee", "azureml_parallel_run"}
    of_step = next((known for name, known in OF_THE_STEP.items() if file.as_posix().endswith(f"/{name}")), set())
    assert imports(ast.walk(tree)) <= allowed | of_step
    # Whatever imports the module has to do without.
    assert not imports(tree.body) & of_step


def test_every_older_interpreter_here_can_load_the_debuggee(tmp_path: Path) -> None:
    source = f"""
        import sys, types
        sys.path.insert(0, {FOLDER!r})
        sys.modules["debugpy"] = debugpy = types.ModuleType("debugpy")
        debugpy.listen = debugpy.debug_this_thread = debugpy.trace_this_thread = print
        from azureml_debuggee import session
        session.start({{"AZUREML_DEBUGGEE_PORT": "0", "AZUREML_DEBUGGEE_TIMEOUT": "0"}}).hold()
    """
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    found = sorted(versions.glob("3.[89].*/bin/python"))
    for python in [*map(str, found), sys.executable]:
        run = subprocess.run(
            [python, str(write(tmp_path, source))], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert run.stdout.splitlines()[-1] == "Debugger attached = False"


def test_a_debugpy_that_is_too_old_is_refused_by_name(tmp_path: Path) -> None:
    source = f"""
        import sys, types
        sys.path.insert(0, {FOLDER!r})
        sys.modules["debugpy"] = debugpy = types.ModuleType("debugpy")
        debugpy.__version__ = "1.6.0"
        from azureml_debuggee import session
        session.start({{"AZUREML_DEBUGGEE_PORT": "0"}})
    """
    run = subprocess.run(
        [sys.executable, str(write(tmp_path, source))], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert run.stderr.splitlines()[-1] == "ImportError: debugpy 1.6.0 is older than 1.8"


# Holding --------------------------------------------------------------------------------------------


@BOTH
def test_a_hold_logs_the_published_lines_and_ends_when_a_debugger_has_attached(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python, variables=HELD) as child:
        child.event("waiting")
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
            expected = [
                "Timeout for debug connection: 300",
                "ip_address: 127.0.0.1",
                f"debug_port: {child.port}",
                "Debugger attached = True",
            ]
            child.said(expected[-1])
            assert child.lines == expected
            assert child.event("attached")


@pytest.mark.parametrize(
    ("timeout", "said"), [("0", "0"), ("-3", "-3"), ("0.25", "0.25"), ("nan", "300"), ("soon", "300")]
)
def test_a_hold_lasts_as_long_as_it_says(tmp_path: Path, timeout: str, said: str) -> None:
    with Child(tmp_path, variables={**HELD, "AZUREML_DEBUGGEE_TIMEOUT": timeout}) as child:
        child.said(f"Timeout for debug connection: {said}")
        if said != "300":
            child.said("Debugger attached = False")
            assert child.event("not-attached")
            with child.attached("tick") as client:
                assert stopped(client)[0] == "tick"


def test_a_large_timeout_is_written_out(tmp_path: Path) -> None:
    with Child(tmp_path, variables={**HELD, "AZUREML_DEBUGGEE_TIMEOUT": "1234567"}) as child:
        child.said("Timeout for debug connection: 1234567")


def test_a_debugger_that_leaves_before_it_is_configured_does_not_end_the_hold(tmp_path: Path) -> None:
    with Child(tmp_path, variables=HELD) as child:
        with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
            client.request("initialize", {"adapterID": "x"}, LIMIT)
        child.event("client-left")
        assert not child.events("not-attached") and not child.events("attached")
        with child.attached():
            child.said("Debugger attached = True")


@BOTH
def test_a_debugger_that_has_attached_and_left_between_two_looks_ends_the_hold(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        child.ask("sys.modules['azureml_debuggee.debugger'].__dict__.update(POLL_SECONDS=2.0)")
        for _ in range(2):
            child.tell("session.hold()")
            until(lambda: child.lines.count("Timeout for debug connection: 300") == 1, "the child holds")
            child.lines.remove("Timeout for debug connection: 300")
            with child.attached():
                pass
            assert child.answer() is True


def test_a_hold_with_a_debugger_half_way_still_ends_in_time(tmp_path: Path) -> None:
    held = Child(tmp_path, variables={**HELD, "AZUREML_DEBUGGEE_TIMEOUT": "1.5"})
    with held as child, DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
        client.request("initialize", {"adapterID": "x"}, LIMIT)
        child.said("Debugger attached = False")


def test_a_signal_ends_a_hold(tmp_path: Path) -> None:
    with Child(tmp_path, variables=HELD) as child:
        child.event("waiting")
        child.process.send_signal(signal.SIGTERM)
        assert child.ended() == -signal.SIGTERM


def test_a_hold_ends_when_the_program_is_to_end(child: Child) -> None:
    child.ask("session.is_ending = lambda: True")
    assert child.ask("session.hold()") is False


def test_holds_in_two_threads_both_end_when_cancelled(child: Child) -> None:
    child.ask("import debugpy; ended = []")
    child.ask("hold = lambda: (debugpy.wait_for_client(), ended.append(1))")
    # A debugger that has come half way, so that they wait in pydevd.
    with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
        client.request("initialize", {"adapterID": "x"}, LIMIT)
        child.ask("[threading.Thread(target=hold, daemon=True).start() for _ in range(2)]")
        until(lambda: child.lines.count("Timeout for debug connection: 300") == 2, "both hold")
        until(lambda: child.ask("debugpy.wait_for_client.cancel()") or child.ask("len(ended)") == 2, "both end")


# The script's own calls -----------------------------------------------------------------------------


@BOTH
def test_the_published_lines_at_a_scripts_top_are_answered(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python, write(tmp_path, PUBLISHED)) as child:
        child.event("waiting")
        with child.attached("tick") as client:
            child.said("Debugger attached = True says the script")
            _name, _line, thread = stopped(client)
            client.set_breakpoints(str(CHILD), [])
            resume(client, thread)
            child.ask("import debugpy")
            # Once more, with somebody attached: answered at once.
            assert child.ask("debugpy.listen(5678)") == ("127.0.0.1", child.port)
            assert child.ask("debugpy.listen(('0.0.0.0', 5678), in_process_debug_adapter=True)")[1] == child.port
            assert child.ask("debugpy.wait_for_client()") is None
            assert child.ask("debugpy.is_client_connected()") is True
        until(lambda: child.ask("debugpy.is_client_connected()") is False, "it is seen to have left")
        assert child.errors() == ""


def test_a_wait_of_the_scripts_own_can_be_cancelled(tmp_path: Path) -> None:
    with Child(tmp_path) as child:
        child.ask("import debugpy")
        child.tell("threading.Timer(0.2, lambda: debugpy.wait_for_client.cancel()).start(); debugpy.wait_for_client()")
        assert child.answer() is None
        assert "Debugger attached = False" in child.lines


@BOTH
def test_breakpoint_calls_pause_in_the_callers_frame_when_attached_and_do_nothing_otherwise(
    python: str, tmp_path: Path
) -> None:
    calls = [("pause", "after debugpy.breakpoint"), ("pause_by_builtin", "after breakpoint")]
    with Child(tmp_path, python) as child:
        for _ in range(2):
            for function, _marker in calls:
                assert child.ask(function + "()") == "before, after"
            with child.attached() as client:
                for function, marker in calls:
                    child.tell(function + "()")
                    name, line, thread = stopped(client)
                    assert name == function
                    assert line_of(marker) - 1 <= line <= line_of(marker)
                    assert evaluate(client, thread, "before") == "'before'"
                    resume(client, thread)
                    assert child.answer() == "before, after"
            child.at_full_speed()


def test_debugpys_per_thread_calls_do_no_harm_with_nobody_attached(child: Child) -> None:
    assert child.ask("__import__('debugpy').debug_this_thread()") is None
    assert child.ask("__import__('debugpy').trace_this_thread(True)") is None
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"
    child.ask("__import__('debugpy').debug_this_thread()")
    child.at_full_speed()


# Programs of all kinds ------------------------------------------------------------------------------


@TRACING
def test_threads_that_come_and_go_survive_detaching(python: str, tmp_path: Path) -> None:
    source = """
        import threading
        def churn():
            while True:
                crowd = [threading.Thread(target=int) for _ in range(5)]
                for thread in crowd: thread.start()
                for thread in crowd: thread.join()
        for _ in range(4): threading.Thread(target=churn, daemon=True).start()
    """
    with Child(tmp_path, python) as child:
        with child.attached():
            pass
        child.at_full_speed()
        child.ask("churning = {}")
        child.ask(f"exec({textwrap.dedent(source)!r}, churning)")
        # Many times, since it is a matter of luck whether a thread ends in the midst of it.
        child.ask("from azureml_debuggee import tracing")
        child.ask("[tracing.untrace() for _ in range(20_000)] and None")


def test_a_late_attach_stops_in_an_asyncio_program(tmp_path: Path) -> None:
    source = """
        import asyncio, debuggee_child
        debuggee_child.load().start()
        async def work(number):
            await asyncio.sleep(0.005)
            return number  # LINE work
        async def main():
            while True:
                await asyncio.gather(*map(work, range(5)))
        asyncio.run(main())
    """
    script = write(tmp_path, source)
    with Child(tmp_path, script=script) as child, child.attached("work", file=script) as client:
        assert stopped(client)[:2] == ("work", line_of("work", script))


def test_an_attach_gets_through_to_a_program_whose_c_code_holds_the_interpreter(tmp_path: Path) -> None:
    source = """
        import debuggee_child
        debuggee_child.load().start()
        numbers = range(50_000)
        def hog():
            return sum(numbers)  # LINE hog
        while True:
            hog()
    """
    script = write(tmp_path, source)
    with Child(tmp_path, script=script) as child, child.attached("hog", file=script) as client:
        assert stopped(client)[0] == "hog"


# Children -------------------------------------------------------------------------------------------

FORK = """
    import os
    def family(depth):
        pid = os.fork()
        if pid == 0:
            import debugpy, debuggee_child, sys, threading
            import __main__ as program
            {inside}
            code = program.tick(20) + len(program.pause()) - len("before, after")
            program.pause_by_builtin()
            debugpy.wait_for_client()
            if threading.gettrace() if hasattr(threading, "gettrace") else sys.gettrace():
                os._exit(99)
            os._exit(code if depth == 0 else family(depth - 1))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """


@pytest.mark.parametrize(
    ("python", "when"),
    [
        (interpreters()[0], "during"),
        (interpreters()[-1], "during"),
        (sys.executable, "before"),
        (sys.executable, "after"),
    ],
    ids=["oldest-during", "newest-during", "before", "after"],
)
def test_a_forked_child_and_its_child_run_past_inherited_breakpoints(python: str, when: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        child.ask(f"exec({textwrap.dedent(FORK.format(inside='pass'))!r})")
        if when == "before":
            assert child.ask("family(1)") == 40
        with child.attached("tick") as client:
            _name, _line, thread = stopped(client)
            if when == "during":
                child.tell("family(1)")
                client.set_breakpoints(str(CHILD), [line_of("spinner")], LIMIT)
                resume(client, thread)
                stopped(client)
                # The breakpoint that the child inherits.
                client.set_breakpoints(str(CHILD), [line_of("tick")], LIMIT)
                answered = 0
                while not [line for line in child.lines if line.startswith("= ")][1:]:
                    resume(client, thread)
                    _name, _line, thread = stopped(client)
                    answered += 1
                    assert answered < 500
        if when == "during":
            assert child.answer() == 40
        if when == "after":
            child.at_full_speed()
            assert child.ask("family(1)") == 40
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
        assert child.errors() == ""


@over("just_my_code", [True, False])
def test_a_thread_that_forks_while_the_program_is_being_paused_goes_on(
    python: str, just_my_code: bool, tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    # A function of the first is called in each child, before any of the debuggee's.
    script.write_text(
        "import random\nimport debuggee_child\ndebuggee_child.session = debuggee_child.load().start()\n"
        "debuggee_child.obey()\n"
    )
    fork = "p = os.fork()\\n  if not p: os._exit(0)\\n  os.waitpid(p, 0)\\n  forks[0] += 1"
    with Child(tmp_path, python, script) as child:
        child.ask("forks = [0]; rests = threading.Event()")
        child.ask(f"exec('def fork():\\n while not rests.is_set():\\n  {fork}\\n')")
        child.ask("threading.Thread(target=fork, daemon=True).start()")
        for _ in range(6):
            with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
                lines = {str(CHILD): [line_of("tick")]}
                client.attach(breakpoints=lines, just_my_code=just_my_code, timeout=LIMIT)
                thread = stopped(client)[2]
                client.set_breakpoints(str(CHILD), [])
                resume(client, thread)
                client.disconnect(timeout=LIMIT)
        seen = child.ask("forks[0]")
        until(lambda: child.ask("forks[0]") > seen, "another fork")
        child.ask("rests.set()")


def test_a_forked_child_that_lives_on_holds_neither_port_nor_debugger(child: Child) -> None:
    port = child.port
    with DapClient.connect("127.0.0.1", port, LIMIT) as client, child.connect() as silent:
        client.attach(timeout=LIMIT)
        child.ask("orphan = os.fork() or (time.sleep(600), os._exit(0))")
        orphan = child.ask("orphan")
        try:
            child.process.kill()
            child.ended()
            with pytest.raises(Exception, match="closed"):
                client.wait_event("never", LIMIT)
            silent.settimeout(LIMIT)
            assert silent.recv(1) == b""
            with socket.create_server(("127.0.0.1", port)):
                pass
            os.kill(orphan, 0)
        finally:
            os.kill(orphan, signal.SIGKILL)


@BOTH
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_works_with_a_debugger_attached(python: str, method: str, tmp_path: Path) -> None:
    source = """
        import debuggee_child, multiprocessing, sys
        from math import factorial
        if __name__ == "__main__":
            debuggee_child.session = debuggee_child.load().start()
            debuggee_child.multiprocessing = multiprocessing
            debuggee_child.factorial = factorial
            debuggee_child.obey()
    """
    with Child(tmp_path, python, write(tmp_path, source)) as child:
        call = f"multiprocessing.get_context({method!r}).Pool(2).map(factorial, range(5))"
        with child.attached():
            assert child.ask(call) == [1, 1, 2, 6, 24]
        assert child.ask(call) == [1, 1, 2, 6, 24]


# Surroundings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/nonexistent/folder/events", "."])
def test_events_that_cannot_be_written_do_no_harm(tmp_path: Path, place: str) -> None:
    with Child(tmp_path, variables={"AZUREML_DEBUGGEE_EVENTS": place}) as child:
        port = child.ask("session.gate.address")[1]
        with DapClient.connect("127.0.0.1", port, LIMIT) as client:
            client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
            assert stopped(client)[0] == "tick"


def test_a_hold_without_a_standard_output_ends_well(child: Child) -> None:
    child.ask("out = sys.stdout; session.timeout = 0.1")
    for broken in ("None", "object()", "open(os.devnull)"):
        child.ask(f"sys.stdout = {broken}; held = session.hold(); sys.stdout = out")
        assert child.ask("held") is False


def test_a_process_without_debugpy_serves_and_says_why_it_cannot_be_debugged(tmp_path: Path) -> None:
    run, events = configure(tmp_path, "import sys; sys.modules['debugpy'] = None", "serve()")
    assert run.returncode == 0, run.stderr
    assert [event["event"] for event in events] == ["worker", "gate-failed", "loaded"]
    assert "None in sys.modules" in events[1]["message"]


def test_a_debugpy_of_the_wrong_kind_does_not_keep_the_service_from_serving(tmp_path: Path) -> None:
    run, events = configure(tmp_path, "import sys, types; sys.modules['debugpy'] = types.ModuleType('x')", "serve()")
    assert run.returncode == 0, run.stderr
    assert [event["event"] for event in events] == ["worker", "gate-failed", "loaded"]


def test_the_services_own_gunicorn_configuration_is_kept(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        "import os as _os\n_sessions = 1\ntimeout = 9\nkeepalive = 7\ncalled = []\n"
        "def post_fork(server, worker): called.append('post_fork')\n"
    )
    run, events = configure(tmp_path, "", "serve(); print(c.keepalive, c.timeout, c.workers, c.called)")
    assert run.stdout.splitlines() == ["7 0 1 ['post_fork']"], run.stderr
    assert [event["event"] for event in events] == ["worker", "listening", "loaded"]


def test_an_error_that_cannot_be_shown_is_announced_all_the_same(tmp_path: Path) -> None:
    source = """
        class Odd(Exception):
            def __str__(self): raise ValueError("no")
        try:
            raise Odd
        except Odd:
            c.worker_exit(None, worker)
    """
    _run, events = configure(tmp_path, "", textwrap.dedent(source))
    assert [(event["event"], event["type"]) for event in events] == [("failed", "Odd")]


def test_a_signal_ends_a_worker_that_holds_before_score_is_loaded(tmp_path: Path) -> None:
    source = """
        import debuggee_child, os, signal, sys, types
        sys.path.insert(0, os.environ["DEBUGGEE_FOLDER"])
        # As in gunicorn's worker, which has its master's handlers at this point.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        import gunicorn_conf
        gunicorn_conf.post_fork(None, types.SimpleNamespace(alive=True, booted=False))
    """
    with Child(tmp_path, script=write(tmp_path, source), variables=HELD) as child:
        child.event("waiting")
        child.process.send_signal(signal.SIGTERM)
        assert child.ended() == -signal.SIGTERM


def configure(folder: Path, before: str, after: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, str]]]:
    """Run gunicorn_conf.py as gunicorn does, between two pieces of code; what came out, and the events."""
    source = (
        f"import sys, types\nsys.path.insert(0, {FOLDER!r})\n{before}\n"
        "import gunicorn_conf as c\nworker = types.SimpleNamespace(alive=True, booted=False)\n"
        "def serve(): c.post_fork(None, worker); c.post_worker_init(worker)\n" + after
    )
    variables = {"AZUREML_DEBUGGEE_PORT": "0", "AZUREML_DEBUGGEE_EVENTS": str(folder / "events")}
    run = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        cwd=folder,
        env={**os.environ, **variables, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    events = folder / "events"
    return run, [json.loads(line) for line in events.read_text().splitlines()] if events.exists() else []
