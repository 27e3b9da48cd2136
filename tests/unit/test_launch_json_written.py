"""How launch.json is written: mode, owner, links; by several at once; by commands that are killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
from launch_json_files import NEW, ROOT, launch_json, refused, run_python

from workflows import locks
from workflows.debugger import jsonc, jsonc_file
from workflows.debugger.launch_json import write_configurations
from workflows.errors import UserError

pytestmark = pytest.mark.usefixtures("locks_elsewhere")

# The file itself ------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_the_files_mode_stays(tmp_path: Path, mode: int) -> None:
    file = launch_json(tmp_path, b"{}")
    file.chmod(mode)
    write_configurations(tmp_path, [NEW])
    assert stat.S_IMODE(file.stat().st_mode) == mode


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    was = os.umask(0o027)
    try:
        write_configurations(tmp_path, [NEW])
    finally:
        os.umask(was)
    assert stat.S_IMODE((tmp_path / ".vscode" / "launch.json").stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_the_file_to_its_owner(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b"{}")
    os.chown(file, 65534, 65534)
    write_configurations(tmp_path, [NEW])
    assert (file.stat().st_uid, file.stat().st_gid) == (65534, 65534)


@pytest.mark.parametrize("dangling", [False, True], ids=["existing", "dangling"])
def test_a_symbolic_link_stays_one_and_its_target_is_written(tmp_path: Path, dangling: bool) -> None:
    target = tmp_path / "dotfiles" / "shared.json"
    target.parent.mkdir()
    (tmp_path / ".vscode").mkdir()
    if not dangling:
        target.write_bytes(b"{}")
    link = tmp_path / ".vscode" / "launch.json"
    link.symlink_to(Path("..") / "dotfiles" / "shared.json")
    write_configurations(tmp_path, [NEW])
    assert link.is_symlink()
    assert jsonc.parse(target.read_bytes()).value["configurations"] == [NEW]
    assert os.listdir(target.parent) == ["shared.json"]


def test_nothing_but_the_file_is_left_in_the_folder(tmp_path: Path) -> None:
    write_configurations(tmp_path, [NEW])
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".vscode", "launch.json"]


def test_the_leftover_of_a_killed_command_is_taken_away_and_a_fresh_one_is_not(tmp_path: Path) -> None:
    folder = launch_json(tmp_path, b"{}").parent
    stale, fresh = folder / ".launch.json.0123abcd.tmp", folder / ".launch.json.4567abcd.tmp"
    for left in (stale, fresh):
        left.write_bytes(b"{")
    os.utime(stale, (time.time() - 3600,) * 2)
    write_configurations(tmp_path, [NEW])
    assert sorted(os.listdir(folder)) == [fresh.name, "launch.json"]


# Several at once ------------------------------------------------------------------------------------

WRITER = """
    import sys
    from pathlib import Path
    from workflows.debugger.launch_json import write_configurations
    folder, label = Path(sys.argv[1]), sys.argv[2]
    while not (folder / "go").exists():
        pass
    for number in range(20):
        result = write_configurations(folder, [{"name": f"{label} {number}", "port": number}])
        assert result == "added", result
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b'{\n  // mine\n  "configurations": [{"name": "Mine"}]\n}')
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    writers = [subprocess.Popen([*command, label], cwd=ROOT, stderr=subprocess.PIPE, text=True) for label in "AB"]
    (tmp_path / "go").touch()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    document = jsonc.parse(file.read_bytes())
    names = [entry["name"] for entry in document.value["configurations"]]
    assert sorted(names) == sorted(["Mine", *(f"{label} {n}" for label in "AB" for n in range(20))])
    assert b"// mine" in document.data
    assert os.listdir(file.parent) == ["launch.json"]


def test_two_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    def write(label: str) -> None:
        for number in range(10):
            write_configurations(tmp_path, [{"name": f"{label} {number}"}])

    threads = [threading.Thread(target=write, args=[label]) for label in "ABC"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jsonc.parse((tmp_path / ".vscode/launch.json").read_bytes()).value["configurations"]) == 30


def test_waiting_for_another_command_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = launch_json(tmp_path, b"{}")
    monkeypatch.setattr(jsonc_file, "LOCK_TIMEOUT", 0.2)
    errors: list[UserError] = []

    def change(document: jsonc.Document) -> jsonc.Document:
        thread = threading.Thread(target=lambda: errors.append(refused(tmp_path)))
        thread.start()
        thread.join(10)
        return document

    jsonc_file.edit_file(file, change)
    assert [error.problem for error in errors] == ["Another command has been changing it for 0.2 s."]
    assert write_configurations(tmp_path, [NEW]) == "added"


def test_a_folder_for_locks_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(locks, "_is_private", lambda place: False)
    assert "XDG_CACHE_HOME" in refused(tmp_path).remedy


KILLED = """
    import itertools, os, signal, sys
    from pathlib import Path
    from workflows.debugger.launch_json import write_configurations
    if sys.argv[2] != "nothing":
        setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    for port in itertools.count():
        write_configurations(Path(sys.argv[1]), [{"name": "New", "connect": {"port": port}}])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_kill_9_before_the_last_step_leaves_the_old_file_and_the_next_command_works(tmp_path: Path, at: str) -> None:
    file = launch_json(tmp_path, b'{"configurations": []}')
    assert run_python(KILLED, tmp_path, at).returncode == -signal.SIGKILL
    assert file.read_bytes() == b'{"configurations": []}'
    assert write_configurations(tmp_path, [NEW]) == "added"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_kill_9_in_mid_write_leaves_a_whole_file(tmp_path: Path) -> None:
    ballast = b'{"name": "Other", "args": "' + b"x" * 3_000_000 + b'"}'
    file = launch_json(tmp_path, b'{"configurations": [' + ballast + b"]}\n")
    write_configurations(tmp_path, [{"name": "New", "connect": {"port": 10}}])
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), "nothing"]
    for _ in range(3):
        files = len(os.listdir(file.parent))
        with subprocess.Popen(command, cwd=ROOT) as writer:
            # A write has begun when there is another file, or less in this one.
            deadline = time.monotonic() + 30
            while len(os.listdir(file.parent)) == files and file.stat().st_size > len(ballast):
                assert time.monotonic() < deadline
            writer.kill()
        data = file.read_bytes()
        assert ballast in data
        assert isinstance(jsonc.parse(data).value["configurations"][1]["connect"]["port"], int)
