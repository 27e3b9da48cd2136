"""Sending a project to another machine: what travels, what stays, and that nothing is lost on either side."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts
from projects import until
from remotes import RemoteProject, remote_project


@pytest.fixture
def project(tmp_path: Path, hosts: Hosts) -> Iterator[RemoteProject]:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as made:
        yield made


def sync(project: RemoteProject, *arguments: str) -> dict[str, object]:
    found: dict[str, object] = project.ok("remote.sync", "--json", *arguments).json
    return found


@pytest.mark.parametrize("repository", [True, False], ids=["git", "no git"])
def test_only_what_has_changed_travels_and_what_git_ignores_stays(project: RemoteProject, repository: bool) -> None:
    if repository:
        subprocess.run(["git", "init", "-q", str(project.folder)], check=True)
    names = ["with space.py", "line\nbreak.txt", "-dash", "ümlaut/ß.py", "deep/er/file.txt"]
    for name in names:
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_text(name)
    (project.folder / ".gitignore").write_text("data/\n*.bin\n!kept.bin\n")
    (project.folder / "deep" / ".gitignore").write_text("secret*\n")
    for name in ("data/large.csv", "a.bin", "kept.bin", "deep/secret.txt", ".env", ".venv/x", "__pycache__/x.pyc"):
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_text("AML_ENGINE=process\n")
    first = sync(project)
    there = project.files()
    assert first["sent"] == first["files"] == len(there)
    assert set(names) | {"kept.bin", "tasks.py", "service/score.py"} <= set(there)
    assert not {"data/large.csv", "a.bin", "deep/secret.txt", ".env", ".venv/x", "__pycache__/x.pyc"} & set(there)
    assert all(there[name] == name for name in names)
    again = sync(project)
    assert (again["sent"], again["deleted"], again["folder"]) == (0, 0, project.remote_root)
    (project.folder / "with space.py").write_text("edited")
    shutil.rmtree(project.folder / "deep")
    (project.folder / "line\nbreak.txt").unlink()
    (project.folder / "new.txt").write_text("new")
    third = sync(project)
    # deep/er/file.txt, deep/.gitignore and the one with a line break.
    assert (third["sent"], third["deleted"]) == (2, 3)
    there = project.files()
    assert there["with space.py"] == "edited" and there["new.txt"] == "new"
    assert not (project.remote_folder / "deep").exists()


def test_what_is_no_file_stays(project: RemoteProject) -> None:
    count = sync(project)["files"]
    for folder in ("", "some data", "service"):
        os.mkfifo(project.folder / folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(project.folder / "socket"))
        for name, target in {"loop": "loop", "nowhere": "gone", "up": "..", "endless": "/dev/zero"}.items():
            (project.folder / name).symlink_to(target)
        (project.folder / os.fsdecode(b"no-\xff-utf8.txt")).write_text("x")
        found = sync(project)
    # Links that lead out of the project, or to no file, stay as well; those inside it are links there too.
    assert (found["sent"], found["files"]) == (3, int(str(count)) + 3)
    assert os.fsdecode(b"no-\xff-utf8.txt") in project.files()
    assert os.readlink(project.remote_folder / "nowhere") == "gone"


def test_folders_that_settings_and_inputs_name_travel_ignored_or_not(project: RemoteProject, tmp_path: Path) -> None:
    (project.folder / ".gitignore").write_text("some data/\nmodel/\n")
    (project.folder / "model").mkdir()
    (project.folder / "model" / "weights.txt").write_text("7")
    outside = tmp_path / "other data"
    outside.mkdir()
    (outside / "numbers.txt").write_text("5 6")
    project.score.write_text(
        "import os, pathlib\n\n\ndef init():\n    global found\n"
        "    found = pathlib.Path(os.environ['AZUREML_MODEL_DIR'], 'weights.txt').read_text()\n\n\n"
        "def run(raw_data):\n    return {'answer': found}\n"
    )
    from projects import post

    result = project.remote("deploy.debug", "--model-dir", "model")
    assert post(result["scoring_url"]) == {"answer": "7"}
    project.ok("container.stop", "--remote")
    assert "some data/numbers.txt" not in project.files() and "model/weights.txt" in project.files()
    project.ok("pipeline.submit", "--remote", "--no-debug", "--follow", "--input", f"numbers={outside}")
    assert project.remote("pipeline.status")["status"] == "Completed"
    log = project.remote("pipeline.status")["steps"][0]["log"]
    assert "[5, 6, 5, 6]" in project.host.path(log).read_text()
    # What an earlier command named is still there, and is not sent again.
    assert project.files()["model/weights.txt"] == "7"
    assert "nothing has changed" in project.ok("deploy.build", "--remote", AML_MODEL_DIR="model").out


def test_what_was_changed_there_is_kept_and_what_is_outside_is_not_touched(project: RemoteProject) -> None:
    host = project.host
    host.put("precious.txt", "mine")
    host.put("elsewhere/tell.py", "mine too")
    sync(project)
    root = project.remote_root
    host.run(["sh", "-c", f"echo edited >> '{root}/add/add.py'; echo own > '{root}/notes.txt'"])
    host.run(
        ["sh", "-c", f"rm -r '{root}/tell'; ln -s ~/elsewhere '{root}/tell'; ln -s ~/precious.txt '{root}/new.txt'"]
    )
    (project.folder / "add" / "add.py").write_text("print('from here')\n")
    (project.folder / "new.txt").write_text("new")
    result = sync(project)
    kept = result["kept"]
    assert isinstance(kept, list) and any("add.py" in path for path in kept), result
    (edited,) = [path for path in kept if path.endswith("add.py")]
    assert host.path(edited).read_text().endswith("edited\n")
    files = project.files()
    assert files["add/add.py"] == "print('from here')\n" and files["notes.txt"] == "own\n" and files["new.txt"] == "new"
    assert not (project.remote_folder / "tell").is_symlink() and "result is" in files["tell/tell.py"]
    assert host.path("precious.txt").read_text() == "mine"
    assert host.path("elsewhere/tell.py").read_text() == "mine too"


def test_links_travel_as_links_where_they_stay_inside_and_as_files_where_they_do_not(
    project: RemoteProject, tmp_path: Path
) -> None:
    (tmp_path / "shared.py").write_text("shared")
    (project.folder / "inside.py").symlink_to("add/add.py")
    (project.folder / "outside.py").symlink_to(tmp_path / "shared.py")
    (project.folder / "nowhere.py").symlink_to("missing")
    sync(project)
    there = project.remote_folder
    assert os.readlink(there / "inside.py") == "add/add.py"
    assert not (there / "outside.py").is_symlink() and (there / "outside.py").read_text() == "shared"
    assert os.readlink(there / "nowhere.py") == "missing"


def test_a_folder_that_is_not_ours_is_refused_and_not_touched(project: RemoteProject) -> None:
    project.host.put("work/notes.txt", "mine")
    refused = project.inv("remote.sync", AML_REMOTE_DIR="work")
    refused.says("holds files that do not come from here", "AML_REMOTE_DIR")
    assert [path.name for path in project.host.path("work").iterdir()] == ["notes.txt"]
    project.host.put("file", "")
    project.inv("remote.sync", AML_REMOTE_DIR="file").says("is not a folder", "AML_REMOTE_DIR")
    project.inv("remote.sync", AML_REMOTE_DIR="/etc").says("holds files that do not come from here")


def test_two_laptops_have_folders_of_their_own_and_one_is_taken_over_only_on_request(
    project: RemoteProject, hosts: Hosts, tmp_path: Path
) -> None:
    second = hosts.second_laptop()
    with remote_project(tmp_path / "of another" / "a project", hosts, hosts.instance, second) as other:
        sync(project)
        sync(other)
        assert len(list(hosts.instance.path("azureml-debug").iterdir())) == 2
        shared = {"AML_REMOTE_DIR": "shared"}
        project.ok("remote.sync", **shared)
        other.inv("remote.sync", **shared).says("belongs to", str(project.folder), "--take-over")
        other.ok("remote.sync", "--take-over", **shared)
        project.inv("remote.sync", **shared).says("belongs to", str(other.folder))


def test_a_file_that_is_edited_while_it_travels_is_right_after_the_next_time(project: RemoteProject) -> None:
    path = project.folder / "growing.txt"
    path.write_text("0\n")
    over = threading.Event()

    def edit() -> None:
        number = 0
        while not over.is_set() and number < 20000:
            number += 1
            with open(path, "a") as file:
                file.write(f"{number}\n" * 50)
            time.sleep(0.001)

    editing = threading.Thread(target=edit)
    editing.start()
    try:
        for _time in range(3):
            sync(project)
    finally:
        over.set()
        editing.join()
    sync(project)
    assert project.files()["growing.txt"] == path.read_text()


def test_a_full_disk_there_is_said_and_what_was_there_is_whole(project: RemoteProject) -> None:
    project.host.small_disk("small", 6)
    small = {"AML_REMOTE_DIR": "small/project"}
    project.ok("remote.sync", **small)
    (project.folder / "large.bin").write_bytes(os.urandom(9_000_000))
    (project.folder / "add" / "add.py").write_text("print('new')\n")
    project.inv("remote.sync", **small).says("No space is left on the remote disk", "AML_REMOTE_DIR")
    there = project.host.path("small/project")
    assert not (there / "large.bin").exists() and not list(there.rglob(".*.azureml-debug"))
    assert (there / "tell" / "tell.py").read_text() == (project.folder / "tell" / "tell.py").read_text()
    (project.folder / "large.bin").unlink()
    project.ok("remote.sync", **small)
    assert (there / "add" / "add.py").read_text() == "print('new')\n"


def test_much_data_is_asked_about_first(project: RemoteProject) -> None:
    large = project.folder / "large.bin"
    with open(large, "wb") as file:
        file.truncate(600_000_000)
    project.inv("remote.sync").says("large.bin (600.0 MB)", "inv remote.sync --yes")
    assert "large.bin" not in [path.name for path in project.remote_folder.iterdir()]
    large.unlink()


def test_another_version_of_the_program_there_is_said_and_updated_on_request(project: RemoteProject) -> None:
    sync(project)
    marker = project.remote_folder / ".azureml-debug" / "remote" / "project.json"
    text = marker.read_text()
    marker.write_text(text.replace('"version": "0.1.0"', '"version": "0.0.7"'))
    assert marker.read_text() != text
    project.inv("pipeline.list", "--remote").says("0.0.7", "0.1.0", "inv remote.sync --update")
    project.ok("remote.sync", "--update")
    project.ok("pipeline.list", "--remote")


def test_two_commands_at_once_do_not_mix_what_they_send(project: RemoteProject) -> None:
    for number in range(200):
        (project.folder / f"file {number}.txt").write_text(str(number))
    children = [project.start("remote.sync", "--json") for _command in range(3)]
    results = [project.finish(child) for child in children]
    assert [result.code for result in results] == [0, 0, 0], results
    until(lambda: len(project.files()) >= 200, "the files")
    assert sync(project)["sent"] == 0


def test_a_folder_of_code_sends_what_git_tracks_and_no_more(project: RemoteProject) -> None:
    subprocess.run(["git", "init", "-q", str(project.folder)], check=True)
    (project.folder / ".gitignore").write_text("secrets.json\nmy venv/\nignored/\n*.bin\n")
    for name in ("secrets.json", "my venv/pyvenv.cfg", "service/secrets.json", "service/weights.bin", "ignored/x.py"):
        (project.folder / name).parent.mkdir(exist_ok=True)
        (project.folder / name).write_text("x")
    (project.folder / "score.py").write_text(project.score.read_text())
    (project.folder / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  all:\n    command: python tell/tell.py\n    code: .\n"
        "    environment: azureml:x@latest\n"
        "    environment_variables: {RESULT: score.py}\n"
    )
    project.ok("deploy.build", "--remote", AML_SCORE_SCRIPT="score.py")
    project.ok("pipeline.submit", "--remote", "--no-debug", "--follow")
    assert not {name for name in project.files() if name.endswith(("secrets.json", "pyvenv.cfg", ".bin"))}
    assert not {name for name in project.files() if name.startswith((".git/", "ignored/"))}
    # A folder that git knows nothing of at all is sent when it is named, and stays when it is not.
    (project.folder / "ignored" / "score.py").write_text(project.score.read_text())
    project.ok("deploy.build", "--remote", AML_SCORE_SCRIPT="ignored/score.py")
    assert "ignored/x.py" in project.files()
    said = project.ok("container.list", "--remote").out
    assert "nothing has changed" in said and "ignored/x.py" in project.files()
    (project.folder / "ignored" / "x.py").unlink()
    project.ok("container.list", "--remote")
    assert "ignored/x.py" not in project.files() and "ignored/score.py" in project.files()
