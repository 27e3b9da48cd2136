"""Every command of the README and of docs/ is typed in a test: here, on the story pages, or where it is said."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from azureml_projects import OWN, Workspace, python_with_the_sdk
from azureml_server import AzureMLServer, client_environment, write_configuration
from azureml_server.state import DATASTORE
from experiments import make_experiment_project
from hosts import Hosts
from pages import PAGES, blocks, commands
from projects import PLAIN, ROOT, Project, Result, cache_of_its_own, quiet_port, until
from ready import Ready, deciding, ready
from recording import Typed, draw, read
from remotes import remote_project
from test_azureml_deploy import workspace  # noqa: F401
from workspaces import make_workspace_project

#: What a person types in a clone, at its example service.
DEPLOYMENT = """
inv --list
inv --help deploy.debug
inv container.prune --dry-run
inv deploy.debug
inv deploy.inspect score.py:34 --request examples/deployment/sample.json
inv deploy.inspect score.py:34 --request examples/deployment/sample.json --eval 'distances["setosa"]'
inv deploy.inspect score.py:33 --log nearest --request examples/deployment/sample.json
inv deploy.reload
inv deploy.attach-config --print
inv container.logs
inv container.stop
inv deploy.debug --env NAME=value
inv deploy.debug --score-script path/to/score.py --model-dir path/to/model
inv vscode.setup
inv deploy.stop
inv deploy.build
inv deploy.tag
inv deploy.run
inv deploy.runsvdir
inv deploy.attach-config
inv container.stop
"""
#: At its example pipeline.
PIPELINE = """
inv pipeline.debug
inv pipeline.inspect train.py:81 --run 1
"""
#: Once the step that was looked at has come to its end.
PIPELINE_LATER = """
inv pipeline.status
inv pipeline.status --run 1
inv pipeline.attach
inv pipeline.attach --run 3
inv pipeline.cancel --run 1
inv pipeline.submit
inv pipeline.tail-log
inv pipeline.debug --step train
inv pipeline.debug --step train --debug-timeout 1800
inv pipeline.inspect train.py:47 --eval 'round(loss)'
"""
#: Of a run that waits for nobody, so that its end comes by itself.
FOLLOWED = "inv pipeline.tail-log --run 1 --follow"
#: At its example experiment, and then with a script and data of their own.
EXPERIMENT = """
inv experiment.debug digits
inv experiment.attach
inv experiment.inspect examples/experiment/train.py:100 --run 1
inv experiment.logs --run 1 --follow
inv experiment.cancel --run 1
inv experiment.debug churn --script train.py --data customers=../data -- --epochs 20
"""
#: Once it has come to its end.
EXPERIMENT_LATER = """
inv experiment.list
inv experiment.show --plot loss
inv experiment.logs
inv experiment.logs --build
inv experiment.prune
inv experiment.create NAME
inv experiment.run NAME
inv experiment.debug NAME
"""
REMOTE = """
inv remote.check
inv remote.check --accept-host-key SHA256:6fb+choi1ShlFcIl6fmNRikNuFTt2MK52pim7SYij9g
inv deploy.debug --remote
inv remote.tunnels
inv remote.stop
inv vscode.setup --remote
inv deploy.attach-config --remote
"""
PACKAGING = """
inv azureml.check
inv deploy.build --source azureml --model NAME
inv deploy.debug --source azureml --model houses:3 --score-script path/to/score.py
"""
SUBMITTING = "inv pipeline.debug --backend azureml --compute-target cpu"
FETCHING = """
inv experiment.debug churn --script train.py --data customers=azureml:customers:3
inv experiment.cancel
inv experiment.debug churn --data customers=azureml://datastores/workspaceblobstore/paths/customers/2026
"""
SCENES = (
    DEPLOYMENT,
    PIPELINE,
    PIPELINE_LATER,
    FOLLOWED,
    EXPERIMENT,
    EXPERIMENT_LATER,
    REMOTE,
    PACKAGING,
    SUBMITTING,
    FETCHING,
    "inv docs",
)
#: Typed somewhere else: the file, and how it stands there.
ELSEWHERE = {
    "inv mcp.serve": ("tests/e2e/agents.py", '"mcp.serve"'),
    "inv mcp.serve --read-only": ("tests/e2e/test_mcp.py", 'agent(pipelines, "--read-only")'),
    "inv vscode.setup --mcp": ("tests/unit/test_vscode.py", '"vscode.setup", "--mcp"'),
    "inv pipeline.attach --take-over": ("tests/e2e/test_mcp.py", '"pipeline.attach", "--take-over"'),
    "inv experiment.attach --take-over": ("tests/e2e/test_mcp.py", '"experiment.attach", "--take-over"'),
    "inv deploy.attach-config --take-over": ("tests/e2e/test_mcp.py", '"deploy.attach-config", "--take-over"'),
    "inv experiment.status": ("tests/e2e/test_mcp.py", '"experiment.status"'),
    "inv deploy.status": ("tests/e2e/test_mcp.py", '"deploy.status"'),
    'inv experiment.snapshot --run 1 --eval "rows[:3]"': (
        "tests/e2e/test_snapshots.py",
        '"experiment.snapshot", "--run", "1", "--eval", "rows[:3]"',
    ),
    "inv experiment.snapshot": ("tests/e2e/test_snapshots.py", '"experiment.snapshot"'),
    "inv pipeline.snapshot": ("tests/e2e/test_snapshots.py", '"pipeline.snapshot"'),
    "inv pipeline.stacks": ("tests/e2e/test_stacks.py", '"pipeline.stacks"'),
    "inv pipeline.snapshot --run ID": ("tests/e2e/test_snapshots.py", '"pipeline.snapshot", "--run", run_id'),
    "inv deploy.snapshot": ("tests/e2e/test_snapshots.py", '"deploy.snapshot"'),
    "inv experiment.attach --snapshot": ("tests/e2e/test_snapshots.py", '"experiment.attach", "--snapshot"'),
    "inv deploy.debug --deployment blue.yml": (
        "tests/e2e/test_deploy_files.py",
        '"--deployment", "endpoints/blue.yml"',
    ),
    "inv pipeline.debug --file job.yml": (
        "tests/e2e/test_files_as_they_are.py",
        '"pipeline.debug", "--file", "job.yml"',
    ),
    "inv pipeline.debug --on-error": ("tests/e2e/test_parallel_steps.py", 'debug(parallel, "--on-error")'),
    "inv deploy.debug --model azureml:churn:2": (
        "tests/e2e/test_assets_v2_stories.py",
        '"deploy.debug", "--model", "azureml:net:2"',
    ),
    "inv experiment.debug churn --backend azureml --compute-target cpu --script train.py"
    " --data customers=azureml:customers:3": (
        "tests/e2e/test_azureml_v2_experiment.py",
        'THERE = ("--backend", "azureml", "--compute-target", "cpu")',
    ),
    "inv experiment.debug try --backend azureml --compute-target cpu --script train.py": (
        "tests/e2e/test_azureml_v2_experiment.py",
        '"experiment.debug", "sums", *THERE',
    ),
    "inv test": (".ci/run", "inv test"),
    "inv lint": (".ci/run", "inv lint"),
    "inv bench --quick": (".ci/run", "inv bench --quick"),
    "inv container.base": (".ci/run", "inv container.base"),
    "inv container.code": ("tests/e2e/test_other_editors.py", '"container.code"'),
    "inv container.prune": ("tests/e2e/test_housekeeping.py", '"container.prune"'),
}
#: Those of this program's own developers that measure for many minutes, or run tests once more.
NOT_TYPED = (
    "inv bench",
    "inv doctor",
    "inv doctor --json",
    "inv bench.pipeline",
    "inv bench.growth",
    "inv test --quick",
    "inv test -- tests/unit -k gate",
    "inv test -- --hostile N",
    "inv test -- --debugpy-versions",
)


#: What the README's recording types, and where it lies.
RECORDED = ("inv deploy.debug", "inv deploy.inspect score.py:34 --request examples/deployment/sample.json")
RECORDING = ROOT / "docs" / "images" / "first-run.svg"


def typed(lines: str) -> list[tuple[str, ...]]:
    return [tuple(shlex.split(line)[1:]) for line in lines.strip().splitlines()]


def test_every_command_of_the_pages_is_typed_by_a_test() -> None:
    pages = {tuple(command) for page in PAGES for command in commands(page)}
    followed = [block.text for page in PAGES for block in blocks(page) if block.language == "sh"]
    known = {command for lines in (*SCENES, *followed, *ELSEWHERE, *NOT_TYPED) for command in typed(lines)}
    assert sorted(pages - known) == []
    for file, text in ELSEWHERE.values():
        assert text in (ROOT / file).read_text(encoding="utf-8")


#: Logs a metric through azureml-core, as the README's experiment does.
SDK_SCRIPT = """
from azureml.core import Run

run = Run.get_context()
for step in range(20):
    run.log("loss", 1 / (step + 1))
"""


def answer(project: Project, command: tuple[str, ...], instead: Mapping[str, str]) -> Result:
    """Type a command, with what is the reader's own in the place of the page's words."""
    return project.inv(*(instead.get(word, word) for word in command))


def type_all(project: Project, lines: str, **instead: str) -> dict[str, Result]:
    """Type commands that all have to work; what each has shown."""
    found = {}
    for line, command in zip(lines.strip().splitlines(), typed(lines), strict=True):
        found[line] = answer(project, command, instead)
        assert found[line].code == 0, f"{line}\n{found[line].err}{found[line].out}"
    return found


def shown_by(command: str) -> list[str]:
    """The lines that the README and the other pages show below a command."""
    shown = [block.text.rstrip("\n").splitlines() for page in PAGES for block in blocks(page) if block.text.strip()]
    lines = [line for first, *rest in shown if first == f"$ {command}" for line in rest if line]
    assert lines, f"no page shows what {command} prints"
    return lines


def resembles(line: str, shown: str) -> bool:
    """Whether a line is one that a page shows, but for numbers, names made of them, and the width of gaps.

    What it shows as reused may be built here.
    """
    pattern = re.sub(r"(?:\\ )+", " +", re.escape(shown)).replace("reused", "(?:reused|built)")
    pattern = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]+\b", "[0-9a-f]+", pattern)
    return re.fullmatch(pattern, line) is not None


def assert_shown(result: Result, shown: list[str]) -> None:
    lines = [*result.out.splitlines(), *result.err.splitlines()]
    for line in shown:
        assert any(resembles(one, line) for one in lines), f"{line}\nis not in\n" + "\n".join(lines)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Project]:
    """A clone of this repository, on a machine without Docker."""
    folder = tmp_path / "a clone"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard", "tasks.py", "workflows", "env", "examples", "docs"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        # With its byte code: no test waits until all of the program is compiled again.
        for path in (Path(name), Path(cache_from_source(name))):
            if (ROOT / path).is_file():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, folder / path)
    first = quiet_port()
    ports = {"AML_SCORING_PORT": str(first), "AML_DEBUG_PORT": str(first + 1)}
    made = Project(folder, {"DOCKER_HOST": "unix:///nowhere/docker.sock", **ports})
    if ready(sys.executable, ROOT, os.environ) is not None:
        # Commands are forks of a process that has loaded this clone.
        made.source = Ready(sys.executable, folder, deciding(os.environ, str(folder)))
    yield made
    for path in (folder / ".azureml-debug" / "runs").glob("*/run.json"):
        made.inv(f"{json.loads(path.read_text())['kind']}.cancel", "--run", path.parent.name)
    made.clean_up()
    if made.source is not None:
        made.source.close()


def test_the_commands_for_a_deployed_model(clone: Project) -> None:
    (clone.folder / "path" / "to" / "model").mkdir(parents=True)
    (clone.folder / "path" / "to" / "score.py").write_text(PLAIN)
    found = type_all(clone, DEPLOYMENT)
    request = "--request examples/deployment/sample.json"
    for shown in (
        f"inv deploy.inspect score.py:34 {request} --eval 'distances[\"setosa\"]'",
        f"inv deploy.inspect score.py:33 --log nearest {request}",
    ):
        assert_shown(found[shown], shown_by(shown))
    clone.ok("deploy.debug")
    assert_shown(clone.ok("deploy.debug"), shown_by("inv deploy.debug"))


def test_the_recording_shows_what_its_commands_print(clone: Project) -> None:
    name = "AZUREML_DEBUG_TEST_README"
    clone.ok("deploy.debug")
    session = []
    for command in RECORDED:
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *shlex.split(command)[1:]],
            cwd=clone.folder, env={**os.environ, **clone.environ},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        # What is waited for is said on a busy machine only.
        lines = [line for line in done.stdout.splitlines() if line and ": waiting for " not in line]
        session.append(Typed(command, lines, time.monotonic() - begun))
    if os.environ.get(name):
        RECORDING.write_text(draw("A terminal: inv deploy.debug, then inv deploy.inspect", session), encoding="utf-8")
    shown = read(RECORDING.read_text(encoding="utf-8"))
    assert [command for command, _ in shown] == [one.command for one in session]
    for (_, lines), one in zip(shown, session, strict=True):
        for line in lines:
            fits = any(resembles(printed[: len(line)], line) or resembles(printed, line) for printed in one.lines)
            assert fits, f"{line}\nis stale: set {name}=1 and run this again\n" + "\n".join(one.lines)


def test_the_command_that_writes_the_reference(clone: Project) -> None:
    page = clone.folder / "docs" / "reference.md"
    before = page.read_bytes()
    page.write_text("stale")
    clone.ok("docs")
    assert page.read_bytes() == before


def test_the_commands_for_a_pipeline_step(clone: Project) -> None:
    found = type_all(clone, PIPELINE)
    until(lambda: "holds for a debugger" in clone.ok("pipeline.status").out, "the second step's turn")
    found |= type_all(clone, PIPELINE_LATER, **{"3": "1"})
    for command in ("inv pipeline.debug", "inv pipeline.status"):
        assert_shown(found[command], shown_by(command))
    number = clone.ok("pipeline.debug", "--no-wait", "--json").json["run_id"].split("-")[-2]
    type_all(clone, FOLLOWED, **{"1": number})


def test_the_commands_for_an_experiment(clone: Project) -> None:
    (clone.folder / "train.py").write_text(SDK_SCRIPT)
    (clone.folder.parent / "data").mkdir()
    (clone.folder / "env" / "training" / "conda.yml").unlink()
    (clone.folder / "env" / "training" / "requirements.txt").write_text("azureml-core>=1.57,<2\n")
    clone.environ["PIP_CONSTRAINT"] = ""
    found = type_all(clone, EXPERIMENT)
    clone.ok("experiment.inspect", "train.py:5")
    until(lambda: "Completed" in clone.ok("experiment.show").out, "the end of the run")
    type_all(clone, EXPERIMENT_LATER, NAME="another")
    command = "inv experiment.debug digits"
    assert_shown(found[command], shown_by(command))


def test_the_commands_on_the_other_machine(tmp_path: Path, hosts: Hosts) -> None:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as project:
        # The usual ones may be those of a test that runs beside this one.
        first = quiet_port()
        project.environ |= {"AML_DEBUG_PORT": str(first), "AML_SCORING_PORT": str(first + 1)}
        known = hosts.laptop.known_hosts
        known.unlink()
        check, *rest = REMOTE.strip().splitlines()
        refused = project.inv("remote.check")
        assert check == "inv remote.check" and refused.code == 1
        address = project.environ["AML_REMOTE_HOST"]
        page, shown = "SHA256:6fb+choi1ShlFcIl6fmNRikNuFTt2MK52pim7SYij9g", hosts.instance.sshd.fingerprint
        lines = [line.replace("20.31.4.7", address).replace(page, shown) for line in shown_by("inv remote.check")]
        assert_shown(refused, lines)
        type_all(project, "\n".join(rest), **{page: shown})
        who = f"{project.environ['AML_REMOTE_USER']}@{address}"
        lines = [line.replace("azureuser@20.31.4.7", who) for line in shown_by("inv deploy.debug --remote")]
        # As the second time, after an edit.
        project.write_score(f"{PLAIN}# edited\n")
        lines = [re.sub("to /home/.*", "to ", line) for line in lines]
        lines[-1] = lines[-1].replace("added", "unchanged")
        result = project.ok("deploy.debug", "--remote")
        assert_shown(Result(0, re.sub("to /.*", "to ", result.out), result.err), lines)


@pytest.mark.docker
def test_the_commands_for_a_packaged_model(workspace: Workspace, docker_engine: None) -> None:  # noqa: F811
    workspace.register("houses", times=3)
    place = workspace.project.folder / "path" / "to"
    shutil.copytree(workspace.project.score.parent, place)
    type_all(workspace.project, PACKAGING, NAME="houses:3")


def test_the_command_for_a_pipeline_in_a_workspace(tmp_path: Path) -> None:
    with AzureMLServer(python=python_with_the_sdk()) as server:
        project = make_workspace_project(tmp_path / "a project", server, tmp_path / "home")
        project.environ.pop("AML_BACKEND")
        try:
            type_all(project, SUBMITTING)
        finally:
            project.inv("pipeline.cancel", "--backend", "azureml")
            project.clean_up()


def test_the_commands_for_an_experiments_data_in_a_workspace(tmp_path: Path) -> None:
    with AzureMLServer(python=python_with_the_sdk()) as server:
        project = make_experiment_project(tmp_path / "a project", "process")
        project.python = python_with_the_sdk()
        write_configuration(server, project.folder)
        environ = client_environment(server, tmp_path / "home", {}, sign_in=False)
        project.environ |= {**environ, "AML_AUTH": OWN, "XDG_CACHE_HOME": str(cache_of_its_own(tmp_path))}
        server.state.add_dataset("customers", "customers/2024/**")
        for _ in range(2):
            server.state.add_dataset("customers", "customers/2026/**")
        for year in ("2024", "2026"):
            path = server.state.file(DATASTORE, f"customers/{year}/numbers.txt")
            path.parent.mkdir(parents=True)
            path.write_text("10 20 30\n")
        try:
            type_all(project, FETCHING)
        finally:
            project.clean_up()
