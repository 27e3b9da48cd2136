"""`--remote`: the stories on an instance that is reached over a real SSH server, seen from the laptop."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from deployment_files import BLUE, SCORE_LINE, make
from experiments import TITLE, TRAIN, TRAIN_LINE
from host import Host
from host_tools import listeners
from hosts import Hosts
from pipelines import ADD_LINE, FAMILY, PREPARE_LINE, TELL_LINE, go_on, session, stop_of, value_of
from projects import PLAIN_LINE, post, until
from remotes import RemoteProject, remote_project

NEEDS_COMMON = """from common.helper import one


def init():
    pass


def run(raw_data):
    return {"answer": one()}
"""
DEPLOYMENT = "Azure Machine Learning Deployment: Docker Debug"


@pytest.fixture
def project(tmp_path: Path, hosts: Hosts) -> Iterator[RemoteProject]:
    """A project on the laptop, for the instance in its own network."""
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as made:
        yield made


def test_a_service_on_the_instance_stops_at_a_breakpoint_set_here(project: RemoteProject, hosts: Hosts) -> None:
    result = project.remote("deploy.debug")
    assert result["engine"] == "process" and result["launch_configuration"] == DEPLOYMENT
    (mapping,) = result["path_mappings"]
    assert mapping == {"localRoot": str(project.score.parent), "remoteRoot": f"{project.remote_root}/service"}
    assert project.launch()[DEPLOYMENT]["connect"] == result["debug"]
    assert project.launch()[DEPLOYMENT]["pathMappings"][0]["localRoot"] == "${workspaceFolder}/service"
    with session(project.endpoint(DEPLOYMENT), {project.score: [PLAIN_LINE]}) as client:
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(post(result["scoring_url"])))
        asking.start()
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(project.score), PLAIN_LINE)
        assert value_of(client, frame, "total") == "6"
        go_on(client, frame)
        asking.join(20)
    assert answers == [{"answer": 60}]
    # Nothing listens anywhere but on 127.0.0.1, here or there, but for the SSH server.
    there = {where for where in listeners(hosts.instance) if where[1] != hosts.instance.port}
    assert there and {address for address, _port in there} == {"127.0.0.1"}
    moved = {one["for"]: (one["bytes_up"], one["bytes_down"]) for one in project.tunnels()}
    assert all(up and down for up, down in moved.values()) and len(moved) == 2, moved
    assert project.remote("container.stop")["stopped"] is True
    project.wait_for_tunnels(0)
    assert not project.tunnels()
    assert not {where for where in listeners(hosts.instance) if where[1] != hosts.instance.port}


def test_a_source_folder_outside_the_project_travels_whole_with_the_script_in_it(project: RemoteProject) -> None:
    app = project.folder.parent / "app"
    for name, text in {"common/helper.py": "def one():\n    return 1\n", "code/main.py": NEEDS_COMMON}.items():
        (app / name).parent.mkdir(parents=True)
        (app / name).write_text(text)
    del project.environ["AML_SCORE_SCRIPT"]
    (project.folder / ".env").write_text("AML_SOURCE_DIR=../app\nAML_SCORE_SCRIPT=code/main.py\n")
    result = project.remote("deploy.debug")
    assert post(result["scoring_url"]) == {"answer": 1}
    (mapping,) = result["path_mappings"]
    assert mapping["localRoot"] == str(app)
    found = project.remote("deploy.inspect", "code/main.py:9")
    assert found["stopped"]["file"] == str(app / "code" / "main.py")
    failed = project.inv("deploy.debug", "--remote", "--source-directory", "../app/code", "--score-script", "main.py")
    assert "No module named 'common'" in failed.err and failed.code == 1
    project.remote("container.stop")


def test_a_deployments_file_travels_with_what_it_names(project: RemoteProject) -> None:
    file = make(project.folder)
    start, end = BLUE.index("environment:"), BLUE.index("environment_variables:")
    file.write_text(BLUE[:start] + BLUE[end:])
    # git knows nothing of models, and one that is named travels all the same.
    (project.folder / ".gitignore").write_text("model/\n")
    (project.folder / "request.json").write_text('{"data": [1, 2]}')
    result = project.remote("deploy.debug", "--deployment", "endpoints/blue.yml")
    assert post(result["scoring_url"], {"data": [1, 2]}) == {"answer": 21, "greeting": "hello"}
    script = project.folder / "model-1" / "scoring" / "score.py"
    assert result["path_mappings"][0]["localRoot"] == str(script.parent)
    script.write_text(script.read_text().replace("total * model", "total * model + 1"))
    project.environ["AML_DEPLOYMENT_FILE"] = "endpoints/blue.yml"
    project.remote("deploy.reload")
    place = f"model-1/scoring/score.py:{SCORE_LINE}"
    seen = project.remote("deploy.inspect", place, "--request", "request.json")
    assert seen["stopped"]["file"] == str(script) and seen["response"]["body"]["answer"] == 22
    project.remote("container.stop")
    (project.folder.parent / "elsewhere").mkdir()
    file.write_text(file.read_text().replace("../model-1/model\n", "../../elsewhere\n"))
    refused = project.inv("deploy.debug", "--remote")
    assert refused.code == 1 and "elsewhere, which blue.yml names, lies outside the project's folder" in refused.err


def test_variables_for_a_service_travel_and_are_on_no_command_line_there(project: RemoteProject) -> None:
    project.write_score(
        "import os\n\ndef init():\n    pass\n\ndef run(raw_data):\n"
        "    return {name: os.environ.get(name) for name in ('IN_FILE', 'TYPED', 'HERE', 'AML_CORS_ORIGINS')}\n"
    )
    (project.folder / "service.env").write_text("IN_FILE=file\nHERE\n")
    (project.folder / ".env").write_text("AML_SERVICE_ENV=service.env\nAML_CORS_ORIGINS=*\n")
    project.environ["HERE"] = "oqu3-here"
    result = project.remote("deploy.debug", "--env", "TYPED=oqu3-typed")
    expected = {"IN_FILE": "file", "TYPED": "oqu3-typed", "HERE": "oqu3-here", "AML_CORS_ORIGINS": "*"}
    assert post(result["scoring_url"]) == expected
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert "oqu3" not in " ".join(process.cmdline())
    project.remote("container.stop")


def test_a_service_in_a_container_on_the_instance(
    tmp_path: Path, hosts: Hosts, loopback_instance: Host, docker_engine: None
) -> None:
    with remote_project(tmp_path / "a project", hosts, loopback_instance) as project:
        project.environ |= {"AML_ENGINE": "docker", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0"}
        try:
            result = project.remote("deploy.debug", "--container-name", "remote-debug")
            assert result["engine"] == "docker"
            assert result["path_mappings"][0]["remoteRoot"] == "/var/azureml-app"
            with session(project.endpoint(DEPLOYMENT), {project.score: [PLAIN_LINE]}) as client:
                asking = threading.Thread(target=lambda: post(result["scoring_url"]))
                asking.start()
                frame = stop_of(client)
                assert value_of(client, frame, "total") == "6"
                go_on(client, frame)
                asking.join(20)
        finally:
            project.remote("container.stop")


def test_a_breakpoint_in_each_step_of_a_pipeline_and_the_tunnels_end_with_the_run(project: RemoteProject) -> None:
    result = project.remote("pipeline.debug")
    assert result["backend"] == "local" and [one["step"] for one in result["endpoints"]] == ["prepare"]
    names = [f"{FAMILY} ({step})" for step in ("prepare", "add", "tell")]
    assert list(project.launch()) == names
    text = json.loads((project.folder / ".vscode" / "launch.json").read_text())
    assert text["compounds"][0]["configurations"] == names
    paths = {"prepare": (PREPARE_LINE, "numbers", "[1, 2, 3]"), "add": (ADD_LINE, "total", "12")}
    paths["tell"] = (TELL_LINE, "text", "'36'")
    for step, (line, name, value) in paths.items():
        script = project.folder / step / f"{step}.py"
        project.wait_for_step(step)
        found = next(one for one in project.remote("pipeline.status")["steps"] if one["name"] == step)
        assert [one["state"] for one in found["endpoints"]] == ["waiting"]
        with session(project.endpoint(f"{FAMILY} ({step})"), {script: [line]}) as client:
            frame = stop_of(client)
            assert (frame["source"]["path"], frame["line"]) == (str(script), line)
            assert value_of(client, frame, name) == value
            go_on(client, frame)
            client.wait_event("terminated", 30)
    project.wait_for_run("Completed")
    assert project.remote("pipeline.status")["status"] == "Completed"
    project.wait_for_tunnels(0)
    assert not project.tunnels()


def test_an_experiment_and_its_run_configuration_and_outputs_come_home(project: RemoteProject) -> None:
    script = project.folder / "train.py"
    script.write_text(TRAIN)
    result = project.remote(
        "experiment.debug", "sums", "--script", "train.py", "--data", "numbers=some data", "--",
        "--numbers", "$AZUREML_DATAREFERENCE_numbers",
    )  # fmt: skip
    configuration = f"{TITLE}: sums"
    assert result["endpoints"][0]["launch_configuration"] == configuration
    with session(project.endpoint(configuration), {script: [TRAIN_LINE]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "numbers") == "[1, 2, 3]"
        go_on(client, frame)
        client.wait_event("terminated", 30)
    # What was typed is kept here, and is what the next run there is started with.
    assert "script: train.py" in (project.folder / ".azureml" / "sums.runconfig").read_text()
    project.wait_for_run("Completed")
    assert project.remote("experiment.show")["status"] == "Completed"
    assert project.remote("experiment.outputs", "--copy", "results")["folder"] == str(project.folder / "results")
    assert (project.folder / "results" / "outputs" / "total.txt").read_text() == "6"
    project.inv("experiment.outputs", "--remote", "--copy", "results").says("is there already", "another folder")
    assert "total 6" in project.ok("experiment.logs", "--remote").out


def test_what_only_the_instance_reaches_is_reached_through_it(project: RemoteProject, hosts: Hosts) -> None:
    from workflows.remote import tunnels
    from workflows.remote.address import Address
    from workflows.remote.remote_paths import RemotePaths

    script = project.folder / "train.py"
    script.write_text(
        "import debugpy, time\nvalue = 41\nvalue += 1\nwhile True:\n    time.sleep(0.05)\n    value += 0\n"
    )
    project.ok("remote.sync")
    node = hosts.node
    node.run(["sh", "-c", "python3 -m zipfile -e /home/wheels/debugpy-*.whl packages"])
    node.put("work/train.py", script.read_text())
    command = ["python3", "-m", "debugpy", "--listen", f"{node.address}:5678", "work/train.py"]
    node.popen(command, env={"PYTHONPATH": "packages"})
    until(lambda: (node.address, 5678) in listeners(node), "the node's debugger")
    host = hosts.instance
    address = Address(host.address, host.address, host.port, host.user, (str(hosts.laptop.key()),))
    known = os.environ.get("HOME")
    os.environ["HOME"] = str(hosts.laptop.home)
    try:
        ports = tunnels.open_tunnels(
            project.folder, address, {}, RemotePaths(project.folder, project.remote_root), {}, "node", ("", 0),
            [{"name": "train", "what": "train on the node", "host": node.address, "port": 5678, "wanted": 5678}],
        )  # fmt: skip
    finally:
        os.environ["HOME"] = known or ""
    mapping = {"localRoot": str(project.folder), "remoteRoot": f"{node.home}/work"}
    endpoint = {"host": "127.0.0.1", "port": ports["train"], "path_mappings": [mapping]}
    with session(endpoint, {script: [6]}) as client:
        frame = stop_of(client)
        assert (frame["source"]["path"], value_of(client, frame, "value")) == (str(script), "42")
    (tunnel,) = project.tunnels()
    assert (tunnel["host"], tunnel["for"]) == (node.address, "train on the node")
    assert project.ok("remote.stop", "--json").json["closed"] == 1
    assert not project.tunnels()


def test_ctrl_c_here_stops_the_task_there(project: RemoteProject) -> None:
    (project.folder / "busy.py").write_text("import time\ntime.sleep(600)\n")
    child = project.start("experiment.debug", "--remote", "sums", "--script", "busy.py", "--on-error")
    busy = project.host.path("azureml-debug")
    until(lambda: list(busy.glob("*/.azureml-debug/runs/sums-*/azureml-logs/70_driver_log.txt")), "its start")
    child.send_signal(signal.SIGINT)
    again = "inv experiment.debug --remote sums --script busy.py --on-error"
    project.finish(child).says("Interrupted", again, code=130)
    assert project.remote("experiment.show")["status"] == "Canceled"
    assert not [one for one in project.host.command_lines() if "busy.py" in one]


def test_a_second_call_makes_one_connection_and_sends_nothing(project: RemoteProject) -> None:
    project.ok("experiment.list", "--remote")
    before = project.host.sshd.connections()
    result = project.ok("experiment.list", "--remote")
    assert "nothing has changed" in result.out and "environment" not in result.out
    assert project.host.sshd.connections() == before + 1
    project.remote("deploy.debug")
    before = project.host.sshd.connections()
    project.remote("deploy.debug")
    # The tunnels' own connection is the one of before.
    assert project.host.sshd.connections() == before + 1


def test_v_shows_what_is_done_here_and_there(project: RemoteProject) -> None:
    project.inv("container.list", "--remote")
    told = project.inv("container.list", "--remote", "-v").err
    assert re.search(r"ssh \S+: connected after \d", told) and re.search(r"ssh \S+: open after \d", told), told
    # Each begins with what was typed: the command here, and the one there.
    assert len(re.findall(r"^\d\d:\d\d:\d\d\.\d{3} inv container\.list --remote -v$", told, re.MULTILINE)) == 2, told
    assert " after " in (project.folder / ".azureml-debug" / "log.txt").read_text()


def test_exit_codes_and_errors_are_those_of_the_task_there(project: RemoteProject) -> None:
    (project.folder / "broken.py").write_text("raise SystemExit(3)\n")
    failed = project.inv("experiment.run", "--remote", "nothing", "--script", "broken.py")
    failed.says("no experiment nothing", "inv experiment.create --remote nothing")
    assert project.inv("pipeline.debug", "--remote", "--rank", "foo").code == 2
    project.score.write_text("def init(:\n")
    wrong = project.inv("deploy.debug", "--remote")
    wrong.says("service/score.py:1: error:")
    assert not project.tunnels()


def test_a_local_port_that_is_taken_is_replaced_and_the_configuration_says_so(project: RemoteProject) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        # The same for the service, whose address people are told to post to.
        said = project.ok("deploy.debug", "--remote", "--debug-port", "0", "--scoring-port", str(port))
        scoring = next(one["local_port"] for one in project.tunnels() if one["port"] == port)
        assert scoring != port and f"http://127.0.0.1:{scoring}/score" in said.out
        said = project.ok("deploy.debug", "--remote", "--debug-port", str(port), "--scoring-port", "0")
        here = project.launch()[DEPLOYMENT]["connect"]["port"]
        assert here != port and f"127.0.0.1:{here} ({port} is taken here)" in said.out
        with session(project.endpoint(DEPLOYMENT), {}):
            pass


def test_a_port_that_is_taken_there_is_named_by_the_task_there(project: RemoteProject) -> None:
    hold = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 5999)); s.listen(); print('ok', flush=True)"
    holder = project.host.popen(["python3", "-c", f"{hold}; time.sleep(600)"])
    assert holder.stdout is not None and holder.stdout.readline() == "ok\n"
    project.inv("deploy.debug", "--remote", "--debug-port", "5999").says(
        "Port 5999 is held by python3", "--debug-port 6000"
    )


def test_no_secret_and_nothing_of_env_but_the_settings_travels(project: RemoteProject) -> None:
    secret = "S3cretOfTheTests"
    names = ["AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "DATABASE_PASSWORD"]
    text = "".join(f"{name}={secret}\n" for name in names)
    (project.folder / ".env").write_text(f"AML_DEBUG_TIMEOUT=77\n{text}")
    for name in ("service/.env", "some data/.env", "prepare/.env"):
        (project.folder / name).write_text(text)
    (project.folder / "wait.py").write_text("import time\ntime.sleep(30)\n")
    for name in names:
        project.environ[name] = secret
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        # All the time, as another person on that machine could with `ps`, and as root.
        while not over.wait(0.05):
            for process in project.host.processes():
                with contextlib.suppress(psutil.Error):
                    seen.add(" ".join(process.cmdline()) + " ".join(map("=".join, process.environ().items())))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        project.remote("deploy.debug", "--model-dir", "some data")
        project.remote("pipeline.debug", "--debug-port", "0")
        project.remote("experiment.debug", "sums", "--script", "wait.py", "--data", "numbers=some data")
        project.ok("remote.check")
    finally:
        over.set()
        looking.join()
    assert all(any(text in one for one in seen) for text in ("wait.py", "prepare.py", "score.py"))
    assert not [one for one in seen if secret in one]
    paths = [project.host.home, "/tmp", "/dev/shm", "/run", "/var/tmp"]
    found = project.host.run(["grep", "-rlFs", "--devices=skip", secret, *paths], check=False, root=True).stdout
    assert found == "" and not [name for name in project.files() if name.endswith(".env")]
    log = project.remote("experiment.show")["steps"][0]["log"]
    assert "Timeout for debug connection: 77" in project.host.path(log).read_text()
    project.remote("experiment.cancel")
    project.remote("pipeline.cancel")


def test_tunnels_do_not_outlive_the_project_folder(project: RemoteProject, tmp_path: Path) -> None:
    project.remote("deploy.debug")
    keeper = json.loads((project.folder / ".azureml-debug" / "remote" / "keeper.json").read_text())["process"]["pid"]
    assert psutil.pid_exists(keeper)
    os.rename(project.folder, tmp_path / "moved")
    until(lambda: not psutil.pid_exists(keeper), "the end of the tunnels' process")
    os.rename(tmp_path / "moved", project.folder)
    project.ok("container.stop", "--remote")


def test_what_start_up_files_of_the_shell_there_print_does_no_harm(project: RemoteProject) -> None:
    project.host.put(".bashrc", "echo Welcome to the machine; echo 'a warning' >&2\n")
    assert project.remote("experiment.list")["experiments"] == []


def test_data_outside_the_project_stays_where_it_is_in_the_run_configuration(
    project: RemoteProject, tmp_path: Path
) -> None:
    script = project.folder / "train.py"
    script.write_text(TRAIN)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "numbers.txt").write_text("4 5")
    arguments = ["--", "--numbers", "$AZUREML_DATAREFERENCE_numbers"]
    project.ok("experiment.create", "--remote", "sums")
    typed = ["sums", "--script", "train.py", "--data", "numbers=../outside"]
    assert "total 9" in project.ok("experiment.run", "--remote", "--follow", *typed, *arguments).out
    kept = (project.folder / ".azureml" / "sums.runconfig").read_text()
    assert "../outside" in kept and "carried" not in kept
    # Without flags it is repeated, there and here.
    (tmp_path / "outside" / "numbers.txt").write_text("4 6")
    again = project.ok("experiment.run", "--remote", "--follow", "sums").out
    assert "total 10" in again and "is as the run there" not in again
    assert "total 10" in project.ok("experiment.run", "--follow", "sums").out


def test_a_run_configuration_is_edited_here(project: RemoteProject, tmp_path: Path) -> None:
    (project.folder / "train.py").write_text(TRAIN)
    (project.folder / "other.py").write_text("print('the other one')\n")
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/train.py/other.py/' \"$1\"\n")
    editor.chmod(0o755)
    project.ok("experiment.create", "--remote", "sums")
    typed = ["--remote", "--follow", "sums", "--script", "train.py", "--edit"]
    assert "the other one" in project.ok("experiment.run", *typed, EDITOR=str(editor)).out


def test_what_f5_attaches_to_keeps_its_port_when_it_is_set_up_while_the_service_runs(project: RemoteProject) -> None:
    project.remote("deploy.debug")
    before = project.launch()[DEPLOYMENT]["connect"]
    said = project.ok("vscode.setup", "--remote").out
    assert project.launch()[DEPLOYMENT]["connect"] == before
    assert ".vscode/launch.json added" in said
    written = (project.folder / ".vscode" / "launch.json").read_bytes()
    project.ok("pipeline.debug", "--remote", "--step", "add", "--no-wait")
    project.ok("vscode.setup", "--remote")
    project.ok("deploy.debug", "--remote")
    ports = {entry: value["connect"]["port"] for entry, value in project.launch().items()}
    again = {entry["name"]: entry["connect"]["port"] for entry in json.loads(written)["configurations"]}
    assert again.items() <= ports.items()
