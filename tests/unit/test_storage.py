"""What is said where a write fails for want of room; nothing half written takes the place of what was there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import missing
from disks import fill, mounted, use_inodes, what_is_missing

from workflows import storage
from workflows.debugger.launch_json import write_configurations
from workflows.errors import UserError
from workflows.project import state_folder, write_json

CONFIGURATION = {"name": "N", "type": "debugpy", "request": "attach", "args": ["x" * 9000]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB and 40 files."""
    if reason := what_is_missing():
        missing(reason)
    with mounted(tmp_path / "disk", "size=200k,nr_inodes=40") as folder:
        yield folder


def refused(write: Callable[[], object]) -> UserError:
    """The error in two lines that a write ends in."""
    try:
        write()
    except OSError as error:
        told = storage.explain(error)
        assert told is not None, error
        return told
    except UserError as error:
        return error
    pytest.fail("it was written")


def test_a_full_disk_is_named_with_its_folder_its_file_system_and_what_is_left(disk: Path) -> None:
    fill(disk)
    told = refused(lambda: write_json(disk / "more", {}))
    assert told.problem.startswith("The disk is full: 0 bytes of 204.8 kB are free, room for 38 more files in "), told
    assert f"{disk} (tmpfs on {disk})" in told.problem and "Free some space there" in told.remedy


def test_inodes_that_are_used_up_are_told_from_bytes(disk: Path) -> None:
    use_inodes(disk)
    told = refused(lambda: (disk / "one more").touch())
    assert "all of its inodes are used" in told.problem and f"(tmpfs on {disk})" in told.problem
    assert "Remove files there" in told.remedy


def test_a_disk_that_is_mounted_read_only_is_called_so(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    told = refused(lambda: (disk / "it").write_bytes(b"x"))
    assert "is read-only" in told.problem and str(disk) in told.problem and "Mount it for writing" in told.remedy


def test_a_quota_that_is_used_up_is_not_called_a_full_disk(tmp_path: Path) -> None:
    told = storage.explain(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(tmp_path / "it")))
    assert told is not None
    assert told.problem.startswith("Your quota is used up") and "the disk has room" in told.problem
    assert "quota" in told.remedy


def test_an_error_of_another_kind_is_left_to_others(tmp_path: Path) -> None:
    assert storage.explain(OSError(errno.EACCES, "no", str(tmp_path))) is None
    assert storage.explain(ValueError("no space left on device")) is None


def test_an_error_without_a_name_is_looked_for_in_the_folders_that_are_written_to(disk: Path) -> None:
    project = disk / "project"
    project.mkdir()
    fill(disk)
    told = storage.explain(OSError(errno.ENOSPC, "it is full"), project=project)
    assert told is not None and f"(tmpfs on {disk})" in told.problem
    (disk / "what fills the disk").unlink()
    told = storage.explain(OSError(errno.ENOSPC, "it is full"), project=project)
    assert told is not None and "is not any more" in told.problem and f"{project}" in told.problem


def test_the_setting_that_puts_the_cache_elsewhere_is_named(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
    told = storage.full_disk(disk / "azureml-debug" / "environments")
    assert "XDG_CACHE_HOME" in told.remedy and "container.prune" in told.remedy
    assert "container.prune" not in storage.full_disk(Path("/proc")).remedy


@pytest.mark.parametrize("use_up", [fill, use_inodes])
def test_what_was_there_is_whole_where_a_record_or_launch_json_cannot_be_written(
    disk: Path, use_up: Callable[[Path], object]
) -> None:
    write_json(disk / "run.json", {"status": "Running"})
    write_configurations(disk, [{**CONFIGURATION, "args": []}])
    launch = disk / ".vscode" / "launch.json"
    before = launch.read_bytes()
    use_up(disk)
    refused(lambda: write_json(disk / "run.json", {"status": "x" * 9000}))
    refused(lambda: write_configurations(disk, [{**CONFIGURATION, "name": "Another"}]))
    assert json.loads((disk / "run.json").read_text()) == {"status": "Running"}
    assert launch.read_bytes() == before
    assert {path.name for path in launch.parent.iterdir()} == {"launch.json"}
    assert not [path for path in disk.iterdir() if path.name.startswith(".") and path.name != ".vscode"]


def test_the_state_folders_own_ignore_file_is_whole_or_not_there(disk: Path) -> None:
    fill(disk)
    told = refused(lambda: state_folder(disk, "runs"))
    assert "The disk is full" in told.problem
    (disk / "what fills the disk").unlink()
    state_folder(disk, "runs")
    assert (disk / ".azureml-debug" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("name", [".azureml-debug", ".azureml-debug/runs"])
@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.name)], ids=["file", "loop"])
def test_what_stands_where_the_state_folder_belongs_is_named(
    tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    make(place)
    assert (
        refused(lambda: state_folder(tmp_path, "runs")).remedy == f"Rename {place}, or remove it: it is not a folder."
    )


def test_a_shortage_is_found_by_writing_and_leaves_nothing(disk: Path) -> None:
    assert storage.shortage(disk / "not there yet") is None
    fill(disk, leave=8192)
    assert storage.shortage(disk, 4096) is None
    assert (found := storage.shortage(disk)) is not None and "8.2 kB of 204.8 kB" in found.problem
    assert [path.name for path in disk.iterdir()] == ["what fills the disk"]


def test_a_watch_minds_a_shortage_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, full = [0.0], [False]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(storage, "shortage", lambda folder, size: UserError("full", "free") if full[0] else None)
    watch = storage.DiskWatch(tmp_path)
    seen = []
    for second in range(12):
        now[0] = float(second)
        # It was full for two looks, has room again, and is full for good.
        full[0] = second in (2, 3) or second > 6
        seen.append(watch.shortage() is not None)
    assert seen.index(True) == 9 and seen[9:] == [True] * 3


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("OSError: [Errno 28] No space left on device", errno.ENOSPC),
        ("write error: Disk quota exceeded", errno.EDQUOT),
        ("mkdir: cannot create directory: Read-only file system", errno.EROFS),
        ("all went well", None),
    ],
)
def test_a_full_disk_is_recognised_in_what_a_program_says(line: str, number: int | None) -> None:
    assert storage.find_disk_error(["before", line]) == number
