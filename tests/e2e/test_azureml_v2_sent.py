"""What a workspace is sent of a job of SDK v2 beside what is debugged: what the SDK alone sends, without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer
from pipelines import PipelineProject
from ready import run_lines
from workspaces import make_v2_project, workspace_of_v2

ENTRY = "def init():\n    pass\n\n\ndef run(batch):\n    return list(batch)\n"
TRIAL = """\
type: command
name: trial
version: "1"
inputs: {rate: {type: number}}
environment: {image: python}
code: .
command: python work.py ${{inputs.rate}}
"""
INNER = """\
type: pipeline
jobs:
  deep:
    command: python work.py
    code: .
    environment: {image: python}
"""
SPARK = """\
  spark:
    type: spark
    code: .
    entry: {file: work.py}
    resources: {instance_type: standard_e4s_v3, runtime_version: "3.4"}
    conf: {spark.driver.cores: 1, spark.driver.memory: 2g, spark.executor.cores: 2, spark.executor.memory: 2g,
      spark.executor.instances: 2}
    identity: {type: managed}
    inputs: {table: {type: uri_file, mode: direct, path: "azureml://datastores/workspaceblobstore/paths/table.csv"}}
    args: --table ${{inputs.table}}
"""
PARALLEL = """\
  batches:
    type: parallel
    inputs: {many: {type: uri_folder, path: "azureml://datastores/workspaceblobstore/paths/many/", mode: ro_mount}}
    outputs: {scored: {type: uri_file, mode: rw_mount}}
    input_data: ${{inputs.many}}
    mini_batch_size: "2"
    resources: {instance_count: 2}
    max_concurrency_per_instance: 2
    mini_batch_error_threshold: 1
    retry_settings: {max_retries: 3, timeout: 60}
    task:
      type: run_function
      code: .
      entry_script: entry.py
      environment: {image: python}
      append_row_to: ${{outputs.scored}}
"""
SWEEP = """\
  search:
    type: sweep
    trial: ./trial.yml
    search_space: {rate: {type: choice, values: [1, 2]}}
    sampling_algorithm: grid
    objective: {goal: maximize, primary_metric: result}
    limits: {max_total_trials: 2, timeout: 600}
"""
EVERY_KIND = f"""\
type: pipeline
display_name: every kind
experiment_name: kinds
description: all that Azure accepts
tags: {{whose: mine}}
settings: {{default_compute: azureml:cpu, continue_on_step_failure: false, force_rerun: true}}
identity: {{type: user_identity}}
jobs:
  train:
    command: python work.py
    code: ./work
    environment: {{image: python}}
    environment_variables: {{DEPTH: "3"}}
    identity: {{type: managed}}
    limits: {{timeout: 900}}
    resources: {{instance_count: 2, shm_size: 4g}}
    distribution: {{type: pytorch, process_count_per_instance: 2}}
    services: {{board: {{type: tensor_board, log_dir: outputs}}}}
  plain:
    command: python work.py
    code: ./work
    environment: azureml://registries/azureml/environments/curated/versions/5
    queue_settings: {{job_tier: spot}}
    limits: {{timeout: 60}}
  ready:
    type: command
    component: azureml://registries/azureml/components/ready_made/versions/0.0.2
    inputs: {{rate: 3}}
  outer: {{type: pipeline, component: ./inner.yml}}
  guess:
    type: automl
    task: classification
    primary_metric: accuracy
    target_column_name: label
    training_data: {{type: mltable, path: "azureml://datastores/workspaceblobstore/paths/table/"}}
    limits: {{timeout_minutes: 60, max_trials: 4, max_concurrent_trials: 2}}
    training: {{enable_stack_ensemble: false}}
    outputs: {{best_model: {{type: mlflow_model}}}}
{SPARK}{PARALLEL}{SWEEP}"""
SCHEDULE = """\
name: nightly
trigger: {type: cron, expression: "0 3 * * *", time_zone: UTC}
create_job: ./every.yml
"""
#: Submits a file by the SDK alone.
ALONE = """
import json, sys
from azure.ai.ml import MLClient, load_job
from azure.ai.ml.entities._load_functions import load_schedule
from azureml_server_credential import ServerCredential

file, name = sys.argv[1:]
workspace = json.load(open("config.json"))
client = MLClient(ServerCredential(), workspace["subscription_id"], workspace["resource_group"],
    workspace["workspace_name"], enable_telemetry=False, show_progress=False)
job = load_schedule(file).create_job if file.startswith("schedule") else load_job(file)
job.name = name
client.jobs.create_or_update(job)
"""
#: What must not leave this machine.
SECRETS = {".env", "token", "relay.key"}


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with workspace_of_v2() as made:
        properties = {"componentSpec": {"name": "ready_made", "version": "0.0.2", "type": "command", "command": "true"}}
        made.assets.register("azureml", "components", "ready_made", "0.0.2", properties)
        yield made


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_v2_project(tmp_path / "a project", server, tmp_path / "home")
    made.single("print('done')\n")
    for name, text in {
        "work.py": "print('done')\n",
        "entry.py": ENTRY,
        "trial.yml": TRIAL,
        "inner.yml": INNER,
        "every.yml": EVERY_KIND,
        "schedule.yml": SCHEDULE,
        ".env": "SECRET=hush\n",
    }.items():
        (made.folder / name).write_text(text)
    yield made
    made.clean_up()


def sent(server: AzureMLServer) -> list[str]:
    """The files of code that have been sent so far."""
    return [one.path for one in server.requests if one.method == "PUT" and one.path.startswith("/snapshots/")]


def secrets_in(paths: list[str]) -> list[str]:
    return [path for path in paths if SECRETS & set(path.split("?")[0].split("/")) or ".azureml-debug" in path]


def body(server: AzureMLServer, name: str) -> Any:
    return json.loads(json.dumps(server.jobs.specification(name)))


def end(project: PipelineProject) -> None:
    project.inv("pipeline.cancel")
    project.until_final()


def test_code_is_sent_without_secrets_whatever_kind_of_step_it_is_of(
    server: AzureMLServer, project: PipelineProject
) -> None:
    runs = project.folder / ".azureml-debug" / "runs" / "old"
    runs.mkdir(parents=True)
    for name in ("token", "relay.key"):
        (runs / name).write_text("hush")
    (project.folder / "lib").mkdir()
    (project.folder / "lib" / "sums.py").write_text("ONE = 1\n")
    (project.folder / "lib" / ".env").write_text("hush")
    (project.folder / "with lib.yml").write_text(
        "type: command\nname: with_lib\ncommand: python work.py\ncode: ./work\nadditional_includes: [./lib]\n"
        "environment: {image: python}\n"
    )
    (project.folder / "kept").mkdir()
    for name in ("work.py", ".env", "data.csv"):
        (project.folder / "kept" / name).write_text("1")
    (project.folder / "kept" / ".amlignore").write_text(".env\n*.csv\n")
    more = (
        "  lib: {type: command, component: './with lib.yml'}\n"
        "  kept: {command: python work.py, code: ./kept, environment: {image: python}}\n"
        "  built: {command: python work.py, code: ./work, environment: {build: {path: .}}}\n"
    )
    (project.folder / "Dockerfile").write_text("FROM python\n")
    (project.folder / "every.yml").write_text(EVERY_KIND + more)
    before = {path: path.read_bytes() for path in project.folder.glob("*") if path.is_file()}
    typed = ("--no-debug", "--no-wait", "--file", str(project.folder / "every.yml"))
    result = project.ok("pipeline.submit", *typed)
    first = sent(server)
    everything = [one.path for one in server.requests if one.method == "PUT"]
    assert not secrets_in(everything) and any(path.partition("?")[0].endswith("/Dockerfile") for path in everything)
    for step in ("outer.deep", "spark", "batches", "search"):
        assert f"note: the code of {step} is sent without .azureml-debug and .env" in result.out
    assert "note: the code of lib is sent without .env" in result.out and "code of kept" not in result.out
    names = [path.split("?")[0].rpartition("/")[2] for path in first]
    assert {"entry.py", "sums.py", "work.py"} <= set(names)
    # Once, with the project's folder: that folder's own ignore file counts where nothing is to be kept here.
    assert names.count("data.csv") == 1
    end(project)
    # What has been kept of the run above changes nothing of what is sent.
    project.ok("pipeline.submit", *typed)
    assert sent(server) == first
    end(project)
    assert {path: path.read_bytes() for path in before} == before
    # A debugged step's code is a copy anyway; what its environment is built of is sent by the SDK.
    job: dict[str, Any] = {"type": "command", "command": "python work.py", "code": "./work", "compute": "azureml:cpu"}
    job["environment"] = {"build": {"path": "."}}
    (project.folder / "job.yml").write_text(json.dumps(job))
    project.ok("pipeline.debug", "--file", str(project.folder / "job.yml"))
    assert not secrets_in([one.path for one in server.requests if one.method == "PUT"])
    end(project)


@pytest.mark.parametrize("file", ["every.yml", "schedule.yml"])
def test_the_workspace_is_sent_the_job_that_the_sdk_alone_sends(
    server: AzureMLServer, project: PipelineProject, file: str
) -> None:
    # With nothing to keep here the code is the same, too.
    (project.folder / ".amlignore").write_text(".env\n.azureml-debug\n.vscode\n")
    done = run_lines(project.python, ALONE, project.folder, project.environ, arguments=[file, "alone"])
    assert done.returncode == 0, done.stderr
    alone = body(server, "alone")
    typed = ("--file", str(project.folder / file), "--json")
    run = project.ok("pipeline.submit", "--no-debug", *typed, AML_COMPUTE_TARGET="").json
    ours = body(server, run["run_id"])
    end(project)
    assert ours["tags"].pop("azureml_debug.run")
    assert ours == alone
    # The server runs none of the other kinds, so that this run fails.
    result = project.inv("pipeline.debug", "--no-wait", *typed, AML_COMPUTE_TARGET="")
    assert "note: guess is not debugged: it is of type automl" in result.err
    *_, last = (run.id for run in server.state.runs.values() if run.parent is None)
    debugged = body(server, last)
    end(project)
    assert debugged["tags"].pop("azureml_debug.run")
    steps, were = debugged.pop("jobs"), alone.pop("jobs")
    assert debugged == alone
    for name in ("train", "plain"):
        changed, was = steps.pop(name), were.pop(name)
        assert changed.pop("componentId") != was.pop("componentId")
        assert changed["services"].pop("azureml_debug") and changed["environment_variables"].pop("AZUREML_DEBUG_STEP")
        for one, key in ((changed, "services"), (changed, "environment_variables")):
            if not one[key] and key not in was:
                del one[key]
        assert changed == was
    # Of a pipeline in it a step is debugged.
    assert steps["outer"].pop("componentId") != were["outer"].pop("componentId")
    assert steps == were
