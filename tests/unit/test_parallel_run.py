"""What drives an entry script with run(mini_batch): a real process with real workers."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from workflows.debuggee import FOLDER

DRIVER = f"{FOLDER}/azureml_parallel_run/driver.py"
ECHO = """
    import os
    def run(mini_batch):
        print("batch of", len(mini_batch))
        return [os.path.basename(path) for path in mini_batch]
"""


class Project:
    """A folder with an entry script and data."""

    def __init__(self, folder: Path, script: str, files: int = 5) -> None:
        self.code, self.data, self.output = folder / "code", folder / "data", folder / "out" / "rows.txt"
        self.code.mkdir()
        self.data.mkdir()
        (self.code / "batch.py").write_text(textwrap.dedent(script))
        for number in range(files):
            (self.data / f"f{number}.txt").write_text(f"{number}\n")

    def command(self, *options: str, arguments: tuple[str, ...] = (), size: str = "2") -> list[str]:
        known = ["--entry-script", "batch.py", "--input", str(self.data), "--mini-batch-size", size]
        target = ["--append-row-to", str(self.output)] if "--append-row-to" not in options else []
        return [sys.executable, DRIVER, *known, *target, *options, "--", *arguments]

    def run(self, *options: str, arguments: tuple[str, ...] = (), size: str = "2") -> subprocess.CompletedProcess[str]:
        command = self.command(*options, arguments=arguments, size=size)
        return subprocess.run(
            command, cwd=self.code, capture_output=True, text=True, timeout=120, env=dict(os.environ), check=False
        )

    def rows(self) -> list[str]:
        return self.output.read_text().splitlines()

    def report(self) -> list[dict[str, str]]:
        with (self.code / "logs/sys/job_report/processed_mini-batches.csv").open(newline="") as file:
            return sorted(csv.DictReader(file), key=lambda row: int(row["mini_batch"]))


def test_every_item_is_run_once_and_its_result_is_appended_in_order(tmp_path: Path) -> None:
    project = Project(tmp_path, ECHO, files=9)
    done = project.run("--processes", "3")
    assert done.returncode == 0, done.stderr
    assert project.rows() == [f"f{number}.txt" for number in range(9)]
    assert [(row["status"], row["items"]) for row in project.report()] == [("done", "2")] * 4 + [("done", "1")]
    # Nothing of it is left beside the output.
    assert [path.name for path in project.output.parent.iterdir()] == ["rows.txt"]


def test_each_process_calls_init_once_and_shutdown_at_the_end(tmp_path: Path) -> None:
    script = """
        import os, sys
        def init():
            global started
            started = globals().get("started", 0) + 1
            print("init", sys.argv[1:])
        def run(mini_batch):
            return [started for _ in mini_batch]
        def shutdown():
            print("shutdown")
    """
    project = Project(tmp_path, script)
    done = project.run("--processes", "1", arguments=("--model", "x y"))
    assert done.returncode == 0, done.stderr
    assert project.rows() == ["1"] * 5
    assert done.stdout.count("init ['--model', 'x y']") == done.stdout.count("shutdown\n") == 1


def test_several_processes_work_at_the_same_time(tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would wait in vain.
    script = """
        import os, time
        def run(mini_batch):
            open("here" + os.path.basename(mini_batch[0]), "w").close()
            until = time.monotonic() + 60
            while len([name for name in os.listdir() if name.startswith("here")]) < 2:
                assert time.monotonic() < until
                time.sleep(0.01)
            return mini_batch
    """
    project = Project(tmp_path, script, files=2)
    done = project.run("--processes", "2", size="1")
    assert done.returncode == 0, done.stderr
    assert len({row["process"] for row in project.report()}) == 2


def test_one_mini_batch_alone_is_counted_from_zero(tmp_path: Path) -> None:
    project = Project(tmp_path, ECHO)
    assert project.run("--only", "1").returncode == 0
    assert project.rows() == ["f2.txt", "f3.txt"]
    done = project.run("--only", "3")
    assert done.returncode == 1
    assert "There is no mini-batch 3: the input has 3, from 0 on." in done.stderr


def test_what_the_logs_say_is_where_azure_puts_it(tmp_path: Path) -> None:
    script = """
        import logging, sys
        from azureml_user.parallel_run import EntryScript
        def run(mini_batch):
            EntryScript().logger.info("logged")
            logging.warning("warned")
            print("printed")
            print("complained", file=sys.stderr)
            return mini_batch
    """
    project = Project(tmp_path, script, files=1)
    done = project.run("--processes", "1")
    logs = project.code / "logs"
    assert "logged" in (logs / "user/entry_script_log/0/process000.log.txt").read_text()
    assert "printed" in (logs / "user/stdout/0/process000.stdout.txt").read_text()
    assert "warned" in (logs / "user/stdout/0/process000.stdout.txt").read_text()
    assert "complained" in (logs / "user/stderr/0/process000.stderr.txt").read_text()
    assert (logs / "job_result.txt").read_text() == "completed\n"
    assert "1 mini-batches done, 0 failed" in (logs / "job_progress_overview.txt").read_text()
    # Where a person looks first, it is, too.
    assert "printed" in done.stdout


def test_a_mini_batch_that_fails_is_tried_again(tmp_path: Path) -> None:
    script = """
        import os
        def run(mini_batch):
            if not os.path.exists("second"):
                open("second", "w").close()
                raise OSError("not yet")
            return mini_batch
    """
    project = Project(tmp_path, script, files=1)
    done = project.run("--max-retries", "1", "--mini-batch-error-threshold", "0")
    assert done.returncode == 0, done.stderr
    assert [(row["status"], row["tries"]) for row in project.report()] == [("done", "2")]
    assert "not yet" in (project.code / "logs/user/error/0/process000.txt").read_text()


FAILS_AT_ONE = """
    def check(path):
        raise ValueError("unreadable")
    def run(mini_batch):
        if any("f3" in path for path in mini_batch):
            check(mini_batch[0])
        return mini_batch
"""


def test_more_failures_than_the_threshold_name_the_persons_own_line_last(tmp_path: Path) -> None:
    project = Project(tmp_path, FAILS_AT_ONE)
    done = project.run("--max-retries", "0", "--mini-batch-error-threshold", "0", "--processes", "1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "parallel run: 1 of 2 mini-batches failed, more than mini_batch_error_threshold (0) allows; "
        "the first: mini-batch 1, batch.py:3: ValueError: unreadable."
    )
    assert done.stderr.count("Traceback") == 1
    assert "worker.py" not in done.stderr
    assert not project.output.exists()
    assert (project.code / "logs/job_result.txt").read_text().startswith("failed: ")


@pytest.mark.parametrize(
    ("options", "arguments", "code"),
    [
        ((), (), 0),
        (("--mini-batch-error-threshold", "1"), (), 0),
        (("--error-threshold", "2"), (), 0),
        (("--error-threshold", "1"), (), 1),
        ((), ("--error_threshold", "1"), 1),
        ((), ("--allowed_failed_percent", "34"), 0),
        ((), ("--allowed_failed_percent", "33"), 1),
    ],
)
def test_thresholds_count_mini_batches_and_items(
    tmp_path: Path, options: tuple[str, ...], arguments: tuple[str, ...], code: int
) -> None:
    project = Project(tmp_path, FAILS_AT_ONE)
    done = project.run("--max-retries", "0", *options, arguments=arguments)
    assert done.returncode == code, done.stderr
    if not code:
        assert project.rows() == [str(project.data / name) for name in ("f0.txt", "f1.txt", "f4.txt")]


def test_fewer_results_than_items_are_failed_items(tmp_path: Path) -> None:
    project = Project(tmp_path, "def run(mini_batch):\n    return mini_batch[:1]\n")
    assert project.run("--error-threshold", "2").returncode == 0
    done = project.run("--error-threshold", "1")
    assert done.returncode == 1
    assert "items failed, more than error_threshold (1) allows" in done.stderr


def test_run_that_takes_too_long_is_ended_and_tried_again(tmp_path: Path) -> None:
    script = """
        import os, time
        def run(mini_batch):
            if not os.path.exists("second"):
                open("second", "w").close()
                time.sleep(600)
            return mini_batch
    """
    project = Project(tmp_path, script, files=1)
    done = project.run("--timeout", "0.5", "--processes", "1")
    assert done.returncode == 0, done.stderr
    assert "mini-batch 0 failed, and is tried again: run() took longer than 0.5 s" in done.stdout
    assert [row["process"] for row in project.report()] == ["process001"]


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    script = """
        import os, signal
        def run(mini_batch):
            if not os.path.exists("second"):
                open("second", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return mini_batch
    """
    project = Project(tmp_path, script, files=1)
    done = project.run("--processes", "1")
    assert done.returncode == 0, done.stderr
    assert "its process ended with signal 9" in done.stdout


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("def init():\n    pass\n", "batch.py has no run()"),
        ("def run(mini_batch):\n    pass\n", "batch.py:1: run() has returned None for mini-batch 0."),
        (
            "def run(mini_batch):\n    return 3\n",
            "batch.py:1: run() has returned a value of type int for mini-batch 0.",
        ),
        ("def init():\n    1 / 0\ndef run(b):\n    return b\n", "ZeroDivisionError: division by zero (batch.py:2)."),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name' (batch.py:1)."),
        ("def run(b)\n    return b\n", "(batch.py:1)."),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (batch.py:2)."),
        ("import os\ndef init():\n    os._exit(3)\ndef run(b):\n    return b\n", "each ended with exit code 3."),
    ],
)
def test_an_entry_script_that_is_none_is_refused_in_two_lines(tmp_path: Path, script: str, told: str) -> None:
    project = Project(tmp_path, script)
    done = project.run("--processes", "1")
    assert done.returncode == 1
    problem, remedy = done.stderr.splitlines()[-2:]
    assert problem.startswith("parallel run: ")
    assert problem.endswith(told) or told in problem
    assert remedy.startswith("parallel run: ")


def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    project = Project(tmp_path, ECHO, files=0)
    for options, size, told in (
        ((), "2", f"The input {project.data} is empty."),
        ((), "many", "mini_batch_size cannot be `many`."),
        ((), "0", "mini_batch_size cannot be `0`."),
        (("--timeout", "0"), "2", "retry_settings.timeout cannot be 0."),
        (("--processes", "x"), "2", "invalid int value: 'x'"),
        (("--entry-script", "no.py"), "2", "There is no entry script no.py"),
        (("--input", "nowhere"), "2", "The input nowhere does not exist."),
        (("--input-type", "mltable"), "2", "has no file called MLTable."),
    ):
        done = project.run(*options, size=size)
        assert done.returncode == 1
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 2, done.stderr


def test_the_context_tells_number_and_partition_keys(tmp_path: Path) -> None:
    script = """
        def run(mini_batch, context):
            return [f"{context.minibatch_index} {context.partition_key_value}"] * len(mini_batch)
    """
    project = Project(tmp_path, script, files=0)
    for place in ("Store=1/Brand=a", "Store=1/Brand=b", "Store=2/Brand=a"):
        (project.data / place).mkdir(parents=True)
        (project.data / place / "x.txt").touch()
    assert project.run("--partition-keys", "Store,Brand").returncode == 0
    assert project.rows() == [
        "0 {'Store': 1, 'Brand': 'a'}",
        "1 {'Store': 1, 'Brand': 'b'}",
        "2 {'Store': 2, 'Brand': 'a'}",
    ]


def test_summary_only_leaves_the_output_to_the_script(tmp_path: Path) -> None:
    script = """
        import os
        def run(mini_batch):
            with open(os.path.join(os.environ["AZUREML_BI_OUTPUT_PATH"], "own.txt"), "a") as file:
                file.write("x")
            return mini_batch
    """
    project = Project(tmp_path, script)
    own = tmp_path / "own"
    own.mkdir()
    done = project.run("--append-row-to", "", "--output", str(own))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in own.iterdir()] == ["own.txt"]
    assert (own / "own.txt").read_text() == "xxx"


def test_one_that_is_told_to_end_takes_its_processes_with_it(tmp_path: Path) -> None:
    script = """
        import os, time
        def run(mini_batch):
            with open("pid.part", "w") as file:
                file.write(str(os.getpid()))
            os.rename("pid.part", "pid")
            time.sleep(600)
    """
    project = Project(tmp_path, script, files=1)
    with subprocess.Popen(project.command("--processes", "1"), cwd=project.code, stdout=subprocess.DEVNULL) as driver:
        until = time.monotonic() + 60
        while not (project.code / "pid").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((project.code / "pid").read_text()), 0)
    assert list(project.output.parent.iterdir()) == []
