"""Azure ML's files as they are, on both engines, to a breakpoint: nested pipelines, jobs, components, sweeps."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines import FAMILY, PipelineProject, go_on, session, stop_of, value_of
from projects import ANY_ENGINE

FIT = """\
import pathlib, sys
data, number, model = sys.argv[1:]
words = pathlib.Path(data, "numbers.txt").read_text().split()
total = sum(map(int, words)) * int(number)
pathlib.Path(model, "total.txt").write_text(str(total))
print("fit", total)
"""
#: The line of FIT at which `total` is known.
FIT_LINE = 5
COMPONENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json
type: command
name: fit
version: 1
inputs:
  data: {type: uri_folder}
  number: {type: integer, default: 2}
outputs:
  model: {type: uri_folder}
code: ../fit
environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest
command: python fit.py ${{inputs.data}} ${{inputs.number}} ${{outputs.model}}
"""
INNER = """\
type: pipeline
inputs:
  data: {type: uri_folder}
  number: {type: integer}
outputs:
  model: {type: uri_folder}
jobs:
  fit:
    type: command
    component: azureml:fit@latest
    inputs: {data: '${{parent.inputs.data}}', number: '${{parent.inputs.number}}'}
    outputs: {model: '${{parent.outputs.model}}'}
"""
MIDDLE = """\
type: pipeline
inputs:
  data: {type: uri_folder}
outputs:
  model: {type: uri_folder}
jobs:
  inner:
    type: pipeline
    component: ./inner.yml
    inputs: {data: '${{parent.inputs.data}}', number: 5}
    outputs: {model: '${{parent.outputs.model}}'}
"""
OUTER = """\
type: pipeline
display_name: deep
inputs:
  data: {type: uri_folder, path: ./some data}
jobs:
  tune: {type: automl, task: classification, outputs: {best_model: {type: mlflow_model}}}
  outer:
    type: pipeline
    component: ./parts/middle.yml
    inputs: {data: '${{parent.inputs.data}}'}
  tell:
    command: cat ${{inputs.model}}/total.txt ${{inputs.best}}/numbers.txt
    environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest
    inputs:
      model: ${{parent.jobs.outer.outputs.model}}
      best: ${{parent.jobs.tune.outputs.best_model}}
"""
JOB = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
command: python fit.py "${{inputs.data}}" ${{inputs.number}} ${{outputs.model}}
code: fit
environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest
inputs:
  number: 4
  data: {type: uri_folder, path: ./some data}
outputs:
  model: {type: uri_folder}
compute: azureml:cpu-cluster
"""
SWEEP = """\
type: sweep
trial:
  command: python fit.py "${{inputs.data}}" ${{search_space.number}} ${{outputs.model}}
  code: fit
  environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest
inputs:
  data: {type: uri_folder, path: ./some data}
outputs:
  model: {type: uri_folder}
search_space:
  number: {type: choice, values: [7, 8]}
objective: {goal: minimize, primary_metric: x}
limits: {max_total_trials: 2}
"""


def write(project: PipelineProject) -> Path:
    """The files, none of which is what AML_PIPELINE_FILE names; the script that they start."""
    for name, text in {
        "fit/fit.py": FIT,
        "parts/fit.yml": COMPONENT,
        "parts/inner.yml": INNER,
        "parts/middle.yml": MIDDLE,
        "deep.yml": OUTER.replace("./some data", "./plain"),
        "job.yml": JOB,
        "sweep.yml": SWEEP,
        "plain/numbers.txt": "1 2 3\n",
    }.items():
        (project.folder / name).parent.mkdir(exist_ok=True)
        (project.folder / name).write_text(text)
    return project.folder / "fit" / "fit.py"


def stops(project: PipelineProject, script: Path, total: str, *command: str) -> dict[str, str]:
    """Debug what a command starts: it has to hold, and to stop where `total` is known; the endpoint."""
    (endpoint,) = project.ok(*command, "--json").json["endpoints"]
    with session(endpoint, {script: [FIT_LINE]}) as client:
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(script), FIT_LINE)
        assert value_of(client, frame, "total") == total
        go_on(client, frame)
        client.wait_event("terminated", 30)
    found: dict[str, str] = endpoint
    return found


def test_a_step_two_pipelines_deep_is_stopped_in_and_its_output_reaches_the_outside(pipelines: PipelineProject) -> None:
    script = write(pipelines)
    endpoint = stops(
        pipelines, script, "30", "pipeline.debug", "--file", "deep.yml", "--input", "tune.best_model=plain"
    )
    assert endpoint["step"] == "outer.inner.fit"
    assert endpoint["launch_configuration"] == f"{FAMILY} (outer.inner.fit)"
    record = pipelines.until_final()
    assert record["status"] == "Completed", record
    status = pipelines.status()
    assert [step["name"] for step in status["steps"]] == ["outer.inner.fit", "tell"]
    assert Path(status["steps"][1]["log"]).read_text().split() == ["301", "2", "3"]
    assert "fit 30" in pipelines.ok("pipeline.tail-log", "--step", "fit").out


@ANY_ENGINE
def test_what_needs_a_step_that_is_left_out_is_refused_unless_it_is_given_or_left_out_as_well(
    pipelines: PipelineProject,
) -> None:
    write(pipelines)
    refused = pipelines.inv("pipeline.submit", "--file", "deep.yml", "--no-debug")
    assert refused.code == 1
    assert "--input tune.best_model=PATH" in refused.err and "--skip tell" in refused.err
    assert not pipelines.runs.exists()
    done = pipelines.ok("pipeline.submit", "--file", "deep.yml", "--no-debug", "--follow", "--skip", "tell")
    assert "note: `tune` is left out" in done.out
    assert [step["name"] for step in pipelines.status()["steps"]] == ["outer.inner.fit"]


@ANY_ENGINE
def test_one_step_runs_with_what_it_needs_and_nothing_else(pipelines: PipelineProject) -> None:
    pipelines.ok("pipeline.submit", "--no-debug", "--follow", "--step", "add")
    assert [step["name"] for step in pipelines.status()["steps"]] == ["prepare", "add"]


def test_a_command_job_is_debugged_as_a_pipeline_and_as_an_experiment(pipelines: PipelineProject) -> None:
    script = write(pipelines)
    stops(pipelines, script, "24", "pipeline.debug", "--file", "job.yml")
    assert pipelines.until_final()["status"] == "Completed"
    endpoint = stops(pipelines, script, "54", "experiment.debug", "mine", "--job", "job.yml", "--input", "number=9")
    assert endpoint["launch_configuration"] == "Azure Machine Learning Experiment: mine"
    record = pipelines.until_final()
    assert (record["name"], record["status"]) == ("mine", "Completed")
    assert record["command"] == 'python fit.py "some data" 9 RUN/data/model'
    assert not (pipelines.folder / ".azureml").exists()


@ANY_ENGINE
def test_an_experiment_is_made_for_a_job_and_not_kept_where_that_cannot_run(pipelines: PipelineProject) -> None:
    write(pipelines)
    refused = pipelines.inv("experiment.run", "mine", "--job", "deep.yml", "--input", "tune.best_model=plain")
    assert refused.code == 1 and "--file deep.yml" in refused.err
    assert "mine" not in pipelines.ok("experiment.list").out
    pipelines.ok("experiment.run", "mine", "--job", "job.yml", "--follow")
    assert (pipelines.until_final()["name"], pipelines.until_final()["status"]) == ("mine", "Completed")


def test_a_component_and_a_sweeps_trial_are_debugged_alone(pipelines: PipelineProject) -> None:
    script = write(pipelines)
    stops(pipelines, script, "12", "pipeline.debug", "--file", "parts/fit.yml", "--input", "data=plain")
    assert pipelines.until_final()["status"] == "Completed"
    stops(pipelines, script, "42", "pipeline.debug", "--file", "sweep.yml")
    assert pipelines.until_final()["status"] == "Completed"


def test_a_pipeline_without_python_completes_and_is_not_canceled(pipelines: PipelineProject) -> None:
    (pipelines.folder / "hello.yml").write_text(
        "type: pipeline\njobs:\n"
        "  hello: {command: echo hello, environment: 'azureml:any@latest'}\n"
        "  world: {command: echo world, environment: 'azureml:any@latest'}\n"
    )
    done = pipelines.ok("pipeline.debug", "--file", "hello.yml", "--json")
    assert (done.json["status"], done.json["endpoints"]) == ("Completed", [])
    assert "no step has started a Python script that could be debugged" in done.err
    assert pipelines.record()["status"] == "Completed"


@ANY_ENGINE
def test_a_dry_run_shows_each_step_and_starts_nothing(pipelines: PipelineProject) -> None:
    write(pipelines)
    given = ("--input", "tune.best_model=plain")
    done = pipelines.ok("pipeline.submit", "--file", "deep.yml", "--dry-run", *given)
    assert "python fit.py plain 5 RUN/steps/outer.inner.fit/data/model" in done.out
    assert "cat RUN/steps/outer.inner.fit/data/model/total.txt plain/numbers.txt" in done.out
    assert "tune  left out" in done.out
    assert not pipelines.runs.exists()
    shown = pipelines.ok("pipeline.submit", "--file", "deep.yml", "--dry-run", "--json", *given).json
    first = shown["steps"][0]
    assert (first["step"], first["environment_state"] in ("there", "to be built")) == ("outer.inner.fit", True)
    assert first["inputs"]["number"] == {"value": "5", "from": "parts/middle.yml:10"}
    assert (shown["missing"], [one["step"] for one in shown["skipped"]]) == ([], ["tune"])


@ANY_ENGINE
def test_a_dry_run_names_everything_that_is_missing_and_fails(pipelines: PipelineProject) -> None:
    (pipelines.folder / "bad.yml").write_text(
        "type: pipeline\njobs:\n"
        "  a:\n    command: ls ${{inputs.d}}\n    environment: {image: debian, conda_file: ./none.yml}\n"
        "    inputs: {d: {type: uri_folder, path: ./nodata}}\n"
        "  b:\n    command: python none.py\n    code: prepare\n"
    )
    refused = pipelines.inv("pipeline.submit", "--file", "bad.yml", "--dry-run", "--json")
    assert refused.code == 1
    missing = json.loads(refused.out.splitlines()[-1])["missing"]
    assert [(Path(one["file"]).name, one["line"]) for one in missing] == [("bad.yml", n) for n in (5, 6, 8)]
    assert [line.partition(" error")[0] for line in refused.err.splitlines() if ": error: " in line] == [
        "bad.yml:5:",
        "bad.yml:6:",
        "bad.yml:8:",
    ]


@ANY_ENGINE
def test_a_file_of_another_kind_is_refused_at_once_with_what_takes_it(pipelines: PipelineProject) -> None:
    write(pipelines)
    (pipelines.folder / "blue.yml").write_text("name: blue\nendpoint_name: e\nmodel: {path: ./m}\n")
    for command, said in (
        (["pipeline.debug", "--file", "blue.yml"], "`inv deploy.debug --deployment blue.yml`"),
        (["experiment.debug", "mine", "--script", "job.yml"], "`--job job.yml`"),
        (["deploy.debug", "--score-script", "blue.yml"], "`inv deploy.debug --deployment blue.yml`"),
        (["experiment.debug", "mine", "--job", "deep.yml", "--input", "tune.best_model=plain"], "--file deep.yml"),
        (["experiment.debug", "mine", "--job", "job.yml", "--script", "fit/fit.py"], "Leave out one of the two"),
        (["pipeline.debug", "--file", "job.yml", "--pipeline-file", "deep.yml"], "Type one of the two"),
    ):
        refused = pipelines.inv(*command)
        assert refused.code in (1, 2)
        assert said in refused.err
    assert list(pipelines.runs.glob("*/run.json")) == []


def test_a_schedule_may_name_its_run_and_a_dry_run_keeps_a_commands_lines(pipelines: PipelineProject) -> None:
    (pipelines.folder / "job.yml").write_text(
        "type: pipeline\ninputs: {by: {type: string, default: hand}}\njobs:\n"
        "  hello:\n    environment: azureml:any@latest\n    inputs: {by: '${{parent.inputs.by}}'}\n"
        "    command: |\n      set -e\n      echo run by ${{inputs.by}}\n"
    )
    (pipelines.folder / "nightly.yml").write_text(
        "name: nightly\ntrigger: {type: cron, expression: '0 0 * * *'}\n"
        "create_job:\n  type: pipeline\n  job: file:./job.yml\n  inputs: {by: '${{name}}'}\n"
    )
    shown = pipelines.ok("pipeline.submit", "--file", "nightly.yml", "--dry-run").out.splitlines()
    first = next(number for number, line in enumerate(shown) if line.endswith("  set -e"))
    assert shown[first + 1].strip() == "echo run by RUN"
    pipelines.ok("pipeline.submit", "--file", "nightly.yml", "--follow")
    record = pipelines.until_final()
    assert record["status"] == "Completed"
    assert f"run by {record['run_id']}" in pipelines.ok("pipeline.tail-log", "--follow").out
