"""What every backend promises: the same tests against each of them.

The workspace's need the SDK in the tests' own process, before whose start its surroundings have to be made: so the
last test here runs the others once more, with an interpreter that has it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from azureml_projects import python_with_sdk_v2, python_with_the_sdk
from azureml_server import AzureMLServer, client_environment
from pipelines import PipelineProject, running_marked
from projects import until
from workspaces import register_environments, without_variables

from workflows import backends
from workflows.backends.base import Backend, DebugRequest
from workflows.console import Console
from workflows.errors import UserError
from workflows.flows.pipeline import Wanted
from workflows.pipelines.reader import load_pipeline
from workflows.runs import attachable
from workflows.runs import record as records
from workflows.runs.record import RunRecord
from workflows.settings import resolve

Connect = Callable[[], Backend]
Submit = Callable[[DebugRequest | None], RunRecord]
#: Set by the last test: the settings of a workspace, as JSON.
WORKSPACE = json.loads(os.environ.get("AZUREML_DEBUG_TEST_WORKSPACE", "{}"))


@pytest.fixture(params=["azureml" if WORKSPACE else "local"])
def connect(request: pytest.FixtureRequest, pipelines: PipelineProject) -> Connect:
    """Makes the backend anew, as a later command does."""

    def make() -> Backend:
        environ = {**pipelines.environ, **WORKSPACE, "AML_BACKEND": str(request.param)}
        environ["AML_PIPELINE_FILE"] = str(pipelines.pipeline)
        return backends.load(resolve(pipelines.folder, environ=environ, cwd=pipelines.folder), Console(as_json=True))

    return make


@pytest.fixture
def submit(connect: Connect, pipelines: PipelineProject) -> Submit:
    """Starts a run of the project's pipeline, read as the backend reads it."""

    def start(debug: DebugRequest | None) -> RunRecord:
        backend = connect()
        if WORKSPACE.get("AML_SDK") == "v2":
            without_variables(pipelines)
        return backend.submit(backend.read(Wanted()) or load_pipeline(pipelines.pipeline), debug)

    return start


def test_a_run_goes_through_its_steps_by_itself_and_is_listed_and_found(
    connect: Connect, submit: Submit, tmp_path: Path
) -> None:
    run = submit(None)
    assert not run.final and not run.debugged
    later = connect()
    run = until(lambda: found if (found := later.refresh(run)).final else None, "the end")
    assert run.status == records.COMPLETED
    assert [step.status for step in run.steps] == [records.COMPLETED] * 3
    # A workspace says nothing of exit codes.
    assert [step.exit_code for step in run.steps] == ([None] * 3 if WORKSPACE else [0, 0, 0])
    assert all(step.started and step.ended for step in run.steps)
    assert b"the result is 36" in run.log(run.step("tell"), 0).read_bytes()
    # To cancel what is over changes nothing.
    assert later.cancel(run).status == records.COMPLETED
    runs_are_listed_latest_first_and_found_by_number_id_and_beginning(connect(), run, submit(None))
    # No run of another project is seen.
    (tmp_path / "elsewhere").mkdir()
    other = backends.load(resolve(tmp_path / "elsewhere", environ={}, cwd=tmp_path), Console(as_json=True))
    assert other.runs() == []


def runs_are_listed_latest_first_and_found_by_number_id_and_beginning(
    backend: Backend, first: RunRecord, second: RunRecord
) -> None:
    assert [run.run_id for run in backend.runs()] == [second.run_id, first.run_id]
    assert backend.find(None).run_id == second.run_id
    for wanted in (str(first.number), first.run_id, first.run_id[:-3]):
        assert backend.find(wanted).run_id == first.run_id
    with pytest.raises(UserError, match="no run 99"):
        backend.find("99")


def test_a_debugged_step_announces_itself_and_cancel_ends_everything(connect: Connect, submit: Submit) -> None:
    backend = connect()
    run = submit(DebugRequest(steps=("add",)))
    assert [step.debugged for step in run.steps] == [False, True, False]

    def waits() -> bool:
        fresh = backend.refresh(run)
        return any(one.state == attachable.WAITING and one.is_open for one in attachable.attachables_of_run(fresh))

    until(waits, "the step waiting")
    run = connect().cancel(run)
    assert run.status == records.CANCELED
    assert [step.status for step in run.steps] == [records.COMPLETED, records.CANCELED, records.CANCELED]
    assert not running_marked(run.run_id)
    assert connect().refresh(run).status == records.CANCELED


def test_a_submission_that_fails_leaves_no_run(connect: Connect, submit: Submit, pipelines: PipelineProject) -> None:
    broken = pipelines.folder / "broken.yml"
    broken.write_text("name: x\ndependencies:\n  - no-such-package-of-anybody-at-all==7\n")
    text = pipelines.pipeline.read_text()
    named = "azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest"
    environment = "{image: 'azureml-debug/base:latest', conda_file: ./broken.yml}"
    if WORKSPACE:
        # It builds environments only when a step is to run.
        environment = "azureml:no-such-package-of-anybody-at-all@latest"
    pipelines.pipeline.write_text(text.replace(named, environment))
    with pytest.raises(UserError) as caught:
        submit(None)
    assert "no-such-package-of-anybody-at-all" in str(caught.value) + "".join(caught.value.details)
    assert connect().runs() == []


@pytest.mark.skipif(bool(WORKSPACE), reason="it is what runs this")
@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_all_of_this_holds_in_a_workspace_too(tmp_path: Path, sdk: str) -> None:
    if sdk == "v2" and os.geteuid():
        pytest.skip("a container's users are made with mount, which takes root")
    python = python_with_the_sdk() if sdk == "v1" else python_with_sdk_v2()
    with AzureMLServer(python=python, secure=sdk == "v2") as server:
        register_environments(server)
        state = server.state
        workspace = {
            "AML_SUBSCRIPTION_ID": state.subscription,
            "AML_RESOURCE_GROUP": state.group,
            "AML_WORKSPACE": state.workspace,
            "AML_COMPUTE_TARGET": "cpu",
            "AML_SDK": sdk,
            "AML_AUTH": "interactive" if sdk == "v1" else "azureml_server_credential:ServerCredential",
        }
        environ = client_environment(server, tmp_path / "home")
        environ["AZUREML_DEBUG_TEST_WORKSPACE"] = json.dumps(workspace)
        done = subprocess.run(
            [
                python,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-W",
                "ignore",
                "-k",
                "process",
                __file__,
            ],
            env=environ,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.unknown == []
