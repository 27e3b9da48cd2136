"""Files that hold no pipeline, and are run as one of one step: jobs, components, sweeps, schedules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_pipeline_reader import COMPONENT, only
from test_pipeline_reader import load as load  # a fixture

from workflows.errors import BadValue, UserError
from workflows.pipelines.definition import Pipeline
from workflows.pipelines.expressions import render_command
from workflows.pipelines.reader import load_pipeline

Load = Callable[..., Pipeline]
S = "$schema: https://azuremlschemas.azureedge.net/latest/"
JOB = f"""\
{S}commandJob.schema.json
command: python x.py --a ${{{{inputs.a}}}} --d ${{{{inputs.d}}}} --o ${{{{outputs.o}}}}
code: src
environment: {{image: debian, conda_file: conda.yml}}
environment_variables: {{A: b}}
inputs:
  a: 0.5
  d: {{type: uri_folder, path: ./data}}
outputs:
  o: {{type: uri_folder}}
distribution: {{type: pytorch, process_count_per_instance: 2}}
resources: {{instance_count: 2, shm_size: 2g}}
compute: azureml:cluster
display_name: My job
experiment_name: mine
description: |
  Much of it.
"""
SWEEP = f"""\
{S}sweepJob.schema.json
type: sweep
trial:
  command: python x.py --a ${{{{inputs.a}}}} --b ${{{{search_space.b}}}} --c ${{{{search_space.c}}}}
  code: src
  environment: azureml:any@latest
inputs: {{a: 1}}
sampling_algorithm: random
search_space:
  b: {{type: choice, values: [hello, world]}}
  c: {{type: uniform, min_value: 0.1, max_value: 1.0}}
objective: {{goal: minimize, primary_metric: m}}
limits: {{max_total_trials: 4}}
compute: azureml:cluster
"""


def texts(pipeline: Pipeline) -> dict[str, str | None]:
    return {name: one.text for name, one in only(pipeline).inputs.items()}


def test_a_command_job_is_a_pipeline_of_one_step(load: Load, tmp_path: Path) -> None:
    pipeline = load(JOB)
    step = only(pipeline)
    assert (pipeline.name, step.name, pipeline.outputs) == ("My-job", "My-job", {"o": ("My-job", "o")})
    assert (step.code, step.file, step.line) == (tmp_path / "src", tmp_path / "pipeline.yml", 2)
    assert step.environment is not None
    assert step.environment.conda_file == tmp_path / "conda.yml"
    assert (step.variables, step.compute) == ({"A": "b"}, "cluster")
    assert (step.distribution, step.processes, step.instances, step.shm_size) == ("pytorch", 2, 2, "2g")
    assert (step.inputs["a"].text, step.inputs["d"].path, step.outputs) == (
        "0.5",
        tmp_path / "data",
        {"o": "uri_folder"},
    )
    assert (step.inputs["a"].line, pipeline.notes) == (7, ())


def test_an_input_of_a_job_may_have_a_name_with_a_space(load: Load) -> None:
    found = load("type: command\ncommand: echo \"${{inputs['b c']}}\"\nenvironment: azureml:x:1\ninputs: {b c: 1}\n")
    assert texts(found) == {"b c": "1"} and found.notes == ()


@pytest.mark.parametrize("name", ["a", "My-job.a"])
def test_inputs_of_a_job_are_replaced_as_those_of_a_pipeline(load: Load, name: str) -> None:
    assert texts(load(JOB, {name: "0.7"}))["a"] == "0.7"
    with pytest.raises(BadValue, match="has to be a number"):
        load(JOB, {"a": "seven"})


def test_a_command_component_is_run_with_its_defaults_and_what_is_given(load: Load, tmp_path: Path) -> None:
    given = {"data": "data", "epochs": "5"}
    pipeline = load_pipeline(Path("fit/fit.yml"), given)
    assert texts(pipeline) | {"data": None} == {
        "data": None,
        "epochs": "5",
        "rate": "0.1",
        "verbose": "False",
        "schedule": "step",
        "start_from": None,
    }
    step = only(pipeline)
    assert (step.name, step.code, step.inputs["data"].path) == ("fit", tmp_path / "fit" / "src", tmp_path / "data")
    assert pipeline.outputs == {"model": ("fit", "model")}


def test_what_a_component_needs_and_was_not_given_is_named(load: Load) -> None:
    with pytest.raises(UserError) as caught:
        load_pipeline(Path("fit/fit.yml"))
    assert caught.value.problem == "Input `data` of step `fit` is required and has no value."
    assert caught.value.remedy == "Give input `data` of the pipeline: `--input data=…`."
    with pytest.raises(BadValue, match="more than 10"):
        load_pipeline(Path("fit/fit.yml"), {"data": "data", "epochs": "11"})


def test_additional_includes_beside_a_component_count_there_as_well(load: Load, tmp_path: Path) -> None:
    (tmp_path / "fit" / "fit.additional_includes").write_text("../elsewhere\n")
    assert only(load_pipeline(Path("fit/fit.yml"), {"data": "data"})).includes == (tmp_path / "elsewhere",)


def test_a_pipeline_component_is_run_with_what_is_given(load: Load, tmp_path: Path) -> None:
    text = f"{S}pipelineComponent.schema.json\ntype: pipeline\ninputs: {{d: {{type: uri_folder}}}}\n"
    text += "jobs: {s: {command: 'ls ${{inputs.d}}', inputs: {d: '${{parent.inputs.d}}'}}}\n"
    assert only(load(text, {"d": "data"})).inputs["d"].path == tmp_path / "data"


def test_a_sweep_is_one_trial_of_the_first_and_lowest_values(load: Load) -> None:
    pipeline = load(SWEEP)
    step = only(pipeline)
    assert (step.kind, texts(pipeline)) == ("sweep", {"a": "1", "b": "hello", "c": "0.1"})
    values = {f"inputs.{name}": text or "" for name, text in texts(pipeline).items()}
    assert render_command(step, values) == "python x.py --a 1 --b hello --c 0.1"
    for name in ("b", f"{step.name}.b"):
        assert texts(load(SWEEP, {name: "world"}))["b"] == "world"
    with pytest.raises(BadValue, match="There is no input `x`"):
        load(SWEEP, {"x": "1"})


def test_a_sweep_in_a_pipeline_may_have_a_component_as_its_trial(load: Load, tmp_path: Path) -> None:
    text = """\
type: pipeline
jobs:
  tune:
    type: sweep
    trial: ./fit/fit.yml
    inputs: {data: {type: uri_folder, path: ./data}, verbose: true}
    outputs: {model: }
    search_space:
      epochs: {type: choice, values: [2, 3]}
      rate: {type: loguniform, min_value: 0, max_value: 1}
    objective: {goal: minimize, primary_metric: m}
    limits: {max_total_trials: 4, timeout: 60}
  use: {command: 'ls ${{inputs.m}}', inputs: {m: '${{parent.jobs.tune.outputs.model}}'}}
"""
    tune, use = load(text).steps
    assert (tune.inputs["epochs"].text, tune.inputs["rate"].text, tune.inputs["verbose"].text) == ("2", "1", "True")
    assert (tune.code, use.after) == (tmp_path / "fit" / "src", ("tune",))


@pytest.mark.parametrize(
    ("distribution", "text"),
    [
        ("{type: choice, values: [[1, 2], 3]}", "[1, 2]"),
        ("{type: choice, values: [true]}", "True"),
        ("{type: quniform, min_value: 1.2, max_value: 9, q: 0.5}", "1"),
        ("{type: normal, mu: 5, sigma: 1}", "5"),
        ("{type: lognormal, mu: 0, sigma: 1}", "1"),
        ("{type: randint, upper: 10}", "0"),
        ("{type: Choice, values: [x]}", "x"),
    ],
)
def test_each_distribution_has_a_first_value(load: Load, distribution: str, text: str) -> None:
    head, _, tail = SWEEP.partition("  b: ")
    changed = f"{head}  b: {distribution}\n{tail.partition(chr(10))[2]}"
    assert texts(load(changed))["b"] == text


TRIGGER = f"{S}schedule.schema.json\nname: nightly\ntrigger: {{type: cron, expression: '0 0 * * *'}}\n"


@pytest.mark.parametrize(
    ("created", "a", "go_on"),
    [
        ("create_job: ./job.yml\n", "1", True),
        ("create_job: {type: pipeline, job: ./job.yml, inputs: {a: 2}, settings: {default_compute: c}}\n", "2", True),
        ("create_job: {job: ./job.yml, settings: {continue_on_step_failure: false}}\n", "1", False),
        (
            "create_job:\n  type: pipeline\n  inputs: {a: 4}\n  jobs: {s: {command: ls, inputs: "
            "{a: '${{parent.inputs.a}}'}}}\n",
            "4",
            True,
        ),
        ("create_job: {type: command, command: ls, inputs: {a: 5}}\n", "5", True),
        ("create_job: {job: {type: command, command: ls, inputs: {a: 5}}, inputs: {a: 6}}\n", "6", True),
    ],
)
def test_a_schedule_is_the_job_that_it_creates(load: Load, tmp_path: Path, created: str, a: str, go_on: bool) -> None:
    (tmp_path / "job.yml").write_text(
        "type: pipeline\ninputs: {a: 1}\njobs: {s: {command: ls, inputs: {a: '${{parent.inputs.a}}'}}}\n"
    )
    pipeline = load(TRIGGER + created)
    assert (texts(pipeline), pipeline.continue_on_failure) == ({"a": a}, go_on)
    assert "`trigger` is not acted on here" in pipeline.notes


@pytest.mark.parametrize(
    ("created", "problem", "line"),
    [
        ("create_job: azureml:job\n", "starts the job `azureml:job`, which is not on this machine", 4),
        ("create_job: ./none.yml\n", "no job file none.yml", 4),
        ("create_job: {job: ./pipeline.yml}\n", "is a schedule itself", 4),
        ("create_job:\n", "has no `create_job`", 1),
    ],
)
def test_a_schedule_without_a_job_here_is_refused(load: Load, created: str, problem: str, line: int) -> None:
    with pytest.raises(UserError) as caught:
        load(TRIGGER + created)
    assert problem in caught.value.problem
    assert caught.value.line == line


def test_the_name_of_the_step_is_that_of_the_file_where_it_says_none(load: Load, tmp_path: Path) -> None:
    for path, name in (("train.yml", "train"), ("src/job.yml", "src"), ("a.b c.yml", "a-b-c")):
        (tmp_path / path).write_text("command: ls\n")
        assert only(load_pipeline(Path(path))).name == name


def test_registered_names_of_this_project_are_its_files(load: Load, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "data.yml").write_text("name: prices\nversion: 2\ntype: uri_file\npath: ./b.csv\n")
    (tmp_path / "elsewhere" / "env.yml").write_text("name: mine\nversion: 4\nimage: debian\nconda_file: ../conda.yml\n")
    text = """\
type: pipeline
jobs:
  s:
    type: command
    component: azureml:fit@latest
    environment: azureml:mine:4
    inputs: {data: {type: uri_folder, path: 'azureml:prices@latest'}}
"""
    pipeline = load(text)
    step = only(pipeline)
    assert step.code == tmp_path / "fit" / "src"
    assert step.environment is not None
    assert (step.environment.image, step.environment.conda_file) == ("debian", tmp_path / "conda.yml")
    assert step.inputs["data"].path == tmp_path / "elsewhere" / "b.csv"
    assert pipeline.notes[-3:] == (
        "`azureml:fit@latest` is fit/fit.yml here",
        "`azureml:mine:4` is elsewhere/env.yml here",
        "`azureml:prices@latest` is elsewhere/data.yml here",
    )


def test_a_registered_name_may_be_a_file_anywhere_in_the_project(load: Load, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "p.yml").write_text(
        "type: pipeline\njobs: {s: {component: 'azureml:fit:1', inputs: {data: ../data}}}\n"
    )
    assert only(load_pipeline(Path("sub/p.yml"), {"s.data": "data"}, project=tmp_path)).code
    with pytest.raises(UserError, match="registered component `azureml:fit:1`"):
        load_pipeline(Path("sub/p.yml"))


def test_two_files_of_a_registered_name_are_refused_at_the_place_that_names_it(load: Load, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "again.yml").write_text(COMPONENT)
    with pytest.raises(UserError) as caught:
        load("type: pipeline\njobs:\n  s:\n    component: azureml:fit:1\n")
    assert "elsewhere/again.yml and fit/fit.yml have that name, version 1" in caught.value.problem
    assert caught.value.line == 4


def test_in_a_workspace_names_of_data_and_environments_stay_names(load: Load, tmp_path: Path) -> None:
    (tmp_path / "data.yml").write_text("name: prices\ntype: uri_folder\npath: ./data\n")
    (tmp_path / "env.yml").write_text("name: mine\nimage: debian\n")
    (tmp_path / "pipeline.yml").write_text(
        "type: pipeline\njobs:\n  s:\n    command: ls\n    environment: azureml:mine:1\n"
        "    inputs: {d: {type: uri_folder, path: 'azureml:prices:1'}}\n"
    )
    step = only(load_pipeline(Path("pipeline.yml"), cloud=True))
    assert step.environment is not None
    assert (step.environment.name, step.inputs["d"].asset) == ("azureml:mine:1", "azureml:prices:1")
