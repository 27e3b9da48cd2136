"""The debuggee in a pipeline step: a program sees and does what it would without."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from debuggee_harness import EVERY, interpreters, over
from step_harness import INJECT, LAUNCHER, NO_LATE_THREADS, announced, debugpy_of, lay_out, run, step_variables, version

from workflows.pipelines.commands import debugged_command

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


# As a bare run --------------------------------------------------------------------------------------


@over("command", INVOCATIONS)
def test_a_program_sees_and_does_what_it_would_without(python: str, command: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, FILES)
    events = tmp_path / "events"
    bare = run(code, command.replace("$PYTHONPATH:", ""), python, {})
    anything = str(int(" - <" in command or "-c '" in command))
    variables = step_variables(code, EVENTS=str(events), WAIT="0", ANY=anything)
    children = {**variables, "AZUREML_DEBUGGEE_CHILDREN": "1"}
    assert run(code, command, python, children) == bare
    # What differs between versions of Python is seen with the children, and the rest at both ends of them.
    ends = python in (interpreters()[0], interpreters()[-1])
    if ends:
        assert run(code, command, python, variables) == bare
    # It was there, unless there is nothing to debug, or nothing of the step's own.
    assert bool(announced(events, "listening")) is ("missing" not in command and anything == "0")
    if not ends or ("hooked" in command and version(python) in NO_LATE_THREADS):
        return
    on_error = step_variables(code, ON_ERROR="1", TIMEOUT="0", ANY=anything)
    status, output, errors = run(code, command, python, on_error)
    said = ("Timeout for", "ip_address:", "debug_port:", "Debugger attached =")
    assert (status, [line for line in output if not line.startswith(said)], errors) == bare


@over("command", ISOLATED)
def test_the_launcher_runs_a_program_as_python_does(python: str, command: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, FILES)
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


@EVERY
def test_a_sitecustomize_of_the_persons_own_runs_and_is_the_one_that_is_seen(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, FILES)
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
    code = lay_out(tmp_path, FILES)
    (code / "sitecustomize.py").write_text("import nothing_of_the_kind")
    bare = run(code, "{python} exits.py 4", python, {"PYTHONPATH": str(code)})
    variables = step_variables(code)
    variables["PYTHONPATH"] += os.pathsep + str(code)
    assert "nothing_of_the_kind" in bare[2]
    assert run(code, "{python} exits.py 4", python, variables) == bare


def test_processes_that_are_not_the_steps_import_nothing_for_it(tmp_path: Path) -> None:
    code = lay_out(tmp_path, FILES)
    command = "{python} -c 'import sys, json; print(json.dumps(sorted(sys.modules)))'"
    _status, bare, _errors = run(code, command, sys.executable, {})
    _status, seen, _errors = run(code, command, sys.executable, step_variables(code))
    added = set(json.loads(seen[0])) - set(json.loads(bare[0]))
    ours = {f"azureml_debuggee.{name}" for name in ("program", "ranks", "step")}
    assert added == {"__future__", "azureml_debuggee", *ours}
