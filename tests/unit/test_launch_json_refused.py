"""A launch.json that cannot be understood, read or written: said in two lines, and left as it was."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch_json_files import BOM, NEW, launch_json, refused, run_python

from workflows.debugger.launch_json import check_launch_json, read_compound_members, write_configurations
from workflows.errors import UserError

pytestmark = pytest.mark.usefixtures("locks_elsewhere")

# Files that are broken ------------------------------------------------------------------------------

MALFORMED: dict[str, tuple[bytes, int]] = {
    "comma missing": (b'{\n  "a": 1\n  "configurations": []\n}', 3),
    "two commas": (b'{\n  "a": 1,,\n  "configurations": []\n}', 2),
    "only a comma": (b'{\n  "configurations": [\n,\n]}', 3),
    "comma behind a colon": (b'{"a":\n,\n}', 2),
    "value missing": (b'{\n// x\n"a": }', 3),
    "bracket missing": (b'{"configurations": [\n{}\n}', 3),
    "end missing": (b'{\n"configurations": [\n', 3),
    "comment without end": (b'{\n"a": 1 /* {\n}', 2),
    "string without end": (b'{\n"a": "x\n}', 2),
    "string over two lines": (b'{\n"b": 1,\n"a": "x\ny"\n}', 3),
    "bad escape": (b'{\n\n"a": "\\q"}', 3),
    "bad unicode escape": (b'{\n\n"a": "\\u00g0"}', 3),
    "single quotes": (b"{\r\n\r\n'a': 1}", 3),
    "key without quotes": (b"{\na: 1}", 2),
    "hexadecimal": (b'{\n"a": 0x1}', 2),
    "not a number": (b'{"NaN":\n"NaN", "a":\nNaN}', 3),
    "infinity": (b'{\n"a": -Infinity}', 2),
    "two roots": (b"{}\n{}", 2),
    "merge conflict": (b'{\n"a": 1,\n<<<<<<< HEAD\n"b": 1\n=======\n"b": 2\n>>>>>>> x\n}', 3),
    "not UTF-8": (b'{\n\n"a": "caf\xe9"}', 3),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 1),
    "nested too deeply": (b"[" * 100_000 + b"]" * 100_000, 1),
    "root is an array": (b"// x\n[\n]", 2),
    "root is a number": (BOM + b"\n\n1", 3),
    "configurations is an object": (b'{\n  "configurations":\n  {}\n}', 3),
    "configurations is null": (b'{\n  "configurations": null}', 2),
}


@pytest.mark.parametrize(("data", "line"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_broken_file_is_left_alone_and_the_error_names_its_line(tmp_path: Path, data: bytes, line: int) -> None:
    file = launch_json(tmp_path, data)
    os.utime(file, ns=(1, 1))
    with pytest.raises(UserError) as caught:
        write_configurations(tmp_path, [NEW])
    assert (caught.value.file, caught.value.line) == (file, line)
    assert str(caught.value).count("\n") == 1
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (data, 1)
    assert os.listdir(file.parent) == ["launch.json"]


def test_compounds_that_are_no_array_are_named_with_their_line(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b'{\n"configurations": [],\n"compounds": {}}')
    with pytest.raises(UserError, match="compounds") as caught:
        write_configurations(tmp_path, [NEW], [{"name": "All", "configurations": []}])
    assert caught.value.line == 3
    assert b"New" not in file.read_bytes()


COMPOUND = {"name": "All", "configurations": ["New"]}


def test_null_means_no_entries_and_is_replaced_only_where_one_is_added(tmp_path: Path) -> None:
    data = b'{\n  // mine\n  "version": "0.2.0",\n  "compounds": null, // none\n  "configurations": []\n}\n'
    file = launch_json(tmp_path, data)
    check_launch_json(tmp_path)
    assert file.read_bytes() == data
    assert write_configurations(tmp_path, [NEW]) == "added"
    now = file.read_bytes()
    assert b'"compounds": null, // none' in now and b"// mine" in now and b'"New"' in now
    assert write_configurations(tmp_path, [NEW], [COMPOUND]) == "added"
    assert b"null" not in file.read_bytes() and b"// none" in file.read_bytes()
    assert read_compound_members(tmp_path, "All") == ["New"]


# Files that cannot be read or written ---------------------------------------------------------------


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder, and no right to go past permissions, not even for root."""
    if sys.platform == "win32":
        pytest.skip("Windows has no permission bits")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(was)


def test_a_read_only_file_is_not_replaced(unprivileged: Path) -> None:
    file = launch_json(unprivileged, b"{}")
    file.chmod(0o444)
    assert "cannot be written: permission denied" in refused(unprivileged).problem
    assert file.read_bytes() == b"{}"


def test_a_read_only_folder_is_an_error_and_stays_as_it_was(unprivileged: Path) -> None:
    file = launch_json(unprivileged, b"{}")
    file.parent.chmod(0o555)
    assert "cannot be written: permission denied" in refused(unprivileged).problem
    assert os.listdir(file.parent) == ["launch.json"]
    assert file.read_bytes() == b"{}"


def test_a_project_folder_without_write_permission_is_an_error(unprivileged: Path) -> None:
    (unprivileged / "p").mkdir()
    (unprivileged / "p").chmod(0o555)
    assert "cannot be written: permission denied" in refused(unprivileged / "p").problem


def test_an_unreadable_file_is_an_error(unprivileged: Path) -> None:
    launch_json(unprivileged, b"{}").chmod(0o000)
    assert "cannot be read: permission denied" in refused(unprivileged).problem


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".vscode" / "launch.json").mkdir(parents=True)
    error = refused(tmp_path)
    assert (error.problem, error.file) == ("This is a folder, not a file.", tmp_path / ".vscode" / "launch.json")


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".vscode").write_bytes(b"mine")
    error = refused(tmp_path)
    assert (error.problem, error.file) == ("This is a file, not a folder.", tmp_path / ".vscode")
    assert (tmp_path / ".vscode").read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_in_place_of_the_file_is_an_error_and_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / ".vscode").mkdir()
    os.mkfifo(tmp_path / ".vscode" / "launch.json")
    # In a process of its own, since a read of the pipe would never end.
    done = run_python(
        """
        import sys
        from pathlib import Path
        from workflows.debugger.launch_json import write_configurations
        write_configurations(Path(sys.argv[1]), [{"name": "New"}])
        """,
        tmp_path,
        timeout=20,
    )
    assert "is not a regular file" in done.stderr


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / "launch.json").symlink_to("launch.json")
    refused(tmp_path)


def test_a_missing_project_folder_is_an_error(tmp_path: Path) -> None:
    assert "project folder" in refused(tmp_path / "nowhere").remedy


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_disk_that_takes_only_a_part_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    file = launch_json(tmp_path, b"{}")
    done = run_python(
        """
        import resource, sys
        from pathlib import Path
        from workflows.debugger.launch_json import write_configurations
        from workflows.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
        try:
            write_configurations(Path(sys.argv[1]), [{"name": "New", "args": ["x" * 100]}])
        except UserError as error:
            print(error)
        """,
        tmp_path,
    )
    assert "cannot be written: file too large" in done.stdout, done.stderr
    assert file.read_bytes() == b"{}"
    assert os.listdir(file.parent) == ["launch.json"]


@pytest.mark.parametrize("existing", [True, False], ids=["existing", "new"])
def test_a_full_disk_is_said_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    if existing:
        launch_json(tmp_path, b"{}")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    error = refused(tmp_path)
    assert error.problem == "This file cannot be written: no space left on device."
    assert error.remedy.startswith("Free some space")
    assert [p.name for p in tmp_path.rglob("*")] == ([".vscode", "launch.json"] if existing else [])


def test_ctrl_c_in_mid_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = launch_json(tmp_path, b"{}")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_configurations(tmp_path, [NEW])
    assert file.read_bytes() == b"{}"
    assert os.listdir(file.parent) == ["launch.json"]
