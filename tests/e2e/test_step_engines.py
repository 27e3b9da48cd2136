"""Steps on each engine: how their commands run, with what they are given and what they leave."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from engine_steps import Steps, ended
from projects import until

from workflows.errors import UserError
from workflows.models import ImageRef


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
    view = steps.engine.prepare_view(steps.spec)
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
    steps.engine.prepare_view(steps.spec)
    os.replace(steps.write("new", "print('edited')\n"), steps.code / "train.py")
    assert steps.run("python train.py") == 0
    assert steps.log() == "edited\n"


def test_links_that_lead_out_of_code_and_inputs_are_followed(steps: Steps) -> None:
    script = "import sys\nfrom common.helper import WORD\nprint(WORD, open(sys.argv[1] + '/w').read())\n"
    steps.write("train.py", script)
    around = {"common/helper.py": "WORD = 'linked'\n", "hub/blobs/1f": "weights", "hub/snapshots/main/README": ""}
    for name, text in around.items():
        path = steps.code.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (steps.code / "common").symlink_to("../common")
    (steps.code.parent / "hub/snapshots/main/w").symlink_to("../../blobs/1f")
    steps.spec = replace(steps.spec, inputs={"model": steps.code.parent / "hub/snapshots/main"})
    view = steps.engine.prepare_view(steps.spec)
    assert steps.run(f"python train.py {view.paths['inputs.model']}") == 0, steps.log()
    assert steps.log() == "linked weights\n"
    seen = {str(one.local_root): one.remote_root for one in view.mappings}
    assert (str(steps.code.parent / "common") in seen) == (steps.engine.name == "docker")


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
    view = steps.engine.prepare_view(steps.spec)
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
    view = steps.engine.prepare_view(steps.spec)
    assert steps.run(f"echo 42 > {view.paths['outputs.data']}/number") == 0
    steps.spec = replace(
        steps.spec, step="score", folder=steps.spec.folder.with_name("score"), outputs={}, inputs={"data": place}
    )
    view = steps.engine.prepare_view(steps.spec)
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
    assert steps.run("(sleep 0.1; echo late) & echo first; sleep 600 & exit 3") == 3
    assert steps.log().split() == ["first", "late"]
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


def test_a_step_that_cannot_start_leaves_nothing_and_says_why(steps: Steps) -> None:
    if steps.engine.name == "docker":
        steps.spec = replace(steps.spec, image=replace(steps.spec.image, name="azureml-debug/none:gone"))
    with pytest.raises(UserError) as caught:
        steps.start("true" if steps.engine.name == "docker" else "true " + "x" * 3_000_000)
    assert caught.value.problem and caught.value.remedy
    assert "gone" in caught.value.problem or "train" in caught.value.problem
    assert steps.left() == []


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_an_input_that_is_not_there_is_named_and_no_folder_is_made_for_it(steps: Steps, tmp_path: Path) -> None:
    steps.spec = replace(steps.spec, inputs={"data": tmp_path / "not there"})
    with pytest.raises(UserError, match="not there"):
        steps.start("true")
    assert not (tmp_path / "not there").exists()


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_an_image_without_bash_runs_a_command_in_sh(steps: Steps) -> None:
    from workflows.engines.docker_client import connect
    from workflows.environments.base_image import BASE_IMAGE

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
