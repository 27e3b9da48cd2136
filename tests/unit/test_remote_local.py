"""What `--remote` makes of the files, paths, flags and settings of this machine, before it connects."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from workflows.errors import UserError
from workflows.remote import address as addresses
from workflows.remote import configurations, local_files, request, sync
from workflows.remote.identities import Identities
from workflows.remote.remote_paths import RemotePaths
from workflows.remote.request import TypedTask
from workflows.remote.task import project_id
from workflows.settings import resolve

TREE = {
    ".gitignore": "*.log\n/build/\ndata\n!keep.log\nnotes/*\n!notes/kept.txt\n",
    "a.py": "",
    "x.log": "",
    "keep.log": "",
    "build/out.txt": "",
    "sub/build/in.txt": "",
    "sub/data/large.csv": "",
    "sub/.gitignore": "*.tmp\n!*.log\n",
    "sub/x.log": "",
    "sub/y.tmp": "",
    "sub/deep/z.tmp": "",
    "notes/gone.txt": "",
    "notes/kept.txt": "",
    "with space/ü.txt": "",
    "line\nbreak.txt": "",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a project"
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    return folder


def test_without_git_the_same_files_travel_as_with_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_git = set(local_files.project_files(project, []))
    assert {"a.py", "keep.log", "sub/x.log", "notes/kept.txt", "sub/build/in.txt", "line\nbreak.txt"} <= with_git
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert set(local_files.project_files(project, [])) == with_git


@pytest.mark.parametrize("listed", ["git", "without git", "named"])
def test_a_link_to_a_folder_elsewhere_travels_as_what_is_in_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    elsewhere = project.parent / "elsewhere"
    for name in ("helper.py", "deep/more.py", ".env", "__pycache__/x.pyc", "far/x.py"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text(name)
    for link, target in {"deep/far": "../far", "deep/loop": "..", "deep/project": str(project)}.items():
        (elsewhere / link).symlink_to(target)
    (project / "sub" / "common").symlink_to("../../elsewhere")
    (project / "sub" / "within").symlink_to("deep")
    if listed == "without git":
        monkeypatch.setattr("shutil.which", lambda name: None)
    if listed == "named":
        found = {one.path: one for one in local_files.files_below(project / "sub", project)}
    else:
        found = local_files.project_files(project, [])
    below = {path for path in found if path.startswith("sub/common/")}
    assert below == {f"sub/common/{name}" for name in ("helper.py", "deep/more.py", "deep/far/x.py", "far/x.py")}
    assert found["sub/within"].link == "deep"
    if listed == "named":
        # A folder that travels from elsewhere has no link of its own out of it either.
        carried = {one.path for one in local_files.files_below(elsewhere / "deep", elsewhere / "deep")}
        assert carried >= {"more.py", "far/x.py"}


def test_a_project_in_a_larger_repository_sends_itself_alone(project: Path) -> None:
    subprocess.run(["git", "init", "-q", str(project.parent)], check=True)
    (project.parent / "beside.txt").write_text("")
    assert "beside.txt" not in "".join(local_files.project_files(project, []))
    assert "a.py" in local_files.project_files(project, [])


@pytest.mark.parametrize("repository", [True, False], ids=["in a repository", "in none"])
def test_submodules_and_repositories_in_the_project_travel(project: Path, tmp_path: Path, repository: bool) -> None:
    def git(folder: Path, *arguments: str) -> None:
        known = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always"]
        subprocess.run(["git", *known, *arguments], cwd=folder, check=True, capture_output=True)

    library = tmp_path / "library"
    for folder in (library, library / "deeper", project / "nested", project / "build" / "ignored"):
        folder.mkdir(parents=True)
        git(folder, "init", "-q")
        (folder / ".gitignore").write_text("*.o\n")
        (folder / "code.py").write_text("")
        (folder / "code.o").write_text("")
        git(folder, "add", "code.py", ".gitignore")
        git(folder, "commit", "-qm", "x")
    (project / "nested" / "new.py").write_text("")
    expected = {"nested/code.py", "nested/.gitignore", "nested/new.py"}
    if repository:
        git(project, "init", "-q")
        git(project, "submodule", "add", "-q", str(library), "lib")
        git(project / "lib", "submodule", "add", "-q", str(library / "deeper"), "inner")
        (project / "lib" / "code.o").write_text("")
        expected |= {".gitmodules", "lib/code.py", "lib/.gitignore", "lib/inner/code.py", "lib/inner/.gitignore"}
        expected |= {"lib/.gitmodules"}
    before = {name for name in local_files.project_files(project, []) if name in TREE}
    assert set(local_files.project_files(project, [])) - before == expected
    if repository:
        # One that is not fetched has an empty folder.
        git(project, "submodule", "deinit", "-f", "lib")
        assert set(local_files.project_files(project, [])) - before == {
            name for name in expected if not name.startswith("lib/")
        }


def test_the_folder_there_stays_the_same_in_another_network(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "state"))
    first = project_id(project)
    monkeypatch.setattr("uuid.getnode", lambda: 1)
    monkeypatch.setattr("platform.node", lambda: "another")
    assert project_id(project) == first != project_id(project.parent)
    (project / "state" / "azureml-debug" / "id").unlink()
    assert project_id(project) != first


def test_a_key_file_that_cannot_be_used_is_told_with_what_is_wrong_with_it(project: Path) -> None:
    for name in ("ours", "alone"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], cwd=project, check=True)
    shown = subprocess.run(["ssh-keygen", "-e", "-f", "ours"], cwd=project, check=True, capture_output=True, text=True)
    ours = (project / "ours").read_text()
    (project / "alone").unlink()
    (project / "ssh2").write_text(shown.stdout)
    (project / "windows.ppk").write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    (project / "cut").write_text(ours[:120])
    (project / "letter").write_text("Dear Sir,\n")

    def problem(name: str) -> str:
        address = addresses.resolve(resolve(project, {"remote_host": "box", "remote_key": name}, environ={}))
        assert address.keys == (str(project / name),)
        found = Identities.of(dataclasses.replace(address, agent=""))
        assert not found.found
        (only,) = found.problems
        return f"{only.problem} {only.remedy}"

    assert (
        f"is the public half of a key, and no agent has its private half. Name that one, AML_REMOTE_KEY={project}/ours,"
        in (problem("ours.pub"))
    )
    for name in ("alone.pub", "ssh2"):
        assert "is the public half of a key" in problem(name)
    assert f"in PuTTY's format (.ppk). Convert it: puttygen '{project}/windows.ppk' -O private-openssh" in problem(
        "windows.ppk"
    )
    assert "is damaged" in problem("cut")
    assert "is not a private key" in problem("letter")


@pytest.mark.parametrize("port", ["0", "65536", "ssh"])
def test_a_port_of_the_machine_that_is_none_is_refused(project: Path, port: str) -> None:
    with pytest.raises(UserError, match="1 to 65535"):
        resolve(project, {"remote_port": port}, environ={})


def test_what_is_sent_and_deleted_is_what_differs() -> None:
    def one(path: str, size: int = 1, time: int = 5) -> local_files.LocalFile:
        return local_files.LocalFile(path, f"/x/{path}", size, time, 0o644)

    here = {path: one(path) for path in ("same", "new", "drifted")} | {"edited": one("edited", time=6)}
    there: dict[str, list[object]] = {path: [1, 5, 0o644] for path in ("same", "gone", "drifted", "edited")}
    found = sync.changes(here, there, ["drifted", "gone"])
    assert {entry.path for entry in found.send} == {"new", "edited", "drifted"} and found.delete == ["gone"]


@pytest.mark.parametrize(
    ("host", "settings", "expected"),
    [
        ("box", {}, ("box", 22, None)),
        ("me@box:2200", {}, ("box", 2200, "me")),
        ("me@box:2200", {"remote_port": "50000", "remote_user": "you"}, ("box", 50000, "you")),
        ("ci.westeurope.instances.azureml.ms", {}, ("ci.westeurope.instances.azureml.ms", 50000, "azureuser")),
        ("[fe80::1]:50000", {}, ("fe80::1", 50000, None)),
        ("::1", {}, ("::1", 22, None)),
        ("me@[::1]", {"remote_port": "50000"}, ("::1", 50000, "me")),
        ("ssh://me@box:22/", {}, ("box", 22, "me")),
        ("alias", {}, ("10.9.8.7", 2222, "person")),
        ("alias", {"remote_port": "50000"}, ("10.9.8.7", 50000, "person")),
    ],
)
def test_the_machine_is_where_settings_and_ssh_configuration_say(
    project: Path, host: str, settings: dict[str, str], expected: tuple[str, int, str | None]
) -> None:
    config = Path.home() / ".ssh" / "config"
    config.write_text("Host alias\n  HostName 10.9.8.7\n  Port 2222\n  User person\n  ProxyJump a@hop:2022\n")
    found = addresses.resolve(resolve(project, {"remote_host": host, **settings}, environ={}))
    assert (found.host, found.port) == expected[:2]
    assert expected[2] in (None, found.user)
    jumps = [(hop.host, hop.port, hop.user) for hop in found.via]
    assert jumps == ([("hop", 2022, "a")] if host == "alias" else [])
    assert addresses.Address.from_json(found.as_json()) == found


def test_a_configuration_that_leads_through_a_machine_to_itself_is_told(project: Path) -> None:
    config = Path.home() / ".ssh" / "config"
    config.write_text("Host *\n  ProxyJump gate\n")
    with pytest.raises(UserError, match="jumphost loop via gate"):
        addresses.resolve(resolve(project, {"remote_host": "box"}, environ={}))
    config.write_text("Host box\n  ProxyJump gate\nHost gate\n  ProxyJump box\n")
    with pytest.raises(UserError, match="leads to box through box itself"):
        addresses.resolve(resolve(project, {"remote_host": "box"}, environ={}))
    config.write_text("Host gate\n  ProxyJump none\nHost *\n  ProxyJump gate\n")
    found = addresses.resolve(resolve(project, {"remote_host": "box"}, environ={}))
    assert [hop.host for hop in found.via] == ["gate"]


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "user@", "box:99999", "http://box/path"])
def test_what_is_no_machine_is_refused(project: Path, host: str) -> None:
    with pytest.raises(UserError, match="must be a host"):
        addresses.resolve(resolve(project, {"remote_host": host}, environ={}))


def test_a_task_is_typed_there_with_the_paths_of_there(project: Path, tmp_path: Path) -> None:
    (tmp_path / "outside data").mkdir()
    (tmp_path / "outside data" / "x.csv").write_text("")
    settings = resolve(
        project,
        {"debug_port": "6000"},
        environ={"AML_MODEL_DIR": str(tmp_path / "outside data"), "AML_ENGINE": "process", "AML_REMOTE_HOST": "box"},
    )
    typed = TypedTask(
        name="pipeline.inspect",
        values={"location": "a.py:3", "eval": ["x + 1", "-y"], "wait": False, "data": ["n=../outside data", "m=word"]},
        defaults={"eval": [], "wait": True, "data": []},
        fields=["debug_port", "model_dir"],
        flags={"debug_port": "6000"},
        positional=["location"],
        kinds={"location": request.LOCATION, "data": request.NAMED},
        as_json=True,
        remainder=["--a", "b c"],
    )
    paths = RemotePaths(project)
    request.include_named_files(typed, settings, paths)
    assert set(paths.named) == {tmp_path / "outside data", project / "a.py"}
    paths.root = "/home/azureuser/azureml-debug/p"
    carried = paths.to_remote(tmp_path / "outside data")
    assert carried.startswith("/home/azureuser/azureml-debug/p/.azureml-debug/remote/carried/")
    assert request.remote_arguments(typed, paths) == [
        "pipeline.inspect", "--eval=x + 1", "--eval=-y", "--no-wait", f"--data=n={carried}", "--data=m=word",
        "--debug-port=6000", "--json", "/home/azureuser/azureml-debug/p/a.py:3", "--", "--a", "b c",
    ]  # fmt: skip
    # A flag that may have a value, and has none, comes last: nothing is to be taken for it.
    alone = replace(typed, values={"location": None, "failed": True}, defaults={"failed": None}, remainder=None)
    assert request.remote_arguments(alone, paths) == ["pipeline.inspect", "--debug-port=6000", "--json", "--failed"]
    handed = request.remote_environment(typed, settings, paths)
    assert handed == {"AML_MODEL_DIR": carried, "AML_ENGINE": "process"}
    assert paths.to_local(f"{carried}/x.csv") == str(tmp_path / "outside data" / "x.csv")
    assert paths.to_local("/home/azureuser/azureml-debug/p/a.py") == str(project / "a.py")
    assert paths.to_local("/etc/passwd") == "/etc/passwd"


def test_the_other_machine_does_not_choose_among_the_ports_of_other_programs() -> None:
    def wanted(port: int, named: tuple[int, ...] = (5678, 8000)) -> int:
        told = {"what": "x", "entries": [{"name": "n", "connect": {"host": "127.0.0.1", "port": port}}], "ports": {}}
        (found,) = configurations.tunnels(told, named)
        assert found["port"] == port
        return int(found["wanted"])

    assert [wanted(port) for port in (5678, 5679, 6000, 8000, 8001, 40000)] == [5678, 5679, 6000, 8000, 8001, 40000]
    assert [wanted(port) for port in (1, 22, 80, 443, 3306, 11434, 32767)] == [0] * 7
    # Where the settings choose any free port, they name none.
    assert wanted(631, (0, 0)) == 0 and wanted(8, (7, 0)) == 8


def test_fabric_brings_no_asyncio_to_the_keeper_and_mocks_are_there_for_whoever_wants_them() -> None:
    code = (
        "import sys; from workflows.background import without_mock\n"
        "with without_mock(): import fabric\n"
        "assert not {'asyncio', 'ssl', 'unittest.mock'} & set(sys.modules)\n"
        "import unittest.mock; assert unittest.mock.Mock(a=1).a == 1\n"
        "with without_mock(): from unittest.mock import Mock\n"
        "assert Mock is unittest.mock.Mock\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
