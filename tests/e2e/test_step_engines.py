"""The contract of what runs a step: the same tests against every implementation."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from projects import ROOT, listeners, until
from test_docker_access import INITIALIZE, in_container
from users import OTHER, dial, needs_users

from workflows import engines, settings
from workflows.debugger.dap import DapClient
from workflows.debugger.readiness import read_events
from workflows.engines import docker_network
from workflows.engines.ports import any_free
from workflows.engines.step_variables import MARK, step_variables
from workflows.engines.steps import StepDebug, StepEngine, StepProcess, StepSpec
from workflows.environments.references import resolve_environment
from workflows.errors import UserError
from workflows.models import ImageRef

#: Says that it runs, then runs for longer than any test.
SLEEPS = "import time; print('runs', flush=True); time.sleep(600)"


@pytest.fixture
def made(engine: str) -> StepEngine:
    return engines.load_steps(engine)


@pytest.fixture
def image(engine: str, tmp_path: Path) -> ImageRef:
    found = settings.resolve(ROOT, flags={}, environ={}, cwd=tmp_path)
    return resolve_environment(None, found, engine).build(engines.load(engine), print)


@dataclass
class Steps:
    """An engine and a step for it, whose folders have spaces in their paths."""

    engine: StepEngine
    spec: StepSpec

    @property
    def code(self) -> Path:
        assert self.spec.code is not None
        return self.spec.code

    def write(self, name: str, text: str) -> Path:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def start(self, command: str, own: Mapping[str, str] | None = None) -> StepProcess:
        view = self.engine.view(self.spec)
        return self.engine.start_step(self.spec, command, step_variables(self.spec, own or {}, view.paths))

    def run(self, command: str, own: Mapping[str, str] | None = None) -> int:
        return ended(self.start(command, own))

    def log(self, rank: int | None = None) -> str:
        return self.spec.log(rank).read_text("utf-8", "replace")

    def until_logged(self, text: str, rank: int | None = None) -> None:
        until(lambda: text in self.log(rank), f"{text!r} in the log")

    def left(self) -> list[str]:
        """Processes and containers that still carry the run's mark."""
        import psutil

        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK, "").startswith(self.spec.run_id + "/"):
                    found.append(str(process))
            except psutil.Error:
                continue
        if self.engine.name == "docker":
            from workflows.engines.docker_client import connect

            client = connect()
            found += client.api.containers(all=True, filters={"label": f"azureml-debug.run={self.spec.run_id}"})
            client.close()
        return found


def ended(process: StepProcess, seconds: float = 30) -> int:
    until(lambda: process.poll() is not None, "the step's end", seconds)
    code = process.poll()
    assert code is not None
    return code


@pytest.fixture
def steps(made: StepEngine, image: ImageRef, tmp_path: Path) -> Iterator[Steps]:
    root = tmp_path / "a project"
    (root / "the code").mkdir(parents=True)
    spec = StepSpec(
        run_id=f"contract-{time.time_ns()}",
        step="train",
        project=root,
        folder=root / "its run" / "train",
        image=image,
        code=root / "the code",
    )
    found = Steps(made, spec)
    yield found
    made.end_run(spec.run_id)
    assert found.left() == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("true", 0),
        ("exit 3", 3),
        ("python -c 'import sys; sys.exit(200)'", 200),
        ("python -c 'raise ValueError'", 1),
        ("python -c 'import os; os._exit(5)'", 5),
        ("python -c 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'", -signal.SIGKILL),
        ("python -c 'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)'", -signal.SIGSEGV),
        ("no-such-program", 127),
    ],
)
def test_the_exit_code_is_the_commands_and_a_signal_its_negative_number(steps: Steps, command: str, code: int) -> None:
    assert steps.run(command) == code
    assert steps.left() == []


def test_both_streams_are_in_the_log_byte_for_byte_and_at_once(steps: Steps) -> None:
    steps.write(
        "talk.py",
        "import os, sys, time\n"
        "print('first')\n"
        "sys.stderr.write('second\\n')\n"
        "os.write(1, b'\\xff\\xfe\\x00 bar\\r50%\\r100%\\n')\n"
        "time.sleep(600)\n",
    )
    process = steps.start("python talk.py")
    until(lambda: b"100%" in steps.spec.log().read_bytes(), "the output while it runs")
    process.end()
    assert steps.spec.log().read_bytes() == b"first\nsecond\n\xff\xfe\x00 bar\r50%\r100%\n"


def test_a_step_sees_its_code_in_its_working_folder_and_writes_into_the_runs(steps: Steps) -> None:
    steps.write("train.py", "import helper, os\nprint(helper.WORD, os.getcwd(), sorted(os.listdir()))\n")
    steps.write("helper.py", "WORD = open('data/words.txt').read()\n")
    steps.write("data/words.txt", "hello")
    view = steps.engine.view(steps.spec)
    assert not re.search(r"\s", "".join(view.paths.values()))
    command = "python train.py && echo model > outputs/model.txt && echo line > logs/own.log && mkdir outputs/more"
    assert steps.run(command) == 0, steps.log()
    assert steps.log() == f"hello {view.work} ['data', 'helper.py', 'logs', 'outputs', 'train.py']\n"
    assert (steps.spec.folder / "outputs" / "model.txt").read_text() == "model\n"
    assert (steps.spec.folder / "outputs" / "more").is_dir()
    assert (steps.spec.folder / "logs" / "own.log").read_text() == "line\n"
    assert sorted(path.name for path in steps.code.rglob("*")) == ["data", "helper.py", "train.py", "words.txt"]
    # They belong to the person, whoever the container ran as.
    assert (steps.spec.folder / "outputs" / "model.txt").stat().st_uid == os.getuid()


def test_a_variable_may_have_a_name_that_a_shell_cannot_have(steps: Steps) -> None:
    steps.write("train.py", "import os\nprint([os.environ.get(name) for name in ('A.B', 'C D', 'E')])\n")
    assert steps.run("python train.py", {"A.B": 'it\'s "1"', "C D": "$2\nx", "E": "3"}) == 0, steps.log()
    assert steps.log() == str(['it\'s "1"', "$2\nx", "3"]) + "\n"


def test_a_step_may_remove_the_runs_folders_and_make_them_anew(steps: Steps) -> None:
    steps.write(
        "train.py",
        "import os, shutil\n"
        "shutil.rmtree('outputs')\n"
        "os.mkdir('made')\n"
        "open('made/model.txt', 'w').write('model')\n"
        "os.replace('made', 'outputs')\n",
    )
    assert steps.run("python train.py && rm -rf logs && mkdir logs && echo line > logs/own.log") == 0, steps.log()
    assert (steps.spec.folder / "outputs" / "model.txt").read_text() == "model"
    assert (steps.spec.folder / "logs" / "own.log").read_text() == "line\n"


def test_an_edit_before_the_start_counts_also_one_that_replaces_the_file(steps: Steps) -> None:
    steps.write("train.py", "print('old')\n")
    steps.engine.view(steps.spec)
    os.replace(steps.write("new", "print('edited')\n"), steps.code / "train.py")
    assert steps.run("python train.py") == 0
    assert steps.log() == "edited\n"


def test_code_may_be_one_file_or_none(steps: Steps) -> None:
    script = steps.write("train.py", "print('alone')\n")
    steps.write("other.py", "")
    steps.spec = replace(steps.spec, code=script)
    assert steps.run("python train.py; ls") == 0
    assert steps.log() == "alone\nlogs\noutputs\ntrain.py\n"
    steps.spec = replace(steps.spec, code=None, step="second", folder=steps.spec.folder.with_name("second"))
    assert steps.run("ls") == 0
    assert steps.log() == "logs\noutputs\n"


def test_additional_includes_lie_in_the_working_folder_and_are_imported_from_there(
    steps: Steps, tmp_path: Path
) -> None:
    steps.write("train.py", "import alone, shared.lib, tests\nprint(alone.A, shared.lib.B, tests.C)\n")
    steps.write("sub/tests/__init__.py", "C = 3\n")
    (tmp_path / "other place" / "shared").mkdir(parents=True)
    (tmp_path / "other place" / "shared" / "lib.py").write_text("B = 2\n")
    (tmp_path / "other place" / "alone.py").write_text("A = 1\n")
    include = tmp_path / "other place"
    includes = (include / "shared", include / "alone.py", steps.code / "sub" / "tests")
    steps.spec = replace(steps.spec, includes=includes)
    assert steps.run("python train.py; ls; cat alone.py", {"PYTHONPATH": "/of/the/person"}) == 0, steps.log()
    names = ["alone.py", "logs", "outputs", "shared", "sub", "tests", "train.py"]
    assert steps.log().splitlines() == ["1 2 3", *names, "A = 1"]
    steps.spec = replace(steps.spec, code=None, step="second", folder=steps.spec.folder.with_name("second"))
    assert steps.run("python -c 'import shared.lib'; ls; echo $PYTHONPATH", {"PYTHONPATH": "/of/the/person"}) == 0
    *listed, path = steps.log().splitlines()
    assert listed == ["alone.py", "logs", "outputs", "shared", "tests"] and path.endswith("work:/of/the/person")


def test_inputs_and_outputs_under_paths_with_spaces_are_seen_under_paths_without(steps: Steps, tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    (data / "the table.csv").write_text("1,2\n")
    results = tmp_path / "my results"
    steps.spec = replace(
        steps.spec,
        inputs={"folder": data, "table": data / "the table.csv"},
        outputs={"model": (results / "model folder", False), "report": (results / "report.txt", True)},
    )
    view = steps.engine.view(steps.spec)
    paths = view.paths
    assert not re.search(r"\s", "".join(paths.values()))
    assert paths["inputs.table"].endswith(".csv")
    command = (
        f"cat {paths['inputs.folder']}/*.csv {paths['inputs.table']} > {paths['outputs.report']}\n"
        f"echo weights > {paths['outputs.model']}/weights && echo $AZURE_ML_OUTPUT_model $AZURE_ML_INPUT_folder"
    )
    assert steps.run(command) == 0, steps.log()
    assert (results / "report.txt").read_text() == "1,2\n1,2\n"
    assert (results / "model folder" / "weights").read_text() == "weights\n"
    assert steps.log() == f"{paths['outputs.model']} {paths['inputs.folder']}\n"


def test_an_output_of_one_step_is_the_input_of_the_next(steps: Steps, tmp_path: Path) -> None:
    place = tmp_path / "between two steps"
    steps.spec = replace(steps.spec, outputs={"data": (place, False)})
    view = steps.engine.view(steps.spec)
    assert steps.run(f"echo 42 > {view.paths['outputs.data']}/number") == 0
    steps.spec = replace(
        steps.spec, step="score", folder=steps.spec.folder.with_name("score"), outputs={}, inputs={"data": place}
    )
    view = steps.engine.view(steps.spec)
    assert steps.run(f"cat {view.paths['inputs.data']}/number") == 0
    assert steps.log() == "42\n"


def test_variables_arrive_as_they_are(steps: Steps) -> None:
    own = {"QUOTED": 'it\'s "$HOME" `ls` \\ ü\nsecond line', "count": "5", "rank": "own", "command": "mine"}
    script = (
        "import json, os; print(json.dumps({n: os.environ.get(n) for n in ('QUOTED', 'count', 'rank', 'command')}))"
    )
    steps.write("show.py", script)
    assert steps.run("python show.py", own) == 0
    assert json.loads(steps.log()) == own


def test_a_command_is_bashs_with_lines_operators_and_substitutions(steps: Steps) -> None:
    command = (
        "set -eu -o pipefail\n"
        "words=(one 'two three')\n"
        'for word in "${words[@]}"; do echo "<$word>"; done | sort -r\n'
        "[[ abc == a* ]] && echo matched || echo not\n"
        "cat <<EOF\n$(python -c 'print(6 * 7)')\nEOF\n"
        "false\n"
        "echo never\n"
    )
    assert steps.run(command) == 1
    assert steps.log() == "<two three>\n<one>\nmatched\n42\n"


def test_what_a_command_leaves_in_the_background_may_just_finish(steps: Steps) -> None:
    began = time.monotonic()
    assert steps.run("(sleep 0.1; echo late) & echo first; sleep 600 & exit 3") == 3
    assert steps.log().split() == ["first", "late"]
    assert time.monotonic() - began < 3
    assert not steps.left()


def test_a_command_finds_signals_and_standard_input_as_a_shell_would_give_them(steps: Steps) -> None:
    script = (
        "import signal, sys\n"
        "print(signal.getsignal(signal.SIGINT).__name__)\n"
        "print(*(signal.getsignal(number).name for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)))\n"
        "print(repr(sys.stdin.read()))\n"
    )
    steps.write("show.py", script)
    assert steps.run("python show.py") == 0
    assert steps.log() == "default_int_handler\nSIG_DFL SIG_DFL SIG_DFL\n''\n"


RANKS = """
import os, sys, time
names = sys.argv[1].split(",")
print(*(os.environ.get(name) for name in names))
"""
TORCH = "RANK,LOCAL_RANK,WORLD_SIZE,LOCAL_WORLD_SIZE,NODE_RANK,MASTER_ADDR"
MPI = "OMPI_COMM_WORLD_RANK,OMPI_COMM_WORLD_LOCAL_RANK,OMPI_COMM_WORLD_SIZE,OMPI_COMM_WORLD_LOCAL_SIZE"


@pytest.mark.parametrize(("distribution", "names", "tail"), [("pytorch", TORCH, " {node} 127.0.0.1"), ("mpi", MPI, "")])
def test_each_rank_has_its_variables_and_its_log(steps: Steps, distribution: str, names: str, tail: str) -> None:
    steps.write("train.py", RANKS)
    steps.spec = replace(steps.spec, ranks=4, processes=2, distribution=distribution)
    assert steps.run(f"python train.py {names}") == 0
    for rank in range(4):
        assert steps.log(rank) == f"{rank} {rank % 2} 4 2{tail.format(node=rank // 2)}\n"
    logs = sorted(path.name for path in (steps.spec.folder / "azureml-logs").iterdir())
    assert logs == [f"70_driver_log_{rank}.txt" for rank in range(4)]


def test_ranks_meet_on_the_master_port(steps: Steps) -> None:
    steps.write(
        "train.py",
        "import os, socket, time\n"
        "address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])\n"
        "if os.environ['RANK'] == '0':\n"
        "    server = socket.create_server(address)\n"
        "    for _ in range(3): server.accept()[0].sendall(b'met')\n"
        "else:\n"
        "    for _ in range(500):\n"
        "        try: connection = socket.create_connection(address); break\n"
        "        except ConnectionRefusedError: time.sleep(0.02)\n"
        "    print(connection.recv(3).decode())\n",
    )
    steps.spec = replace(steps.spec, ranks=4, processes=4, distribution="pytorch")
    assert steps.run("python train.py") == 0, [steps.log(rank) for rank in range(4)]
    assert [steps.log(rank) for rank in range(1, 4)] == ["met\n"] * 3


def test_when_one_rank_fails_the_others_are_asked_to_end_and_its_code_counts(steps: Steps) -> None:
    steps.write(
        "train.py",
        "import os, signal, sys, time\n"
        "rank = int(os.environ['RANK'])\n"
        "def asked(*_): print('asked', flush=True); os._exit(0)\n"
        "if rank == 0: signal.signal(signal.SIGTERM, asked)\n"
        "if rank == 1: signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('runs', flush=True)\n"
        "if rank == 2:\n"
        "    while not os.path.exists('logs/go'): time.sleep(0.01)\n"
        "    sys.exit(7)\n"
        "time.sleep(600)\n",
    )
    steps.spec = replace(steps.spec, ranks=4, processes=4, distribution="pytorch")
    process = steps.start("python train.py")
    for rank in range(4):
        steps.until_logged("runs", rank)
    assert process.poll() is None
    (steps.spec.folder / "logs" / "go").touch()
    assert ended(process, 5) == 7
    assert steps.log(0) == "runs\nasked\n"
    assert steps.left() == []


def test_a_rank_that_ends_well_does_not_end_the_others(steps: Steps) -> None:
    steps.write("train.py", "import os, time; time.sleep(0.3 * int(os.environ['RANK'])); print('done')")
    steps.spec = replace(steps.spec, ranks=3, processes=3, distribution="pytorch")
    assert steps.run("python train.py") == 0
    assert [steps.log(rank) for rank in range(3)] == ["done\n"] * 3


IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
STOPPED = "import os, signal; print('runs', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
ASKED = """
import os, signal, time
def asked(*_):
    time.sleep(0.2)
    print("asked", flush=True)
    os._exit(9)
signal.signal(signal.SIGTERM, asked)
print("runs", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("script", "codes"),
    [(SLEEPS, {-15}), (IGNORES, {-9}), (STOPPED, {-15}), (ASKED, {9})],
    ids=["sleeping", "deaf", "stopped", "asked"],
)
def test_end_ends_whatever_state_a_step_is_in_within_about_a_second(steps: Steps, script: str, codes: set[int]) -> None:
    steps.write("train.py", script)
    process = steps.start("python train.py")
    steps.until_logged("runs")
    begin = time.monotonic()
    process.end()
    assert time.monotonic() - begin < 1.5
    assert process.poll() in codes
    assert steps.left() == []
    process.end()  # once more does no harm


def test_end_asks_every_process_of_a_command_and_lets_no_later_part_of_it_begin(steps: Steps) -> None:
    steps.write("train.py", ASKED)
    process = steps.start("python train.py; echo later\necho latest")
    steps.until_logged("runs")
    process.end()
    assert "asked" in steps.log() and "late" not in steps.log()
    assert process.poll() not in (None, 0)


def test_end_reaches_children_in_sessions_of_their_own(steps: Steps) -> None:
    steps.write(
        "train.py",
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True)\n"
        "time.sleep(600)\n",
    )
    process = steps.start("python train.py")
    steps.until_logged("runs")
    process.end()
    assert steps.left() == []


def test_asking_a_step_costs_next_to_nothing(steps: Steps) -> None:
    steps.write("train.py", SLEEPS)
    process = steps.start("python train.py")
    steps.until_logged("runs")
    begin = time.monotonic()
    for _ in range(1000):
        assert process.poll() is None
    assert time.monotonic() - begin < 0.2
    process.end()


def test_end_run_ends_every_step_of_a_run_and_none_of_another(steps: Steps) -> None:
    steps.write("train.py", SLEEPS)
    steps.write("deaf.py", IGNORES)
    one = steps.spec
    other = replace(one, run_id=one.run_id + "-2", folder=one.folder.with_name("of another run"))
    steps.spec = replace(one, step="deaf", folder=one.folder.with_name("deaf"))
    deaf = steps.start("python deaf.py")
    steps.until_logged("runs")
    steps.spec = other
    kept = steps.start("python train.py")
    steps.until_logged("runs")
    steps.spec = one
    first = steps.start("python train.py")
    steps.until_logged("runs")
    begin = time.monotonic()
    # As a later command does: with an engine of its own that has started nothing.
    again = engines.load_steps(steps.engine.name)
    assert again.end_run(one.run_id)
    assert time.monotonic() - begin < 2
    assert steps.left() == [] and kept.poll() is None
    assert ended(first) == -15 and ended(deaf) == -9
    assert not again.end_run(one.run_id)
    assert again.end_run(other.run_id) and ended(kept) == -15


def test_a_step_that_cannot_start_leaves_nothing_and_says_why(steps: Steps) -> None:
    if steps.engine.name == "docker":
        steps.spec = replace(steps.spec, image=replace(steps.spec.image, name="azureml-debug/none:gone"))
    with pytest.raises(UserError) as caught:
        steps.start("true" if steps.engine.name == "docker" else "true " + "x" * 3_000_000)
    assert caught.value.problem and caught.value.remedy
    assert "gone" in caught.value.problem or "train" in caught.value.problem
    assert steps.left() == []


# Debugging


def debugged(steps: Steps, ranks: int = 1, **more: object) -> StepDebug:
    """Make the step a debugged one, on consecutive free ports."""
    while True:
        base = any_free(frozenset())
        if base + ranks < 65536 and all(not listeners(base + rank) for rank in range(ranks)):
            break
    debug = StepDebug({rank: base + rank for rank in range(ranks)}, timeout=20, **more)  # type: ignore[arg-type]
    steps.spec = replace(steps.spec, debug=debug)
    return debug


def test_what_a_debuggee_has_to_know_reaches_the_step_and_the_persons_path_stays(steps: Steps) -> None:
    debug = debugged(steps, wait=False)
    steps.write("show.sh", "env\n")
    assert steps.run("bash show.sh", {"PYTHONPATH": "/of/the/person"}) == 0
    seen = dict(line.partition("=")[::2] for line in steps.log().splitlines())
    assert seen["AZUREML_DEBUGGEE_PORT"] == str(debug.ports[0])
    assert seen["AZUREML_DEBUGGEE_WAIT"] == "0" and seen["AZUREML_DEBUGGEE_TIMEOUT"] == "20"
    inject, *rest = seen["PYTHONPATH"].split(":")
    assert inject.endswith("/inject") and rest == ["/of/the/person"]


def test_a_step_that_is_not_debugged_carries_nothing_of_the_debuggees(steps: Steps) -> None:
    assert steps.run("env") == 0
    assert "PYTHONPATH" not in steps.log() and "AZUREML_DEBUGGEE_PORT" not in steps.log()


def attach(steps: Steps, port: int, breakpoints: Mapping[str, list[int]]) -> DapClient:
    client = DapClient.connect("127.0.0.1", port, 20)
    mappings = [mapping.as_json() for mapping in steps.engine.mappings(steps.spec)]
    client.attach(path_mappings=mappings, breakpoints=breakpoints, timeout=20)
    return client


def stopped(client: DapClient) -> tuple[str, int, dict[str, str]]:
    """File, line and locals of the frame in which a debuggee stops next; it goes on then."""
    event = client.wait_event("stopped", timeout=20)
    thread = event.body["threadId"]
    frame = client.request("stackTrace", {"threadId": thread, "levels": 1})["stackFrames"][0]
    scope = client.request("scopes", {"frameId": frame["id"]})["scopes"][0]
    found = client.request("variables", {"variablesReference": scope["variablesReference"]})["variables"]
    client.request("continue", {"threadId": thread})
    return frame["source"]["path"], frame["line"], {item["name"]: item["value"] for item in found}


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("train.py", "python train.py"),
        ("src/train.py", "cd src && true; cd ..; python src/train.py"),
        ("pkg/train.py", "python -m pkg.train"),
    ],
)
def test_a_breakpoint_is_hit_in_the_script_and_in_a_module_of_a_subfolder(
    steps: Steps, script: str, command: str
) -> None:
    prefix = {"train.py": "lib.", "src/train.py": "lib.", "pkg/train.py": "pkg.lib."}[script]
    folder = Path(script).parent / "lib"
    main = steps.write(
        script, f"from {prefix}helper import double\nvalue = 21\nresult = double(value)\nprint(result)\n"
    )
    steps.write(f"{folder}/__init__.py", "")
    if script.startswith("pkg"):
        steps.write("pkg/__init__.py", "")
    helper = steps.write(f"{folder}/helper.py", "def double(number):\n    twice = number * 2\n    return twice\n")
    debug = debugged(steps)
    process = steps.start(command)
    until(lambda: "waiting" in kinds(steps) or process.poll() is not None, "the hold")
    assert process.poll() is None, steps.log()
    with attach(steps, debug.ports[0], {str(main): [3], str(helper): [3]}) as client:
        path, line, values = stopped(client)
        assert (path, line, values["value"]) == (str(main), 3, "21")
        path, line, values = stopped(client)
        assert (path, line, values["twice"]) == (str(helper), 3, "42")
        client.wait_event("terminated", timeout=20)
    assert ended(process) == 0
    log = steps.log()
    wanted = ["Timeout for debug connection: 20", "ip_address: 127.0.0.1", "Debugger attached = True", "\n42\n"]
    places = [log.index(text) for text in wanted]
    assert places == sorted(places), log


def test_breakpoints_are_hit_in_additional_includes(steps: Steps, tmp_path: Path) -> None:
    """In a folder, in files beside each other, and in a file of the code's own that is included."""
    source = "def double(number):\n    twice = number * 2\n    return twice\n"
    folder = tmp_path / "other place" / "shared"
    places = [folder / "deep" / "one.py", folder.parent / "two.py", folder.parent / "three.py"]
    places.append(steps.code / "inner" / "four.py")
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(source)
    main = folder.parent / "main.py"
    main.write_text("import shared.deep.one as a, two as b, three as c, four as d\nfor m in a, b, c, d: m.double(1)\n")
    steps.spec = replace(steps.spec, includes=(folder, *places[1:], main))
    debug = debugged(steps)
    process = steps.start("python main.py")
    until(lambda: "waiting" in kinds(steps) or process.poll() is not None, "the hold")
    assert process.poll() is None, steps.log()
    lines = {**{str(place): [3] for place in places}, str(main): [2]}
    with attach(steps, debug.ports[0], lines) as client:
        assert stopped(client)[:2] == (str(main), 2)
        seen: list[tuple[str, int]] = []
        while len(seen) < len(places):
            path, line, _values = stopped(client)
            if path != str(main):
                seen.append((path, line))
        assert seen == [(str(place), 3) for place in places]
        client.disconnect()
    assert ended(process) == 0


def kinds(steps: Steps) -> list[str]:
    return [event["event"] for event in read_events(steps.spec.events)]


def test_ranks_are_debugged_on_consecutive_ports_that_only_this_machine_reaches(steps: Steps) -> None:
    steps.write("train.py", "import os\nrank = os.environ['RANK']\nprint('rank', rank)\n")
    main = steps.code / "train.py"
    steps.spec = replace(steps.spec, ranks=3, processes=3, distribution="pytorch")
    debug = debugged(steps, ranks=3)
    process = steps.start("python train.py")
    until(lambda: kinds(steps).count("waiting") == 3 or process.poll() is not None, "three holds")
    for port in debug.ports.values():
        assert listeners(port) == ["127.0.0.1"]
    clients = [attach(steps, port, {str(main): [3]}) for port in debug.ports.values()]
    seen = [stopped(client)[2]["rank"] for client in clients]
    assert seen == ["'0'", "'1'", "'2'"]
    for client in clients:
        client.disconnect()
    assert ended(process) == 0


def test_a_step_paused_at_a_breakpoint_is_ended_like_any_other(steps: Steps) -> None:
    main = steps.write("train.py", "value = 1\nprint(value)\n")
    debug = debugged(steps)
    process = steps.start("python train.py")
    until(lambda: "waiting" in kinds(steps), "the hold")
    with attach(steps, debug.ports[0], {str(main): [2]}) as client:
        client.wait_event("stopped", timeout=20)
        begin = time.monotonic()
        process.end()
        assert time.monotonic() - begin < 1.5
    assert process.poll() not in (None, 0)
    until(lambda: not listeners(debug.ports[0]), "the port to be free")


# Only the Docker engine publishes ports and uses images.


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_a_port_that_is_held_is_named_and_no_container_is_left(steps: Steps) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        steps.spec = replace(steps.spec, debug=StepDebug({0: port}))
        with pytest.raises(UserError, match=f"Port {port} "):
            steps.start("true")
    assert steps.left() == []


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_an_input_that_is_not_there_is_named_and_no_folder_is_made_for_it(steps: Steps, tmp_path: Path) -> None:
    steps.spec = replace(steps.spec, inputs={"data": tmp_path / "not there"})
    with pytest.raises(UserError, match="not there"):
        steps.start("true")
    assert not (tmp_path / "not there").exists()


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_a_container_that_somebody_else_pauses_or_removes_does_not_hang_a_run(steps: Steps) -> None:
    def container() -> str:
        found = ["docker", "ps", "-q", "--filter", f"label=azureml-debug.run={steps.spec.run_id}"]
        return subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip()

    steps.write("train.py", SLEEPS)
    process = steps.start("python train.py")
    steps.until_logged("runs")
    subprocess.run(["docker", "pause", container()], check=True, capture_output=True)
    begin = time.monotonic()
    assert steps.engine.end_run(steps.spec.run_id)
    assert time.monotonic() - begin < 2 and ended(process) in (-15, -9)
    process = steps.start("python train.py")
    until(lambda: steps.log().count("runs") == 2, "the second start")
    subprocess.run(["docker", "rm", "-f", container()], check=True, capture_output=True)
    assert ended(process) == -9


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_an_image_without_debugpy_is_debugged_all_the_same(steps: Steps) -> None:
    from workflows.environments.base import BASE_IMAGE

    steps.spec = replace(steps.spec, image=ImageRef("docker", "", BASE_IMAGE))
    main = steps.write("train.py", "value = 1\nprint(value)\n")
    debug = debugged(steps)
    process = steps.start("python3 train.py")
    until(lambda: "waiting" in kinds(steps) or process.poll() is not None, "the hold", 60)
    assert process.poll() is None, steps.log()
    with attach(steps, debug.ports[0], {str(main): [2]}) as client:
        assert stopped(client)[:2] == (str(main), 2)
    assert ended(process) == 0


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_an_image_without_bash_runs_a_command_in_sh(steps: Steps) -> None:
    from workflows.engines.docker_client import connect
    from workflows.environments.base import BASE_IMAGE

    client = connect()
    folder = steps.spec.project / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN rm /bin/bash /usr/bin/bash; true\n")
    image, _ = client.images.build(path=str(folder), tag="azureml-debug-contract/no-bash:1", rm=True)
    try:
        steps.spec = replace(steps.spec, image=ImageRef("docker", "", str(image.id)))
        assert steps.run("echo in sh; exit 4") == 4
        assert steps.log() == "in sh\n"
        process = steps.start("sleep 600")
        process.end()
        assert process.poll() == -15
        steps.spec = replace(steps.spec, ranks=2, processes=2, distribution="pytorch")
        assert steps.run("true") == 127
        assert "no bash" in steps.log(0)
    finally:
        steps.engine.end_run(steps.spec.run_id)
        client.images.remove(str(image.id), force=True)
        client.close()


@needs_users
@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_nobody_but_the_owner_gets_into_the_ranks_of_a_step_and_no_other_container_reaches_it(steps: Steps) -> None:
    from workflows.engines.docker import gate_ports
    from workflows.engines.docker_client import connect

    main = steps.write("train.py", "value = 1\nprint(value)\n")
    steps.spec = replace(steps.spec, ranks=2, processes=2, distribution="pytorch")
    debug = debugged(steps, ranks=2)
    process = steps.start("python train.py")
    until(lambda: kinds(steps).count("waiting") == 2 or process.poll() is not None, "two holds")
    with contextlib.closing(connect()) as client:
        (found,) = client.api.containers(filters={"label": f"azureml-debug.run={steps.spec.run_id}"})
        made = client.api.inspect_container(found["Id"])
    (network,) = made["NetworkSettings"]["Networks"].values()
    gates = gate_ports(made["Config"]["Labels"])
    assert set(gates) == set(debug.ports.values())
    for port, gate in gates.items():
        for host, number in (("127.0.0.1", port), ("127.0.0.1", gate), (network["IPAddress"], port)):
            with dial(number, OTHER, address=host, first=INITIALIZE, then="half-close") as stranger:
                assert not stranger.said("data"), (host, number)
    places = [f"{network['IPAddress']}:{port}" for port in gates]
    for other in ("bridge", docker_network.NAME):
        answers = in_container(other, *places)
        assert len(answers) == 2 and all(answer.startswith(b"b'' ") for answer in answers.values()), answers
    for port in gates:
        with attach(steps, port, {str(main): [2]}) as debugger:
            assert stopped(debugger)[1] == 2
            debugger.disconnect()
    assert ended(process) == 0
    assert all(not listeners(port) for port in gates)
