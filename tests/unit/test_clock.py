"""A clock that is set back, or forward, moves no duration and takes no process for another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflows import clock
from workflows import process_identity as identity
from workflows.engines import reservations
from workflows.formatting import format_duration
from workflows.project import write_bytes, write_json
from workflows.runs import record as records
from workflows.runs import store
from workflows.runs.record import RunRecord, StepRecord

HOUR = 3600.0


@pytest.fixture(params=[-HOUR, HOUR], ids=["back", "forward"])
def correction(request: pytest.FixtureRequest) -> float:
    """By how much the clock is set."""
    return float(request.param)


def set_clock(monkeypatch: pytest.MonkeyPatch, correction: float) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + correction)


def test_a_stamp_measures_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch, correction: float) -> None:
    moment, wall = clock.current_moment(), time.time()
    set_clock(monkeypatch, correction)
    assert 0 <= clock.seconds_since(moment, wall) < 60


def test_of_another_boot_the_time_of_day_has_to_do_and_is_never_negative() -> None:
    moment = clock.current_moment().replace(clock.boot_id(), "another boot")
    assert clock.seconds_since(moment, time.time() + HOUR) == 0
    assert HOUR <= clock.seconds_since(moment, time.time() - HOUR) < HOUR + 60
    assert HOUR <= clock.seconds_since("", time.time() - HOUR) < HOUR + 60


def test_a_run_and_its_steps_last_as_long_as_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, correction: float
) -> None:
    run = store.new_run(tmp_path, "experiment", "a", "process")
    run.steps = [StepRecord("a", run.run_id)]
    run.steps[0].status = records.RUNNING
    run.steps[0].begin()
    records.save(run)
    set_clock(monkeypatch, correction)
    for _ in range(2):
        loaded = records.load(run.folder)
        assert loaded is not None
        shown = loaded.as_json()
        assert 0 <= shown["seconds"] < 60 and 0 <= shown["steps"][0]["seconds"] < 60
        store.close(loaded, records.COMPLETED, "")
    assert loaded is not None and loaded.ended >= loaded.created and loaded.steps[0].ended >= loaded.steps[0].started
    # Later the clock is right again.
    set_clock(monkeypatch, -correction)
    again = records.load(run.folder)
    assert again is not None and 0 <= again.seconds < 60


def test_a_record_without_a_stamp_shows_nothing_negative(tmp_path: Path) -> None:
    run = RunRecord("a-1-abcdef", 1, "experiment", "a", tmp_path, tmp_path, "process", created=time.time() + HOUR)
    run.steps = [StepRecord("a", run.run_id, started=time.time() + HOUR, ended=time.time())]
    assert run.as_json()["seconds"] == 0 and run.as_json()["steps"][0]["seconds"] == 0
    run.ended = time.time()
    assert run.as_json()["seconds"] == 0
    assert format_duration(-5) == "0.0 s"


def test_a_run_that_lost_its_runner_is_recovered_although_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.new_run(tmp_path, "experiment", "a", "process")
    records.save(run)
    assert not store.check_interrupted(run).final
    # It was created long ago by the machine's own count, and in the future by its clock.
    run.stamp = re.sub(r"[\d.]+$", "1.0", run.stamp)
    records.save(run)
    set_clock(monkeypatch, -HOUR)
    assert store.check_interrupted(run).status == records.INTERRUPTED


def test_a_handed_over_port_is_free_again_although_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    child = subprocess.run(
        [sys.executable, "-c", "from workflows.engines.reservations import reserve; reserve([4711], handover=True)"],
        check=True,
    )
    assert child.returncode == 0 and reservations.is_reserved(4711)
    path = tmp_path / "azureml-debug" / "ports" / "4711.json"
    path.write_text(re.sub(r'(/)[\d.]+"', r'\g<1>1.0"', path.read_text()))
    set_clock(monkeypatch, -HOUR)
    assert not reservations.is_reserved(4711) and not path.exists()


def test_promises_of_processes_that_were_killed_are_taken_away_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = "from workflows.engines.reservations import reserve; reserve([4711, 4712])"
    subprocess.run([sys.executable, "-c", program], check=True)
    reservations.reserve([4713])
    assert [path.name for path in (tmp_path / "azureml-debug" / "ports").glob("*.json")] == ["4713.json"]


def test_what_a_killed_writer_has_left_is_taken_away_by_the_next_writer(tmp_path: Path) -> None:
    program = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom workflows.project import write_json\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nwrite_json(Path(sys.argv[1]), {'new': 1})\n"
    )
    path = tmp_path / "run.json"
    write_json(path, {"old": 1})
    child = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert child.returncode == -9 and len(list(tmp_path.iterdir())) == 2
    assert "old" in path.read_text()
    # That of a process that lives stays, and so does what only looks like one.
    alive, other = tmp_path / f".run.json.{identity.process_mark()}", tmp_path / ".run.json.swp"
    alive.touch()
    other.touch()
    write_bytes(tmp_path / "other.json", b"{}")
    assert len(list(tmp_path.iterdir())) == 5
    write_json(path, {"newer": 1})
    assert {entry.name for entry in tmp_path.iterdir()} == {"run.json", "other.json", ".run.json.swp"}


@pytest.mark.parametrize(
    "word", ["", "1", "1-2", "1-2-zzzzzzzz", "x-1-12345678", "1-2-12345678", "9" * 400 + "-1-aaaaaaaa"]
)
def test_a_mark_that_is_none_of_this_machine_is_believed(word: str) -> None:
    assert not identity.is_leftover(word)


def test_a_mark_tells_a_later_process_of_the_same_id() -> None:
    pid, started, where = identity.process_mark().split("-")
    assert pid == str(os.getpid()) and not identity.is_leftover(identity.process_mark())
    assert identity.is_leftover(f"{pid}-{int(started) + 1}-{where}")


def test_a_scratch_folder_of_a_killed_command_is_taken_away_by_the_next(tmp_path: Path) -> None:
    from workflows.scratch import scratch_folder

    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom workflows.scratch import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    other = tmp_path / "a folder of somebody else's"
    other.mkdir()
    (tmp_path / left.name.replace("azureml-debug", "another-program")).mkdir()
    with scratch_folder(tmp_path) as folder, scratch_folder(tmp_path) as second:
        assert folder.is_dir() and second.is_dir() and not left.exists()
    assert len(list(tmp_path.iterdir())) == 2
