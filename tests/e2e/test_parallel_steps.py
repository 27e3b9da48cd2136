"""Parallel steps, batch deployments and sweeps on both engines, to breakpoints."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pipelines import FAMILY, PipelineProject, go_on, session, stop_of, value_of
from projects import ANY_ENGINE

BATCH = '''"""Doubles the number in each file."""
import argparse
import os


def init():
    global factor
    parser = argparse.ArgumentParser()
    parser.add_argument("--factor", type=int)
    factor = parser.parse_known_args()[0].factor


def run(mini_batch):
    results = []
    for path in mini_batch:
        number = int(open(path).read())
        results.append(f"{os.path.basename(path)} {number * factor}")
    return results
'''
#: Lines of BATCH: in init(), and in run() with `number` known.
INIT_LINE, RUN_LINE = 8, 17
PARALLEL = """
    type: pipeline
    inputs:
      numbers: {type: uri_folder, path: ./numbers}
    jobs:
      score:
        type: parallel
        inputs:
          data: {type: uri_folder, path: "${{parent.inputs.numbers}}"}
          factor: 2
        outputs:
          rows: {type: uri_file}
        input_data: ${{inputs.data}}
        mini_batch_size: "2"
        max_concurrency_per_instance: 2
        mini_batch_error_threshold: 0
        retry_settings: {max_retries: 1, timeout: 60}
        task:
          type: run_function
          code: ./score
          entry_script: batch.py
          program_arguments: --factor ${{inputs.factor}}
          append_row_to: ${{outputs.rows}}
      count:
        command: cp ${{inputs.rows}} outputs/rows.txt
        inputs:
          rows: ${{parent.jobs.score.outputs.rows}}
"""


@pytest.fixture
def parallel(pipelines: PipelineProject) -> PipelineProject:
    """A pipeline with a parallel step over five files."""
    pipelines.pipeline.write_text(textwrap.dedent(PARALLEL))
    for name in ("score", "numbers"):
        (pipelines.folder / name).mkdir()
    script(pipelines).write_text(BATCH)
    for number in range(5):
        (pipelines.folder / "numbers" / f"f{number}").write_text(str(number))
    return pipelines


def script(project: PipelineProject) -> Path:
    return project.folder / "score" / "batch.py"


def debug(project: PipelineProject, *arguments: str) -> dict[str, Any]:
    """The one step that holds."""
    endpoints = project.ok("pipeline.debug", "--json", *arguments).json["endpoints"]
    assert len(endpoints) == 1, endpoints
    found: dict[str, Any] = endpoints[0]
    return found


def rows(project: PipelineProject) -> list[str]:
    folder = project.runs / project.record()["run_id"]
    text: str = (folder / "steps" / "count" / "outputs" / "rows.txt").read_text()
    return text.splitlines()


def test_breakpoints_stop_in_init_and_in_run_for_each_file(parallel: PipelineProject) -> None:
    endpoint = debug(parallel)
    assert endpoint["launch_configuration"] == f"{FAMILY} (score)"
    with session(endpoint, {script(parallel): [INIT_LINE, RUN_LINE]}) as client:
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(script(parallel)), INIT_LINE)
        go_on(client, frame)
        for number in range(5):
            frame = stop_of(client)
            assert (frame["line"], value_of(client, frame, "number")) == (RUN_LINE, str(number))
            assert value_of(client, frame, "len(mini_batch)") == ("1" if number == 4 else "2")
            go_on(client, frame)
        client.wait_event("terminated", 30)
    assert parallel.until_final()["status"] == "Completed"
    assert rows(parallel) == [f"f{number} {number * 2}" for number in range(5)]
    log = Path(endpoint["log"]).read_text()
    assert "parallel run: one process instead of 2, since it is debugged" in log


@ANY_ENGINE
def test_one_mini_batch_runs_alone_and_can_be_looked_into_from_the_shell(parallel: PipelineProject) -> None:
    endpoint = debug(parallel, "--mini-batch", "1")
    found = parallel.ok("pipeline.inspect", f"batch.py:{RUN_LINE}", "--eval", "mini_batch", "--json").json
    assert found["stopped"] == {"file": str(script(parallel)), "line": RUN_LINE, "function": "run"}
    assert found["locals"]["number"] == "2" and "/f3'" in found["values"]["mini_batch"]
    assert parallel.until_final()["status"] == "Completed"
    assert rows(parallel) == ["f2 4", "f3 6"]
    folder = Path(endpoint["log"]).parents[1] / "logs"
    report = (folder / "sys/job_report/processed_mini-batches.csv").read_text().splitlines()
    assert len(report) == 2 and report[1].startswith("1,process000,done,2,2,1,")


@ANY_ENGINE
def test_where_run_raises_it_holds_on_error_and_the_step_fails_with_the_persons_line(parallel: PipelineProject) -> None:
    (parallel.folder / "numbers" / "f3").write_text("three")
    endpoint = debug(parallel, "--on-error")
    with session(endpoint, {}) as client:
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(script(parallel)), RUN_LINE - 1)
        assert value_of(client, frame, "path").endswith("/f3'")
        go_on(client, frame)
    assert parallel.until_final()["status"] == "Failed"
    assert "the first: mini-batch 1, batch.py:16: ValueError" in Path(endpoint["log"]).read_text().splitlines()[-1]


def test_without_a_debugger_its_processes_run_beside_each_other(parallel: PipelineProject) -> None:
    waits = textwrap.dedent("""
        import os, time
        def run(mini_batch):
            open(os.path.join("logs", "here" + os.path.basename(mini_batch[0])), "w").close()
            until = time.monotonic() + 60
            while len([name for name in os.listdir("logs") if name.startswith("here")]) < 2:
                assert time.monotonic() < until
                time.sleep(0.01)
            return ["row"] * len(mini_batch)
    """)
    script(parallel).write_text(waits)
    parallel.ok("pipeline.submit", "--no-debug")
    assert parallel.until_final()["status"] == "Completed"
    assert rows(parallel) == ["row"] * 5


def test_a_table_arrives_as_data_frames_of_the_size_that_is_asked_for(parallel: PipelineProject) -> None:
    text = textwrap.dedent(PARALLEL).replace('"2"', "200B").replace("type: uri_folder", "type: mltable")
    parallel.pipeline.write_text(text)
    (parallel.folder / "env" / "training").mkdir(parents=True)
    (parallel.folder / "env" / "training" / "requirements.txt").write_text("pandas>=2,<3\n")
    (parallel.folder / "numbers" / "MLTable").write_text(
        "paths:\n- pattern: ./*.csv\ntransformations:\n- read_delimited:\n    delimiter: ';'\n    encoding: utf8\n"
        "- keep_columns: [a, b]\n"
    )
    lines = "".join(f"{number};{number}.5;x\n" for number in range(100))
    (parallel.folder / "numbers" / "data.csv").write_text("a;b;c\n" + lines)
    script(parallel).write_text("def run(frame, context):\n    frame['sum'] = frame.a + frame.b\n    return frame\n")
    endpoint = debug(parallel)
    with session(endpoint, {script(parallel): [3]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "list(frame.columns)") == "['a', 'b', 'sum']"
        assert 10 < int(value_of(client, frame, "len(frame)")) < 50
        assert value_of(client, frame, "context.minibatch_index") == "0"
    assert parallel.until_final()["status"] == "Completed"
    assert rows(parallel) == [f"{number} {number}.5 {2 * number}.5" for number in range(100)]


def test_a_batch_deployment_is_debugged_as_it_is(parallel: PipelineProject) -> None:
    (parallel.folder / "its model").mkdir()
    (parallel.folder / "its model" / "factor").write_text("3")
    text = BATCH.replace("    factor = ", "    model = os.environ['AZUREML_MODEL_DIR']\n    factor = ").replace(
        "parser.parse_known_args()[0].factor", "int(open(os.path.join(model, 'its model', 'factor')).read())"
    )
    script(parallel).write_text(text)
    file = parallel.folder / "deployment.yml"
    file.write_text(
        textwrap.dedent("""
        $schema: https://azuremlschemas.azureedge.net/latest/modelBatchDeployment.schema.json
        name: doubling
        endpoint_name: numbers
        type: model
        model: {path: ./its model}
        code_configuration: {code: score, scoring_script: batch.py}
        compute: azureml:cluster
        settings: {mini_batch_size: 3, output_action: append_row, output_file_name: rows.csv}
        """)
    )
    batch = ["deploy.debug", "--deployment", str(file)]
    parallel.inv(*batch).says("is a batch deployment, not an online deployment", "--data FOLDER")
    (endpoint,) = parallel.ok(*batch, "--data", "numbers", "--mini-batch", "1", "--json").json["endpoints"]
    assert endpoint["step"] == "doubling"
    with session(endpoint, {script(parallel): [RUN_LINE + 1]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "(number, factor)") == "(3, 3)"
        go_on(client, frame)
        go_on(client, stop_of(client))
    record = parallel.until_final()
    assert record["status"] == "Completed"
    assert (parallel.runs / record["run_id"] / "outputs/score/rows.csv").read_text() == "f3 9\nf4 12\n"


@ANY_ENGINE
def test_data_of_what_is_no_batch_deployment_is_refused(parallel: PipelineProject) -> None:
    file = str(parallel.pipeline)
    parallel.inv("deploy.debug", "--data", "numbers").says("--data is for a batch deployment, and none", code=2)
    parallel.inv("deploy.debug", "--deployment", file, "--data", "numbers").says(
        "is not a batch deployment, so it takes"
    )
    batch = parallel.folder / "batch.yml"
    batch.write_text(
        "$schema: https://azuremlschemas.azureedge.net/latest/batchDeployment.schema.json\n"
        "name: a\nendpoint_name: b\nmodel: {path: numbers}\nmini_batch_size: 3\n"
    )
    named = ["deploy.debug", "--deployment", str(batch)]
    parallel.inv(*named, "--data", "numbers").says("has no scoring script", "mlflow.pyfunc.load_model")
    parallel.inv(*named, "--data", "numbers", "--env", "A=b").says("--env and --source are not for batch", code=2)
    parallel.inv(*named, "--mini-batch", "1").says("A batch deployment runs on data, and none is named", code=2)


SWEEP = """
    type: pipeline
    jobs:
      tune:
        type: sweep
        search_space:
          rate: {type: choice, values: [1, 5, 3]}
        sampling_algorithm: grid
        objective: {goal: minimize, primary_metric: loss}
        outputs:
          model: {type: uri_folder}
        trial:
          code: ./score
          command: python train.py ${{search_space.rate}} ${{outputs.model}}
      use:
        command: cp ${{inputs.model}}/rate outputs/rows.txt
        inputs:
          model: ${{parent.jobs.tune.outputs.model}}
"""
TRAIN = """\
import sys
rate = int(sys.argv[1])
with open(sys.argv[2] + "/rate", "w") as file:
    file.write(str(rate))
if rate == 5:
    raise ValueError("too fast")
"""


@pytest.fixture
def sweep(parallel: PipelineProject) -> PipelineProject:
    """A pipeline with a sweep, and a step that takes what it has made."""
    parallel.pipeline.write_text(textwrap.dedent(SWEEP))
    (parallel.folder / "score" / "train.py").write_text(TRAIN)
    return parallel


def test_a_trial_of_a_sweep_stops_at_a_breakpoint_with_its_values(sweep: PipelineProject) -> None:
    endpoint = debug(sweep, "--step", "tune")
    with session(endpoint, {sweep.folder / "score" / "train.py": [3]}) as client:
        assert value_of(client, stop_of(client), "rate") == "1"
    assert sweep.until_final()["status"] == "Completed"
    other = debug(sweep, "--step", "tune.trial2", "--trials", "3")
    assert other["step"] == "tune.trial2"
    with session(other, {sweep.folder / "score" / "train.py": [3]}) as client:
        assert value_of(client, stop_of(client), "rate") == "3"
    assert sweep.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_trials_have_logs_of_their_own_and_one_that_fails_does_not_stop_the_sweep(sweep: PipelineProject) -> None:
    shown = sweep.ok("pipeline.submit", "--dry-run", "--trials", "3").out
    assert "those of the best trial by `loss`, minimize" in shown and "python train.py 3 RUN/" in shown
    sweep.ok("pipeline.submit", "--no-debug", "--trials", "3")
    record = sweep.until_final()
    assert record["status"] == "Completed"
    states = {step["name"]: step["status"] for step in record["steps"]}
    assert states == {
        "tune.trial0": "Completed",
        "tune.trial1": "Failed",
        "tune.trial2": "Completed",
        "tune": "Completed",
        "use": "Completed",
    }
    steps = sweep.runs / record["run_id"] / "steps"
    assert "too fast" in (steps / "tune.trial1/azureml-logs/70_driver_log.txt").read_text()
    told = (steps / "tune/azureml-logs/70_driver_log.txt").read_text()
    assert told == "tune.trial0 is taken: none of 2 has logged `loss`\n"
    assert json.loads((steps / "use/outputs/rows.txt").read_text()) == 1


def test_the_best_trial_by_what_mlflow_has_logged_feeds_what_follows(sweep: PipelineProject) -> None:
    (sweep.folder / "env" / "training").mkdir(parents=True)
    (sweep.folder / "env" / "training" / "requirements.txt").write_text("mlflow-skinny>=3,<4\n")
    logs = TRAIN.partition("if rate")[0] + "import mlflow\nmlflow.log_metric('loss', abs(rate - 3))\n"
    (sweep.folder / "score" / "train.py").write_text(logs)
    sweep.ok("pipeline.submit", "--no-debug", "--trials", "3")
    record = sweep.until_final()
    assert record["status"] == "Completed"
    steps = sweep.runs / record["run_id"] / "steps"
    told = (steps / "tune/azureml-logs/70_driver_log.txt").read_text()
    assert told == "tune.trial2 is the best of 3: loss 0\n"
    assert (steps / "use/outputs/rows.txt").read_text() == "3"


@ANY_ENGINE
def test_trials_run_as_many_at_once_and_as_long_as_their_limits_say(sweep: PipelineProject) -> None:
    text = sweep.pipeline.read_text()
    limits = "limits: {max_total_trials: 2, max_concurrent_trials: 1, trial_timeout: 3}"
    sweep.pipeline.write_text(text.replace("sampling_algorithm: grid", f"sampling_algorithm: grid\n    {limits}"))
    script = sweep.folder / "score" / "train.py"
    script.write_text(TRAIN.replace('raise ValueError("too fast")', "import time\n    time.sleep(600)"))
    assert "there are no more trials than" in " ".join(
        sweep.ok("pipeline.submit", "--no-debug", "--trials", "5").out.split()
    )
    record = sweep.until_final()
    assert record["status"] == "Completed"
    first, second, best = record["steps"][:3]
    assert (first["status"], second["status"], best["status"]) == ("Completed", "Failed", "Completed")
    assert second["reason"] == "it ran for longer than 3 s, its `trial_timeout`"
    assert second["started"] >= first["ended"]


@ANY_ENGINE
def test_a_sweep_all_of_whose_trials_fail_takes_what_needs_it_with_it(sweep: PipelineProject) -> None:
    (sweep.folder / "score" / "train.py").write_text("raise SystemExit(3)\n")
    sweep.ok("pipeline.submit", "--no-debug", "--trials", "2")
    record = sweep.until_final()
    assert record["status"] == "Failed"
    assert [step["status"] for step in record["steps"]] == ["Failed", "Failed", "Skipped", "Skipped"]
