"""What is read from, and put into, a step's shell text."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.pipelines.commands import (
    MOST_UNKNOWN_RANKS,
    count_started_ranks,
    debugged_command,
    may_start_ranks,
    names_own_script,
    published_port,
)

LAUNCHER = "/d/inject/launch.py"
#: Text that bash refuses, or that stops in the middle of something.
MALFORMED = [
    "",
    "   \n\t",
    "python -I 'train.py",
    'python -I "train.py',
    "python -I train.py \\",
    "python -I $(cat",
    "python -I ${x",
    "python -I `x",
    "python -I",
    "python -Im",
    "python -W",
    "python -I -X",
    "cat <<",
    "cat <<EOF\npython -I train.py",
    "python -I \0.py",
    "((((((",
    "))))",
    "> > <",
    "&&&& ||",
    "--remote_debug_port",
    "--remote_debug_port=",
    "${{inputs.x",
    "$[[ --x",
    "python -I " + "x" * 5000,
    "é python -I 'ü",
]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("python -I train.py", "python -I L train.py"),
        ("python3 -E train.py --x 1", "python3 -E L train.py --x 1"),
        ("/opt/conda/bin/python3.10 -S train.py", "/opt/conda/bin/python3.10 -S L train.py"),
        ("python -uIB train.py", "python -uIB L train.py"),
        ("python -u -I -X dev -W error train.py", "python -u -I -X dev -W error L train.py"),
        ("python -Xdev -I train.py", "python -Xdev -I L train.py"),
        ("python -I -m pkg.train -x", "python -I L -m pkg.train -x"),
        ("python -Im pkg.train", "python -I L -m pkg.train"),
        ("python -I -mpkg.train", "python -I L -mpkg.train"),
        ("python -I 'my train.py' \"a  b\"", "python -I L 'my train.py' \"a  b\""),
        ("pip install x && python -I train.py | tee log", "pip install x && python -I L train.py | tee log"),
        ("if true; then\n  python -E a.py\nfi", "if true; then\n  python -E L a.py\nfi"),
        ("(cd src; python -S a.py)", "(cd src; python -S L a.py)"),
        ("A=1 B='x y' python -I a.py", "A=1 B='x y' python -I L a.py"),
        ("exec python -I a.py", "exec python -I L a.py"),
        ("env -u X timeout 5 python -I a.py", "env -u X timeout 5 python -I L a.py"),
        ("mpirun -n 2 python -I a.py", "mpirun -n 2 python -I L a.py"),
        ("python -I \\\n  train.py \\\n  --x", "python -I \\\n  L train.py \\\n  --x"),
        ("python -I a.py; python -E b.py", "python -I L a.py; python -E L b.py"),
        ("python -I a.py > out 2>&1 &", "python -I L a.py > out 2>&1 &"),
        ("python -I $SCRIPT", "python -I L $SCRIPT"),
        # PYTHONPATH given anew, so that ours is gone.
        ("PYTHONPATH=src python train.py", "PYTHONPATH=src python L train.py"),
        ("export PYTHONPATH=.\npython -m pkg", "export PYTHONPATH=.\npython L -m pkg"),
        ("env PYTHONPATH=src python -um pkg", "env PYTHONPATH=src python -u L -m pkg"),
    ],
)
def test_the_launcher_is_named_where_python_overlooks_the_debuggee(before: str, after: str) -> None:
    assert debugged_command(before, LAUNCHER) == after.replace("L ", LAUNCHER + " ")


@pytest.mark.parametrize(
    "command",
    [
        "python train.py",
        "python -u train.py -I",
        "python -m pkg.train -E",
        "python -W I train.py",
        "python -X importtime train.py",
        "python -I -c 'print(1)'",
        "python -I -",
        "python -I < train.py",
        "echo python -I train.py",
        "which python -I train.py",
        "# python -I train.py",
        "'python -I train.py'",
        "cat <<EOF > x.sh\npython -I train.py\nEOF\npython train.py",
        "pythonic -I train.py",
        "PYTHONPATH=src:$PYTHONPATH python train.py",
        "export PYTHONPATH=\"${PYTHONPATH}:src\"; python train.py",
        "export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}; python train.py",
        "torchrun --nproc_per_node 2 train.py",
    ],
)  # fmt: skip
def test_every_other_command_stays_byte_for_byte(command: str) -> None:
    assert debugged_command(command, LAUNCHER) == command


def test_a_launcher_in_a_folder_with_a_space_is_quoted() -> None:
    assert debugged_command("python -I a.py", "/d e/launch.py") == "python -I '/d e/launch.py' a.py"


@pytest.mark.parametrize("command", MALFORMED)
def test_text_that_is_not_a_whole_command_is_read_without_complaint(command: str, tmp_path: Path) -> None:
    debugged_command(command, LAUNCHER)
    assert not names_own_script(command, tmp_path)
    assert published_port(command) is None


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name in ("train.py", "src/prep.py", "pkg/cli.py", "pkg/sub/__main__.py", "app/__main__.py", "my train.py"):
        file = tmp_path / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "outside.py").write_text("")
    return tmp_path / "code"


@pytest.mark.parametrize(
    "command",
    [
        "python train.py",
        "python3.11 -u ./train.py --x ${{inputs.x}}",
        "pip install -r r.txt && python train.py",
        "cd src && python prep.py",
        "python src/prep.py\npython other.py",
        "python -m pkg.cli",
        "python -mpkg.sub",
        "python app",
        "python 'my train.py'",
        "python -I train.py",
        "./train.py",
        "torchrun --nproc_per_node 2 train.py --epochs 3",
        "accelerate launch --num_processes 2 -m pkg.cli",
        "python -m torch.distributed.run --nproc_per_node 2 train.py",
        "mpirun -n 2 python train.py",
        "OMP_NUM_THREADS=1 nohup python train.py > log 2>&1",
        "conda run -n x torchrun train.py",
        "for i in 1 2; do python train.py; done",
    ],
)
def test_a_command_that_starts_the_steps_own_script_is_recognised(command: str, code: Path) -> None:
    assert names_own_script(command, code)
    assert not names_own_script(command, None)


@pytest.mark.parametrize(
    "command",
    [
        "python -m pytest tests",
        "pytest train.py",
        "cat train.py",
        "python -c 'import train'",
        "python other.py",
        "python ../outside.py",
        "python $SCRIPT",
        "python -m json.tool train.py",
        "echo python train.py",
        "python - < train.py",
        "bash run.sh",
    ],
)
def test_a_command_that_starts_something_else_is_not(command: str, code: Path) -> None:
    assert not names_own_script(command, code)


def test_a_source_that_is_one_file_counts_as_its_folder(code: Path) -> None:
    assert names_own_script("python train.py", code / "train.py")


@pytest.mark.parametrize(
    ("command", "port"),
    [
        ("python train.py --remote_debug --remote_debug_port 5680", 5680),
        ("python train.py --remote_debug_port=5680 --x", 5680),
        ("python train.py '--remote_debug_port' \"5680\"", 5680),
        ("python a.py && python train.py \\\n --remote_debug_port 5680", 5680),
        ("python train.py", None),
        ("python train.py --remote_debug_port", None),
        ("python train.py --remote_debug_port 0", None),
        ("python train.py --remote_debug_port 65536", None),
        ("python train.py --remote_debug_port ${{inputs.port}}", None),
        ("# python train.py --remote_debug_port 5680", None),
    ],
)
def test_the_published_port_is_read_from_the_command(command: str, port: int | None) -> None:
    assert published_port(command) == port


@pytest.mark.parametrize(
    ("command", "may"),
    [
        ("python train.py --epochs 3", False),
        ("cd src && python3 -u train.py && LEVEL=1 python score.py", False),
        ("echo before && python tell.py; code=$?; exit $code", False),
        ("python -c 'import train'", False),
        ("python -m pytest tests", False),
        ("torchrun --nproc_per_node 2 train.py", True),
        ("accelerate launch -m train", True),
        ("python -m torch.distributed.run --nproc_per_node 2 -m train", True),
        ("python -m company.launch train.py", True),
        ("bash run.sh", True),
        ("mylaunch 2 train.py", True),
        ("python tools/mylaunch.py 2 train.py", True),
        ("python tools/mylaunch.py", False),
    ],
)
def test_what_starts_scripts_for_others_may_make_ranks(command: str, may: bool) -> None:
    assert may_start_ranks(command) == may


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("python train.py -n 3", 1),
        ("torchrun --nproc_per_node 2 train.py", 2),
        ("torchrun --nproc-per-node=4 train.py", 4),
        ("accelerate launch --num_processes 3 -m train", 3),
        ("mpirun -np 8 python train.py", 8),
        ("torchrun --nproc_per_node gpu train.py", MOST_UNKNOWN_RANKS),
        ("mylaunch 2 train.py", MOST_UNKNOWN_RANKS),
        ("python prep.py && torchrun --nproc_per_node 2 train.py", 2),
    ],
)
def test_as_many_ranks_are_expected_as_a_launcher_is_told_to_start(command: str, count: int) -> None:
    assert count_started_ranks(command) == count
