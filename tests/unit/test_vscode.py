"""What `vscode.setup` writes, and what a command that F5 has started says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import jsonschema
import pytest
from experiments import TRAIN
from pages import blocks
from pipelines import FAMILY, PipelineProject, make_pipeline_project
from projects import ATTACH_SCHEMA, PLAIN, ROOT, Project

from workflows.debugger.jsonc import parse
from workflows.debugger.launch_json import attach_configuration
from workflows.models import DebugEndpoint, PathMapping
from workflows.runs.attachable import configuration_name
from workflows.vscode.tasks_json import EditorTask, interpreter, write_tasks

TASK = EditorTask("inv deploy.debug", ["deploy.debug"], "Azure Machine Learning Deployment: Docker Debug")


def make_project(folder: Path) -> PipelineProject:
    made = make_pipeline_project(folder / "a project", "process")
    (made.folder / "score.py").write_text(PLAIN)
    (made.folder / "train.py").write_text(TRAIN)
    (made.folder / ".azureml").mkdir()
    for name, more in {"sums": "", "ranks": "communicator: OpenMpi\nmpi:\n  processCountPerNode: 3\n"}.items():
        (made.folder / ".azureml" / f"{name}.runconfig").write_text(f"script: train.py\nframework: Python\n{more}")
    (made.folder / ".env").write_text("AML_ENGINE=process\nAML_SCORE_SCRIPT=score.py\nAML_PIPELINE_FILE=pipeline.yml\n")
    made.environ.clear()
    return made


def written(project: Project, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.folder / ".vscode" / name).read_text())
    return found


@pytest.mark.parametrize("flags", [[], ["--stop-after"], ["--follow", "--wait", "--stop-after"]])
def test_every_configuration_is_what_the_debugger_extension_takes(tmp_path: Path, flags: list[str]) -> None:
    project = make_project(tmp_path)
    project.ok("vscode.setup", *flags)
    launch, tasks = written(project, "launch.json"), written(project, "tasks.json")
    # And one for the snapshots of the service, of each step and of each experiment.
    assert len(launch["configurations"]) == 1 + 3 + 1 + 3 + (1 + 3 + 2)
    for entry in launch["configurations"]:
        jsonschema.validate(entry, ATTACH_SCHEMA)
    labels = {task["label"] for task in tasks["tasks"]}
    for entry in [*launch["configurations"], *launch["compounds"]]:
        assert entry["preLaunchTask"] in labels
        assert entry.get("postDebugTask", entry["preLaunchTask"]) in labels
        lives = entry in launch["configurations"] and "Snapshot" not in entry["name"]
        assert ("postDebugTask" in entry) == ("--stop-after" in flags and lives)
    ports = [entry["connect"]["port"] for entry in launch["configurations"]]
    assert len(set(ports)) == len(ports)
    names = {entry["name"] for entry in launch["configurations"]}
    for compound in launch["compounds"]:
        assert set(compound["configurations"]) <= names


def test_a_file_that_was_typed_is_what_f5_runs_and_nested_steps_have_configurations(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (project.folder / "parts").mkdir()
    (project.folder / "parts" / "outer.yml").write_text(
        "type: pipeline\njobs:\n  outer: {component: ../pipeline.yml}\n  auto: {type: automl}\n"
    )
    project.ok("vscode.setup", "--file", "parts/outer.yml")
    names = {entry["name"] for entry in written(project, "launch.json")["configurations"]}
    assert {f"{FAMILY} (outer.{step})" for step in ("prepare", "add", "tell")} <= names
    commands = [task["args"][2:] for task in written(project, "tasks.json")["tasks"]]
    assert ["pipeline.debug", "--file", "parts/outer.yml", "--step", "outer.add"] in commands
    assert ["pipeline.debug", "--file", "parts/outer.yml"] in commands


@pytest.mark.parametrize("step", [None, "train"])
@pytest.mark.parametrize("rank", [None, 3])
def test_what_the_chains_write_is_what_the_debugger_extension_takes(step: str | None, rank: int | None) -> None:
    endpoint = DebugEndpoint("127.0.0.1", 5678, (PathMapping(Path("/here"), "/there"),))
    jsonschema.validate(attach_configuration(configuration_name(step, rank), endpoint, Path("/here")), ATTACH_SCHEMA)


def test_the_schema_refuses_what_the_extension_would() -> None:
    good = attach_configuration("x", DebugEndpoint("127.0.0.1", 5678, ()), Path("/here"))
    for bad in ({"justMyCode": "yes"}, {"connect": {"host": "127.0.0.1"}}, {"port": 5678}, {"type": "python"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**good, **bad}, ATTACH_SCHEMA)


def test_what_the_user_has_in_tasks_json_stays(tmp_path: Path) -> None:
    file = tmp_path / ".vscode" / "tasks.json"
    file.parent.mkdir()
    make = '{"label": "make", "type": "shell", "command": "make"}'
    mine = f'{{\n  // mine\n  "version": "2.0.0",\n  "tasks": [\n    {make},\n  ],\n}}\n'
    file.write_text(mine)
    assert write_tasks(tmp_path, [TASK]) == "added"
    text = file.read_text()
    assert "  // mine\n" in text and make in text
    assert write_tasks(tmp_path, [TASK]) == "unchanged" and file.read_text() == text
    changed = text.replace('"reveal": "always"', '"reveal": "silent"').replace('"deploy.debug"\n', '"deploy.run"\n')
    changed = changed.replace('"env": {', '"env": {"AML_ENGINE": "process", ')
    file.write_text(changed)
    assert write_tasks(tmp_path, [TASK]) == "updated"
    now = file.read_text()
    assert '"reveal": "silent"' in now and '"AML_ENGINE": "process"' in now and '"deploy.run"' not in now


@pytest.mark.parametrize("text", ['{"tasks": {}}', "[]", '{"tasks": [}'])
def test_a_tasks_json_that_cannot_be_edited_is_left_and_nothing_is_written(tmp_path: Path, text: str) -> None:
    project = make_project(tmp_path)
    file = project.folder / ".vscode" / "tasks.json"
    file.parent.mkdir()
    file.write_text(text)
    project.inv("vscode.setup").says("tasks.json:1: error: ")
    assert file.read_text() == text and not (file.parent / "launch.json").exists()


@pytest.mark.parametrize("there", [True, False])
def test_where_launch_json_cannot_be_written_tasks_json_is_as_it_was(tmp_path: Path, there: bool) -> None:
    project = make_project(tmp_path)
    project.ok("vscode.setup")
    launch, tasks = (project.folder / ".vscode" / name for name in ("launch.json", "tasks.json"))
    before = tasks.read_bytes()
    # There is something to write, and no room for it.
    kept = launch.read_text().replace(f'"name": "{FAMILY} (tell)"', f'"name": "{FAMILY} (gone)"')
    launch.write_text(kept)
    if not there:
        tasks.unlink()
    full = "import errno, os, pathlib, sys\nreplace = os.replace\n"
    full += "def refuse(one, other):\n    if str(other).endswith('launch.json'):\n"
    full += (
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n    replace(one, other)\nos.replace = refuse\n"
    )
    (project.folder / "tasks.py").write_text(full + (project.folder / "tasks.py").read_text())
    project.inv("vscode.setup", "--stop-after").says("launch.json: error: This file cannot be written: no space left")
    assert launch.read_text() == kept
    assert tasks.read_bytes() == before if there else not tasks.exists()


def test_a_task_of_the_users_own_before_a_configuration_stays(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.ok("vscode.setup", "--stop-after")
    file = project.folder / ".vscode" / "launch.json"
    text = file.read_text()
    file.write_text(text.replace('"inv deploy.debug"', '"my own"'))
    project.ok("vscode.setup")
    entry = written(project, "launch.json")["configurations"][0]
    assert entry["preLaunchTask"] == "my own" and "postDebugTask" not in entry


def test_the_interpreter_is_found_on_every_system() -> None:
    inside = interpreter(Path("/project"), "/project/.venv", "/project/.venv/bin/python")
    assert inside["linux"] == inside["osx"] == {"command": "${workspaceFolder}/.venv/bin/python"}
    assert inside["windows"] == {"command": "${workspaceFolder}\\.venv\\Scripts\\python.exe"}
    outside = interpreter(Path("/project"), "/opt/conda", "/opt/conda/bin/python")
    own = {"linux": "linux", "darwin": "osx"}.get(sys.platform, "windows")
    for system in ("linux", "osx", "windows"):
        asked = {"command": "${command:python.interpreterPath}"}
        assert outside[system] == ({"command": "/opt/conda/bin/python"} if system == own else asked)


def test_conda_s_environment_in_a_project_has_its_interpreter_elsewhere_on_windows(tmp_path: Path) -> None:
    (tmp_path / "env" / "conda-meta").mkdir(parents=True)
    found = interpreter(tmp_path, str(tmp_path / "env"), str(tmp_path / "env" / "bin" / "python"))
    assert found["linux"] == {"command": "${workspaceFolder}/env/bin/python"}
    assert found["windows"] == {"command": "${workspaceFolder}\\env\\python.exe"}


def test_the_environment_of_a_project_behind_a_link_is_found_in_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / ".venv").symlink_to("/opt/venvs/real")
    for project, prefix in (("real", "link"), ("link", "real"), ("real", "real")):
        found = interpreter(tmp_path / project, str(tmp_path / prefix / ".venv"), "/opt/venvs/real/bin/python")
        assert found["linux"] == {"command": "${workspaceFolder}/.venv/bin/python"}


@pytest.mark.parametrize(
    ("file", "line"),
    [(None, None), ("c d.py", None), ("x.py", 3), ("/a b/x.py", 3), ("C:\\a\\x.py", 3), ("\\\\server\\x.py", 3)],
)
def test_every_error_of_a_command_that_f5_started_can_be_matched(file: str | None, line: int | None) -> None:
    code = (
        "import os, sys; os.environ['AZUREML_DEBUG_F5'] = 'x'\n"
        "from workflows.errors import UserError; from workflows.vscode import f5\n"
        f"print(f5.format_error(UserError('a', 'b', file={file!r}, line={line!r})))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    problem, remedy = out.splitlines()
    matching = []
    for matcher in TASK.entry(ROOT)["problemMatcher"]:
        if not isinstance(matcher["pattern"], list):
            continue
        first, second = matcher["pattern"]
        if found := re.match(first["regexp"], problem):
            assert found[1] == str(file or "tasks.py") and found[2] == str(line or 1)
            assert re.match(second["regexp"], remedy)
            matching.append(matcher["fileLocation"])
    # One that VS Code has to look up is lost where the task ends meanwhile.
    is_absolute = PurePosixPath(file or "").is_absolute() or PureWindowsPath(file or "").is_absolute()
    assert matching == ["absolute" if is_absolute else ["relative", "${workspaceFolder}"]]


def problems(output: str) -> list[tuple[str, int, str]]:
    """File, line and message of what VS Code's matchers find: lines that follow one another, a pattern for each."""
    found = []
    lines = output.splitlines()
    for matcher in TASK.entry(ROOT)["problemMatcher"]:
        patterns = matcher["pattern"] if isinstance(matcher["pattern"], list) else [matcher["pattern"]]
        for start in range(len(lines) - len(patterns) + 1):
            matches = [re.search(one["regexp"], lines[start + n]) for n, one in enumerate(patterns)]
            if all(matches):
                said = {
                    what: match[one[what]]
                    for one, match in zip(patterns, matches, strict=True)
                    for what in ("file", "line", "message")
                    if match is not None and what in one
                }
                found.append((said["file"], int(said.get("line", 1)), said["message"]))
    return found


@pytest.mark.parametrize(
    ("first_line", "problem"),
    [("import no_such_module", "import no_such_module"), ("def broken(:", "def broken(:")],
)
def test_a_tasks_py_that_cannot_be_loaded_is_a_problem_at_its_line(
    tmp_path: Path, first_line: str, problem: str
) -> None:
    project = make_project(tmp_path)
    file = project.folder / "tasks.py"
    file.write_text(f"{first_line}\n{file.read_text()}")
    assert problems(project.inv("deploy.debug").err) == [(str(file), 1, problem)]


def test_what_a_terminal_shows_of_ctrl_c_is_not_taken_for_a_part_of_the_file() -> None:
    assert problems("^Ctasks.py:1: error: Interrupted in runsvdir.\nAgain: inv deploy.debug\n")[0][0] == "tasks.py"


def test_what_python_and_invoke_refuse_is_a_problem_too(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for words, hint in [
        (["deploy.debgu"], "Did you mean deploy.debug?"),
        (["deploy.debug", "--folow"], "Did you mean --follow?"),
    ]:
        assert problems(project.inv(*words, AZUREML_DEBUG_F5="x").err) == [("tasks.py", 1, hint)]
    (project.folder / "tasks.py").unlink()
    assert [one[2] for one in problems(project.inv("deploy.debug").err)] == ["Can't find any collection named 'tasks'!"]
    # Without its packages, as an environment that is not the project's.
    bare = subprocess.run([sys.executable, "-I", "-S", "-m", "invoke"], capture_output=True, text=True, check=False)
    assert problems(bare.stderr) == [(sys.executable, 1, f"{sys.executable}: No module named invoke")]


@pytest.mark.parametrize(
    "line",
    [
        "ModuleNotFoundError: No module named 'torch'",
        '  File "/var/azureml-app/score.py", line 3, in run',
        "epoch 1: no idea what 'loss' is!",
    ],
)
def test_what_the_debugged_program_logs_is_no_problem_of_the_chain(line: str) -> None:
    assert problems(f"{line}\n    more\n") == []


def test_what_an_earlier_setup_has_written_goes_with_what_it_led_to(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.ok("vscode.setup", "--wait", "--follow", "--stop-after")
    before = {name: written(project, name) for name in ("launch.json", "tasks.json")}
    project.ok("vscode.setup")
    plain = {name: written(project, name) for name in ("launch.json", "tasks.json")}
    assert len(plain["tasks.json"]["tasks"]) < len(before["tasks.json"]["tasks"])
    assert not [task["label"] for task in plain["tasks.json"]["tasks"] if "--follow" in task["label"]]
    # Of three steps one is renamed and one is gone.
    text = (project.folder / "pipeline.yml").read_text()
    begin = text.index("  tell:")
    (project.folder / "pipeline.yml").write_text(text[:begin].replace("  add:", "  sum:"))
    said = project.ok("vscode.setup").out
    assert f"{FAMILY} (add); {FAMILY} (tell)" in said
    names = [entry["name"] for entry in written(project, "launch.json")["configurations"] if FAMILY in entry["name"]]
    assert names == [f"{FAMILY} (prepare)", f"{FAMILY} (sum)"]
    labels = [task["label"] for task in written(project, "tasks.json")["tasks"]]
    assert "inv pipeline.debug --step sum" in labels and "inv pipeline.debug --step tell" not in labels
    # One step is left, which needs neither a name nor a compound.
    project.single("print()\n")
    project.ok("vscode.setup")
    launch = written(project, "launch.json")
    assert [entry["name"] for entry in launch["configurations"] if FAMILY in entry["name"]] == [FAMILY]
    assert [entry["name"] for entry in launch["compounds"]] == ["Azure Machine Learning Experiment: ranks (all ranks)"]


def test_what_the_user_has_changed_in_it_or_refers_to_stays_and_is_told(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.ok("vscode.setup")
    launch, tasks = (project.folder / ".vscode" / name for name in ("launch.json", "tasks.json"))
    changed = json.loads(launch.read_text())
    by_name = {entry["name"]: entry for entry in changed["configurations"]}
    by_name[f"{FAMILY} (prepare)"]["justMyCode"] = False
    changed["compounds"].append({"name": "mine", "configurations": [f"{FAMILY} (add)"]})
    launch.write_text(json.dumps(changed, indent=2))
    changed = json.loads(tasks.read_text())
    changed["tasks"].append({"label": "mine", "dependsOn": ["inv pipeline.debug --step tell"]})
    tasks.write_text(json.dumps(changed, indent=2))
    project.single("print()\n")
    said = project.ok("vscode.setup").out
    assert f"what is yours in it stays: {FAMILY} (prepare); {FAMILY} (add)" in said
    names = [entry["name"] for entry in written(project, "launch.json")["configurations"]]
    assert f"{FAMILY} (prepare)" in names and f"{FAMILY} (add)" in names and f"{FAMILY} (tell)" not in names
    labels = {task["label"] for task in written(project, "tasks.json")["tasks"]}
    assert labels >= {f"inv pipeline.debug --step {step}" for step in ("prepare", "add", "tell")}


def test_a_task_of_the_users_own_that_has_our_label_stays_and_ours_gets_another(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    file = project.folder / ".vscode" / "tasks.json"
    file.parent.mkdir()
    mine = '{"label": "inv deploy.debug", "type": "shell", "command": "inv deploy.debug --model-dir big"}'
    file.write_text(f'{{"version": "2.0.0", "tasks": [\n  {mine},\n]}}')
    project.ok("vscode.setup")
    text = file.read_text()
    assert mine in text
    assert written(project, "launch.json")["configurations"][0]["preLaunchTask"] == "inv deploy.debug (F5)"
    project.ok("vscode.setup")
    assert file.read_text() == text


def test_a_file_that_a_setting_names_and_that_is_not_there_is_told(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (project.folder / "pipeline.yml").unlink()
    assert "there is no pipeline.yml, which AML_PIPELINE_FILE names" in project.ok("vscode.setup").out


def test_the_server_for_agents_is_written_and_what_the_user_has_in_mcp_json_stays(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    file = project.folder / ".vscode" / "mcp.json"
    project.ok("vscode.setup")
    assert not file.exists()
    file.parent.mkdir(exist_ok=True)
    mine = '{\n  // mine\n  "servers": {"other": {"command": "x"}},\n}\n'
    file.write_text(mine)
    project.ok("vscode.setup", "--mcp")
    text = file.read_text()
    assert "  // mine\n" in text and '{"command": "x"}' in text
    ours = parse(text.encode()).value["servers"]["azureml-debug"]
    assert ours["type"] == "stdio" and ours["args"] == [
        *("-m", "invoke", "--search-root", "${workspaceFolder}", "mcp.serve"),
    ]
    shown = [json.loads(one.text) for one in blocks(ROOT / "docs" / "agents.md") if one.file.endswith("mcp.json")]
    for page in shown:
        (servers,) = page.values()
        there = servers["azureml-debug"]
        assert there["type"] == "stdio" and set(there["args"]) <= set(ours["args"])
    assert shown[0]["servers"]["azureml-debug"]["args"] == ours["args"]
    file.write_text(text.replace('"mcp.serve"', '"mcp.serve", "--read-only"'))
    project.ok("vscode.setup", "--mcp")
    assert "--read-only" in file.read_text()
    file.write_text('{"servers": []}')
    project.inv("vscode.setup", "--mcp").says('mcp.json:1: error: "servers" must be an object')
    assert file.read_text() == '{"servers": []}'
