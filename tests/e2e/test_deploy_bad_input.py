"""Bad input: one line that says what is wrong, one that says what to do, exit 1, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import ANY_ENGINE, PLAIN, Project, Result, listeners, post, until


def nothing_left(project: Project) -> None:
    """Neither process nor container nor session file is left of a failed command."""
    import psutil

    assert not (project.state / "session.json").exists()

    def processes() -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("AZUREML_DEBUGGEE_PROJECT") == str(project.folder):
                    found.append(process.pid)
        return found

    until(lambda: not processes(), "the end of every process")
    if project.environ["AML_ENGINE"] == "docker":
        assert not containers(project)


def containers(project: Project) -> list[str]:
    label = f"label=azureml-debug.project={project.folder}"
    return subprocess.run(
        ["docker", "ps", "-aq", "--filter", label], capture_output=True, text=True, check=True
    ).stdout.split()


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


SCRIPTS = {
    "raises in the standard library, called by another file": (
        "import helper\n" + PLAIN,
        ["helper.py:2: error: KeyError: 'NO_SUCH_VARIABLE'"],
    ),
    "syntax error": (PLAIN.replace("total = sum(numbers)", "total = ("), ["score.py:14: error: SyntaxError"]),
    # Which only who runs it can know.
    "no init": (
        PLAIN.replace("def init", "def initialise") + "setattr(json, 'x', 1)\n",
        ["score.py: error: ", "has no function init()"],
    ),
    "raises in init": (PLAIN.replace("model = 10", "model = 1 / 0"), ["score.py:9: error: ZeroDivisionError"]),
    "exits at import": ("import sys\nsys.exit(5)\n" + PLAIN, ["score.py:2: error: SystemExit: 5"]),
    "missing package": ("import no_such_package\n" + PLAIN, ["score.py:1: error: ", "requirements.txt"]),
    "dies at once": ("import os\nos._exit(9)\n" + PLAIN, ["did not come up", "inv container.logs"]),
    "is killed": ("import os\nos.kill(os.getpid(), 9)\n" + PLAIN, ["did not come up", "inv container.logs"]),
}


#: What a service announces is the same on each engine; what ends before it can is seen by the engine.
FAULTS = [("process", fault) for fault in SCRIPTS] + [
    ("docker", fault) for fault in ("missing package", "dies at once", "is killed")
]


@pytest.mark.parametrize(("engine", "fault"), FAULTS, indirect=["engine"])
def test_a_score_script_that_cannot_be_loaded_is_named_with_its_line(project: Project, fault: str) -> None:
    text, parts = SCRIPTS[fault]
    project.write_score(text)
    (project.score.parent / "helper.py").write_text("import os\nos.environ['NO_SUCH_VARIABLE']\n")
    project.inv("deploy.debug").says(*parts)
    nothing_left(project)
    assert project.ok("container.logs").out


NO_ENVIRONMENT = "name: wrong\ndependencies: [{pip: [azureml-no-such-package-anywhere==1.2.3]}]\n"


@ANY_ENGINE
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "init"),
        (PLAIN.replace("def init", "def initialise"), "init"),
        (PLAIN.replace("def run", "def execute"), "run"),
    ],
)
@pytest.mark.parametrize("by", ["setting", "flag"])
def test_a_score_script_without_init_or_run_is_refused_before_anything_is_built(
    project: Project, text: str, name: str, by: str
) -> None:
    (project.folder / "environment").mkdir()
    (project.folder / "environment" / "conda.yml").write_text(NO_ENVIRONMENT)
    project.write_score(text)
    project.environ["AML_INFERENCE_ENV"] = "environment"
    typed = ["deploy.debug"]
    if by == "flag":
        del project.environ["AML_SCORE_SCRIPT"]
        typed += ["--score-script", "service/score.py"]
    # What was typed is what has to be typed again.
    project.inv(*typed).says(f"score.py: error: score.py has no function {name}()", f"then: inv {' '.join(typed)}")
    nothing_left(project)


@ANY_ENGINE
def test_a_model_given_as_a_file_is_refused_with_its_folder(project: Project) -> None:
    (project.folder / "model.pkl").write_bytes(b"")
    said = project.inv("deploy.debug", "--model-dir", "model.pkl")
    said.says("model.pkl is a file", f"--model-dir {project.folder}")
    nothing_left(project)


@ANY_ENGINE
def test_a_debugpy_that_is_too_old_is_told_at_its_line(project: Project) -> None:
    (project.folder / "environment").mkdir()
    (project.folder / "environment" / "requirements.txt").write_text("numpy\ndebugpy==1.6.7\n")
    said = project.inv("deploy.debug", AML_INFERENCE_ENV="environment")
    said.says("requirements.txt:2: error: debugpy==1.6.7 cannot be used", "debugpy>=1.8")
    nothing_left(project)


@ANY_ENGINE
def test_a_missing_score_script_and_a_folder_are_refused_before_anything_starts(project: Project) -> None:
    project.inv("deploy.debug", "--score-script", "nowhere.py").says("nowhere.py does not exist", "--score-script")
    project.inv("deploy.debug", "--score-script", "service").says("is a folder", "--score-script")
    project.inv("deploy.debug", "--model-dir", "nowhere").says("model folder", "--model-dir")
    nothing_left(project)


@pytest.mark.parametrize("variable", ["AML_SCORING_PORT", "AML_DEBUG_PORT"])
def test_a_port_held_by_another_program_is_named_with_its_holder(project: Project, variable: str) -> None:
    with listening() as port:
        result = project.inv("deploy.debug", **{variable: str(port)})
        result.says(f"Port {port} is held by", str(os.getpid()), f"{variable}=0")
    nothing_left(project)


def test_a_service_that_runs_goes_on_when_the_next_one_cannot_start_and_is_stopped_without_its_files(
    project: Project,
) -> None:
    debug = project.debug()
    with listening() as port:
        project.inv("deploy.debug", AML_SCORING_PORT=str(port)).says(f"Port {port} is held by")
    assert post(debug["scoring_url"]) == {"answer": 60}
    (project.folder / ".vscode" / "launch.json").write_bytes(BROKEN)
    project.inv("deploy.debug").says("launch.json:3: error: ")
    assert post(debug["scoring_url"]) == {"answer": 60}
    shutil.rmtree(project.folder / ".azureml-debug")
    assert "Took away" in project.ok("deploy.stop").out
    nothing_left(project)
    assert not listeners(debug["debug"]["port"])


def test_a_package_that_does_not_exist_shows_the_end_of_pips_output(project: Project) -> None:
    environment = project.folder / "environment"
    environment.mkdir()
    (environment / "conda.yml").write_text(
        "name: wrong\ndependencies:\n  - pip:\n    - azureml-no-such-package-anywhere==1.2.3\n"
    )
    result = project.inv("deploy.debug", AML_INFERENCE_ENV="environment")
    result.says("azureml-no-such-package-anywhere", "conda.yml")
    nothing_left(project)


@ANY_ENGINE
@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("AML_SCORING_PRT=8000\n", 1, "AML_SCORING_PORT"),
        ("# ports\n\nAML_SCORING_PORT=80a\n", 3, "AML_SCORING_PORT"),
        ("AML_ENGINE=podman\n", 1, "docker"),
        ("AML_DEBUG_TIMEOUT=-1\n", 1, "seconds"),
        ("AML_CONTAINER_NAME=a name\n", 1, "container name"),
        ("OTHER=1\nthis is no setting\n", 2, "NAME=value"),
    ],
)
def test_an_unknown_or_malformed_value_in_dot_env_is_named_with_its_line(
    project: Project, text: str, line: int, part: str
) -> None:
    (project.folder / ".env").write_text(text)
    for name in ("AML_SCORING_PORT", "AML_ENGINE"):
        project.environ.pop(name)
    result = project.inv("deploy.debug")
    result.says(f".env:{line}: error: ", part)
    project.environ["AML_ENGINE"] = "process"
    (project.folder / ".env").unlink()


@ANY_ENGINE
@pytest.mark.parametrize("flag", ["--scoring-port", "--debug-port", "--debug-timeout", "--engine"])
def test_a_value_on_the_command_line_that_cannot_be_read_exits_with_two(project: Project, flag: str) -> None:
    result = project.inv("deploy.debug", flag, "foo")
    assert result.code == 2 and flag in result.err and "Traceback" not in result.err


BROKEN = b'{\n    "configurations": [\n        {"name": }\n    ]\n}\n'


@ANY_ENGINE
def test_a_broken_launch_json_is_left_alone_and_its_line_named(project: Project) -> None:
    launch = project.folder / ".vscode" / "launch.json"
    launch.parent.mkdir()
    launch.write_bytes(BROKEN)
    project.inv("deploy.debug").says("launch.json:3: error: ")
    assert launch.read_bytes() == BROKEN
    nothing_left(project)


@ANY_ENGINE
def test_an_unreadable_and_an_unwritable_launch_json_are_named(project: Project) -> None:
    (project.folder / ".vscode" / "launch.json").mkdir(parents=True)
    project.inv("deploy.debug").says("launch.json")
    nothing_left(project)
    (project.folder / ".vscode" / "launch.json").rmdir()
    (project.folder / ".vscode").rmdir()
    (project.folder / ".vscode").write_text("a file where the folder should be")
    project.inv("deploy.debug").says(".vscode")
    nothing_left(project)


@ANY_ENGINE
def test_of_two_at_once_in_one_project_the_second_is_refused_and_the_first_works(project: Project) -> None:
    project.write_score("import time\ntime.sleep(3)\n" + PLAIN)
    first = project.start("deploy.debug", "--json")
    until(lambda: (project.state / "lock.json").exists(), "the first command's start")
    project.inv("deploy.debug").says("inv deploy.debug", str(first.pid))
    result = project.finish(first)
    assert result.code == 0, result.err
    assert post(result.json["scoring_url"]) == {"answer": 60}


def reaches(project: Project, child: subprocess.Popen[str], step: str) -> None:
    """Look until a command is in the middle of a step."""
    if step == "build":
        assert child.stdout is not None
        for line in child.stdout:
            # Of pip's and Docker's lines one every few seconds is shown: which ones is a matter of luck.
            if line.startswith("  build: "):
                return
    kind = {"run": "session.json", "loading": "worker"}[step]
    if kind == "session.json":
        until(lambda: (project.state / kind).exists(), "the container")
    else:
        # Its image may have to be built first.
        until(lambda: kind in [event["event"] for event in project.events()], "score.py's loading")


#: Which signal it is makes no difference to an engine.
SIGNALS = {
    "process": [("build", signal.SIGINT), ("run", signal.SIGINT), ("run", signal.SIGTERM), ("loading", signal.SIGINT)],
    "docker": [("build", signal.SIGINT), ("run", signal.SIGINT), ("loading", signal.SIGHUP)],
}


def test_what_interrupted_and_killed_commands_have_begun_is_taken_away_and_the_next_one_works(
    project: Project, engine: str, tmp_path: Path
) -> None:
    for step, number in SIGNALS[engine]:
        if step == "build":
            result = interrupted_build(project, number, tmp_path / "cache")
        else:
            project.write_score("import time\ntime.sleep(60)\n" + PLAIN)
            child = project.start("deploy.debug")
            reaches(project, child, step)
            os.kill(child.pid, number)
            result = project.finish(child, 60)
        result.says("Interrupted", "inv deploy.debug", code=130)
        nothing_left(project)
    # A second Ctrl-C does not stop the clean-up.
    child = project.start("deploy.debug")
    reaches(project, child, "loading")
    for _ in range(4):
        child.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert project.finish(child, 60).code == 130
    nothing_left(project)
    # A killed one leaves nothing that keeps the next from working.
    child = project.start("deploy.debug")
    reaches(project, child, "loading")
    child.kill()
    project.finish(child)
    project.write_score(PLAIN)
    assert post(project.debug()["scoring_url"]) == {"answer": 60}


def interrupted_build(project: Project, number: int, cache: Path) -> Result:
    """Interrupt the build of an environment, which leaves nothing in the cache."""
    environment = project.folder / "environment"
    environment.mkdir()
    # A name of its own, so that it has to be built, and something that takes a while.
    (environment / "conda.yml").write_text(
        f"name: interrupted-{os.getpid()}-{number}\ndependencies:\n  - pip:\n    - azureml-inference-server-http\n"
    )
    child = project.start("deploy.debug", AML_INFERENCE_ENV="environment", XDG_CACHE_HOME=str(cache))
    reaches(project, child, "build")
    os.kill(child.pid, number)
    result = project.finish(child, 60)
    assert not list(cache.glob("azureml-debug/environments/*"))
    return result


def test_nothing_in_the_background_keeps_the_callers_output_open(project: Project) -> None:
    child = project.start("deploy.debug", "--json")
    done = threading.Event()

    def read() -> None:
        project.finish(child)
        done.set()

    reader = threading.Thread(target=read)
    reader.start()
    child.wait(timeout=240)
    reader.join(20)
    assert done.is_set(), "standard output or error is still open"
    assert (project.state / "session.json").exists()


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
class TestDockerOnly:
    """What only the Docker engine can get wrong."""

    def test_a_container_of_somebody_else_is_never_removed(self, project: Project) -> None:
        name = f"somebody-elses-{os.getpid()}"
        subprocess.run(
            ["docker", "create", "--name", name, "azureml-debug/base:latest"], check=True, capture_output=True
        )
        try:
            project.inv("deploy.debug", "--container-name", name).says(name, "docker rm -f")
            subprocess.run(["docker", "inspect", name], check=True, capture_output=True)
            nothing_left(project)
        finally:
            subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)

    def test_a_port_held_by_a_container_names_the_container(self, project: Project) -> None:
        name = f"holder-{os.getpid()}"
        subprocess.run(
            ["docker", "run", "-d", "--name", name, "-p", "127.0.0.1::80", "azureml-debug/base:latest", "sleep", "600"],
            check=True,
            capture_output=True,
        )
        try:
            listed = subprocess.run(["docker", "port", name], check=True, capture_output=True, text=True).stdout
            port = listed.strip().rpartition(":")[2]
            project.inv("deploy.debug", AML_SCORING_PORT=port).says(f"Port {port}", f"the container {name}")
        finally:
            subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)

    def test_a_missing_image_names_the_step_that_makes_it(self, project: Project) -> None:
        project.inv("deploy.run", AML_IMAGE_TAG="azureml-debug-none:1").says("azureml-debug-none:1", "inv deploy.tag")

    def test_a_base_image_that_cannot_be_had_is_named(self, project: Project) -> None:
        result = project.inv("deploy.debug", "--base-image", "azureml-debug-no-such-base:9")
        result.says("azureml-debug-no-such-base:9", "AML_BASE_IMAGE")
        nothing_left(project)

    @pytest.mark.parametrize(
        ("lines", "parts"),
        [
            ("RUN rm -f /usr/bin/runsvdir\nCOPY runit /var/runit\n", ["did not come up", "runsvdir"]),
            ("COPY runit /var/runit\nRUN chmod -R a+rwX /var/runit\n", ["did not come up", "exit code 127"]),
        ],
    )
    def test_an_image_that_lacks_a_part_is_told_from_its_log(
        self, project: Project, lines: str, parts: list[str]
    ) -> None:
        environment = project.folder / "environment"
        environment.mkdir()
        (environment / "requirements.txt").write_text("# all in the Dockerfile\n")
        (environment / "Dockerfile").write_text("FROM azureml-debug/base:latest\n" + lines)
        result = project.inv("deploy.debug", AML_INFERENCE_ENV="environment")
        result.says(parts[0])
        assert parts[1] in result.err
        nothing_left(project)

    def test_an_engine_that_does_not_run_is_said_and_auto_goes_without_it(self, project: Project) -> None:
        dead = project.folder / "docker.sock"
        with socket.socket(socket.AF_UNIX) as server:
            # Shorter than the limit on the length of a socket's path.
            os.symlink(project.folder, link := Path(f"/tmp/azureml-debug-{os.getpid()}"))
            server.bind(str(link / "docker.sock"))
        try:
            here = {"DOCKER_HOST": f"unix://{link}/docker.sock"}
            project.inv("deploy.debug", **here).says("Docker", "AML_ENGINE=process")
            dead.unlink()
            project.inv("deploy.debug", **here).says("Docker", "AML_ENGINE=process")
            result = project.ok("deploy.debug", "--json", AML_ENGINE="auto", **here)
            assert result.json["engine"] == "process"
            assert "no Docker engine answers" in result.err
        finally:
            link.unlink()
            project.inv("container.stop")

    def test_an_engine_that_must_not_be_used_says_how_to_be_let_in(self, project: Project) -> None:
        if not hasattr(os, "getuid") or os.getuid() != 0:
            pytest.skip("needs root, to be somebody else for a moment")
        code = (
            "import os, sys\n"
            f"sys.path[:0] = {sys.path!r}\n"
            "from workflows.engines.docker_client import connect\n"
            "from workflows.errors import UserError\n"
            "import docker\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try:\n    connect()\nexcept UserError as error:\n    print(error)\n"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
        assert "may not use" in out or "ermission" in out
        assert "usermod -aG docker" in out

    def test_ours_of_yesterday_is_replaced_and_one_that_is_removed_from_outside_is_noticed(
        self, project: Project
    ) -> None:
        name = f"yesterday-{os.getpid()}"
        debug = project.debug("--container-name", name)
        subprocess.run(["docker", "kill", name], check=True, capture_output=True)
        (project.state / "session.json").unlink()
        again = project.debug("--container-name", name)
        assert debug["container"] == again["container"]
        subprocess.run(["docker", "rm", "-f", again["container"]], check=True, capture_output=True)
        project.inv("deploy.reload").says("ended", "inv deploy.debug")
        assert "No service" in project.ok("container.stop").out
        assert not listeners(again["debug"]["port"])


@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_a_service_killed_from_outside_is_noticed(project: Project) -> None:
    project.debug()
    session = json.loads((project.state / "session.json").read_text())
    os.killpg(session["pid"], signal.SIGKILL)
    time.sleep(0.1)
    project.inv("deploy.inspect", "score.py:15").says("ended", "inv deploy.debug")
    assert "score.py" in project.ok("container.logs").out
    project.ok("container.stop")
    nothing_left(project)


@ANY_ENGINE
def test_one_port_for_both_is_refused(project: Project) -> None:
    result = project.inv("deploy.debug", AML_SCORING_PORT="18431", AML_DEBUG_PORT="18431")
    result.says("18431", "--debug-port")
    nothing_left(project)


def test_a_copy_of_a_project_leaves_the_originals_service_alone_and_a_moved_one_can_stop_its_own(
    project: Project,
) -> None:
    debug = project.debug()
    copy = Project(project.folder.parent / "a copy", dict(project.environ))
    # Not by shutil, which refuses runit's pipes.
    subprocess.run(["cp", "-R", str(project.folder), str(copy.folder)], check=True)
    assert "No service" in copy.ok("deploy.stop").out
    copy.inv("deploy.reload").says("No service", "inv deploy.debug")
    assert post(debug["scoring_url"]) == {"answer": 60}
    copy.clean_up()
    moved = Project(project.folder.parent / "moved", dict(project.environ))
    project.folder.rename(moved.folder)
    moved.inv("deploy.reload").says("was moved", "inv deploy.debug")
    moved.ok("deploy.stop")
    nothing_left(project)
    moved.clean_up()
