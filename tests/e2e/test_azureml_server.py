"""The server that the tests of Azure ML talk to, through the real SDK: it does what is submitted."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from azureml_client import Client
from azureml_server import AzureMLServer, Fault, write_configuration
from conftest import missing

TRAIN = """
import os, pathlib, sys, time
from azureml.core import Run
run = Run.get_context()
run.tag("place", "127.0.0.1:5678")
run.log("loss", 0.5)
run.log("loss", 0.25)
os.makedirs("outputs", exist_ok=True)
pathlib.Path("outputs/model.txt").write_text("a model")
run.upload_file("outputs/sent.txt", __file__)
print(type(run).__name__, sys.argv[1:], flush=True)
"""
SLEEP = "import time\nprint('asleep', flush=True)\ntime.sleep(600)\n"


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[AzureMLServer]:
    """The server, with the behaviour that a test's parameter says."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK", "")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK names no Python that has azureml-core and azureml-pipeline-core")
    with AzureMLServer(python=python, **getattr(request, "param", {})) as made:
        yield made
        processes = [number for run in made.state.runs.values() for number in made.runner.processes(run)]
    assert not any(map(psutil.pid_exists, processes)), "processes are left"
    assert made.unknown == []


@pytest.fixture
def client(server: AzureMLServer, tmp_path: Path) -> Client:
    (tmp_path / "src").mkdir()
    write_configuration(server, tmp_path)
    return Client(server, tmp_path, os.environ["AZUREML_DEBUG_TEST_SDK"])


# Pipelines


def test_a_step_is_really_run_and_its_context_is_a_submitted_run(client: Client) -> None:
    client.write("train.py", TRAIN)
    found = client.ok(
        """
run = experiment.submit(Pipeline(workspace, [step("train", "train.py", ["--epochs", 3])]))
status = ended(run)
(child,) = run.get_children()
show(
    status=status, child=child.get_status(), kind=type(child).__name__, tags=child.get_tags(),
    metrics=child.get_metrics(), files=child.get_file_names(),
    log=text(child, "azureml-logs/70_driver_log.txt"), out=child.get_stdout_log(),
)
"""
    )
    assert (found["status"], found["child"], found["kind"]) == ("Finished", "Finished", "StepRun")
    assert found["tags"]["place"] == "127.0.0.1:5678" and found["metrics"] == {"loss": [0.5, 0.25]}
    assert found["log"] == found["out"] == "_SubmittedRun ['--epochs', '3']\n"
    assert {"outputs/model.txt", "outputs/sent.txt"} <= set(found["files"])


def test_steps_run_in_order_and_hand_their_data_on(client: Client) -> None:
    client.write(
        "first.py",
        "import pathlib, sys\nfrom parts.part import X\n"
        "given, made = map(pathlib.Path, sys.argv[1:3])\nmade.mkdir()\n"
        "(made / 'x').write_text((given / 'a.csv').read_text() + X + sys.argv[3])\n",
    )
    client.write("parts/part.py", "X = 'from a part '\n")
    (client.folder / "data").mkdir()
    (client.folder / "data" / "a.csv").write_text("1,2 ")
    found = client.ok(
        """
store = workspace.get_default_datastore()
store.upload("data", target_path="given", show_progress=False)
given = DataReference(store, "given", path_on_datastore="given")
made = PipelineData("made", datastore=store)
rate = PipelineParameter("rate", 0.1)
first = step("first", "first.py", [given, made, rate], inputs=[given], outputs=[made])
second = step("second", command="cat $AZUREML_DATAREFERENCE_made/x && echo $WORD", inputs=[made],
              configuration=(configuration := RunConfiguration()))
configuration.environment_variables = {"WORD": "a word"}
run = experiment.submit(Pipeline(workspace, [second]), pipeline_parameters={"rate": 0.7})
show(status=ended(run), log=text(run.find_step_run("second")[0], "azureml-logs/70_driver_log.txt"))
"""
    )
    assert found == {"status": "Finished", "log": "1,2 from a part 0.7a word\n"}


def test_a_step_that_fails_ends_the_pipeline_and_those_after_it_never_begin(client: Client) -> None:
    client.write("bad.py", "raise SystemExit(3)\n")
    client.write("good.py", "")
    found = client.ok(
        """
bad, good = step("bad", "bad.py"), step("good", "good.py")
good.run_after(bad)
run = experiment.submit(Pipeline(workspace, [good]))
show(status=ended(run), error=run.get_details()["error"]["error"]["message"],
     children={child.name: child.get_details()["error"]["error"]["message"] for child in run.get_children()})
"""
    )
    assert found["status"] == "Failed" and "/bad" in found["error"]
    assert list(found["children"]) == ["bad"] and "non-zero exit code: 3" in found["children"]["bad"]


@pytest.mark.parametrize("server", [{"layout": "azureml-logs"}, {"layout": "user_logs"}], indirect=True)
def test_ranks_are_processes_with_a_log_each(server: AzureMLServer, client: Client) -> None:
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "RANK", "WORLD_SIZE")
    client.write("ranks.py", f"import os\nprint(*[os.environ.get(name) for name in {names}])\n")
    found = client.ok(
        """
mpi = RunConfiguration()
mpi.communicator, mpi.node_count, mpi.mpi.process_count_per_node = "OpenMpi", 2, 2
alone = step("alone", "ranks.py")
run = experiment.submit(Pipeline(workspace, [step("mpi", "ranks.py", configuration=mpi), alone]))
torch = experiment.submit(ScriptRunConfig("src", "ranks.py", compute_target="cpu",
    distributed_job_config=PyTorchConfiguration("Gloo", process_count=2, node_count=1)))
status = ended(run), ended(torch)
runs = {child.name: child for child in run.get_children()} | {"torch": torch}
show(status=status, logs={
    name: {log: text(one, log) for log in one.get_details()["logFiles"] if "std_log" in log or "driver" in log}
    for name, one in runs.items()
})
"""
    )
    assert found["status"] == ["Finished", "Completed"]
    old = server.behaviour.layout == "azureml-logs"
    single, several = (
        ("azureml-logs/70_driver_log.txt", "azureml-logs/70_driver_log_{}.txt")
        if old
        else ("user_logs/std_log.txt", "user_logs/std_log_process_{}.txt")
    )
    assert found["logs"]["alone"] == {single: "None None None None None\n"}
    assert found["logs"]["mpi"] == {several.format(rank): f"{rank} 4 {rank % 2} None None\n" for rank in range(4)}
    assert found["logs"]["torch"] == {several.format(rank): f"None None None {rank} 2\n" for rank in range(2)}


def test_a_log_grows_while_the_step_runs_and_only_what_is_new_is_fetched(client: Client) -> None:
    # Each word waits until the one before has been fetched, and nothing more was there.
    client.write(
        "tick.py",
        "import os, time\nfor n in range(4):\n    print('tick', n, flush=True)\n"
        f"    while not os.path.exists({str(client.folder)!r} + f'/seen-{{n}}'):\n        time.sleep(0.02)\n",
    )
    found = client.ok(
        f"seen = {str(client.folder / 'seen-')!r}"
        + """
import requests
run = experiment.submit(Pipeline(workspace, [step("tick", "tick.py")]))
until(lambda: list(run.get_children()))
(child,) = run.get_children()
name = "azureml-logs/70_driver_log.txt"
until(lambda: name in child.get_details()["logFiles"])
url, parts, refused = child.get_details()["logFiles"][name], [], 0
while True:
    over = run.get_status() == "Finished"
    answer = requests.get(url, headers={"Range": f"bytes={sum(map(len, parts))}-"})
    if answer.status_code == 416:
        refused += 1
        open(seen + str("".join(parts).count("\\n") - 1), "w").close()
    if answer.status_code == 206:
        parts.append(answer.text)
    if over:
        break
    time.sleep(0.1)
show(parts=parts, refused=refused)
"""
    )
    assert "".join(found["parts"]) == "".join(f"tick {n}\n" for n in range(4))
    assert len(found["parts"]) >= 4 and found["refused"] >= 4


@pytest.mark.parametrize(
    "server",
    [{"pauses": {"NotStarted": 4.0, "Queued": 2.0, "Preparing": 2.0}, "build_seconds": 2.0}],
    indirect=True,
)
def test_a_run_goes_through_its_states_and_builds_its_image(client: Client) -> None:
    client.write("train.py", "import time\ntime.sleep(1)\n")
    found = client.ok(
        """
run = experiment.submit(ScriptRunConfig("src", "train.py", compute_target="cpu"))
states, log = [], ""
while not states or states[-1] != "Completed":
    details = run.get_details()
    states += [details["status"]] if details["status"] not in states else []
    if "azureml-logs/20_image_build_log.txt" in details["logFiles"] and not log:
        log = text(run, "azureml-logs/20_image_build_log.txt")
    time.sleep(0.05)
show(states=states, log=log)
"""
    )
    assert found["states"] == ["NotStarted", "Queued", "Preparing", "Running", "Completed"]
    assert found["log"].startswith("Step 1/5")


@pytest.mark.parametrize("server", [{"build_fails": True}], indirect=True)
def test_an_image_that_cannot_be_built_fails_the_run(client: Client) -> None:
    client.write("train.py", "")
    found = client.ok(
        """
run = experiment.submit(ScriptRunConfig("src", "train.py", compute_target="cpu"))
show(status=ended(run), error=run.get_details()["error"]["error"]["message"],
     log=text(run, "azureml-logs/20_image_build_log.txt"))
"""
    )
    assert found["status"] == "Failed" and "Image build failed" in found["error"]
    assert "No matching distribution" in found["log"]


# Ends


def test_cancel_ends_the_processes_of_every_step(server: AzureMLServer, client: Client) -> None:
    client.write("sleep.py", SLEEP)
    found = client.ok(
        """
run = experiment.submit(Pipeline(workspace, [step("one", "sleep.py"), step("two", "sleep.py")]))
until(lambda: [child.get_status() for child in run.get_children()] == ["Running"] * 2)
run.cancel()
until(lambda: run.get_status() == "Canceled")
show(children=[child.get_status() for child in run.get_children()], history=run.get_details()["status"])
"""
    )
    assert found == {"children": ["Canceled", "Canceled"], "history": "Canceled"}
    assert [server.runner.processes(run) for run in server.steps()] == [[], []]


def test_cancel_of_a_submitted_run(server: AzureMLServer, client: Client) -> None:
    client.write("sleep.py", SLEEP)
    client.ok(
        """
run = experiment.submit(ScriptRunConfig("src", "sleep.py", compute_target="cpu"))
until(lambda: run.get_status() == "Running")
run.cancel()
until(lambda: run.get_status() == "Canceled")
"""
    )
    (run,) = server.state.runs.values()
    assert server.runner.processes(run) == []


def test_a_run_is_cancelled_from_elsewhere_or_loses_its_node(server: AzureMLServer, client: Client) -> None:
    client.write("sleep.py", SLEEP)
    client.ok('experiment.submit(Pipeline(workspace, [step("one", "sleep.py")]), regenerate_outputs=True)\n' * 2)
    deadline = time.monotonic() + 60
    while len([run for run in server.steps() if server.runner.processes(run)]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first, second = server.steps("one")
    server.preempt(first)
    server.cancel(second)
    assert server.wait(first).status == "Failed" and "NodePreempted" in str(first.error)
    assert server.wait(second).status == "Canceled"


def test_a_compute_without_nodes_keeps_its_runs_queued(server: AzureMLServer, client: Client) -> None:
    server.add_compute("none", nodes=0)
    client.write("train.py", "")
    found = client.ok(
        """
run = experiment.submit(Pipeline(workspace, [step("train", "train.py", compute_target="none")]))
until(lambda: list(run.get_children()))
time.sleep(1)
(child,) = run.get_children()
before = child.get_status()
run.cancel()
until(lambda: run.get_status() == "Canceled")
show(before=before, nodes=workspace.compute_targets["none"].get_status().serialize()["currentNodeCount"])
"""
    )
    assert found == {"before": "Queued", "nodes": 0}


# Submitted runs, environments, models


def test_a_submitted_run_with_a_registered_environment(client: Client) -> None:
    client.write("train.py", "import os, sys\nprint(os.environ['WORD'], sys.argv[1])\n")
    found = client.ok(
        """
environment = Environment("mine")
environment.environment_variables = {"WORD": "word"}
environment.python.conda_dependencies.add_pip_package("debugpy")
registered = environment.register(workspace)
again = environment.register(workspace)
run = experiment.submit(ScriptRunConfig("src", "train.py", ["x"], compute_target="cpu", environment=registered))
child = run.child_run("inner")
child.tag("a", "b")
child.complete()
show(
    versions=[registered.version, again.version, Environment.get(workspace, "mine").version],
    pip=list(Environment.get(workspace, "mine").python.conda_dependencies.pip_packages),
    image=registered.get_image_details(workspace)["dockerImage"]["name"], status=ended(run),
    log=text(run, "azureml-logs/70_driver_log.txt"),
    children=[[one.name, one.get_status(), one.get_tags()] for one in run.get_children()],
    runs=[one.id == run.id for one in experiment.get_runs()],
)
"""
    )
    assert found["versions"] == ["1", "1", "1"] and "debugpy" in found["pip"] and "mine" in found["image"]
    assert (found["status"], found["log"]) == ("Completed", "word x\n")
    assert found["children"] == [[">inner", "Completed", {"a": "b"}]] and found["runs"] == [True]


def test_models_have_versions(client: Client) -> None:
    client.write("model/weights.txt", "1 2 3")
    found = client.ok(
        """
for _ in range(2):
    Model.register(workspace, model_path="src/model", model_name="one")
def missing(**wanted):
    try:
        Model(workspace, **wanted)
    except Exception as error:
        return str(error)
Model(workspace, "one").download("got")
show(latest=Model(workspace, "one").version, first=Model(workspace, "one", version=1).id,
     all=[model.id for model in Model.list(workspace)], none=missing(name="two"), old=missing(id="one:9"))
"""
    )
    assert (found["latest"], found["first"], found["all"]) == (2, "one:1", ["one:2", "one:1"])
    assert "two not found" in found["none"] and found["old"]
    assert (client.folder / "got" / "model" / "weights.txt").read_text() == "1 2 3"


PACKAGE = """
import docker
from azureml.core.model import InferenceConfig
model = Model.register(workspace, model_path="src/model", model_name="one")
environment = Environment("inference")
environment.python.conda_dependencies.add_pip_package("azureml-defaults")
configuration = InferenceConfig("score.py", source_directory="src/service", environment=environment)
package = Model.package(workspace, [model], configuration)
"""


@pytest.mark.parametrize("server", [{"package_fails": "no space left on the builder"}], indirect=True)
def test_a_package_that_cannot_be_built_has_a_log(client: Client) -> None:
    client.write("model/weights.txt", "1 2 3")
    client.write("service/score.py", "")
    found = client.ok(
        PACKAGE
        + """
until(lambda: (package.update_creation_state(), package.state)[1] == "Failed")
show(log=package.get_logs(), error=package.error)
"""
    )
    assert "ERROR: no space left on the builder" in found["log"] and "no space" in found["error"]["message"]


@pytest.mark.docker
def test_a_packaged_image_is_pulled_and_serves(client: Client, docker_engine: None) -> None:
    client.write("model/weights.txt", "1 2 3")
    client.write(
        "service/score.py",
        "import os\ndef init():\n    global text\n"
        "    text = open(os.environ['AZUREML_MODEL_DIR'] + '/model/weights.txt').read()\n"
        "def run(data):\n    return text\n",
    )
    found: dict[str, Any] = client.ok(
        PACKAGE
        + """
import requests
package.wait_for_creation(show_output=True)
package.pull()
engine = docker.from_env()
image = engine.images.get(package.location)
container = engine.containers.run(package.location, detach=True, ports={"5001/tcp": ("127.0.0.1", 0)})
try:
    container.reload()
    port = container.ports["5001/tcp"][0]["HostPort"]
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = requests.post(f"http://127.0.0.1:{port}/score", json={}).json()
            break
        except requests.ConnectionError:
            assert time.monotonic() < deadline, container.logs()
            time.sleep(0.2)
finally:
    container.remove(force=True)
    engine.images.remove(package.location, force=True)
context = Model.package(workspace, [model], configuration, generate_dockerfile=True)
context.wait_for_creation()
context.save("context")
show(location=package.location, digests=image.attrs["RepoDigests"], labels=image.labels, answer=answer,
     log=package.get_logs(), registry=context.get_container_registry().username)
""",
        seconds=280,
    )
    assert found["answer"] == "1 2 3"
    assert not any(found["labels"].values()), "it would be taken for an environment of this program's"
    assert found["location"].startswith(client.server.url.removeprefix("http://") + "/package:")
    assert found["digests"][0].split("@")[1] in found["log"]
    assert (client.folder / "context" / "azureml-app" / "service" / "score.py").is_file()
    first = (client.folder / "context" / "Dockerfile").read_text().splitlines()[0]
    assert first.startswith("FROM " + client.server.url.removeprefix("http://")) and found["registry"]


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET .*/PipelineRuns/", status=429, retry_after=1, times=2),
        Fault("GET .*/details", status=500, times=2),
        Fault("GET .*/details", drop=True, times=2),
        Fault("GET .*/details", delay=1, times=1),
        Fault("GET .*/details", status=503, times=1),
    ],
    ids=lambda fault: f"{fault.status or ('drop' if fault.drop else 'slow')}",
)
def test_faults_that_pass(client: Client, fault: Fault) -> None:
    client.write("train.py", "")
    client.server.faults.add(fault)
    found = client.ok(
        """
run = experiment.submit(Pipeline(workspace, [step("train", "train.py")]))
def tried(call):
    for _ in range(5):
        try:
            return call()
        except Exception as error:
            print(type(error).__name__, str(error)[:200], file=sys.stderr)
            time.sleep(0.2)
until(lambda: tried(run.get_status) in ("Finished", "Failed"))
show(status=tried(lambda: run.get_details()["status"]))
"""
    )
    assert found == {"status": "Completed"} and fault.hit == fault.times


def test_an_answer_that_is_cut_short(client: Client) -> None:
    client.write("train.py", "print('word ' * 1000)\n")
    client.server.faults.cut("GET .*70_driver_log", times=1)
    found = client.ok(
        """
import requests
run = experiment.submit(ScriptRunConfig("src", "train.py", compute_target="cpu"))
ended(run)
try:
    text(run, "azureml-logs/70_driver_log.txt")
except requests.RequestException as error:
    show(error=type(error).__name__, then=len(text(run, "azureml-logs/70_driver_log.txt")))
"""
    )
    assert found == {"error": "ChunkedEncodingError", "then": 5001}


def test_credentials_that_do_not_do(client: Client) -> None:
    client.token_seconds = -60
    expired = client.run("")
    assert expired.returncode == 1 and "401" in expired.stderr + expired.stdout
    client.token_seconds = 3600
    client.server.faults.fail("GET .*/workspaces/[^/]*$", 403)
    forbidden = client.run("")
    assert forbidden.returncode == 1 and "AuthorizationFailed" in forbidden.stderr
    client.server.faults.clear()
    client.server.faults.fail("GET .*/runs/", 401)
    later = client.run("Run(experiment, experiment.id).get_status()")
    assert later.returncode == 1 and "Code: 401" in later.stderr and "access token expiry" in later.stderr


def test_what_is_not_there(client: Client) -> None:
    client.write("train.py", "")
    found = client.ok(
        """
def said(call):
    try:
        call()
    except BaseException as error:
        return str(error)
show(
    step=said(lambda: Pipeline(workspace, [step("train", "train.py", compute_target="none")])),
    run=said(lambda: experiment.submit(ScriptRunConfig("src", "train.py", compute_target="none"))),
    environment=said(lambda: Environment.get(workspace, "none")),
    workspace=said(lambda: Workspace.get("none", subscription_id=workspace.subscription_id, resource_group="group")),
)
"""
    )
    assert "none does not exist in the workspace" in found["step"]
    assert "Unable to find compute target: none" in found["run"]
    assert "No environment exists for name: none" in found["environment"]
    assert "Workspace not found" in found["workspace"]


def test_a_process_that_does_without_the_sdk_imports_nothing_of_it(client: Client) -> None:
    lines = "import sys; sys.exit(any(name.startswith('azureml') for name in sys.modules))"
    subprocess.run([client.python, "-c", lines], cwd=client.folder, env=client.environment(), check=True)
