"""Pipelines inside pipelines: names, inputs and outputs bound through, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_pipeline_reader import load as load  # a fixture

from workflows.errors import BadValue, UserError
from workflows.pipelines.definition import Pipeline
from workflows.pipelines.nesting import MOST_LEVELS
from workflows.pipelines.reader import load_pipeline

Load = Callable[..., Pipeline]

INNER = """\
$schema: https://azuremlschemas.azureedge.net/latest/pipelineComponent.schema.json
type: pipeline
name: inner
inputs:
  data: {type: uri_folder}
  epochs: {type: integer, default: 7}
  rate: {type: number, optional: true}
outputs:
  model: {type: mlflow_model}
jobs:
  fit:
    type: command
    component: ./fit/fit.yml
    inputs:
      data: ${{parent.inputs.data}}
      epochs: ${{parent.inputs.epochs}}
    outputs:
      model: ${{parent.outputs.model}}
  tell:
    type: command
    command: ls ${{inputs.m}} $[[--rate ${{inputs.rate}}]]
    environment_variables: {EPOCHS: "${{parent.inputs.epochs}}"}
    inputs:
      m: ${{parent.jobs.fit.outputs.model}}
      rate: ${{parent.inputs.rate}}
    outputs: {text: {type: uri_file}}
"""
MIDDLE = """\
type: pipeline
inputs:
  raw: {type: uri_folder}
  n: {type: integer}
outputs:
  best: {type: uri_folder}
jobs:
  inner:
    type: pipeline
    component: ./inner.yml
    inputs: {data: '${{parent.inputs.raw}}', epochs: '${{parent.inputs.n}}'}
    outputs: {model: '${{parent.outputs.best}}'}
"""
OUTER = """\
type: pipeline
inputs:
  raw: {type: uri_folder, path: ./data}
outputs:
  final: {type: uri_folder}
jobs:
  prepare:
    command: ls
    inputs: {a: 1}
    outputs: {clean: {type: uri_folder}}
  outer:
    type: pipeline
    component: ./middle.yml
    inputs: {raw: '${{parent.jobs.prepare.outputs.clean}}', n: 3}
    outputs: {best: '${{parent.outputs.final}}'}
  last:
    command: ls ${{inputs.m}} ${{inputs.raw}}
    inputs: {m: '${{parent.jobs.outer.outputs.best}}', raw: '${{parent.inputs.raw}}'}
"""


@pytest.fixture
def nested(load: Load, tmp_path: Path) -> Load:
    (tmp_path / "inner.yml").write_text(INNER)
    (tmp_path / "middle.yml").write_text(MIDDLE)
    return load


def refused(load: Load, text: str = OUTER, **more: object) -> UserError:
    with pytest.raises(UserError) as caught:
        load(text, **more)
    return caught.value


def test_steps_two_deep_are_named_by_the_way_to_them_and_bound_through(nested: Load, tmp_path: Path) -> None:
    pipeline = nested(OUTER)
    steps = {step.name: step for step in pipeline.steps}
    assert list(steps) == ["prepare", "outer.inner.fit", "outer.inner.tell", "last"]
    fit = steps["outer.inner.fit"]
    assert (fit.inputs["data"].step, fit.inputs["data"].output) == ("prepare", "clean")
    assert (fit.inputs["epochs"].text, fit.inputs["rate"].text) == ("3", "0.1")
    assert fit.code == tmp_path / "fit" / "src"
    assert steps["outer.inner.tell"].inputs["m"].step == "outer.inner.fit"
    assert not steps["outer.inner.tell"].inputs["rate"].given
    assert steps["outer.inner.tell"].variables == {"EPOCHS": "3"}
    assert (steps["last"].inputs["m"].step, steps["last"].inputs["m"].output) == ("outer.inner.fit", "model")
    assert steps["last"].after == ("outer.inner.fit",)
    assert pipeline.outputs == {"final": ("outer.inner.fit", "model")}


def test_the_inmost_declaration_of_an_outputs_type_counts(nested: Load, tmp_path: Path) -> None:
    (tmp_path / "inner.yml").write_text(INNER.replace("component: ./fit/fit.yml", "command: ls"))
    assert nested(OUTER).steps[1].outputs == {"model": "mlflow_model"}


def test_a_nested_pipeline_may_be_written_into_its_job_or_be_a_job_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "job.yml").write_text(
        "type: pipeline\ninputs: {n: 5}\njobs:\n  c: {command: ls, inputs: {n: '${{parent.inputs.n}}'}}\n"
    )
    pipeline = load(
        "type: pipeline\ninputs: {x: 2}\njobs:\n"
        "  a:\n    type: pipeline\n    inputs: {y: '${{parent.inputs.x}}'}\n    jobs:\n"
        "      b: {command: 'ls ${{inputs.z}}', inputs: {z: '${{parent.inputs.y}}'}}\n"
        "  d: {component: ./job.yml}\n"
    )
    assert {step.name: {name: one.text for name, one in step.inputs.items()} for step in pipeline.steps} == {
        "a.b": {"z": "2"},
        "d.c": {"n": "5"},
    }


NESTED_SETTINGS = """\
type: pipeline
settings: {default_compute: azureml:c, continue_on_step_failure: false}
jobs:
  only:
    type: pipeline
    component: ./settled.yml
    compute: azureml:c
    settings: {default_compute: azureml:other, force_rerun: true}
"""
SETTLED = """\
type: pipeline
name: settled
version: 1
is_deterministic: false
inputs: {n: {type: integer, default: 1}}
settings: {default_compute: azureml:c, continue_on_step_failure: true}
limits: {timeout: 60}
jobs:
  a: {command: ls, limits: {timeout: 5}}
"""


def test_what_a_nested_pipeline_says_of_its_own_run_is_noted_and_never_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "settled.yml").write_text(SETTLED)
    found = load(NESTED_SETTINGS)
    assert not found.continue_on_failure
    assert found.notes == (
        "`limits` is not acted on here (only)",
        "`settings.continue_on_step_failure` is not acted on here (only)",
        "`limits.timeout` is not acted on here (only.a)",
    )
    # Alone it is the run itself.
    alone = load_pipeline(tmp_path / "settled.yml")
    assert alone.continue_on_failure and [step.name for step in alone.steps] == ["a"]
    assert alone.notes == ("`limits` is not acted on here", "`limits.timeout` is not acted on here (a)")
    named = "type: pipeline\ncomponent: ./settled.yml\nsettings: {continue_on_step_failure: false}\n"
    assert [step.name for step in load(named).steps] == ["a"] and not load(named).continue_on_failure


def test_one_component_used_twice_is_two_sets_of_steps(nested: Load) -> None:
    text = "type: pipeline\njobs:\n"
    for name, epochs in (("first", 4), ("second", 5)):
        text += f"  {name}:\n    type: pipeline\n    component: ./inner.yml\n"
        text += f"    inputs: {{data: {{type: uri_folder, path: ./data}}, epochs: {epochs}}}\n"
    steps = {step.name: step for step in nested(text).steps}
    assert list(steps) == ["first.fit", "first.tell", "second.fit", "second.tell"]
    assert [steps[f"{name}.fit"].inputs["epochs"].text for name in ("first", "second")] == ["4", "5"]


@pytest.mark.parametrize(
    ("inputs", "epochs", "rate"),
    [
        ({"outer.n": "9"}, "9", "0.1"),
        ({"outer.inner.epochs": "2"}, "2", "0.1"),
        ({"outer.inner.fit.rate": "0.5"}, "3", "0.5"),
    ],
)
def test_inputs_of_nested_pipelines_and_their_steps_can_be_replaced(
    nested: Load, inputs: dict[str, str], epochs: str, rate: str
) -> None:
    fit = nested(OUTER, inputs).steps[1]
    assert (fit.inputs["epochs"].text, fit.inputs["rate"].text) == (epochs, rate)


def test_a_step_is_chosen_by_its_last_name_or_in_full_and_nothing_else_runs_but_what_it_needs(nested: Load) -> None:
    for asked in (["tell"], ["inner.tell"], ["outer.inner.tell"]):
        pipeline = nested(OUTER, only=asked)
        assert [step.name for step in pipeline.steps] == ["prepare", "outer.inner.fit", "outer.inner.tell"]
        assert pipeline.asked == ("outer.inner.tell",)
    assert [step.name for step in nested(OUTER, only=["prepare"]).steps] == ["prepare"]
    assert nested(OUTER, only=["outer"]).asked == ("outer.inner.fit", "outer.inner.tell")


def test_a_last_name_that_several_have_is_refused_naming_them(load: Load) -> None:
    text = "type: pipeline\njobs:\n"
    text += "".join(f"  {name}: {{type: pipeline, jobs: {{x: {{command: ls}}}}}}\n" for name in "ab")
    error = refused(load, text, only=["x"])
    assert error.problem == "Several steps are called x: `a.x`, `b.x`."


def test_a_pipeline_inside_itself_is_refused_with_the_places(nested: Load, tmp_path: Path) -> None:
    (tmp_path / "inner.yml").write_text(
        "type: pipeline\njobs:\n  back:\n    type: pipeline\n    component: ./middle.yml\n"
    )
    (tmp_path / "middle.yml").write_text(
        "type: pipeline\njobs:\n  in:\n    type: pipeline\n    component: ./inner.yml\n"
    )
    error = refused(nested, "type: pipeline\njobs:\n  x: {component: ./middle.yml}\n")
    assert error.problem == "The pipelines contain each other: middle.yml:5 → inner.yml:5 → middle.yml."
    assert (error.file, error.line) == (Path("inner.yml"), 5)
    error = refused(nested, "type: pipeline\njobs:\n  x: {component: ./pipeline.yml}\n")
    assert error.problem == "The pipelines contain each other: pipeline.yml:3 → pipeline.yml."


def test_pipelines_in_more_levels_than_can_be_are_refused(load: Load, tmp_path: Path) -> None:
    for number in range(MOST_LEVELS + 2):
        (tmp_path / f"p{number}.yml").write_text(f"type: pipeline\njobs: {{x: {{component: ./p{number + 1}.yml}}}}\n")
    error = refused(load, "type: pipeline\njobs: {x: {component: ./p0.yml}}\n")
    assert f"more than {MOST_LEVELS} pipelines inside each other" in error.problem


def test_jobs_that_wait_for_each_other_through_nesting_are_refused(load: Load) -> None:
    text = """\
type: pipeline
jobs:
  a:
    type: pipeline
    inputs: {i: '${{parent.jobs.b.outputs.o}}'}
    jobs:
      x: {command: 'ls ${{inputs.i}}', inputs: {i: '${{parent.inputs.i}}'}, outputs: {o: '${{parent.outputs.o}}'}}
    outputs: {o: }
  b: {command: 'ls ${{inputs.i}}', inputs: {i: '${{parent.jobs.a.outputs.o}}'}, outputs: {o: }}
"""
    assert "wait for each other: a.x → b → a.x" in refused(load, text).problem


@pytest.mark.parametrize(
    ("old", "new", "problem", "place"),
    [
        (", n: 3", "", "Input `n` of the pipeline `outer` is required and has no value", "pipeline.yml:11"),
        ("outputs.clean", "outputs.clen", "Job `prepare` has no output `clen`", "pipeline.yml:14"),
        ("jobs.prepare.outputs", "jobs.prepar.outputs", "There is no job `prepar`", "pipeline.yml:14"),
        ("n: 3", "n: '${{parent.inputs.m}}'", "The pipeline has no input `m`", "pipeline.yml:14"),
        ("jobs.outer.outputs.best", "jobs.outer.outputs.bst", "Job `outer` has no output `bst`", "pipeline.yml:18"),
        (
            "best: '${{parent.outputs.final}}'",
            "bst: '${{parent.outputs.final}}'",
            "has no output `bst`",
            "pipeline.yml",
        ),
    ],
)
def test_what_is_wrong_between_levels_is_said_at_its_place(
    nested: Load, old: str, new: str, problem: str, place: str
) -> None:
    assert OUTER.count(old) == 1
    text = str(refused(nested, OUTER.replace(old, new)))
    assert problem in text
    assert text.startswith(place)


def test_an_output_that_no_job_inside_writes_is_refused_where_it_is_taken(nested: Load, tmp_path: Path) -> None:
    (tmp_path / "inner.yml").write_text(INNER.replace("    outputs:\n      model: ${{parent.outputs.model}}\n", ""))
    error = refused(nested)
    assert "The pipeline `outer.inner` has an output `model`, which none of its jobs writes." in str(error)


def test_inputs_that_a_nested_pipeline_does_not_have_are_noted(nested: Load) -> None:
    pipeline = nested(OUTER.replace("n: 3", "n: 3, more: 4"))
    assert "the pipeline `outer` has no input `more`, which is not used" in "\n".join(pipeline.notes)


def test_all_that_is_wrong_in_all_files_is_told_at_once(nested: Load, tmp_path: Path) -> None:
    (tmp_path / "inner.yml").write_text(INNER.replace("m: ${{parent.jobs.fit", "m: ${{parent.jobs.fitt"))
    text = OUTER.replace("command: ls\n", "command: ls ${{inputs.b}}\n").replace(
        "raw: '${{parent.inputs.raw}}'}", "q: '${{parent.inputs.q}}'}"
    )
    error = refused(nested, text)
    assert [line.partition(" error")[0] for line in str(error).splitlines()[::2]] == [
        "pipeline.yml:8:",
        "pipeline.yml:17:",
        "pipeline.yml:18:",
        "inner.yml:24:",
    ]
    assert (error.file, error.line) == (Path("pipeline.yml"), 8)


def test_a_step_that_is_wrong_does_not_stop_one_that_does_not_need_it(nested: Load, tmp_path: Path) -> None:
    text = OUTER.replace("command: ls ${{inputs.m}} ${{inputs.raw}}", "command: ls ${{inputs.none}}")
    assert [step.name for step in nested(text, only=["fit"]).steps] == ["prepare", "outer.inner.fit"]
    (tmp_path / "middle.yml").write_text("type: [")
    assert [step.name for step in nested(OUTER, only=["prepare"]).steps] == ["prepare"]
    assert "middle.yml is not valid YAML" in str(refused(nested, only=["last"]))
    assert "middle.yml is not valid YAML" in str(refused(nested, only=["fit"]))


def test_a_name_that_no_step_has_is_refused_with_those_there_are(nested: Load) -> None:
    error = refused(nested, only=["fitt"])
    assert error.problem == "There is no step fitt."
    assert error.remedy.endswith("prepare, outer.inner.fit, outer.inner.tell, last")
    with pytest.raises(BadValue, match=r"no input `outer\.x`"):
        nested(OUTER, {"outer.x": "1"})


def test_a_file_below_a_folder_names_its_own_neighbours(load: Load, tmp_path: Path) -> None:
    below = tmp_path / "elsewhere"
    (below / "p.yml").write_text("type: pipeline\njobs: {x: {component: ./c.yml}}\n")
    (below / "c.yml").write_text("type: command\ncommand: ls\n")
    (tmp_path / "pipeline.yml").write_text("type: pipeline\njobs: {a: {type: pipeline, component: elsewhere/p.yml}}\n")
    assert [step.name for step in load_pipeline(tmp_path / "pipeline.yml").steps] == ["a.x"]
