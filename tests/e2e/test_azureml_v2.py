"""Jobs of SDK v2 in a workspace, to the breakpoint: the real azure-ai-ml over HTTPS, a real sshd behind a relay."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer
from pipelines import ADD_LINE, FAMILY, PREPARE_LINE, TELL_LINE, PipelineProject, go_on, session, stop_of, value_of
from projects import until
from workspaces import make_v2_project, workspace_of_v2


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[AzureMLServer]:
    """The workspace, with the behaviour that a test's parameter says."""
    with workspace_of_v2(**getattr(request, "param", {})) as made:
        yield made


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_v2_project(tmp_path / "a project", server, tmp_path / "home")
    yield made
    made.clean_up()


def debug(project: PipelineProject, *arguments: str, **more: str) -> dict[str, Any]:
    """`pipeline.debug --json`, which has to work."""
    return project.ok("pipeline.debug", "--json", *arguments, **more).json


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a project, without this program's own."""
    own = (".azureml-debug", ".vscode", "__pycache__")
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not set(own) & set(path.relative_to(folder).parts)
    }


def uploads(server: AzureMLServer) -> list[str]:
    """The files of code that have been sent so far."""
    return [one.path for one in server.requests if one.method == "PUT" and one.path.startswith("/snapshots/")]


def test_each_step_stops_at_its_breakpoint_through_the_relay_alone(
    server: AzureMLServer, project: PipelineProject
) -> None:
    before = contents(project.folder)
    result = debug(project)
    (first,) = result["endpoints"]
    assert (result["backend"], first["step"], first["host"]) == ("azureml", "prepare", "127.0.0.1")
    # The program reads which clouds there are, and so does the SDK, once.
    assert [one.path for one in server.requests].count("/metadata/endpoints") == 2
    assert project.launch()[f"{FAMILY} (prepare)"]["connect"] == {"host": "127.0.0.1", "port": first["port"]}
    for step, line, expression, value in (
        ("prepare", PREPARE_LINE, "numbers", "[1, 2, 3]"),
        ("add", ADD_LINE, "total", "12"),
        ("tell", TELL_LINE, "text", "'36'"),
    ):
        endpoint = project.until_waiting(step)
        with session(endpoint, {project.script(step): [line]}) as client:
            frame = stop_of(client)
            assert value_of(client, frame, expression) == value
            go_on(client, frame)
    assert project.until_final()["status"] == "Completed"
    assert contents(project.folder) == before
    steps = server.state.children(result["run_id"])
    # The gates were never on any network.
    assert {tags[0].partition(":")[0] for one in steps if (tags := [one.tags["azureml_debug.0"]])} == {"127.0.0.1"}
    folder = next(path for path in project.runs.iterdir() if path.name.startswith("numbers-"))
    until(lambda: not (folder / "relay.key").exists(), "the key to be deleted")
    # A second submission sends no code.
    sent = uploads(server)
    assert sent
    project.ok("pipeline.submit")
    assert uploads(server) == sent
    project.ok("pipeline.cancel")


AWKWARD = """\
cat <<'END' > "$TMPDIR/said by the command"
it's "quoted" $HOME \\n `tick` ${{inputs.factor}}
END
printf '%s|' a\\ b '$x' "$((1 + ${{inputs.factor}}))"; echo
read -r line || echo "no input"
python work.py "${{inputs.factor}}" 'a  b' --flag=$'tab\\t'
exit 7
"""


def test_a_command_reaches_bash_byte_for_byte_and_ends_as_it_does(
    server: AzureMLServer, project: PipelineProject
) -> None:
    (project.folder / "work").mkdir()
    script = project.folder / "work" / "work.py"
    script.write_text("import sys\nfound = sys.argv[1:]\nprint(found, flush=True)\n")
    job = {
        "type": "command",
        "command": AWKWARD,
        "code": "./work",
        "environment": {"image": "python"},
        "compute": "azureml:cpu",
        "inputs": {"factor": 3},
    }
    file = project.folder / "job.yml"
    file.write_text(json.dumps(job))
    (endpoint,) = debug(project, "--pipeline-file", str(file))["endpoints"]
    with session(endpoint, {script: [3]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "found") == repr(["3", "a  b", "--flag=tab\t"])
        go_on(client, frame)
    status = project.until_final()
    assert status["status"] == "Failed"
    (run,) = [one for one in server.state.runs.values() if one.parent is None]
    assert "exit code: 7" in json.dumps(run.error)
    log = Path(endpoint["log"]).read_text()
    assert "a b|$x|4|\nno input\n" in log
    (said,) = (server.root / "tmp").glob("said by the command")
    assert said.read_text() == 'it\'s "quoted" $HOME \\n `tick` 3\n'


def test_where_no_service_comes_up_the_network_is_the_way(server: AzureMLServer, project: PipelineProject) -> None:
    server.relay.missing = "openssh-server is not installed in the image"
    (endpoint,) = debug(project, "--step", "prepare")["endpoints"]
    with session(endpoint, {project.script("prepare"): [PREPARE_LINE]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "numbers") == "[1, 2, 3]"
        go_on(client, frame)
    assert project.until_final()["status"] == "Completed"
    (step,) = server.steps("prepare")
    assert step.tags["azureml_debug.reach"] == "network"
    log = next(project.runs.glob("numbers-*/runner.log")).read_text()
    assert "openssh-server is not installed in the image: trying the network" in log


def test_where_only_the_relay_is_wanted_its_failure_is_said_with_the_log_that_tells(
    server: AzureMLServer, project: PipelineProject
) -> None:
    server.relay.missing = "openssh-server is not installed in the image"
    result = project.inv("pipeline.debug", AML_REACH="relay")
    result.says("openssh-server is not installed in the image", "system_logs/interactive_capability")
    project.ok("pipeline.cancel")
    assert not [run for run in server.state.runs.values() if "azureml_debug.reach" in run.tags]


def test_with_the_network_as_the_only_way_no_service_is_asked_for_and_the_run_can_be_canceled(
    server: AzureMLServer, project: PipelineProject
) -> None:
    result = debug(project, "--step", "prepare", AML_REACH="network")
    (endpoint,) = result["endpoints"]
    with session(endpoint, {project.script("prepare"): [PREPARE_LINE]}) as client:
        assert value_of(client, stop_of(client), "numbers") == "[1, 2, 3]"
        # What was submitted with v2 is canceled whatever is set later; nobody signs in again for that.
        clouds = sum(one.path == "/metadata/endpoints" for one in server.requests)
        project.ok("pipeline.cancel", AML_SDK="auto", AML_BACKEND="local")
    assert not [one for one in server.requests if "serviceinstances" in one.path]
    assert server.state.runs[result["run_id"]].status == "Canceled"
    assert sum(one.path == "/metadata/endpoints" for one in server.requests) == clouds


def test_a_service_that_takes_its_time_is_waited_for_with_its_reason(
    server: AzureMLServer, project: PipelineProject
) -> None:
    server.relay.after = 12
    result = project.ok("pipeline.debug", "--json", "--step", "prepare")
    assert re.search(r"relay: the job's ssh service is Starting", result.err)
    project.ok("pipeline.cancel")


RANKED = """\
import json, os
told = {name: os.environ[name] for name in ("RANK", "OMPI_COMM_WORLD_RANK", "TF_CONFIG") if name in os.environ}
place = os.readlink("/proc/self/ns/net")
print(told)
"""
#: The line of RANKED at which `place` is known.
RANKED_LINE = 4


def all_waiting(project: PipelineProject, count: int) -> list[dict[str, Any]]:
    """The endpoints of a run once so many hold for their debuggers."""

    def look() -> list[dict[str, Any]]:
        found = [one for step in project.status()["steps"] for one in step["endpoints"]]
        return found if [one["state"] for one in found] == ["waiting"] * count else []

    found: list[dict[str, Any]] = until(look, f"{count} ranks waiting", pause=0.5)
    return found


def test_ranks_on_several_nodes_stop_through_one_connection_for_each_node(
    server: AzureMLServer, project: PipelineProject
) -> None:
    server.state.computes["cpu"].nodes = 6
    (project.folder / "work").mkdir()
    script = project.folder / "work" / "work.py"
    script.write_text(RANKED)
    distributions: dict[str, dict[str, Any]] = {
        "torch": {"type": "pytorch", "process_count_per_instance": 2},
        "mpi": {"type": "mpi", "process_count_per_instance": 1},
        "tf": {"type": "tensorflow", "worker_count": 2, "parameter_server_count": 1},
    }
    step = {"command": "python work.py", "code": "./work", "environment": {"image": "python"}}
    jobs = {
        name: {**step, "resources": {"instance_count": 2}, "distribution": one} for name, one in distributions.items()
    }
    project.pipeline.write_text(json.dumps({"type": "pipeline", "jobs": jobs}))
    debug(project, "--rank", "all")
    told: dict[str, dict[int, Any]] = {}
    places: dict[str, dict[int, str]] = {}
    waiting = all_waiting(project, 9)
    # Where all of them stand comes home by the same way.
    (group,) = project.ok("pipeline.stacks", "--step", "torch", "--json").json["groups"]
    assert group["ranks"] == [0, 1, 2, 3] and group["summary"] == "held for a debugger before its first line"
    for endpoint in waiting:
        with session(endpoint, {script: [RANKED_LINE]}) as client:
            frame = stop_of(client)
            name, rank = endpoint["step"], endpoint["rank"]
            told.setdefault(name, {})[rank] = ast.literal_eval(value_of(client, frame, "json.dumps(told)"))
            places.setdefault(name, {})[rank] = value_of(client, frame, "place")
            go_on(client, frame)
    assert project.until_final()["status"] == "Completed"
    for name, variable, count in (("torch", "RANK", 4), ("mpi", "OMPI_COMM_WORLD_RANK", 2)):
        ranks = {rank: json.loads(text)[variable] for rank, text in told[name].items()}
        assert ranks == {number: str(number) for number in range(count)}
    nodes = places["torch"]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3] and places["mpi"][0] != places["mpi"][1]
    tasks = {rank: json.loads(json.loads(text)["TF_CONFIG"])["task"] for rank, text in told["tf"].items()}
    assert tasks == {
        0: {"type": "worker", "index": 0},
        1: {"type": "worker", "index": 1},
        2: {"type": "ps", "index": 0},
    }
    assert places["tf"][0] == places["tf"][2] != places["tf"][1]
    # Three jobs on two nodes each.
    assert len(server.relay.peers) == 6


def test_one_rank_of_those_on_several_nodes_is_debugged_alone(server: AzureMLServer, project: PipelineProject) -> None:
    (project.folder / "work").mkdir()
    script = project.folder / "work" / "work.py"
    script.write_text(RANKED)
    (project.folder / "job.yml").write_text(
        "type: command\ncommand: python work.py\ncode: ./work\nenvironment: {image: python}\ncompute: azureml:cpu\n"
        "distribution: {type: pytorch, process_count_per_instance: 2}\nresources: {instance_count: 2}\n"
    )
    (endpoint,) = debug(project, "--file", str(project.folder / "job.yml"), "--rank", "3")["endpoints"]
    with session(endpoint, {script: [RANKED_LINE]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "told['RANK'] + os.environ['NODE_RANK']") == "'31'"
        go_on(client, frame)
    assert project.until_final()["status"] == "Completed"
    assert len(server.relay.peers) == 1


def test_a_container_that_forwards_nothing_is_reached_and_reached_again_after_the_follower_was_killed(
    server: AzureMLServer, project: PipelineProject
) -> None:
    server.relay.sshd = "AllowTcpForwarding no"
    debug(project, "--step", "prepare")
    runner = json.loads(next(project.runs.glob("numbers-*/runner.json")).read_text())
    os.kill(runner["pid"], signal.SIGKILL)
    (endpoint,) = project.ok("pipeline.attach", "--json").json["endpoints"]
    with session(endpoint, {project.script("prepare"): [PREPARE_LINE]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "numbers") == "[1, 2, 3]"
        go_on(client, frame)
    assert project.until_final()["status"] == "Completed"


def test_no_secret_is_written_anywhere_but_in_its_own_file(server: AzureMLServer, project: PipelineProject) -> None:
    result = project.ok("pipeline.debug", "--step", "prepare", "-vv")
    folder = next(project.runs.glob("numbers-*"))
    # What the command has written down is read below, too: requests to the workspace and to its storage, and no SAS.
    log = (project.folder / ".azureml-debug" / "log.txt").read_text()
    assert " PUT http" in log and " POST http" in log and " after " in log and "sig=" not in log + result.err
    assert " PUT http" in result.err
    token, key = (folder / "token").read_text(), (folder / "relay.key").read_text()
    assert oct((folder / "relay.key").stat().st_mode & 0o777) == "0o600"
    files = [path for path in project.folder.rglob("*") if path.is_file() and path.name not in ("token", "relay.key")]
    everything = result.out + result.err + "".join(path.read_text(errors="replace") for path in files)
    assert token not in everything and key.splitlines()[1] not in everything
    assert not [one for one in everything.split() if one.startswith("eyJ")]
    project.ok("pipeline.cancel")


def test_what_cannot_be_submitted_is_told_and_leaves_nothing(server: AzureMLServer, project: PipelineProject) -> None:
    for typed, *says in (
        ("--compute-target zzz", "There is no compute target zzz", "cpu"),
        ("--step nothing", "There is no step nothing", "prepare, add, tell"),
        ("--input numbers=nowhere", "The input numbers is", "which does not exist"),
        ("--input nothing=1", "There is no input nothing", "numbers"),
        ("--skip prepare", "prepare.doubled (for add)", "--input prepare.doubled=PATH"),
        ("--trials 2", "for runs on this machine"),
    ):
        result = project.inv("pipeline.debug", *typed.split())
        assert result.code in (1, 2) and all(part in result.err for part in says), result.err
        assert "Traceback" not in result.err and not server.state.runs
        assert not list(project.runs.glob("*/run.json"))
    assert "No pipeline of this project" in project.inv("pipeline.list").out
    text = project.pipeline.read_text()
    project.pipeline.write_text(
        text.replace("AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest", "nobody-has-this@latest")
    )
    result = project.inv("pipeline.debug")
    result.says("nobody-has-this")
    assert "\x1b" not in result.err and not server.state.runs
    # A legacy workspace is refused before anything is read.
    server.state.legacy = True
    project.inv("pipeline.debug").says("v1_legacy_mode", "AML_SDK=v1")


INNER = """\
$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponent.schema.json
type: pipeline
name: inner
version: "1"
inputs:
  data: {type: uri_folder}
  factor: {type: integer}
outputs:
  result: {type: uri_file}
jobs:
  twice:
    command: python prepare.py --data ${{inputs.data}} --doubled ${{outputs.doubled}}
    code: ./prepare
    environment: {image: python}
    inputs: {data: "${{parent.inputs.data}}"}
    outputs: {doubled: {type: uri_folder}}
  total:
    command: python add.py ${{inputs.numbers}} ${{inputs.factor}} ${{outputs.result}}
    code: ./add
    environment: {image: python}
    inputs: {numbers: "${{parent.jobs.twice.outputs.doubled}}", factor: "${{parent.inputs.factor}}"}
    outputs: {result: "${{parent.outputs.result}}"}
"""
TRIAL = """\
type: command
name: trial
version: "1"
command: python add.py ${{inputs.numbers}} ${{inputs.factor}} found.txt
code: ./add
environment: {image: python}
inputs:
  numbers: {type: uri_folder}
  factor: {type: integer}
"""
OUTER = """\
type: pipeline
settings: {default_compute: azureml:cpu}
inputs:
  numbers: {type: uri_folder, path: "./some data"}
jobs:
  outer:
    type: pipeline
    component: ./inner.yml
    inputs: {data: "${{parent.inputs.numbers}}", factor: 3}
  search:
    type: sweep
    trial: ./trial.yml
    inputs: {numbers: "${{parent.inputs.numbers}}"}
    search_space:
      factor: {type: choice, values: [2, 5]}
    sampling_algorithm: grid
    objective: {goal: maximize, primary_metric: result}
    limits: {max_total_trials: 2}
  tell:
    command: RESULT=${{inputs.result}} python tell.py
    code: ./tell
    environment: {image: python}
    inputs: {result: "${{parent.jobs.outer.outputs.result}}"}
"""


@pytest.fixture
def nested(project: PipelineProject) -> PipelineProject:
    """A pipeline with one in it, and a sweep."""
    (project.folder / "inner.yml").write_text(INNER)
    (project.folder / "trial.yml").write_text(TRIAL)
    project.pipeline.write_text(OUTER)
    return project


def test_a_step_of_a_nested_pipeline_stops_at_its_breakpoint(server: AzureMLServer, nested: PipelineProject) -> None:
    (nested.folder / "some data" / "doubled.txt").write_text("1 2")
    (endpoint,) = debug(nested, "--step", "outer.total")["endpoints"]
    assert endpoint["step"] == "outer.total"
    with session(endpoint, {nested.script("add"): [ADD_LINE]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "total") == "12"
        go_on(client, frame)
    status = nested.until_final()
    assert status["status"] == "Completed", [(run.name, run.status, run.error) for run in server.state.runs.values()]
    assert {step["name"] for step in status["steps"]} == {"outer.twice", "outer.total"}


def test_what_is_left_to_azure_runs_beside_what_is_debugged(server: AzureMLServer, nested: PipelineProject) -> None:
    (nested.folder / "some data" / "doubled.txt").write_text("1 2")
    nested.ok("pipeline.submit", "--no-debug", "--follow")
    trials = [run for run in server.state.runs.values() if (run.name or "").startswith("search_")]
    logs = ["".join(server.state.artifact(run, "user_logs/std_log.txt").read_text()) for run in trials]
    assert logs == ["total 3\n", "total 3\n"]
    assert Path(nested.step("tell")["log"]).read_text().startswith("the result is 36")


def test_a_dry_run_shows_what_would_be_submitted_without_the_network(
    server: AzureMLServer, nested: PipelineProject
) -> None:
    asked = len(server.requests)
    found = nested.ok("pipeline.submit", "--dry-run", "--json", "--rank", "all")
    steps = {one["step"]: one for one in found.json["steps"]}
    assert set(steps) == {"outer.twice", "outer.total", "search", "tell"}
    assert (
        steps["outer.total"]["compute"] == "cpu"
        and steps["outer.total"]["inputs"]["factor"] == "${{parent.inputs.factor}}"
    )
    assert steps["tell"]["debugged"]["way"].startswith("through the relay")
    assert steps["search"]["not_debugged"] == "it is of type sweep, and left to Azure"
    assert re.search(r"\n  debugger +none: it is of type sweep, and left to Azure\n", found.err)
    # The SDK reads which cloud it is in, where a variable names that.
    assert {one.path for one in server.requests[asked:]} <= {"/metadata/endpoints"}
    assert not list(nested.runs.glob("*"))


def test_a_dry_run_names_all_that_keeps_a_job_from_being_submitted(nested: PipelineProject) -> None:
    nested.pipeline.write_text(OUTER.replace("settings: {default_compute: azureml:cpu}\n", ""))
    (nested.folder / "config.json").unlink()
    found = nested.inv("pipeline.submit", "--dry-run", "--json", "--rank", "3", AML_COMPUTE_TARGET="")
    problems = [one["problem"] for one in found.json["missing"]]
    assert found.code == 1 and len(found.json["steps"]) == 4
    assert "No Azure ML workspace is named." in problems
    assert any("There is no rank 3" in one for one in problems), problems
    assert any("jobs.tell.compute" in one for one in problems), problems
