"""Files with Windows line ends, as an editor there saves them and as git lays them with core.autocrlf."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from conftest import missing
from image_builds import silent
from pipelines import PipelineProject
from projects import PLAIN_LINE, ROOT, Project, post

from workflows import line_ends
from workflows.engines.docker_contexts import build_context_image
from workflows.environments.base_image import BASE_IMAGE
from workflows.errors import UserError


def to_windows(folder: Path) -> None:
    """Save every text below a folder as an editor on Windows does."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))


def test_a_clone_made_with_autocrlf_has_the_line_ends_that_scripts_need(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        missing("git is not installed")
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    places = ("workflows", "env", "examples")
    for place in places:
        shutil.copytree(ROOT / place, origin / place, ignore=shutil.ignore_patterns("__pycache__", ".azureml-debug"))
    shutil.copy(ROOT / ".gitattributes", origin)
    git = ["git", "-c", "user.name=person", "-c", "user.email=person@example.com"]
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], cwd=origin, check=True, capture_output=True, env=environ)
    command = ["git", "clone", "-q", "-c", "core.autocrlf=true", str(origin), str(clone)]
    subprocess.run(command, check=True, capture_output=True, env=environ)
    files = [path for place in places for path in (clone / place).rglob("*") if path.is_file()]
    assert len(files) > 100
    assert [path for path in files if b"\r\n" in path.read_bytes() and b"\r\n" not in original(path, clone)] == []
    assert not any(map(line_ends.has_windows_ends, files))


def original(path: Path, clone: Path) -> bytes:
    return (ROOT / path.relative_to(clone)).read_bytes()


def test_a_project_saved_on_windows_is_served_and_stopped_in(project: Project) -> None:
    inference = project.folder / "env"
    shutil.copytree(ROOT / "env" / "inference", inference)
    # The same content would be the same environment.
    with (inference / "conda.yml").open("a") as file:
        file.write(f"# {time.time()}\n")
    (project.folder / ".env").write_text("AML_INFERENCE_ENV=env\nAML_DEBUG_TIMEOUT=5\n")
    to_windows(project.folder)
    kept = {path: path.read_bytes() for path in inference.rglob("*") if path.is_file()}
    served = project.debug()
    assert post(served["scoring_url"]) == {"answer": 60}
    request = project.folder / "request.json"
    request.write_bytes(b'{"data": [1, 2,\r\n 3]}\r\n')
    found = project.ok("deploy.inspect", f"score.py:{PLAIN_LINE}", "--request", str(request), "--json").json
    assert found["stopped"]["line"] == PLAIN_LINE and found["locals"]["total"] == "6"
    # What is mended is a copy.
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_shell_script_of_a_step_is_named_before_it_runs(pipelines: PipelineProject) -> None:
    script = pipelines.folder / "prepare" / "go.sh"
    script.write_bytes(b"set -e\r\nls\r\n")
    file = pipelines.folder / "pipeline.yml"
    text = file.read_text()
    file.write_text(text.replace("command: ", "command: bash go.sh; ", 1))
    done = pipelines.inv("pipeline.submit")
    assert "go.sh of the step " in done.out + done.err and "Windows line ends (CRLF)" in done.out + done.err


@pytest.mark.parametrize("line", [b"#!/bin/sh", b"echo hello"])
def test_a_script_of_a_build_context_is_named_where_the_build_fails(
    docker_engine: None, tmp_path: Path, line: bytes
) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "set up.sh").write_bytes(line + b"\r\nset -e\r\n")
    dockerfile = f'FROM {BASE_IMAGE}\nCOPY ["set up.sh", "/opt/set up.sh"]\nRUN "/opt/set up.sh" {time.time()}\n'
    (folder / "Dockerfile").write_text(dockerfile)
    if line.startswith(b"#!"):
        (folder / "set up.sh").chmod(0o755)
    else:
        (folder / "Dockerfile").write_text(dockerfile.replace("RUN ", "RUN sh "))
    with pytest.raises(UserError, match="failed at `RUN") as refused:
        build_context_image(folder, "Dockerfile", silent, file=tmp_path / "pipeline.yml", line=1)
    assert "set up.sh has Windows line ends (CRLF)" in refused.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("run", b"#!/bin/sh\r\ntrue\r\n", True),
        ("run", b"#!/bin/sh\ntrue\r\n", False),
        ("x.sh", b"set -e\r\n", True),
        ("x.sh", b"set -e\n", False),
        ("score.py", b"import os\r\n", False),
        ("empty.sh", b"", False),
        ("x.bin", bytes(range(256)), False),
    ],
)
def test_which_files_are_scripts_with_windows_line_ends(
    tmp_path: Path, name: str, content: bytes, expected: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    assert line_ends.has_windows_ends(tmp_path / name) is expected
    assert line_ends.find_named_scripts(f"cd . && bash ./{name} && gone.sh", tmp_path) == (
        [f"./{name}"] if expected else []
    )
