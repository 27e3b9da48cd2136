"""VS Code itself: a breakpoint with F9, F5, and nothing else; then a value, a step, on to the end."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import missing
from editor import PICTURES, Editor, Workbench, what_is_missing
from experiments import TITLE, TRAIN, TRAIN_LINE
from hosts import Hosts
from pipelines import ADD_LINE, FAMILY, PREPARE_LINE, TELL_LINE, PipelineProject, make_pipeline_project
from projects import PLAIN, PLAIN_LINE, post, until
from remotes import remote_project

from workflows.engines.ports import find_free_port, is_free

DEPLOYMENT = "Azure Machine Learning Deployment: Docker Debug"


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """VS Code in a browser, for all of these tests."""
    reason = what_is_missing()
    if reason:
        missing(reason)
    folder = tmp_path_factory.mktemp("vscode")
    pictures = Path(os.environ.get(PICTURES) or folder / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    made = Workbench(folder, pictures)
    yield made
    made.close()


@pytest.fixture
def folder() -> str:
    """The project's folder."""
    return "a project"


def debug_port() -> int:
    """A free port, with free ones behind it for the steps: below those that the system gives to connections."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        if all(is_free(one) for one in range(port, port + 8)):
            return port


@pytest.fixture
def project(tmp_path: Path, engine: str, folder: str) -> Iterator[PipelineProject]:
    """A person's project with all three stories in it; its settings are in `.env`, as VS Code's tasks find them."""
    made = make_pipeline_project(tmp_path / folder, engine)
    (made.folder / "service").mkdir()
    (made.folder / "service" / "score.py").write_text(PLAIN)
    (made.folder / "train.py").write_text(TRAIN)
    (made.folder / ".azureml").mkdir()
    (made.folder / ".azureml" / "sums.runconfig").write_text("script: train.py\nframework: Python\n")
    settings = {
        "AML_ENGINE": engine,
        "AML_SCORE_SCRIPT": "service/score.py",
        "AML_SCORING_PORT": "0",
        "AML_PIPELINE_FILE": "pipeline.yml",
        "AML_DEBUG_PORT": str(debug_port()),
        "AML_CONTAINER_NAME": f"editor-{os.getpid()}",
    }
    (made.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    made.environ.clear()
    # Built before: what is tried is F5, not pip.
    yield made
    for path in made.runs.glob("*/run.json"):
        kind = json.loads(path.read_text())["kind"]
        made.inv(f"{kind}.cancel", "--run", path.parent.name)
    made.clean_up()


class Posted(threading.Thread):
    """A request that is on its way while the editor stops at it."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._answer: Any = None
        self.start()

    def run(self) -> None:
        self._answer = post(self._url, timeout=120)

    def answer(self) -> Any:
        self.join(60)
        assert not self.is_alive(), "no answer came"
        return self._answer


def scoring_url(project: PipelineProject) -> str:
    service = json.loads((project.state / "session.json").read_text())
    return f"http://127.0.0.1:{service['scoring_port']}/score"


@dataclass(frozen=True)
class Script:
    """A script that is debugged: where it stops, what `numbers` becomes there, and what the next line makes of it."""

    configuration: str
    name: str
    line: int
    numbers: str
    made: tuple[str, str]

    def debug(self, editor: Editor) -> None:
        """F9, F5, a value, a step, on to the end."""
        editor.breakpoint(self.name, self.line)
        editor.start(self.configuration)
        editor.stopped(self.name, self.line, 240)
        editor.until_variable("numbers", "[1, 2, 3]")
        editor.picture(f"stopped in {self.name}")
        editor.set_value("numbers", self.numbers)
        editor.until_variable("numbers", self.numbers)
        editor.press("F10")
        editor.stopped(self.name, self.line + 1)
        editor.until_variable(*self.made)
        editor.press("F5")
        editor.until_over()


STEP = Script(f"{FAMILY} (prepare)", "prepare.py", PREPARE_LINE, "[4]", ("doubled", "[4, 4]"))
EXPERIMENT = Script(f"{TITLE}: sums", "train.py", TRAIN_LINE, "[5]", ("total", "5"))


def debug_the_service(editor: Editor, project: PipelineProject, readme: str = "") -> None:
    """F9 in the entry script, F5, a request, a value that is in its answer."""
    editor.breakpoint("score.py", PLAIN_LINE)
    editor.start(DEPLOYMENT)
    editor.until_debugging(240)
    request = Posted(scoring_url(project))
    stop = editor.stopped("score.py", PLAIN_LINE)
    assert stop.function == "run"
    editor.until_variable("total", "6")
    editor.picture("stopped", readme=readme)
    editor.set_value("total", "7")
    editor.until_variable("total", "7")
    editor.press("F10")
    editor.stopped("score.py", PLAIN_LINE + 1)
    editor.until_variable("answer", "70")
    editor.picture("stepped")
    editor.press("F5")
    assert request.answer() == {"answer": 70}
    assert editor.debugging


def test_f5_debugs_a_deployed_model_a_pipeline_step_and_an_experiment(
    workbench: Workbench, project: PipelineProject, engine: str
) -> None:
    project.ok("vscode.setup")
    with workbench.open(project.folder, engine) as editor:
        debug_the_service(editor, project, readme="deployment-process.png" if engine == "process" else "")
        editor.stop()
        STEP.debug(editor)
        assert project.until_final()["status"] == "Completed"
        # That step and what it needs.
        assert [step["name"] for step in project.status()["steps"]] == ["prepare"]
        (log,) = project.runs.glob("*/**/prepare/azureml-logs/70_driver_log.txt")
        assert "doubled [4, 4]" in log.read_text()
        EXPERIMENT.debug(editor)
        assert project.until_final()["status"] == "Completed"
        (log,) = project.runs.glob("*/azureml-logs/70_driver_log.txt")
        assert "total 5" in log.read_text()


FAILURE = "Azure Machine Learning Snapshot: sums"
#: Runs another script, which debugpy debugs as well.
PARENT = """import subprocess, sys
subprocess.run([sys.executable, 'child.py'], check=True)
print('parent ends')
"""
CHILD = """numbers = [1, 2]
total = sum(numbers)
print('total', total)
"""
#: Fails in a function of its own, called from a list that is long enough to be shown in pages.
FAILING = """import json


def train(rows, rate):
    total = sum(rows)
    return total / rate


train(json.loads("[" + "7, " * 250 + "249]"), 0)
"""


@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_a_child_process_is_a_session_of_its_own_and_a_failure_opens_as_if_it_were_stopped_there(
    workbench: Workbench, project: PipelineProject
) -> None:
    (project.folder / "train.py").write_text(PARENT)
    (project.folder / "child.py").write_text(CHILD)
    project.ok("vscode.setup")
    with workbench.open(project.folder, "child") as editor:
        editor.breakpoint("child.py", 2)
        editor.start(EXPERIMENT.configuration)
        editor.stopped("child.py", 2, 240)
        editor.until_variable("numbers", "[1, 2]")
        editor.picture("stopped in a child")
        editor.press("F10")
        editor.stopped("child.py", 3)
        editor.until_variable("total", "3")
        editor.press("F5")
        editor.until_over()
        assert project.until_final()["status"] == "Completed"
        (log,) = project.runs.glob("*/azureml-logs/70_driver_log.txt")
        assert "total 3" in log.read_text() and "parent ends" in log.read_text()

        (project.folder / "train.py").write_text(FAILING)
        assert project.inv("experiment.run", "sums", "--follow").code == 1
        editor.start(FAILURE)
        stop = editor.stopped("train.py", 6)
        assert stop.function == "train"
        editor.until_variable("total", "1999")
        assert editor.variables()["rows"].startswith("[7, 7, 7")
        editor.until_exception("ZeroDivisionError", "division by zero")
        editor.watch("rows[-1]", "249")
        editor.watch("len(rows)", "nothing can be run")
        editor.picture("stopped at a failure")
        editor.open_variable("rows")
        # A long list comes in pages.
        editor.until_row("[100..199]")
        editor.press("F10")
        editor.until_notification("This is a snapshot of a failure: nothing of it runs any more")
        assert editor.stopped("train.py", 6) == stop
        editor.stop()
        editor.until_over()
    port = project.launch()[FAILURE]["connect"]["port"]
    until(lambda: is_free(port), "the end of what served the editor")


def debug_all_steps(editor: Editor, project: PipelineProject) -> None:
    """F9 in three steps, F5 once, a value in each of them, on to the end."""
    for script, line in {"prepare.py": PREPARE_LINE, "add.py": ADD_LINE, "tell.py": TELL_LINE}.items():
        editor.breakpoint(script, line)
    editor.start("Azure Machine Learning Compute: all")
    editor.stopped("prepare.py", PREPARE_LINE, 120)
    editor.until_variable("numbers", "[1, 2, 3]")
    editor.press("F5")
    editor.stopped("add.py", ADD_LINE)
    editor.until_variable("total", "12")
    editor.picture("the second step")
    editor.press("F5")
    editor.stopped("tell.py", TELL_LINE)
    editor.until_variable("text", "'36'")
    editor.press("F5")
    editor.until_over()
    assert project.until_final()["status"] == "Completed"
    assert len(list(project.runs.glob("*/run.json"))) == 1


@pytest.mark.parametrize("folder", ["one #project (100 %20) $HOME für ü"])
@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_one_compound_attaches_to_each_step_and_a_failure_is_told_at_its_line_with_nothing_attached(
    workbench: Workbench, project: PipelineProject
) -> None:
    project.ok("vscode.setup")
    with workbench.open(project.folder, "compound") as editor:
        debug_all_steps(editor, project)

        broken = PLAIN.replace("total = sum(numbers)", "total = sum(numbers")
        (project.folder / "service" / "score.py").write_text(broken)
        editor.open_file("score.py")
        editor.start(DEPLOYMENT)
        assert "preLaunchTask" in editor.until_dialog()
        editor.picture("dialog")
        editor.answer("Abort")
        assert not editor.debugging
        problems = editor.until_problem("score.py", "'(' was never closed")
        assert any(f"Ln {PLAIN_LINE - 1}" in row for row in problems), problems
        editor.picture("problems")

        text = project.pipeline.read_text().replace(
            "parent.jobs.prepare.outputs.doubled", "parent.jobs.prepair.outputs.doubled"
        )
        project.pipeline.write_text(text)
        editor.open_file("pipeline.yml")
        editor.start(f"{FAMILY} (add)")
        editor.until_dialog()
        editor.answer("Abort")
        line = next(number for number, row in enumerate(text.splitlines(), 1) if "prepair" in row)
        problems = editor.until_problem("pipeline.yml", "prepair")
        assert any(f"Ln {line}" in row for row in problems if "prepair" in row), problems
        assert not editor.debugging


@pytest.mark.parametrize("folder", ["one #project (100 %20) $HOME für ü"])
@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_with_follow_and_stop_after_the_same_holds_and_what_f5_started_ends_with_the_session(
    workbench: Workbench, project: PipelineProject
) -> None:
    project.ok("vscode.setup", "--follow", "--stop-after")
    with workbench.open(project.folder, "follow and stop after") as editor:
        debug_all_steps(editor, project)

        editor.open_file("score.py")
        editor.start(DEPLOYMENT)
        editor.until_debugging(120)
        post(scoring_url(project))
        editor.stop()
        until(lambda: not (project.state / "session.json").exists(), "the service's end")

        # The editor finds nothing wrong in what was written, but would.
        for name in ("launch.json", "tasks.json"):
            editor.open_file(f".vscode/{name}")
            editor.page.wait_for_timeout(1500)
            assert not [row for row in editor.problems() if name in row]
        wrong = project.folder / ".vscode" / "launch.json"
        wrong.write_text(wrong.read_text().replace('"justMyCode": true', '"justMyCode": "yes"', 1))
        editor.open_file(".vscode/launch.json")
        editor.until_problem("launch.json", "boolean")


@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_a_command_that_stays_and_cannot_even_start_is_told_and_nothing_is_attached(
    workbench: Workbench, project: PipelineProject
) -> None:
    project.ok("vscode.setup", "--follow")
    tasks = project.folder / "tasks.py"
    tasks.write_text(f"import no_such_module\n{tasks.read_text()}")
    with workbench.open(project.folder, "no-start") as editor:
        editor.start(DEPLOYMENT)
        assert "inv deploy.debug --follow" in editor.until_dialog()
        editor.answer("Abort")
        problems = editor.until_problem("tasks.py", "import no_such_module")
        assert any("Ln 1," in row for row in problems), problems
        assert not editor.debugging


def test_f5_debugs_on_the_other_machine(workbench: Workbench, hosts: Hosts, tmp_path: Path) -> None:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as project:
        project.environ |= {
            "AML_DEBUG_PORT": str(debug_port()),
            "AML_SCORING_PORT": str(find_free_port(frozenset())),
        }
        settings = project.folder / ".vscode" / "settings.json"
        settings.parent.mkdir()
        settings.write_text(json.dumps({"terminal.integrated.env.linux": project.environ}))
        (project.folder / "train.py").write_text(TRAIN)
        (project.folder / ".azureml").mkdir()
        (project.folder / ".azureml" / "sums.runconfig").write_text("script: train.py\nframework: Python\n")
        project.ok("vscode.setup", "--remote")
        assert project.launch()[DEPLOYMENT]["preLaunchTask"] == "inv deploy.debug --remote"
        assert project.launch()[DEPLOYMENT]["pathMappings"][0]["remoteRoot"] == f"{project.remote_root}/service"
        with workbench.open(project.folder, "remote") as editor:
            editor.breakpoint("score.py", PLAIN_LINE)
            editor.start(DEPLOYMENT)
            editor.until_debugging(240)
            (scoring,) = [one for one in project.tunnels() if one["for"].endswith("scoring")]
            request = Posted(f"http://127.0.0.1:{scoring['local_port']}/score")
            editor.stopped("score.py", PLAIN_LINE)
            editor.until_variable("total", "6")
            editor.picture("stopped")
            editor.set_value("total", "7")
            editor.until_variable("total", "7")
            editor.press("F10")
            editor.stopped("score.py", PLAIN_LINE + 1)
            editor.press("F5")
            assert request.answer() == {"answer": 70}
            editor.stop()
            STEP.debug(editor)
            EXPERIMENT.debug(editor)
        (log,) = project.remote_folder.glob(".azureml-debug/runs/sums-*/azureml-logs/70_driver_log.txt")
        assert "total 5" in log.read_text()
