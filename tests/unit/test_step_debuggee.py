"""The debuggee in a pipeline step: which process it is in, what it leaves as it was, when it holds."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from debuggee_harness import (
    LIMIT,
    Child,
    Mortal,
    evaluate,
    interpreters,
    leave,
    line_of,
    name_of,
    reset,
    resume,
    stopped,
    until,
)

from workflows.debuggee import FOLDER
from workflows.debugger.dap import DapClient, DapClosed, Json
from workflows.pipelines.commands import debugged_command

EVERY = pytest.mark.parametrize("python", interpreters(), ids=name_of)
INJECT = str(Path(FOLDER) / "inject")
#: Pythons that start no thread once the main thread's program is over.
NO_LATE_THREADS = ("3.12.0", "3.12.1")
LAUNCHER = str(Path(INJECT) / "launch.py")

#: Says everything that a program can see of how it was started.
PROBE = """
    import os, sys
    import __main__ as main
    def facts():
        names = sorted(name for name in vars(main) if name.startswith("__"))
        site = sys.modules.get("sitecustomize")
        return [
            sys.argv, __name__, __file__, __package__, getattr(__spec__, "name", None), type(__loader__).__name__,
            names, os.getcwd(), sys.path, sorted(sys.flags), getattr(site, "__file__", None),
            sorted((n, v) for n, v in os.environ.items() if not n.startswith(("AZUREML_DEBUGGEE", "_", "SHLVL"))),
            sys.exc_info(), main.__dict__ is globals(), sys.stdout.isatty(), sys.getrecursionlimit(),
        ]
    for fact in facts():
        print(fact)
"""
FILES = {
    "probe.py": PROBE,
    "pkg/__init__.py": "print('pkg is imported')",
    "pkg/__main__.py": PROBE,
    "pkg/inner.py": PROBE,
    "app/__main__.py": PROBE,
    "raises.py": "def outer():\n    inner()\ndef inner():\n    raise ValueError('a\\nb')\nouter()",
    "chained.py": "try:\n    1/0\nexcept Exception as e:\n    raise KeyError('x') from e",
    "syntax.py": "x = 1\nif x\n    pass",
    "exits.py": "import sys; sys.exit(int(sys.argv[1]))",
    "says.py": "import sys; sys.exit('a message')",
    "interrupted.py": "raise KeyboardInterrupt",
    "vanishes.py": "import os; print('x', flush=True); os._exit(7)",
    "killed.py": "import os, signal; os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(60)",
    "late.py": """
        import atexit, pickle, sys, threading, time
        class Thing: pass
        def last(): print("atexit", pickle.loads(pickle.dumps(Thing())).__class__.__module__)
        atexit.register(last)
        threading.Thread(target=lambda: (time.sleep(0.1), last())).start()
        print("main is over")
        """,
    "hooked.py": """
        import sys
        sys.excepthook = lambda kind, value, trace: print("hook", kind.__name__, trace.tb_lineno, trace.tb_next)
        raise OSError
        """,
    "threads.py": """
        import threading
        thread = threading.Thread(target=lambda: 1/0, name="T")
        thread.start(); thread.join()
        print("on")
        """,
    "child.py": """
        import os, subprocess, sys
        program = "import os, sys; print(sys.path, os.environ.get('PYTHONPATH'), 'sitecustomize' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", program])
        os.wait()
        """,
    "restarts.py": """
        import os, sys
        print(sys.argv, os.environ.get("PYTHONPATH"), flush=True)
        if len(sys.argv) < 4:
            os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
        """,
    "pools.py": """
        import multiprocessing, sys, warnings
        class Thing:
            def __init__(self, number): self.number = number
        def double(thing): return Thing(thing.number * 2)
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    print(method, [thing.number for thing in pool.map(double, map(Thing, range(4)))])
        """,
    "forks.py": """
        import os, sys
        pid = os.fork()
        if pid == 0: os._exit(5)
        print(os.waitpid(pid, 0)[1] >> 8)
        """,
}  # fmt: skip
INVOCATIONS = [
    "{python} probe.py a --b 'c d' ''",
    "{python} ./probe.py",
    "{python} $PWD/probe.py",
    "cd app && {python} ../probe.py",
    "{python} app x",
    "{python} -m pkg x -m y",
    "{python} -u -m pkg.inner",
    "{python} -mprobe",
    "{python} -uW error -m probe -c",
    "{python} -X dev probe.py",
    "{python} -B -W error -X utf8 probe.py",
    "PYTHONPATH=$PYTHONPATH:lib {python} probe.py",
    "{python} raises.py",
    "{python} -m raises",
    "{python} chained.py",
    "{python} syntax.py",
    "{python} exits.py 3",
    "{python} exits.py 0",
    "{python} says.py",
    "{python} interrupted.py",
    "exec {python} killed.py",
    "{python} vanishes.py",
    "{python} late.py",
    "{python} hooked.py",
    "{python} child.py",
    "{python} restarts.py x",
    "{python} pools.py",
    "{python} -W error forks.py",
    "{python} -X dev forks.py",
    "{python} missing.py",
    "{python} -m missing.module",
    "{python} - < probe.py",
    "{python} -c 'import sys; print(sys.argv, sys.path)' a",
    "{python} probe.py | cat && {python} raises.py || {python} exits.py 9",
]
ISOLATED = [
    "{python} -I probe.py a b",
    "{python} -E probe.py a",
    "{python} -S probe.py",
    "{python} -E -m pkg.inner x",
    "{python} -E app x",
    "{python} -I raises.py",
    "{python} -I -X dev chained.py",
    "{python} -E -m raises",
    "{python} -I syntax.py",
    "{python} -I exits.py 3",
    "{python} -I says.py",
    "{python} -I interrupted.py",
    "{python} -I late.py",
    "{python} -I hooked.py",
    "{python} -I threads.py",
    "{python} -E pools.py",
    "{python} -I missing.py",
    "PYTHONPATH=lib {python} probe.py",
]


def lay_out(folder: Path, files: Mapping[str, str] = FILES) -> Path:
    """The step's code, in a folder that the paths of two runs share."""
    code = folder / "code"
    for name, source in files.items():
        file = code / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(source))
    return code


def step_variables(code: Path, **more: str) -> dict[str, str]:
    """What an engine sets for a step."""
    return {
        "PYTHONPATH": INJECT,
        "AZUREML_DEBUGGEE_CODE": str(code),
        "AZUREML_DEBUGGEE_PORT": "0",
        **{"AZUREML_DEBUGGEE_" + name: value for name, value in more.items()},
    }


class Step(Child):
    """A step of the code in a folder, or of one script written there."""

    def __init__(
        self, folder: Path, command: str, python: str = sys.executable, source: str | None = None, **more: str
    ) -> None:
        self.code = lay_out(folder, {} if source is None else {"train.py": source})
        self.code.mkdir(exist_ok=True)
        self.script = self.code / "train.py"
        plain = {name: more.pop(name) for name in [*more] if name in ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK")}
        path = more.pop("PATHS", "")
        variables = {**step_variables(self.code, **more), **plain}
        if path:
            variables["PYTHONPATH"] += os.pathsep + path
        text = f"cd {shlex.quote(str(self.code))}\n" + command.format(python=python, launcher=LAUNCHER)
        super().__init__(folder, python, variables=variables, command=text)


def run(
    code: Path, command: str, python: str, variables: Mapping[str, str], stdin: str = ""
) -> tuple[int, list[str], str]:
    """A command in the step's folder: exit code, standard output, standard error."""
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "PYDEV", "DEBUGPY", "RANK"))}
    done = subprocess.run(
        ["bash", "-c", command.format(python=python, launcher=LAUNCHER)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
        check=False,
        cwd=code,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1", **variables},
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def announced(file: Path, name: str) -> list[Json]:
    """What has been announced under this name."""
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [record for record in records if record["event"] == name]


# As a bare run --------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("command", INVOCATIONS)
def test_a_program_sees_and_does_what_it_would_without(python: str, command: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path)
    events = tmp_path / "events"
    bare = run(code, command.replace("$PYTHONPATH:", ""), python, {})
    anything = str(int(" - <" in command or "-c '" in command))
    variables = step_variables(code, EVENTS=str(events), WAIT="0", ANY=anything)
    assert run(code, command, python, variables) == bare
    # It was there, unless there is nothing to debug.
    assert bool(announced(events, "listening")) is ("missing" not in command)
    if "hooked" in command and version(python) in NO_LATE_THREADS:
        return
    on_error = step_variables(code, ON_ERROR="1", TIMEOUT="0", ANY=anything)
    status, output, errors = run(code, command, python, on_error)
    said = ("Timeout for", "ip_address:", "debug_port:", "Debugger attached =")
    assert (status, [line for line in output if not line.startswith(said)], errors) == bare


@EVERY
@pytest.mark.parametrize("command", ISOLATED)
def test_the_launcher_runs_a_program_as_python_does(python: str, command: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path)
    events = tmp_path / "events"
    bare = run(code, command, python, {})
    launched = debugged_command(command.format(python=python), LAUNCHER)
    assert LAUNCHER in launched
    variables = step_variables(code, EVENTS=str(events), DEBUGPY=debugpy_of(python))
    seen = run(code, launched.replace("{", "{{").replace("}", "}}"), python, variables)
    if "missing" in command:
        assert (seen[0], seen[2].partition(":")[2]) == (bare[0], bare[2].partition(":")[2])
        return
    assert seen == bare
    assert announced(events, "listening")


def debugpy_of(python: str) -> str:
    """The folder that holds the debugpy of an interpreter."""
    question = "import debugpy, os; print(os.path.dirname(os.path.dirname(debugpy.__file__)))"
    asked = subprocess.run([python, "-c", question], capture_output=True, text=True, check=True, timeout=LIMIT, cwd="/")
    return asked.stdout.strip()


@EVERY
def test_a_sitecustomize_of_the_persons_own_runs_and_is_the_one_that_is_seen(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path)
    (code / "lib").mkdir()
    (code / "lib" / "sitecustomize.py").write_text("print('theirs runs'); import sys; sys.excepthook = lambda *_: 1")
    (code / "lib" / "usercustomize.py").write_text("print('and the user\\'s')")
    library = str(code / "lib")
    variables = step_variables(code)
    variables["PYTHONPATH"] += os.pathsep + library
    for command in ("{python} probe.py", "{python} raises.py", "{python} -c 'pass'"):
        bare = run(code, command, python, {"PYTHONPATH": library})
        assert bare[1][0] == "theirs runs"
        if "-c" in command:
            # Not the owner: its children are still to find us.
            variables["PYTHONPATH"] = INJECT + os.pathsep + library
        assert run(code, command, python, variables) == bare


@EVERY
def test_an_error_in_the_persons_sitecustomize_is_reported_as_ever(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path)
    (code / "sitecustomize.py").write_text("import nothing_of_the_kind")
    bare = run(code, "{python} exits.py 4", python, {"PYTHONPATH": str(code)})
    variables = step_variables(code)
    variables["PYTHONPATH"] += os.pathsep + str(code)
    assert "nothing_of_the_kind" in bare[2]
    assert run(code, "{python} exits.py 4", python, variables) == bare


def test_processes_that_are_not_the_steps_import_nothing_for_it(tmp_path: Path) -> None:
    code = lay_out(tmp_path)
    command = "{python} -c 'import sys, json; print(json.dumps(sorted(sys.modules)))'"
    _status, bare, _errors = run(code, command, sys.executable, {})
    _status, seen, _errors = run(code, command, sys.executable, step_variables(code))
    added = set(json.loads(seen[0])) - set(json.loads(bare[0]))
    assert added == {"__future__", "azureml_debuggee", "azureml_debuggee.step"}


# Whose it is ----------------------------------------------------------------------------------------

REPORT = "import os, sys; print(sys.argv[0], 'azureml_debuggee.session' in sys.modules, flush=True)\n"


def owners(code: Path, command: str, **more: str) -> dict[str, bool]:
    """Which of a command's programs had the debuggee in them."""
    events = code.parent / "events"
    plain = {name: more.pop(name) for name in [*more] if name.endswith("RANK")}
    variables = {**step_variables(code, EVENTS=str(events), **more), **plain}
    status, output, errors = run(code, command, sys.executable, variables)
    assert (status, errors) == (0, "")
    return {os.path.basename(line.split()[0]): line.endswith("True") for line in output}


def test_siblings_in_one_command_each_own_it_in_turn(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"prep.py": REPORT, "train.py": REPORT})
    assert owners(code, "{python} prep.py && {python} train.py") == {"prep.py": True, "train.py": True}
    first, second = announced(tmp_path / "events", "listening")
    assert first["pid"] != second["pid"]


def test_siblings_take_the_same_port_one_after_the_other(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"prep.py": REPORT, "train.py": REPORT})
    port = free_port()
    owners(code, "{python} prep.py && {python} train.py", PORT=str(port))
    assert [event["port"] for event in announced(tmp_path / "events", "listening")] == [port, port]


def test_a_program_from_elsewhere_leaves_it_to_those_that_it_starts(tmp_path: Path) -> None:
    launcher = "import subprocess, sys\nsubprocess.run([sys.executable, *sys.argv[1:]], check=True)\n" + REPORT
    code = lay_out(tmp_path, {"train.py": REPORT})
    (tmp_path / "launch_it.py").write_text(launcher)
    expected = {"launch_it.py": False, "train.py": True}
    assert owners(code, "{python} ../launch_it.py train.py") == expected
    assert owners(code, "{python} ../launch_it.py -m train") == expected


def test_children_of_the_owner_do_not_own_it(tmp_path: Path) -> None:
    parent = "import subprocess, sys\nsubprocess.run([sys.executable, 'train.py'], check=True)\n" + REPORT
    code = lay_out(tmp_path, {"parent.py": parent, "train.py": REPORT})
    assert owners(code, "{python} parent.py") == {"parent.py": True, "train.py": False}
    # Nor when they are given the path by which we come in.
    given = parent.replace("check=True", f"check=True, env=dict(__import__('os').environ, PYTHONPATH={INJECT!r})")
    (code / "parent.py").write_text(given)
    assert owners(code, "{python} parent.py") == {"parent.py": True, "train.py": False}


def test_a_script_that_is_reached_by_a_link_or_lies_behind_one_is_the_steps(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"train.py": REPORT})
    work = tmp_path / "work"
    work.mkdir()
    (work / "train.py").symlink_to(code / "train.py")
    (work / "other.py").write_text(REPORT)
    assert owners(code, "{python} ../work/train.py; {python} ../work/other.py") == {"train.py": True, "other.py": False}
    both = os.pathsep.join([str(code), str(work)])
    found = owners(code, "{python} ../work/train.py; {python} ../work/other.py", CODE=both)
    assert found == {"train.py": True, "other.py": True}
    (tmp_path / "alias").symlink_to(code)
    assert owners(code, "{python} train.py", CODE=str(tmp_path / "alias")) == {"train.py": True}
    assert owners(code, "{python} train.py", CODE=str(code / "train.py")) == {"train.py": True}


def test_what_is_installed_in_an_environment_among_the_code_is_not_the_steps(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"train.py": REPORT, "venv/bin/tool": REPORT, "venv/lib/tool.py": REPORT})
    (code / "venv" / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (code / "venv" / "pyvenv.cfg").write_text(f"home = {os.path.dirname(os.path.realpath(sys.executable))}\n")
    command = "venv/bin/python venv/bin/tool; PYTHONPATH=$PYTHONPATH:venv/lib venv/bin/python -m tool"
    assert owners(code, command) == {"tool": False, "tool.py": False}
    # There is no debugpy in it, so lend it one.
    more = {"DEBUGPY": debugpy_of(sys.executable)}
    assert owners(code, "venv/bin/python train.py", **more) == {"train.py": True}


def test_a_module_is_looked_for_as_python_does_without_importing_anything(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"src/pkg/__init__.py": "print('pkg/__init__.py once', False)", "src/pkg/cli.py": REPORT})
    found = owners(code, "PYTHONPATH=$PYTHONPATH:src {python} -m pkg.cli")
    assert found == {"pkg/__init__.py": False, "__init__.py": False, "cli.py": True} or found["cli.py"]
    assert owners(code, "cd src && {python} -um pkg.cli", CODE=str(tmp_path / "nowhere"))["cli.py"]
    assert not announced(tmp_path / "events", "gate-failed")


def test_with_any_every_program_is_debugged_but_those_that_install_and_launch(tmp_path: Path) -> None:
    parent = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'CHILD'], check=True)\n" + REPORT
    parent = parent.replace("CHILD", "import sys; print(0, 0 == len(sys.path))")
    code = lay_out(tmp_path, {"x": ""})
    outside = tmp_path / "bin"
    outside.mkdir()
    for name in ("pip3", "torchrun", "pytest", "conda"):
        (outside / name).write_text(REPORT)
    command = "; ".join("{python} ../bin/" + name for name in ("pip3", "torchrun", "conda", "pytest"))
    expected = {"pip3": False, "torchrun": False, "conda": False, "pytest": True}
    assert owners(code, command, ANY="1") == expected
    assert owners(code, command) == dict.fromkeys(expected, False)
    assert owners(code, "{python} -c '" + REPORT.strip().replace("'", '"') + "'", ANY="1") == {"-c": True}
    assert owners(code, "{python} - <<'E'\n" + REPORT + "E", ANY="1") == {"-": True}
    assert owners(code, "{python} -m pip --version > /dev/null; {python} -m json.tool -h > /dev/null", ANY="1") == {}


def test_what_an_installer_starts_is_plain(tmp_path: Path) -> None:
    program = "import subprocess, sys\nsubprocess.run([sys.executable, 'setup.py'], check=True)\n" + REPORT
    code = lay_out(tmp_path, {"setup.py": REPORT})
    (tmp_path / "pip").write_text(program)
    assert owners(code, "{python} ../pip", ANY="1") == {"setup.py": False, "pip": False}


def free_port(count: int = 1) -> int:
    """The first of as many consecutive ports on which nobody listens."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            base = int(first.getsockname()[1])
        try:
            for port in range(base, base + count):
                socket.create_server(("127.0.0.1", port)).close()
        except (OSError, OverflowError):
            continue
        return base


RANKED = """
    import subprocess, sys, os
    ranks = [subprocess.Popen([sys.executable, "train.py", "--remote_debug"], env=dict(os.environ, RANK=str(rank)))
             for rank in range(4)]
    sys.exit(max(process.wait() for process in ranks))
    """


@EVERY
@pytest.mark.parametrize(("wanted", "debugged"), [("all", [0, 1, 2, 3]), ("1,3", [1, 3]), ("", [0]), ("none", [])])
def test_ranks_listen_at_the_base_port_and_their_number(
    python: str, wanted: str, debugged: list[int], tmp_path: Path
) -> None:
    source = """
        import os, sys
        assert sys.argv == ["train.py"], sys.argv
        def work(rank):
            return rank  # LINE work
        work(int(os.environ["RANK"]))
    """
    (tmp_path / "torchrun").write_text(textwrap.dedent(RANKED))
    port = free_port(4)
    more = {"RANKS": wanted} if wanted else {}
    with Step(tmp_path, "{python} ../torchrun", python, source, PORT=str(port), WAIT="1", **more) as step:
        until(lambda: len(step.events("waiting")) == len(debugged), "all that are debugged wait")
        assert {e["rank"]: e["port"] for e in step.events("listening")} == {rank: port + rank for rank in debugged}
        for rank in debugged:
            step.said(f"rank: {rank}")
            with step.attached("work", file=step.script, port=port + rank) as client:
                _name, _line, thread = stopped(client)
                assert evaluate(client, thread, "rank") == str(rank)
        assert step.ended() == 0, step.errors()


@pytest.mark.parametrize("variable", ["AZUREML_DEBUGGEE_RANK", "RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"])
def test_a_rank_is_known_by_each_launchers_variable(variable: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"train.py": REPORT})
    assert owners(code, "{python} train.py", RANKS="5", **{variable: "5"}) == {"train.py": True} or (
        variable == "AZUREML_DEBUGGEE_RANK"
    )
    variables = {**step_variables(code, RANKS="5", EVENTS=str(tmp_path / "more")), variable: "5"}
    run(code, "{python} train.py", sys.executable, variables)
    assert announced(tmp_path / "more", "listening")[0]["rank"] == 5


# The published options ------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("start", ["{python} train.py", "{python} -m train", "{python} -I {launcher} train.py"])
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


@EVERY
@pytest.mark.parametrize("wait", ["1", "0"])
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


# Holding --------------------------------------------------------------------------------------------

LOOP = """
    import sys, time
    first = 1  # LINE first
    print("begun", flush=True)
    def turn(number):
        return number  # LINE turn
    number = 0
    while True:
        number += 1
        turn(number)
        time.sleep(0.005)
"""


@EVERY
@pytest.mark.parametrize("start", ["{python} train.py", "{python} -m train", "{python} -I {launcher} train.py"])
def test_a_step_holds_before_its_first_line_and_stops_there(python: str, start: str, tmp_path: Path) -> None:
    with Step(tmp_path, start, python, LOOP, WAIT="1", HOST="0.0.0.0", ADDRESS="127.0.0.1") as step:
        step.event("waiting")
        with step.attached("first", file=step.script) as client:
            _name, line, thread = stopped(client)
            assert line == line_of("first", step.script)
            expected = ["Timeout for debug connection: 300", "ip_address: 127.0.0.1", f"debug_port: {step.port}"]
            assert step.lines == [*expected, "Debugger attached = True"]
            assert step.event("listening")["host"] == "127.0.0.1"
            assert "rank" not in step.event("attached")
            client.set_breakpoints(str(step.script), [line_of("turn", step.script)], LIMIT)
            resume(client, thread)
            assert stopped(client)[0] == "turn"
        step.said("begun")


@EVERY
def test_a_step_that_does_not_wait_can_be_attached_to_at_any_time(python: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", python, LOOP, WAIT="0") as step:
        step.said("begun")
        for _ in range(2):
            with step.attached("turn", file=step.script) as client:
                assert stopped(client)[0] == "turn"
        assert step.lines == ["begun"]


@EVERY
@pytest.mark.parametrize(
    "source",
    [
        "import os\nos._exit(7)",
        "import sys\nsys.exit(7)",
        "import os\nif os.fork() == 0:\n    os._exit(3)\nos.wait()\nos._exit(7)",
        "import os, time\nif os.fork() == 0:\n    os._exit(3)\nos.wait()\ntime.sleep(0.06)\nos._exit(7)",
    ],
    ids=["vanishes", "exits", "forks", "forks and takes a moment"],
)
def test_a_debugger_is_answered_however_soon_the_step_ends(python: str, source: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", python, source, WAIT="1") as step:
        step.event("waiting")
        # Raises if it is not.
        with step.attached():
            pass
        assert step.ended() == 7
        assert step.errors() == ""


@EVERY
def test_a_step_that_nobody_comes_for_goes_on(python: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} train.py", python, LOOP, WAIT="1", TIMEOUT="0.2") as step:
        step.said("begun")
        assert step.lines[0] == "Timeout for debug connection: 0.2"
        assert step.lines[-2:] == ["Debugger attached = False", "begun"]
        with step.attached("turn", file=step.script) as client:
            assert stopped(client)[0] == "turn"


@EVERY
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("start", ["exec {python} train.py", "exec {python} -E {launcher} train.py"])
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


@EVERY
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


# After the fact -------------------------------------------------------------------------------------

RAISES = """
    import sys, threading
    def outer():
        inner("given")
    def inner(argument):
        local = argument + " and local"
        raise ValueError("it went wrong")  # LINE raise
    if __name__ == "__main__":
        way = sys.argv[1] if len(sys.argv) > 1 else ""
        if way == "hook":
            sys.excepthook = lambda *_: print("theirs", flush=True)
        if way == "thread":
            thread = threading.Thread(target=outer)
            thread.start()
            thread.join()
            print("main goes on", flush=True)
            sys.exit(3)
        if way in ("fork", "spawn", "forkserver"):
            import multiprocessing
            process = multiprocessing.get_context(way).Process(target=outer)
            process.start()
            process.join()
            print("child:", process.exitcode, flush=True)
            sys.exit(4)
        outer()
"""
ON_ERROR = {"ON_ERROR": "1"}


def version(python: str) -> str:
    """As in 3.12.1."""
    question = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(question, capture_output=True, text=True, check=True, timeout=LIMIT).stdout.strip()


def post_mortem(step: Step) -> tuple[DapClient, int]:
    """Attach to a step that has raised; the client, stopped, and its thread."""
    raised = step.event("raised")
    place = (raised["type"], raised["message"], raised["file"], raised["line"])
    assert place == ("ValueError", "it went wrong", str(step.script), line_of("raise", step.script))
    step.said(f"debug_port: {step.port}")
    assert step.lines[-3:] == ["Timeout for debug connection: 300", "ip_address: 127.0.0.1", f"debug_port: {step.port}"]
    client = DapClient.connect("127.0.0.1", step.port, LIMIT)
    client.attach(timeout=LIMIT)
    event = client.wait_event("stopped", LIMIT)
    assert event.body["reason"] == "exception"
    thread = int(event.body["threadId"])
    frames = client.request("stackTrace", {"threadId": thread}, LIMIT)["stackFrames"]
    assert [frame["name"] for frame in frames[:2]] == ["inner", "outer"]
    assert frames[0]["line"] == line_of("raise", step.script)
    assert evaluate(client, thread, "local") == "'given and local'"
    return client, thread


@EVERY
@pytest.mark.parametrize(
    ("start", "status"),
    [
        ("{python} $PWD/train.py", 1),
        ("{python} -m train", 1),
        ("{python} -I {launcher} $PWD/train.py", 1),
        ("{python} $PWD/train.py hook", 1),
        ("{python} $PWD/train.py thread", 3),
        ("{python} $PWD/train.py fork", 4),
        ("{python} $PWD/train.py spawn", 4),
        ("{python} $PWD/train.py forkserver", 4),
    ],
)
def test_a_step_that_fails_shows_its_frames_and_ends_as_it_would_have(
    python: str, start: str, status: int, tmp_path: Path
) -> None:
    with Step(tmp_path, start, python, RAISES, **ON_ERROR) as step:
        if "hook" in start and version(python) in NO_LATE_THREADS:
            # No thread can be started there any more, so no gate.
            assert step.event("raised") and step.event("gate-failed") and step.ended() == status
            return
        client, thread = post_mortem(step)
        if "hook" in start:
            assert step.lines[0] == "theirs"
        else:
            assert step.errors().endswith("ValueError: it went wrong")
            assert "azureml_debuggee" not in step.errors() and "inject" not in step.errors()
        # It may end before the answer is here.
        with contextlib.suppress(DapClosed):
            resume(client, thread)
        assert step.ended() == status
        client.close()
        assert "Debugger attached = True" in step.lines
        if "thread" in start:
            assert step.lines[-1] == "main goes on"
        if status == 4:
            assert step.lines[-1] == "child: 1"


def test_a_failed_child_is_shown_while_its_main_thread_is_alive(tmp_path: Path) -> None:
    # pydevd takes a thread that has ended for dead, and can block on it.
    with Step(tmp_path, "{python} $PWD/train.py fork", source=RAISES, **ON_ERROR) as step:
        client, thread = post_mortem(step)
        alive = "__import__('threading').main_thread().is_alive()"
        assert evaluate(client, thread, alive) == "True"
        current = "__import__('threading').current_thread().name"
        assert evaluate(client, thread, current) == "'MainThread'"
        client.disconnect(timeout=LIMIT)
        assert step.ended() == 4
        assert step.errors().count("ValueError: it went wrong") == 1


@EVERY
def test_a_child_of_a_child_that_multiprocessing_starts_anew_is_watched_too(python: str, tmp_path: Path) -> None:
    source = """
        import multiprocessing
        def fail(number):
            local = number + 1
            raise ValueError(local)  # LINE raise
        def begin(method):
            process = multiprocessing.get_context(method).Process(target=fail, args=(1,))
            process.start()
            process.join()
            print("grandchild:", process.exitcode, flush=True)
        if __name__ == "__main__":
            process = multiprocessing.get_context("forkserver").Process(target=begin, args=("spawn",))
            process.start()
            process.join()
            print("child:", process.exitcode, flush=True)
    """
    with Step(tmp_path, "{python} $PWD/train.py", python, source, **ON_ERROR) as step:
        step.event("waiting")
        with step.attached(file=step.script) as client:
            _name, line, thread = stopped(client)
            assert line == line_of("raise", step.script) and evaluate(client, thread, "local") == "2"
        assert step.ended() == 0
        assert step.lines[-2:] == ["grandchild: 1", "child: 0"]
        assert "azureml_debuggee" not in step.errors()


@EVERY
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_of_failed_children_one_is_shown_and_the_others_go_on(python: str, method: str, tmp_path: Path) -> None:
    source = f"""
        import multiprocessing
        def fail():
            raise ValueError
        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            processes = [context.Process(target=fail) for _ in range(3)]
            for process in processes: process.start()
            for process in processes: process.join()
            print([process.exitcode for process in processes], flush=True)
    """
    with Step(tmp_path, "{python} $PWD/train.py", python, source, PORT=str(free_port()), **ON_ERROR) as step:
        until(lambda: len(step.events("gate-failed")) == 2, "the others give way")
        (waiting,) = step.events("waiting")
        assert waiting["pid"] not in [event["pid"] for event in step.events("gate-failed")]
        with step.attached(file=step.script) as client:
            stopped(client)
        assert step.ended() == 0
        assert step.lines[-1] == "[1, 1, 1]"


@EVERY
@pytest.mark.parametrize("way", ["disconnect", "leave", "reset", "terminate"])
def test_a_debugger_that_leaves_a_failed_step_lets_it_end(python: str, way: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} $PWD/train.py", python, RAISES, **ON_ERROR) as step:
        if way in ("disconnect", "terminate"):
            client, _thread = post_mortem(step)
            client.disconnect(terminate=way == "terminate", timeout=LIMIT)
        else:
            step.event("waiting")
            mortal = Mortal(step.port)
            mortal.client.attach(timeout=LIMIT)
            mortal.client.wait_event("stopped", LIMIT)
            mortal.die(leave if way == "leave" else reset)
        assert step.ended() == (0 if way == "terminate" else 1)


@EVERY
def test_a_debugger_that_leaves_before_the_stop_does_not_keep_the_step(python: str, tmp_path: Path) -> None:
    source = """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from azureml_debuggee import debugger
        stop = debugger.Debugger.stop_at_error
        def late(self, error):
            while self.attached():
                time.sleep(0.01)
            print("nobody is there", flush=True)
            stop(self, error)
        debugger.Debugger.stop_at_error = late
        raise ValueError
    """
    with Step(tmp_path, "{python} $PWD/train.py " + shlex.quote(FOLDER), python, source, **ON_ERROR) as step:
        step.event("waiting")
        with step.attached():
            pass
        step.said("nobody is there")
        assert step.ended() == 1


@EVERY
def test_a_failed_step_that_nobody_comes_for_ends_as_it_would_have(python: str, tmp_path: Path) -> None:
    with Step(tmp_path, "{python} $PWD/train.py", python, RAISES, TIMEOUT="0.2", **ON_ERROR) as step:
        assert step.ended() == 1
        step.said("Debugger attached = False")
        assert step.event("not-attached")


@EVERY
@pytest.mark.parametrize("how", ["sys.exit(5)", "raise KeyboardInterrupt", "os._exit(6)", "print('fine')"])
def test_a_step_that_ends_without_an_error_never_listens(python: str, how: str, tmp_path: Path) -> None:
    source = f"import os, sys\nassert 'debug' + 'py' not in sys.modules and 'socket' not in sys.modules\n{how}"
    with Step(tmp_path, "{python} train.py", python, source, **ON_ERROR) as step:
        step.ended()
        assert not step.events_file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_failed_step_even_if_it_took_it_for_a_note(number: signal.Signals, tmp_path: Path) -> None:
    source = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\nraise ValueError"
    with Step(tmp_path, "exec {python} train.py", source=source, **ON_ERROR) as step:
        step.event("waiting")
        step.process.send_signal(number)
        assert step.ended() == -number


def test_errors_in_two_threads_are_shown_one_after_the_other(tmp_path: Path) -> None:
    source = """
        import threading
        def fail(number):
            raise ValueError(number)  # LINE raise
        threads = [threading.Thread(target=fail, args=(number,)) for number in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print("over", flush=True)
    """
    with Step(tmp_path, "{python} train.py", source=source, **ON_ERROR) as step:
        step.event("waiting")
        with step.attached(file=step.script) as client:
            seen = set()
            for _ in range(2):
                _name, line, thread = stopped(client)
                assert line == line_of("raise", step.script)
                seen.add(evaluate(client, thread, "number"))
                resume(client, thread)
            assert seen == {"0", "1"}
        step.said("over")
        assert step.ended() == 0


def test_a_debugger_that_is_there_and_wants_uncaught_errors_is_stopped_once_for_each(tmp_path: Path) -> None:
    source = RAISES.replace('print("main goes on", flush=True)', "outer()")
    with Step(tmp_path, "{python} train.py thread", source=source, **ON_ERROR) as step:
        step.event("waiting")
        with DapClient.connect("127.0.0.1", step.port, LIMIT) as client:
            client.attach(exception_filters=["uncaught"], timeout=LIMIT)
            for _ in range(2):
                with contextlib.suppress(DapClosed):
                    resume(client, stopped(client)[2])
            assert step.ended() == 1
            assert not [event for event in client_events(client) if event == "stopped"]


def client_events(client: DapClient) -> list[str]:
    """The names of events that have come and not been waited for."""
    return [event.name for event in client._events]


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


@EVERY
@pytest.mark.parametrize("paths", ["", "."])
@pytest.mark.parametrize("how", ["wait", "no wait", "on error"])
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


# A port that is held --------------------------------------------------------------------------------


@EVERY
def test_a_process_beside_the_owner_gives_way_at_once(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"a.py": "import sys\nsys.stdin.read()", "b.py": "print('ran')"})
    port = str(free_port())
    with Step(tmp_path, "{python} a.py", python, PORT=port, WAIT="0") as step:
        step.event("listening")
        variables = step_variables(code, WAIT="1", TIMEOUT="60", EVENTS=str(step.events_file), PORT=port)
        began = time.monotonic()
        status, output, errors = run(code, "{python} b.py", python, variables)
        assert (status, output, errors) == (0, ["ran"], "")
        assert time.monotonic() - began < 4.0
        message = f"port {port} is in use by another process of the step"
        assert [event["message"] for event in step.events("gate-failed")] == [message]
        assert not step.events("waiting") and not step.events("not-attached")


@EVERY
def test_a_process_that_follows_the_owner_waits_for_the_port(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"b.py": "print('ran')"})
    events = tmp_path / "events"
    # Held, but by nobody of the step's: whoever it is may be on its way out.
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        events.write_text(json.dumps({"event": "listening", "pid": 2**22 + 1, "port": port}) + "\n")
        threading.Timer(1.5, holder.close).start()
        variables = step_variables(code, WAIT="1", TIMEOUT="2.5", EVENTS=str(events), PORT=str(port))
        status, output, errors = run(code, "{python} b.py", python, variables)
    assert (status, output[-1], errors) == (0, "ran", "")
    assert len(announced(events, "listening")) == 2 and announced(events, "waiting")
    assert not announced(events, "gate-failed")
