"""What an Azure ML YAML file is, told from its content."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.assets.kinds import JOBS, check_is_script, kind_of_file, wrong_kind
from workflows.errors import UserError
from workflows.pipelines.yaml_file import read_yaml

S = "$schema: https://azuremlschemas.azureedge.net/latest/"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"{S}pipelineJob.schema.json\njobs: {{a: {{command: ls}}}}", "pipeline job"),
        ("type: pipeline\njobs: {a: {command: ls}}", "pipeline job"),
        ("type: pipeline\ncomponent: ./a.yml", "pipeline job"),
        (f"{S}pipelineComponent.schema.json\ntype: pipeline\njobs: {{a: {{command: ls}}}}", "pipeline component"),
        (f"{S}commandJob.schema.json\ncommand: ls\nenvironment: azureml:a@latest", "command job"),
        ("command: ls\ninputs: {a: 1}", "command job"),
        (f"{S}commandComponent.schema.json\ntype: command\nname: a\ncommand: ls", "command component"),
        ("type: command\nname: a\ninputs: {data: {type: uri_folder}}\ncommand: ls", "command component"),
        ("name: a\ntype: command\ninputs: {data: {type: uri_folder, path: ./x}}\ncommand: ls", "command job"),
        ("type: CommandComponent\nname: a\ncommand: ls", "command component"),
        ("type: sweep\ntrial: {command: ls}\nsearch_space: {}", "sweep job"),
        ("trial: ./train.yml\nsearch_space: {}\nobjective: {}", "sweep job"),
        (f"{S}parallelComponent.schema.json\ntype: parallel\ntask: {{}}\nmini_batch_size: '1'", "parallel component"),
        ("task: {type: run_function}\nmini_batch_size: '1'\nname: a", "parallel component"),
        (f"{S}schedule.schema.json\nname: a\ntrigger: {{}}\ncreate_job: ./a.yml", "schedule"),
        ("name: a\ntrigger: {type: cron}\ncreate_job: {type: pipeline, job: ./a.yml}", "schedule"),
        ("name: a\ntrigger: {type: cron}\ncreate_monitor: {}", "monitoring schedule"),
        ("type: spark\nentry: {file: a.py}", "Spark job"),
        (f"{S}autoMLJob.schema.json\ntask: classification", "AutoML job"),
        (f"{S}managedOnlineDeployment.schema.json\nname: blue\nendpoint_name: e", "online deployment"),
        ("name: blue\nendpoint_name: e\nmodel: {path: ./m}\ninstance_count: 1", "online deployment"),
        (f"{S}kubernetesOnlineDeployment.schema.json\nname: blue\ntype: kubernetes", "online deployment"),
        (f"{S}batchDeployment.schema.json\nname: b\nendpoint_name: e", "batch deployment"),
        (f"{S}modelBatchDeployment.schema.json\nname: b\nendpoint_name: e\ntype: model", "batch deployment"),
        ("name: b\nendpoint_name: e\nmini_batch_size: 10\nmodel: {path: ./m}", "batch deployment"),
        (f"{S}managedOnlineEndpoint.schema.json\nname: e\nauth_mode: key", "online endpoint"),
        ("name: e\nauth_mode: key", "online endpoint"),
        (f"{S}batchEndpoint.schema.json\nname: e\nauth_mode: aad_token", "batch endpoint"),
        (f"{S}environment.schema.json\nname: e\nimage: a", "environment"),
        ("name: e\nimage: a\nconda_file: ./conda.yml", "environment"),
        (f"{S}data.schema.json\nname: d\npath: ./d", "data asset"),
        ("name: d\ntype: uri_folder\npath: ./d", "data asset"),
        (f"{S}model.schema.json\nname: m\npath: ./m", "model"),
        ("name: m\ntype: mlflow_model\npath: ./m", "model"),
        (f"{S}modelVersionPackage.schema.json\nmodel_configuration: {{}}", "model package"),
        (f"{S}amlCompute.schema.json\nname: c\ntype: amlcompute", "compute target"),
        ("name: c\ntype: computeinstance", "compute target"),
        (f"{S}azureBlob.schema.json\nname: s\ntype: azure_blob", "datastore"),
        (f"{S}workspace.schema.json\nname: w\nlocation: here", "workspace"),
        ("name: e\ndependencies: [pip]", "conda file"),
        ("flavors: {sklearn: {}}\nartifact_path: model\nmlflow_version: 2.0.0", "description of an MLflow model"),
        ("paths: [{file: ./a.csv}]\ntransformations: []", "MLTable"),
        # A schema that was copied from another file does not count against what the file has.
        (f"{S}commandJob.schema.json\ntype: pipeline\njobs: {{a: {{command: ls}}}}", "pipeline job"),
        (f"{S}pipelineJob.schema.json\ntype: sweep\ntrial: {{}}", "sweep job"),
    ],
)
def test_a_kind_is_told_from_schema_type_and_keys(text: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text(text)
    kind = kind_of_file(file)
    assert kind is not None
    assert kind.name == name


@pytest.mark.parametrize("text", ["", "- a", "a: [", "just: this", "version: 2\nservices: {web: {}}"])
def test_what_is_none_of_azure_mls_files_has_no_kind(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text(text)
    assert kind_of_file(file) is None


def test_a_file_of_another_kind_is_refused_with_what_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "blue.yml"
    file.write_text("name: blue\nendpoint_name: e\nmodel: {path: ./m}\ninstance_count: 1\n")
    error = wrong_kind(read_yaml(file, "file"), "a pipeline or a job", JOBS)
    assert error.problem == "blue.yml is an online deployment, not a pipeline or a job."
    assert error.remedy == f"It is taken by: `inv deploy.debug --deployment {file}`."


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        (
            "type: automl\ntask: classification\n",
            "a.yml is an AutoML job, which runs in Azure only.",
            "STEP.OUTPUT=PATH",
        ),
        ("type: mltable\npaths: [{file: ./a.csv}]\n", "a.yml is an MLTable, not a pipeline or a job.", "--input NAME="),
        ("name: e\nimage: debian\n", "a.yml is an environment, not a pipeline or a job.", "`environment: file:"),
        ("name: d\ntype: uri_file\npath: ./a.csv\n", "a.yml is a data asset, not a", "--input NAME=PATH of a pipeline"),
    ],
)
def test_what_to_do_with_a_file_of_another_kind_can_be_done(
    text: str, problem: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "a.yml").write_text(text)
    error = wrong_kind(read_yaml(tmp_path / "a.yml", "file"), "a pipeline or a job", JOBS)
    assert error.problem.startswith(problem)
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("text", "flag", "problem", "remedy"),
    [
        ("command: ls", "--script", "a.yml is a command job; --script takes a Python script.", "--job"),
        ("command: ls", "--score-script", "a.yml is a command job;", "inv pipeline.debug --file"),
        (
            "name: b\nendpoint_name: e\nmodel: {}",
            "--score-script",
            "is an online deployment;",
            "inv deploy.debug --dep",
        ),
        ("a: [", "--script", "a.yml is a YAML file;", "Name the script."),
    ],
)
def test_a_yaml_file_as_a_script_is_refused_with_what_takes_it(
    text: str, flag: str, problem: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yml").write_text(text)
    with pytest.raises(UserError) as caught:
        check_is_script(tmp_path / "a.yml", flag)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


def test_a_script_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "folder.yml").mkdir()
    for name in ("train.py", "none.yml", "folder.yml"):
        check_is_script(tmp_path / name, "--script")
