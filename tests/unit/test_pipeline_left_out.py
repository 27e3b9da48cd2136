"""Steps that do not run here: left out by name, without taking the others with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_pipeline_reader import load as load  # a fixture

from workflows.errors import BadValue, UserError
from workflows.pipelines.definition import Pipeline

Load = Callable[..., Pipeline]

MIXED = """\
type: pipeline
jobs:
  prepare: {command: ls, outputs: {o: }}
  train:
    type: automl
    task: classification
    training_data: ${{parent.jobs.prepare.outputs.o}}
    outputs: {best_model: {type: mlflow_model}}
  register:
    type: command
    component: azureml://registries/azureml/components/register/versions/1
    inputs: {m: '${{parent.jobs.train.outputs.best_model}}'}
  check:
    command: ls ${{inputs.m}} ${{inputs.r}}
    inputs:
      m: {type: uri_folder, path: '${{parent.jobs.train.outputs.best_model}}'}
      r: ${{parent.jobs.register.outputs.result}}
"""


def names(pipeline: Pipeline) -> list[str]:
    return [step.name for step in pipeline.steps]


def test_all_that_a_step_left_out_would_have_given_is_named_at_once(load: Load) -> None:
    with pytest.raises(UserError) as caught:
        load(MIXED)
    error = caught.value
    assert error.problem.startswith(
        "Input `m` of step `check` is output `best_model` of step `train`, which does not run"
    )
    assert "is of type `automl`, which cannot run on this machine" in error.problem
    assert error.problem.endswith("Not on this machine either: `register.result`.")
    assert error.remedy == (
        "Give local ones: `--input train.best_model=PATH --input register.result=PATH`, "
        "or leave out what takes them: `--skip check`."
    )
    assert (error.file, error.line) == (Path("pipeline.yml"), 16)


def test_what_is_given_stands_in_for_the_outputs_of_steps_left_out(load: Load, tmp_path: Path) -> None:
    pipeline = load(MIXED, {"train.best_model": "data", "register.result": "data/a.csv"})
    assert names(pipeline) == ["prepare", "check"]
    inputs = pipeline.steps[1].inputs
    assert (inputs["m"].path, inputs["r"].path, inputs["r"].type) == (
        tmp_path / "data",
        tmp_path / "data" / "a.csv",
        "uri_file",
    )
    assert [one.name for one in pipeline.skipped] == ["train", "register"]
    assert pipeline.notes[0].startswith("`train` is left out: Step `train` is of type `automl`")
    assert "registered component `azureml://registries" in pipeline.notes[1]


def test_the_others_run_where_what_takes_it_is_left_out_too(load: Load) -> None:
    pipeline = load(MIXED, skip=["check"])
    assert names(pipeline) == ["prepare"]
    assert "`check` is left out: `--skip` names `check`" in pipeline.notes


def test_one_step_alone_runs_whatever_is_wrong_with_the_others(load: Load) -> None:
    assert names(load(MIXED, only=["prepare"])) == ["prepare"]
    with pytest.raises(UserError, match=r"--input train\.best_model=PATH"):
        load(MIXED, only=["check"])


@pytest.mark.parametrize(
    "job",
    [
        "{type: spark, entry: {file: a.py}}",
        "{type: data_transfer, task: copy_data}",
        "{type: import, source: {}}",
        "{type: finetuning, task: chat}",
        "{type: do_while, body: x}",
        "{type: command, component: 'azureml:nowhere@latest'}",
        "{type: pipeline, component: 'azureml:nowhere:1'}",
        "{command: ls, code: 'git+https://example.org/a.git'}",
        "{component: {type: spark}}",
        "{type: parallel, input_data: '${{inputs.d}}', task: {type: model, model: 'azureml:net:1'}}",
    ],
)
def test_each_kind_that_cannot_run_here_is_left_out(load: Load, job: str) -> None:
    pipeline = load(f"type: pipeline\njobs:\n  a: {{command: ls}}\n  b: {job}\n")
    assert (names(pipeline), [one.name for one in pipeline.skipped]) == (["a"], ["b"])


def test_a_step_that_should_not_run_is_left_out_and_its_output_given(load: Load, tmp_path: Path) -> None:
    text = """\
type: pipeline
jobs:
  download: {command: wget x, outputs: {o: {type: uri_folder}}}
  use: {command: 'ls ${{inputs.d}}', inputs: {d: '${{parent.jobs.download.outputs.o}}'}}
"""
    pipeline = load(text, {"download.o": "data"}, skip=["download"])
    assert (names(pipeline), pipeline.steps[0].inputs["d"].path) == (["use"], tmp_path / "data")
    # Given, it is no longer needed; what was not asked for does not run then.
    assert names(load(text, {"download.o": "data"}, only=["use"])) == ["use"]
    with pytest.raises(UserError) as caught:
        load(text, skip=["download"])
    assert caught.value.remedy == "Give it here: `--input download.o=PATH`, or leave out what takes it: `--skip use`."


def test_a_nested_pipeline_is_left_out_as_a_whole_or_in_part(load: Load, tmp_path: Path) -> None:
    text = """\
type: pipeline
jobs:
  outer:
    type: pipeline
    jobs:
      slow: {command: ls, outputs: {o: '${{parent.outputs.o}}'}}
      quick: {command: ls}
    outputs: {o: }
  use: {command: 'ls ${{inputs.d}}', inputs: {d: '${{parent.jobs.outer.outputs.o}}'}}
"""
    assert names(load(text, {"outer.o": "data"}, skip=["outer"])) == ["use"]
    for given in ("outer.o", "outer.slow.o"):
        pipeline = load(text, {given: "data"}, skip=["slow"])
        assert names(pipeline) == ["outer.quick", "use"]
        assert pipeline.steps[1].inputs["d"].path == tmp_path / "data"


@pytest.mark.parametrize(
    ("skip", "problem"),
    [(["none"], "There is no step `none` to leave out."), (["x"], "Several steps are called `x`.")],
)
def test_a_name_to_leave_out_has_to_be_one_step(load: Load, skip: list[str], problem: str) -> None:
    text = "type: pipeline\njobs:\n"
    text += "".join(f"  {name}: {{type: pipeline, jobs: {{x: {{command: ls}}}}}}\n" for name in "ab")
    with pytest.raises(BadValue) as caught:
        load(text, skip=skip)
    assert caught.value.problem == problem


def test_nothing_left_to_run_is_refused_with_the_reasons(load: Load) -> None:
    with pytest.raises(UserError, match="of type `spark`, which cannot run on this machine"):
        load("type: pipeline\njobs: {a: {type: spark}}\n")
    with pytest.raises(UserError) as caught:
        load("type: pipeline\njobs:\n  a: {type: spark}\n  b: {type: automl}\n")
    assert str(caught.value).count("cannot run on this machine") == 2
    with pytest.raises(UserError, match="No step is left to run"):
        load("type: pipeline\njobs: {a: {command: ls}}\n", skip=["a"])


def test_a_step_cannot_be_wanted_and_left_out(load: Load) -> None:
    with pytest.raises(UserError, match="a is both to be debugged and to be left out"):
        load("type: pipeline\njobs: {a: {command: ls}, b: {command: ls}}\n", only=["a"], skip=["a"])
    with pytest.raises(UserError, match="of type `spark`"):
        load("type: pipeline\njobs: {a: {type: spark}, b: {command: ls}}\n", only=["a"])


def test_several_things_that_are_wrong_are_told_at_once(load: Load) -> None:
    text = """\
type: pipeline
jobs:
  a: {command: 'ls ${{inputs.x}}'}
  b: {component: ./none.yml}
  c: {command: ls, inputs: {x: '${{parent.inputs.x}}', y: {type: uri_folder, path: ./none}}}
  d: {command: 'ls ${{inputs.x}}', inputs: {x: '${{parent.jobs.b.outputs.o}}'}}
"""
    with pytest.raises(UserError) as caught:
        load(text)
    lines = str(caught.value).splitlines()
    assert [line.split(" ")[0] for line in lines[::2]] == [f"pipeline.yml:{number}:" for number in (3, 4, 5, 5)]
    assert all(" error: " in line for line in lines[::2])
    assert caught.value.exit_code == 1
