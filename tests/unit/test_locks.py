"""Locks: one holder at a time, in a folder of the user's own, and no file when nobody holds one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workflows import locks

#: Adds one to a number in a file so many times, each time with the lock held; a reader could see it half written.
COUNTS = """
import os, sys
from pathlib import Path
from workflows.locks import hold
place, rounds = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(rounds):
    with hold(place / "lock", 60, pause=0.0005):
        number = int((place / "number").read_text())
        (place / "number").write_text(str(number + 1))
"""
HOLDS = """
import sys, time
from pathlib import Path
from workflows.locks import hold
with hold(Path(sys.argv[1]), 5):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_processes_that_take_turns_lose_nothing_and_leave_no_file(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    children = [
        subprocess.Popen([sys.executable, "-c", COUNTS, str(tmp_path), "300"], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for child in children:
        assert child.wait(60) == 0, child.communicate()
        child.communicate()
    assert (tmp_path / "number").read_text() == "1200"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_threads_of_one_process_take_turns_too(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(50):
            with locks.hold(tmp_path / "lock", 30, pause=0.0005):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and not list(tmp_path.iterdir())


def test_a_lock_ends_with_the_process_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(locks.HeldError), locks.hold(file, 0):
            pass
        child.kill()
    with locks.hold(file, 0):
        assert file.exists()
    assert not file.exists()


def test_who_waits_is_told_and_gets_the_lock_that_was_removed_meanwhile(tmp_path: Path) -> None:
    file, told = tmp_path / "lock", threading.Event()
    entered = threading.Event()

    def wait() -> None:
        with locks.hold(file, 30, pause=0.001, waiting=told.set):
            entered.set()

    thread = threading.Thread(target=wait)
    with locks.hold(file, 0):
        thread.start()
        assert told.wait(10) and not entered.is_set()
    thread.join(10)
    assert entered.is_set() and not file.exists()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), locks.hold(tmp_path / "lock", 0):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("mode", "taken"),
    [(0o700, True), (0o755, False), (0o777, False), (0o1777, False)],
    ids=oct,
)
def test_the_folder_of_locks_is_one_that_nobody_else_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, taken: bool
) -> None:
    runtime, cache = tmp_path / "runtime", tmp_path / "cache"
    runtime.mkdir()
    runtime.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    found = locks.folder()
    assert (found == runtime / "azureml-debug") is taken
    assert found.is_dir() and not str(found).startswith("/tmp/azureml-debug")
    if taken:
        assert found.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs another user's folder")
def test_a_folder_of_another_users_or_behind_a_link_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "link").symlink_to(runtime)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "link"))
    assert not locks.folder().is_relative_to(tmp_path / "link")
    os.chown(runtime, 12345, 12345)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert not locks.folder().is_relative_to(runtime)


def test_launch_json_is_locked_in_that_folder_and_no_lock_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workflows.debugger.launch_json import write_configurations

    runtime, shared = tmp_path / "runtime", tmp_path / "shared"
    runtime.mkdir(mode=0o700)
    shared.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    seen: list[str] = []
    real = os.replace

    def replace(old: str, new: str) -> None:
        seen.extend(path.name for path in (runtime / "azureml-debug").iterdir())
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    (tmp_path / "project").mkdir()
    write_configurations(tmp_path / "project", [{"name": "N", "type": "debugpy", "request": "attach"}])
    assert len(seen) == 1 and seen[0].endswith(".lock")
    assert not list((runtime / "azureml-debug").iterdir()) and not list(shared.iterdir())
