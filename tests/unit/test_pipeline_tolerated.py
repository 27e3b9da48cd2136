"""What Azure's own check takes in a file is not refused here: it is noted where it is not acted on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_pipeline_reader import job
from test_pipeline_reader import load as load  # a fixture
from test_pipeline_refused import FIT

from workflows.errors import BadValue
from workflows.pipelines.definition import Pipeline
from workflows.pipelines.reader import load_pipeline

Load = Callable[..., Pipeline]
TWICE = "command: ls\noutputs:\n  a: ${{parent.outputs.o}}\n  b: ${{parent.outputs.o}}"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            job(FIT + "  epochs: abc"),
            "`epochs` of step `s` has to be an integer, not `abc`: it is handed over as it is",
        ),
        (job(FIT + "  epochs: 2.5"), "has to be an integer, not `2.5`"),
        (job(FIT + "  epochs: 11"), "`epochs` of step `s` is 11, more than 10"),
        (job(FIT + "  epochs: 0"), "`epochs` of step `s` is 0, less than 1"),
        (job(FIT + "  rate: fast"), "has to be a number, not `fast`"),
        (job(FIT + "  verbose: 3"), "has to be a boolean, not `3`"),
        (job(FIT + "  schedule: steps"), "is `steps`, which is not permitted"),
        (job(FIT + "  schedule: {type: uri_file, path: ./data/a.csv}"), "has to be a literal (string), but is data"),
        (job(FIT + "  epoch: 3"), "has no input `epoch`, which is not used. Did you mean `epochs`?"),
        (job(FIT + "outputs:\n  modle: "), "has no output `modle`. Did you mean `model`?"),
        (job("command: ls", top="inputs: {x: {type: integer, default: a}}\n"), "has to be an integer, not `a`"),
        (
            job("command: ls", top="settings: {continue_on_step_failur: true}\n"),
            "did you mean `continue_on_step_failure`",
        ),
        (job(FIT + "command: ls"), "a command and a component: the component's counts"),
        (job("command: ls\noutputs: {o: somewhere}"), "output `o` of step `s` is `somewhere`, which is not acted on"),
        (job(TWICE, top="outputs: {o: }\n"), "two steps write output `o`"),
        (job("command: ls\ninputs: {x: {type: uri_file, path: ./data}}"), "is a uri_file, but"),
        (job("command: ls\ninputs: {x: {type: uri_folder, path: ./data/a.csv}}"), "is a uri_folder, but"),
        (job("command: ls\ninputs: {x: 'a-${{parent.inputs.o}}'}"), "mixes an expression with other text"),
        (job("command: ls\ninputs: {x: '${{parent.inputs.o}'}"), "it is taken as a text"),
        (job("command: ls\nenvironment_variables: {A: [1, b]}"), "environment variable `A` of step `s` is not text"),
        (job("command: ls\nresources: {instance_count: 0}"), "`instance_count` of step `s` is 0: it is taken as 1"),
        (job("command: ls\nresources: {shm_size: big}"), "`shm_size` cannot be `big`: the default is taken"),
        (job("command: ls\ndistribution: {type: ray}"), "distributed by `ray`: its command is run once"),
    ],
)
def test_what_azure_takes_is_taken_with_a_note(load: Load, text: str, note: str) -> None:
    assert note in "\n".join(load(text).notes)


@pytest.mark.parametrize(
    "text",
    [
        job("command: ls", top="settings: {default_datastore: azureml:workspaceblobstore, force_rerun: true}\n"),
        job("command: ls\nenvironment: {}"),
        job("command: ls\nenvironment: azureml:any@latest\ncompute: azureml:serverless"),
    ],
)
def test_what_makes_no_difference_is_not_even_noted(load: Load, text: str) -> None:
    assert load(text).notes == ()


@pytest.mark.parametrize(("written", "go_on"), [("1", True), ("'on'", True), ("0", False), ("'F'", False)])
def test_a_truth_value_is_taken_in_each_spelling_that_azure_takes(load: Load, written: str, go_on: bool) -> None:
    pipeline = load(job("command: ls", top=f"settings: {{continue_on_step_failure: {written}}}\n"))
    assert pipeline.continue_on_failure is go_on


def test_a_value_as_it_is_reaches_the_command(load: Load) -> None:
    (step,) = load(job(FIT + "  epochs: abc\n  schedule: other")).steps
    assert (step.inputs["epochs"].text, step.inputs["schedule"].text) == ("abc", "other")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("s.epochs", "abc", "an integer, not `abc`"),
        ("s.epochs", "11", "more than 10"),
        ("s.schedule", "x", "not permitted"),
    ],
)
def test_a_value_that_is_typed_has_to_fit_all_the_same(load: Load, name: str, value: str, problem: str) -> None:
    with pytest.raises(BadValue) as caught:
        load(job(FIT), {name: value})
    assert problem in caught.value.problem


def test_a_components_control_output_is_handed_over_as_a_file_with_a_note(load: Load, tmp_path: Path) -> None:
    text = "type: command\ncommand: ls > ${{outputs.more}}\noutputs: {more: {type: boolean, is_control: true}}\n"
    (tmp_path / "more.yml").write_text(text)
    pipeline = load(job("component: more.yml"))
    assert pipeline.steps[0].outputs == {"more": "uri_file"}
    assert "`more` of step `s` is a value (boolean)" in "".join(pipeline.notes)
    assert load_pipeline(tmp_path / "more.yml", {}).steps[0].outputs == {"more": "uri_file"}


def test_a_remark_names_its_place(load: Load) -> None:
    assert load(job(FIT + "  epochs: 11")).notes == (
        "Input `epochs` of step `s` is 11, more than 10: it is handed over as it is (pipeline.yml:8)",
    )


def test_remarks_about_steps_that_do_not_run_are_left_out(load: Load) -> None:
    text = "type: pipeline\njobs:\n  a: {command: ls, limits: {timeout: 1}}\n"
    text += "  b: {component: ./fit/fit.yml, inputs: {data: {path: ./data}, epochs: 99}, identity: {type: managed}}\n"
    assert len(load(text).notes) == 3
    assert load(text, only=["a"]).notes == ("`limits.timeout` is not acted on here (a)",)
