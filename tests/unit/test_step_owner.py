"""The debuggee in a pipeline step: which of its processes it is in, and at which ports."""

from __future__ import annotations

import json
import os
import socket
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from debuggee_harness import EVERY, evaluate, free_port, over, stopped, until
from step_harness import INJECT, REPORT, Step, announced, debugpy_of, lay_out, run, step_variables


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


FOREIGN = """
    import os, subprocess, sys
    sys.path.insert(0, os.getcwd())
    for word in sys.argv[1:]:
        if word.endswith(".py"):
            subprocess.run([sys.executable, word], check=True)
        elif word == "reads":
            compile(open("helper.py").read(), "helper.py", "exec")
        else:
            __import__(word)
    print(sys.argv[0], "azureml_debuggee.session" in sys.modules, flush=True)
"""


@over(
    "words, debugged",
    [
        ("train.py", {"train.py"}),
        ("json train.py", {"train.py"}),
        ("reads train.py", {"train.py"}),
        ("helper", {"anything"}),
        ("train.py helper", {"train.py", "anything"}),
        ("json", set()),
    ],
)
def test_a_program_from_elsewhere_is_debugged_once_it_runs_the_steps_own_code(
    python: str, words: str, debugged: set[str], tmp_path: Path
) -> None:
    code = lay_out(tmp_path, {"train.py": REPORT, "helper.py": "", "../anything": FOREIGN})
    variables = step_variables(code, EVENTS=str(tmp_path / "events"), ANY="1")
    status, output, errors = run(code, "{python} ../anything " + words, python, variables)
    assert (status, errors) == (0, "")
    found = {os.path.basename(line.split()[0]): line.endswith("True") for line in output}
    assert {name for name, here in found.items() if here} == debugged
    assert set(found) == debugged | {"anything"}


@over("start", ["{python} ../anything helper", "{python} -c 'import helper'", "echo import helper | {python} -"])
def test_a_program_from_elsewhere_holds_before_the_first_line_of_the_steps_own_code(
    python: str, start: str, tmp_path: Path
) -> None:
    lay_out(tmp_path, {"helper.py": "number = 1  # LINE first\n", "../anything": FOREIGN})
    with Step(tmp_path, start, python, ANY="1", WAIT="1") as step:
        step.event("waiting")
        file = step.code / "helper.py"
        with step.attached("first", file=file) as client:
            assert stopped(client)[1] == 1
        assert step.ended() == 0, step.errors()


def test_what_an_installer_starts_is_plain(tmp_path: Path) -> None:
    program = "import subprocess, sys\nsubprocess.run([sys.executable, 'setup.py'], check=True)\n" + REPORT
    code = lay_out(tmp_path, {"setup.py": REPORT})
    (tmp_path / "pip").write_text(program)
    assert owners(code, "{python} ../pip", ANY="1") == {"setup.py": False, "pip": False}


RANKED = """
    import subprocess, sys, os
    ranks = [subprocess.Popen([sys.executable, "train.py", "--remote_debug"], env=dict(os.environ, RANK=str(rank)))
             for rank in range(4)]
    sys.exit(max(process.wait() for process in ranks))
    """


@over("wanted, debugged", [("all", [0, 1, 2, 3]), ("1,3", [1, 3]), ("", [0]), ("none", [])])
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


# A port that is held --------------------------------------------------------------------------------


@EVERY
def test_a_process_beside_the_owner_gives_way_at_once(python: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"a.py": "import sys\nsys.stdin.read()", "b.py": "print('ran')"})
    port = str(free_port())
    with Step(tmp_path, "{python} a.py", python, PORT=port, WAIT="0") as step:
        step.event("listening")
        variables = step_variables(code, WAIT="1", TIMEOUT="60", EVENTS=str(step.events_file), PORT=port)
        status, output, errors = run(code, "{python} b.py", python, variables)
        assert (status, output, errors) == (0, ["ran"], "")
        # Not what is said of a port that has been waited for.
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
