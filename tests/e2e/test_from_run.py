"""A run that goes on from another: the completed steps' outputs are taken over and never changed."""

from __future__ import annotations

import shutil
from dataclasses import replace

from azureml_projects import python_with_sdk_v2
from pipelines import ADD, ADD_LINE, PipelineProject
from projects import ANY_ENGINE, until

#: What a step may do to its input where nothing protects it.
SPOIL = """
import os
for name in os.listdir(folder):
    os.remove(os.path.join(folder, name))
open(os.path.join(folder, "new.txt"), "w").close()
"""


def fail(pipelines: PipelineProject, step: str) -> None:
    """Have a step fail, and a first run end with that."""
    script = pipelines.script(step)
    text = script.read_text()
    script.write_text("raise SystemExit(3)\n" + text)
    assert pipelines.inv("pipeline.submit", "--no-debug", "--follow").code == 1
    script.write_text(text)


def test_after_a_failure_the_failed_step_runs_on_what_the_others_have_done(pipelines: PipelineProject) -> None:
    fail(pipelines, "tell")
    # Whoever ran again would fail.
    pipelines.script("prepare").write_text("raise SystemExit('not again')\n")
    done = pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "1")
    assert "Taken over from the run" in done.out and ": prepare, add." in done.out
    assert "the result is 36" in done.out and "left out" not in done.out
    assert [step["name"] for step in pipelines.status()["steps"]] == ["tell"]
    assert pipelines.status()["status"] == "Completed"
    # The whole again, from a run that itself had taken over: here nothing is left.
    pipelines.inv("pipeline.submit", "--from-run", "2").says("Every step", "--step NAME")


def test_one_step_holds_at_its_first_line_on_what_it_really_had(pipelines: PipelineProject) -> None:
    fail(pipelines, "tell")
    before = (pipelines.runs / pipelines.record()["run_id"] / "steps/prepare/data/doubled/doubled.txt").read_bytes()
    pipelines.script("add").write_text(pipelines.script("add").read_text() + SPOIL)
    found = pipelines.ok("pipeline.debug", "--json", "--step", "add", "--from-run", "1")
    assert [endpoint["step"] for endpoint in found.json["endpoints"]] == ["add"]
    seen = pipelines.ok("pipeline.inspect", f"add.py:{ADD_LINE}", "--json").json
    assert seen["locals"]["total"] == "12"
    pipelines.until_final()
    # In a container its input cannot be written to; without one it is the step's own.
    kept = pipelines.runs / pipelines.ok("pipeline.list", "--json").json["runs"][-1]["run_id"]
    assert (kept / "steps/prepare/data/doubled/doubled.txt").read_bytes() == before
    assert [path.name for path in (kept / "steps/prepare/data/doubled").iterdir()] == ["doubled.txt"]


@ANY_ENGINE
def test_a_step_runs_again_with_the_code_that_it_had(pipelines: PipelineProject) -> None:
    fail(pipelines, "tell")
    kept = pipelines.runs / pipelines.record()["run_id"] / "steps" / "add" / "code" / "add.py"
    assert kept.read_text() == ADD
    pipelines.script("add").write_text("print('edited since')\n" + ADD)
    again = ("pipeline.submit", "--no-debug", "--follow", "--step", "add", "--from-run", "1")
    assert "edited since" in pipelines.ok(*again).out
    said = pipelines.ok(*again, "--code-of-run").out
    assert "total 12" in said and "edited since" not in said
    # What it writes beside its script stays in its own run.
    assert [path.name for path in kept.parent.iterdir()] == ["add.py"]
    pipelines.inv("pipeline.submit", "--code-of-run").says("--code-of-run needs the run", "--from-run RUN", code=2)
    shutil.rmtree(kept.parent)
    pipelines.inv(*again, "--code-of-run").says("was not kept", "Leave out --code-of-run")


@ANY_ENGINE
def test_an_input_typed_in_another_folder_is_the_same_one_later(pipelines: PipelineProject) -> None:
    # Each folder has one of that name.
    for place, text in ((pipelines.folder, "1"), (pipelines.folder / "below", "10 20")):
        (place / "mine").mkdir(parents=True)
        (place / "mine" / "numbers.txt").write_text(text)
    script = pipelines.script("add")
    text = script.read_text()
    script.write_text("raise SystemExit(3)\n" + text)
    below = replace(pipelines, folder=pipelines.folder / "below")
    typed = ("--no-debug", "--follow", "--input", "numbers=mine")
    assert below.inv("pipeline.submit", *typed).code == 1
    script.write_text(text)
    assert "total 60" in pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "1").out
    again = ("pipeline.submit", "--no-debug", "--follow", "--from-run", "1", "--step", "prepare")
    assert "doubled [10, 20, 10, 20]" in pipelines.ok(*again).out


#: Two steps, of which the second fails.
IN_PYTHON = """
from azure.ai.ml import Input, Output, command, dsl

@dsl.pipeline()
def built():
    made = {"environment": "azureml:any@1", "compute": "cpu"}
    one = command(name="one", command="echo 5 > ${{outputs.o}}/x", outputs={"o": Output(type="uri_folder")}, **made)()
    command(name="two", command="cat ${{inputs.i}}/x; exit 3", inputs={"i": Input(type="uri_folder")}, **made)(
        i=one.outputs.o
    )
"""


@ANY_ENGINE
def test_a_pipeline_in_python_is_gone_on_from_as_a_file_is(pipelines: PipelineProject) -> None:
    pipelines.python = python_with_sdk_v2()
    (pipelines.folder / "make.py").write_text(IN_PYTHON)
    typed = ("pipeline.submit", "--no-debug", "--follow")
    assert pipelines.inv(*typed, "--pipeline-file", "make.py:built").code == 1
    again = pipelines.inv(*typed, "--from-run", "1")
    assert again.code == 1 and "Taken over from the run" in again.out and ": one." in again.out
    assert [step["name"] for step in pipelines.status()["steps"]] == ["two"]
    (pipelines.folder / "make.py").unlink()
    pipelines.inv(*typed, "--from-run", "1").says("is gone: make.py.", "Put it back")


@ANY_ENGINE
def test_what_has_changed_since_is_said(pipelines: PipelineProject) -> None:
    fail(pipelines, "tell")
    text = pipelines.pipeline.read_text()
    pipelines.pipeline.write_text(text.replace("factor: 3", "factor: 4").replace("echo before", "echo ahead"))
    said = pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "1").out
    assert "the input factor of add has changed since; it is taken over as it was" in said
    assert "the command of tell has changed since; it runs with what the file says now" in said
    assert "of prepare" not in said
    # The same values that were typed count again, and what is typed now comes first.
    said = pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--step", "add", "--from-run", "1",
                        "--input", "factor=5").out  # fmt: skip
    assert "the input factor of add has changed since; it runs with what the file says now" in said
    assert "total 12" in said


@ANY_ENGINE
def test_a_run_that_cannot_be_gone_on_from_is_told_in_two_lines(pipelines: PipelineProject) -> None:
    pipelines.inv("pipeline.submit", "--from-run", "1").says("no run", "inv pipeline")
    fail(pipelines, "add")
    data = pipelines.runs / pipelines.record()["run_id"] / "steps/prepare/data/doubled"
    shutil.move(data, data.with_name("elsewhere"))
    pipelines.inv("pipeline.submit", "--from-run", "1").says("The output doubled of prepare", "--step prepare")
    shutil.move(data.with_name("elsewhere"), data)
    pipelines.inv("pipeline.submit", "--from-run", "1", "--step", "nobody").says("There is no step nobody", "add")
    text = pipelines.pipeline.read_text()
    pipelines.pipeline.write_text(text.replace("  prepare:", "  ready:").replace("jobs.prepare", "jobs.ready"))
    pipelines.inv("pipeline.submit", "--from-run", "1", "--step", "add").says(
        "prepare of the run", "ready", "--skip NAME"
    )
    pipelines.pipeline.rename(pipelines.pipeline.with_name("other.yml"))
    pipelines.inv("pipeline.submit", "--from-run", "1").says("is gone", "Put it back")
    pipelines.pipeline.with_name("other.yml").rename(pipelines.pipeline)
    pipelines.pipeline.write_text(text)
    pipelines.script("add").write_text("import time\ntime.sleep(600)\n")
    pipelines.ok("pipeline.submit", "--no-debug", "--from-run", "1")
    until(lambda: pipelines.step("add")["status"] == "Running", "add to run")
    pipelines.inv("pipeline.submit", "--from-run", "2").says("is not over: Running", "pipeline.cancel")
    # From a run that had itself taken over: what that one had is there again.
    pipelines.ok("pipeline.cancel")
    pipelines.script("add").write_text("print('third time')\n" + ADD)
    said = pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "2").out
    assert "third time" in said and "the result is 36" in said


@ANY_ENGINE
def test_of_several_runs_each_step_is_what_did_it_last(pipelines: PipelineProject) -> None:
    fail(pipelines, "tell")
    # The same again, and with another factor.
    pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "1", "--step", "add",
                 "--input", "factor=5")  # fmt: skip
    said = pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "2", "--step", "tell").out
    assert ": prepare, add." not in said and ": add." in said and "left out" not in said
    assert "the result is 60" in said
    said = pipelines.ok("pipeline.submit", "--no-debug", "--from-run", "2", "--step", "add", "--dry-run").out
    assert ": prepare." in said and "`--skip` names" not in said
    # The first is gone, and what it had done with it.
    first = min(pipelines.runs.glob("*-1-*"))
    shutil.move(first, pipelines.folder / "elsewhere")
    pipelines.inv("pipeline.submit", "--from-run", "2", "--step", "add").says("went on from, is gone", "again.")
    shutil.move(pipelines.folder / "elsewhere", first)
    (first / "plan.json").unlink()
    pipelines.inv("pipeline.submit", "--from-run", "2", "--step", "add").says("has lost its plan", "inv pipeline.list")


SWEEP = """\
type: pipeline
jobs:
  tune:
    type: sweep
    outputs: {model: {type: uri_folder}}
    search_space: {rate: {type: choice, values: [1, 2]}}
    sampling_algorithm: grid
    objective: {goal: minimize, primary_metric: loss}
    limits: {max_total_trials: 2}
    trial:
      command: echo ${{search_space.rate}} > ${{outputs.model}}/rate
      environment: azureml:e@latest
  tell:
    command: cat ${{inputs.model}}/rate; exit CODE
    inputs: {model: "${{parent.jobs.tune.outputs.model}}"}
    environment: azureml:e@latest
"""


@ANY_ENGINE
def test_a_sweep_of_several_trials_is_taken_over_as_one(pipelines: PipelineProject) -> None:
    pipelines.pipeline.write_text(SWEEP.replace("CODE", "3"))
    assert pipelines.inv("pipeline.submit", "--no-debug", "--follow", "--trials", "2").code == 1
    pipelines.pipeline.write_text(SWEEP.replace("CODE", "0"))
    said = pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "1").out
    assert ": tune." in said
    assert [step["name"] for step in pipelines.status()["steps"]] == ["tell"]
    # The sweep itself has as many trials as it had, also from a run that had taken it over.
    pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--from-run", "2", "--step", "tune")
    assert [step["name"] for step in pipelines.status()["steps"]] == ["tune.trial0", "tune.trial1", "tune"]
