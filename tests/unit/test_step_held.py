"""The debuggee in a pipeline step: the published options, and when it holds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from debuggee_harness import BOTH, EVERY, LIMIT, evaluate, free_port, line_of, over, resume, stopped, until
from step_harness import LOOP, ON_ERROR, Step, announced, debugpy_of, lay_out, run, step_variables

from workflows.debugger.dap import DapClient, DapClosed

# The published options ------------------------------------------------------------------------------


STARTS = ["{python} train.py", "{python} -m train", "{python} -I {launcher} train.py"]


@over("start", STARTS)
@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("--a 1 --remote_debug --remote_debug_connection_timeout 0.1 --b", ["--a", "1", "--b"]),
        ("--remote_debug_connection_timeout=0.1 x --remote_debug_client_ip 10.0.0.1", ["x"]),
        ("--remote_debug_port 7 --remote_debug_client_ip=x --remote_debug_connection_timeout 0.1", []),
        (
            "--remote_debug_connection_timeout 0.1 --remote_debugger -- --remote_debug",
            ["--remote_debugger", "--", "--remote_debug"],
        ),
    ],
)
def test_the_published_options_are_taken(python: str, start: str, given: str, left: list[str], tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"train.py": "import sys; print(sys.argv[1:])"})
    _status, output, errors = run(code, f"{start} {given}", python, step_variables(code, WAIT="1"))
    assert output[0] == "Timeout for debug connection: 0.1"
    assert output[-2:] == ["Debugger attached = False", str(left)], errors


PUBLISHED = """
    import argparse
    import os
    import debugpy
    import socket
    from azureml.core import Run

    parser = argparse.ArgumentParser("train")
    parser.add_argument("--output_train", type=str, help="output_train directory")
    parser.add_argument('--remote_debug', action='store_true')
    parser.add_argument('--remote_debug_connection_timeout', type=int, default=300)
    parser.add_argument('--remote_debug_client_ip', type=str)
    parser.add_argument('--remote_debug_port', type=int, default=5678)

    global run
    run = Run.get_context()
    args = parser.parse_args()

    if args.remote_debug:
        print(f'Timeout for debug connection: {args.remote_debug_connection_timeout}')
        try:
            ip = args.remote_debug_client_ip
        except:
            print("Need to supply IP address for VS Code client")
        print(f'ip_address: {ip}', flush=True)
        debugpy.listen(address=(ip, args.remote_debug_port))
        debugpy.wait_for_client()
        print(f'Debugger attached = {debugpy.is_client_connected()}', flush=True)

    def train(folder):
        return folder  # LINE train

    train(args.output_train)
"""
CORE = {"core/azureml/core.py": "class Run:\n    get_context = staticmethod(lambda: None)\n"}
ASKED = "--output_train out --remote_debug --remote_debug_connection_timeout 60 --remote_debug_client_ip 10.9.8.7"


@over("wait", ["1", "0"])
def test_the_published_script_unmodified_keeps_its_options_and_reaches_the_gate(
    python: str, wait: str, tmp_path: Path
) -> None:
    lay_out(tmp_path, CORE)
    with Step(tmp_path, "{python} train.py " + ASKED, python, PUBLISHED, WAIT=wait, PATHS="core") as step:
        step.event("waiting")
        with step.attached("train", file=step.script) as client:
            _name, _line, thread = stopped(client)
            assert evaluate(client, thread, "folder") == "'out'"
        assert step.ended() == 0, step.errors()
        assert [line for line in step.lines if line.startswith("Debugger attached")] == ["Debugger attached = True"] * 2
        assert "ip_address: 127.0.0.1" in step.lines
        assert len(step.events("listening")) == len(step.events("waiting")) == 1


@EVERY
def test_after_a_hold_in_vain_the_scripts_own_wait_is_over_at_once(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, {**CORE, "train.py": PUBLISHED})
    variables = step_variables(code, WAIT="1", TIMEOUT="0.2", EVENTS=str(tmp_path / "events"))
    variables["PYTHONPATH"] += os.pathsep + "core"
    status, output, errors = run(code, "{python} train.py " + ASKED, python, variables)
    assert (status, output[-1]) == (0, "Debugger attached = False"), errors
    assert len(announced(tmp_path / "events", "waiting")) == 1


@EVERY
def test_the_published_script_on_error_listens_to_nobody(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, {**CORE, "train.py": PUBLISHED})
    variables = step_variables(code, ON_ERROR="1", EVENTS=str(tmp_path / "events"))
    variables["PYTHONPATH"] += os.pathsep + "core"
    status, output, errors = run(code, "{python} train.py " + ASKED, python, variables)
    assert (status, output[-1]) == (0, "Debugger attached = False"), errors
    assert not (tmp_path / "events").exists()


@over("start", STARTS)
def test_a_step_holds_before_its_first_line_and_stops_there(python: str, start: str, tmp_path: Path) -> None:
    with Step(tmp_path, start, python, LOOP, WAIT="1", HOST="0.0.0.0", ADDRESS="127.0.0.1") as step:
        step.event("waiting")
        with step.attached("first", file=step.script) as client:
            _name, line, thread = stopped(client)
            assert line == line_of("first", step.script)
            expected = ["Timeout for debug connection: 300", "ip_address: 127.0.0.1", f"debug_port: {step.port}"]
            step.said("Debugger attached = True")
            assert step.lines == [*expected, "Debugger attached = True"]
            assert step.event("listening")["host"] == "127.0.0.1"
            assert "rank" not in step.event("attached")
            client.set_breakpoints(str(step.script), [line_of("turn", step.script)], LIMIT)
            resume(client, thread)
            assert stopped(client)[0] == "turn"
        step.said("begun")


@BOTH
def test_a_step_that_does_not_wait_can_be_attached_to_at_any_time(python: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", python, LOOP, WAIT="0") as step:
        step.said("begun")
        for _ in range(2):
            with step.attached("turn", file=step.script) as client:
                assert stopped(client)[0] == "turn"
        assert step.lines == ["begun"]


#: Steps that end at once, or almost.
ENDS = {
    "vanishes": "import os\nos._exit(7)",
    "exits": "import sys\nsys.exit(7)",
    "forks": "import os\nif os.fork() == 0:\n    os._exit(3)\nos.wait()\nos._exit(7)",
    "takes a moment": "import os, time\nif os.fork() == 0:\n    os._exit(3)\nos.wait()\ntime.sleep(0.06)\nos._exit(7)",
}


@over("how", ENDS)
def test_a_debugger_is_answered_however_soon_the_step_ends(python: str, how: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", python, ENDS[how], WAIT="1") as step:
        step.event("waiting")
        # Raises if it is not.
        with step.attached():
            pass
        assert step.ended() == 7
        assert step.errors() == ""


@BOTH
def test_a_step_that_nobody_comes_for_goes_on(python: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", python, LOOP, WAIT="1", TIMEOUT="0.2") as step:
        step.said("begun")
        assert step.lines[0] == "Timeout for debug connection: 0.2"
        assert step.lines[-2:] == ["Debugger attached = False", "begun"]
        with step.attached("turn", file=step.script) as client:
            assert stopped(client)[0] == "turn"


@over("start", ["exec {python} train.py", "exec {python} -E {launcher} train.py"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_step_that_holds(python: str, number: signal.Signals, start: str, tmp_path: Path) -> None:
    with Step(tmp_path, start, python, LOOP, WAIT="1") as step:
        step.event("waiting")
        step.process.send_signal(number)
        assert step.ended() == -number
        assert step.errors() == ""


def test_an_interrupt_after_a_hold_is_a_keyboard_interrupt_again(tmp_path: Path) -> None:
    source = """
        import time
        try:
            print("begun", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted")
    """
    with Step(tmp_path, "exec {python} train.py", source=source, WAIT="1", TIMEOUT="0.1") as step:
        step.said("begun")
        step.process.send_signal(signal.SIGINT)
        assert step.ended() == 0
        step.said("interrupted")


@BOTH
def test_a_program_that_restarts_itself_holds_again(python: str, tmp_path: Path) -> None:
    source = """
        import os, sys
        if len(sys.argv) < 2:
            os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
        again = sys.argv[1]
        print(again)  # LINE again
    """
    with Step(tmp_path, "exec {python} train.py", python, source, WAIT="1", PORT=str(free_port())) as step:
        step.event("waiting")
        with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
            # It restarts as soon as it is attached to.
            with contextlib.suppress(DapClosed):
                client.attach(timeout=LIMIT)
            until(lambda: len(step.events("waiting")) == 2, "it holds again")
        with step.attached("again", file=step.script) as client:
            _name, _line, thread = stopped(client)
            assert evaluate(client, thread, "again") == "'again'"
        assert step.ended() == 0


@EVERY
def test_an_environment_without_debugpy_runs_the_step_and_says_why_there_is_no_debugger(
    python: str, tmp_path: Path
) -> None:
    code = lay_out(tmp_path, {"train.py": "print('ran')", "raises.py": "raise ValueError"})
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "debugpy.py").write_text("raise ImportError('none here')")
    variables = step_variables(code, WAIT="1", EVENTS=str(tmp_path / "events"))
    variables["PYTHONPATH"] += os.pathsep + str(tmp_path / "hide")
    message = "debugpy cannot be used in this environment: none here"
    ran = run(code, "{python} train.py", python, variables)
    assert ran == (0, ["ran"], f"azureml_debuggee: {message}\n")
    status, output, errors = run(code, "{python} raises.py", python, {**variables, "AZUREML_DEBUGGEE_ON_ERROR": "1"})
    assert (status, output, errors.splitlines()[-1]) == (1, [], f"azureml_debuggee: {message}")
    assert [event["message"] for event in announced(tmp_path / "events", "gate-failed")] == [message] * 2


def test_a_debugpy_in_a_folder_of_its_own_is_found_where_there_is_no_other(tmp_path: Path) -> None:
    folder = debugpy_of(sys.executable)
    start = "exec {python} -S {launcher} train.py"
    with (
        Step(tmp_path, start, source=LOOP, WAIT="1", DEBUGPY=folder) as step,
        step.attached("turn", file=step.script) as client,
    ):
        _name, _line, thread = stopped(client)
        assert evaluate(client, thread, f"{folder!r} in sys.path") == "False"


# Modules that are called like Python's ---------------------------------------------------------------

LIKE_PYTHONS = ("queue", "select", "socket", "signal", "code", "platform", "inspect", "traceback", "json")
SHADOWED = """
    import sys, time
    import queue, select, socket, signal, code, platform, inspect, json
    def turn(number):
        return number  # LINE turn
    for module in (queue, select, socket, signal, code, platform, inspect, json):
        assert module.MINE
    if sys.argv[1:]:
        raise ValueError("it went wrong")
    print("begun", flush=True)
    while True:
        turn(1)
        time.sleep(0.005)
"""


@over("how", ["wait", "no wait", "on error"])
@pytest.mark.parametrize("paths", ["", "."])
def test_the_programs_modules_may_be_called_like_pythons(python: str, how: str, paths: str, tmp_path: Path) -> None:
    lay_out(tmp_path, {f"{name}.py": "MINE = True\n" for name in LIKE_PYTHONS})
    more = {**(ON_ERROR if how == "on error" else {"WAIT": str(int(how == "wait"))}), "PATHS": paths}
    start = "{python} train.py" + (" x" if how == "on error" else "")
    with Step(tmp_path, start, python, SHADOWED, **more) as step:
        if how == "no wait":
            step.said("begun")
        else:
            step.event("waiting")
        with step.attached("turn", file=step.script) as client:
            name, _line, thread = stopped(client)
            assert name.startswith("<module>" if how == "on error" else "turn")
            assert evaluate(client, thread, "__import__('queue').MINE") == "True"
        assert "azureml_debuggee" not in step.errors()
        if how == "on error":
            assert step.ended() == 1
