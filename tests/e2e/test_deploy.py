"""The story of a deployed model, on both engines, with the real server: one command, its steps, its ends."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from projects import ANY_ENGINE, PLAIN, PLAIN_LINE, Project, get, listeners, post, until
from services import CONFIGURATION, Posting, attach, stop_of, value_of


def test_one_command_serves_and_welcomes_a_debugger(project: Project) -> None:
    result = project.debug()
    assert result["engine"] == project.environ["AML_ENGINE"]
    assert result["image"] == "debug:1"
    assert post(result["scoring_url"]) == {"answer": 60}
    assert set(result["seconds"]) == {"build", "tag", "run", "runsvdir", "attach-config"}
    launch = json.loads((project.folder / ".vscode" / "launch.json").read_text())
    (configuration,) = launch["configurations"]
    assert configuration["name"] == result["launch_configuration"] == CONFIGURATION
    assert configuration["connect"] == result["debug"]
    (mapping,) = result["path_mappings"]
    assert mapping["localRoot"] == str(project.score.parent)
    inside = "/var/azureml-app" if result["engine"] == "docker" else str(project.score.parent)
    assert mapping["remoteRoot"] == inside
    # Both ports are open on the loopback address only.
    for port in (result["debug"]["port"], int(result["scoring_url"].split(":")[2].split("/")[0])):
        assert set(listeners(port)) == {"127.0.0.1"}
    # A shell runs commands where the service runs.
    shell = project.ok("container.shell", "--", "python", "-c", "import os; print(os.environ['AML_APP_ROOT'])")
    assert inside in shell.out
    assert project.inv("container.shell", "--", "sh", "-c", "exit 7").code == 7
    the_last_lines_of_the_log_are_shown_while_it_runs_and_after_it(project, result["scoring_url"])
    # Its end leaves no process and no port; the log and the exit code are kept.
    assert not listeners(result["debug"]["port"])
    assert not processes_of(project.folder)
    log = project.ok("container.logs").out
    assert "POST /score 200" in log and "[ended with exit code" in log
    assert json.loads((project.state / "last" / "ended.json").read_text())["exit_code"] != 137
    assert [path.name for path in project.state.iterdir() if path.name not in ("lock", "last")] == []


def the_last_lines_of_the_log_are_shown_while_it_runs_and_after_it(project: Project, url: str) -> None:
    for _ in range(2):
        post(url)
    until(lambda: project.ok("container.logs").out.count("POST /score 200") == 3, "the requests' lines")
    whole = project.ok("container.logs").out.splitlines()
    assert project.ok("container.logs", "--tail", "2").out.splitlines() == whole[-2:]
    refused = project.inv("container.logs", "--tail", "few")
    assert refused.code == 2 and "--tail must be a number of lines, not 'few'." in refused.err
    project.ok("container.stop")
    kept = project.ok("container.logs").out.splitlines()
    assert project.ok("container.logs", "--tail", "3").out.splitlines()[:-1] == kept[-4:-1]


def test_steps_work_one_by_one_and_name_the_one_that_is_missing(project: Project) -> None:
    project.inv("deploy.runsvdir").says("No service", "First: inv deploy.run")
    project.inv("deploy.attach-config").says("No service", "First: inv deploy.run")
    project.inv("deploy.reload").says("No service", "First: inv deploy.debug")
    project.inv("deploy.run", "--image-tag", "nobody-built:this").says("nobody-built:this", "First: inv deploy.tag")
    (project.folder / "fresh").mkdir()
    (project.folder / "fresh" / "requirements.txt").write_text("# never built\n")
    project.inv("deploy.tag", "--inference-env", "fresh").says("not been built", "First: inv deploy.build")
    # Docker's tags are shared with the tests that run beside this one.
    project.environ["AML_IMAGE_TAG"] = "debug-of-one-test:1"
    project.ok("deploy.build")
    project.ok("deploy.tag")
    assert "note: debug-of" not in project.ok("deploy.run").out
    assert not project.events()
    project.inv("deploy.reload").says("First: inv deploy.runsvdir")
    project.ok("deploy.runsvdir")
    debug = project.ok("deploy.attach-config", "--json").json
    with attach(project, debug) as client:
        client.disconnect()
    project.ok("deploy.stop")
    assert "No service" in project.ok("deploy.stop").out
    # What has the tag is not the project's environment any more.
    definition = project.folder / "env" / "inference" / "requirements.txt"
    definition.parent.mkdir(parents=True)
    definition.write_text("azureml-inference-server-http\ncolorama\n")
    said = project.ok("deploy.run").out
    assert "note: debug-of-one-test:1 is the environment" in said and "inv deploy.build, inv deploy.tag" in said
    if shutil.which("docker"):
        project.ok("container.stop")
        subprocess.run(["docker", "rmi", "debug-of-one-test:1"], capture_output=True, check=False)


def processes_of(folder: Path) -> list[str]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AZUREML_DEBUGGEE_PROJECT") == str(folder):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def test_a_second_debug_replaces_the_service_on_the_same_ports(project: Project) -> None:
    first = project.debug()
    ports = {
        "AML_SCORING_PORT": first["scoring_url"].split(":")[2].split("/")[0],
        "AML_DEBUG_PORT": str(first["debug"]["port"]),
    }
    project.write_score(PLAIN.replace("model = 10", "model = 40"))
    second = project.debug(**ports)
    assert second["scoring_url"] == first["scoring_url"] and second["debug"] == first["debug"]
    assert post(second["scoring_url"]) == {"answer": 240}
    # `git clean` took the file that tells of it.
    (project.state / "session.json").unlink()
    out = project.ok("deploy.debug", **ports).out
    assert json.loads((project.state / "session.json").read_text())["debug_port"] == first["debug"]["port"]
    assert post(first["scoring_url"]) == {"answer": 240}
    the_output_says_what_to_press_where_to_post_and_how_to_stop(out)
    project.ok("container.stop")
    assert not processes_of(project.folder)


def the_output_says_what_to_press_where_to_post_and_how_to_stop(out: str) -> None:
    for step in ("build", "tag", "run", "runsvdir", "attach-config"):
        assert any(line.startswith(step) and " s " in line for line in out.splitlines()), out
    assert "F5" in out and "/score" in out and "inv container.stop" in out


def test_a_session_of_another_project_is_left_alone_and_the_next_ports_are_taken(
    project: Project, other: Project
) -> None:
    first = project.debug()
    ports = {
        "AML_SCORING_PORT": first["scoring_url"].split(":")[2].split("/")[0],
        "AML_DEBUG_PORT": str(first["debug"]["port"]),
    }
    result = other.ok("deploy.debug", "--json", **ports)
    assert f"port {first['debug']['port']} belongs to another session" in result.err
    assert result.json["debug"]["port"] == first["debug"]["port"] + 1
    if first["engine"] == "docker":
        assert result.json["container"] != first["container"]
    assert post(first["scoring_url"]) == post(result.json["scoring_url"]) == {"answer": 60}
    with attach(project, first) as client:
        client.disconnect()
    rows = project.ok("container.list", "--json").json["services"]
    assert {str(project.folder), str(other.folder)} <= {row["project"] for row in rows}


#: In a project's tasks.py: neither of two commands goes on from its first look at a name before the other has looked.
BOTH_LOOK = """
import os, pathlib, time
from workflows.engines.docker import DockerEngine
look, looked = DockerEngine.holder_of_name, []
def together(self, name):
    found = look(self, name)
    if not looked:
        looked.append(name)
        meeting = pathlib.Path(os.environ["MEETING"])
        (meeting / str(os.getpid())).touch()
        deadline = time.monotonic() + 100
        while len(list(meeting.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    return found
DockerEngine.holder_of_name = together
"""


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_of_two_projects_that_take_a_name_at_once_one_takes_the_next(
    project: Project, other: Project, tmp_path: Path
) -> None:
    (tmp_path / "meeting").mkdir()
    name = f"at-once-{os.getpid()}"
    commands = []
    for one in (project, other):
        (one.folder / "tasks.py").write_text((one.folder / "tasks.py").read_text() + BOTH_LOOK)
        environ = {"AML_CONTAINER_NAME": name, "MEETING": str(tmp_path / "meeting")}
        commands.append((one, one.start("deploy.debug", "--json", **environ)))
    results = [one.finish(child) for one, child in commands]
    assert [result.code for result in results] == [0, 0], results
    assert sorted(result.json["container"] for result in results) == [name, f"{name}-2"]
    assert sum(f"the name {name} belongs to another project's session" in result.err for result in results) == 1


SCHEMA = """
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("data", StandardPythonParameterType([1, 2, 3]))
@output_schema(StandardPythonParameterType({"answer": 6}))
def run(data):
    total = sum(data)
    return {"answer": total}
"""


@ANY_ENGINE
def test_schema_decorators_and_swagger_work_as_without_a_debugger(project: Project) -> None:
    project.write_score(SCHEMA)
    debug = project.debug()
    assert post(debug["scoring_url"]) == {"answer": 6}
    assert json.loads(get(debug["scoring_url"].replace("/score", "/swagger.json"))[1])["paths"]
    line = SCHEMA.splitlines().index("    total = sum(data)") + 1
    request = project.folder / "request.json"
    request.write_text('{"data": [1, 2, 3]}')
    result = project.ok("deploy.inspect", f"score.py:{line}", "--request", str(request), "--json").json
    assert result["locals"]["data"] == "[1, 2, 3]" and result["response"]["body"] == {"answer": 6}


def test_models_and_modules_reach_the_service_and_its_end_ends_a_pause_and_whoever_follows_the_log(
    project: Project,
) -> None:
    models = project.folder / "my models"
    models.mkdir()
    (models / "weights.txt").write_text("5")
    (project.score.parent / "helper.py").write_text("FILE = 'weights.txt'\n")
    text = PLAIN.replace("model = 10", "model = int(open(os.path.join(os.environ['AZUREML_MODEL_DIR'], FILE)).read())")
    project.write_score(f"import os\nfrom helper import FILE\n{text}")
    debug = project.debug("--model-dir", "my models")
    follower = project.start("container.logs", "--follow")
    assert follower.stdout is not None
    assert post(debug["scoring_url"]) == {"answer": 30}
    assert any("POST /score 200" in line for line in follower.stdout)
    client = attach(project, debug, PLAIN_LINE + 2)
    posting = Posting(debug["scoring_url"])
    stop_of(client)
    project.ok("container.stop")
    posting.join(30)
    # Cut off, or let go on by the debugger's end in its last moment; but not left waiting.
    assert not posting.is_alive()
    client.close()
    until(lambda: not processes_of(project.folder), "the end of every process")
    assert project.finish(follower).code == 0
    # Nothing is left in the folder of score.py.
    assert sorted(path.name for path in project.score.parent.iterdir()) == ["helper.py", "score.py"]


def knock(port: int, times: int) -> None:
    """Peers that are no debuggers: gone at once, garbage, half a header, silence."""
    with contextlib.ExitStack() as silent:
        for number in range(times):
            with contextlib.ExitStack() as one:
                peer = one.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                with contextlib.suppress(OSError):
                    peer.sendall([b"", b"GET / HTTP/1.1\r\n\r\n", b"Content-Len", b""][number % 4])
                if number % 4 == 3:
                    silent.push(one.pop_all())


def test_a_thousand_peers_that_are_no_debuggers_do_no_harm_before_and_during_a_session(project: Project) -> None:
    debug = project.debug()
    port = debug["debug"]["port"]
    knock(port, 500)
    with attach(project, debug, PLAIN_LINE) as client:
        knock(port, 500)
        posting = Posting(debug["scoring_url"])
        frame = stop_of(client)
        assert value_of(client, frame, "total") == "6"
        client.request("continue", {"threadId": frame["thread"]}, 20)
        assert posting.finish() == {"answer": 60}
        client.disconnect()
    with attach(project, debug) as client:
        client.disconnect()


def test_follow_streams_the_log_and_ctrl_c_leaves_the_service_running(project: Project) -> None:
    child = project.start("deploy.debug", "--follow")
    assert child.stdout is not None
    lines = iter(child.stdout.readline, "")
    url = next(line.split()[2] for line in lines if line.startswith("Post to"))
    assert post(url) == {"answer": 60}
    assert any("POST /score 200" in line for line in lines)
    child.send_signal(signal.SIGINT)
    assert project.finish(child).code == 130
    assert post(url) == {"answer": 60}
