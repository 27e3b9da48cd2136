"""Parallel jobs, batch deployments and sweeps of several trials, as they are read."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from workflows.errors import UserError
from workflows.pipelines.batch import data_input
from workflows.pipelines.definition import Pipeline
from workflows.pipelines.parallel import is_parallel
from workflows.pipelines.parallel_data import takes_table
from workflows.pipelines.parts import Parts
from workflows.pipelines.reader import load_pipeline

RUN = "def run(mini_batch):\n    return mini_batch\n"
JOB = """
    type: pipeline
    inputs:
      size: 7
    jobs:
      score:
        type: parallel
        inputs:
          data: {type: uri_folder, path: ./data}
          model: {type: uri_folder, path: ./model}
        outputs:
          rows: {type: uri_file}
        input_data: ${{inputs.data}}
        mini_batch_size: ${{parent.inputs.size}}
        max_concurrency_per_instance: 3
        mini_batch_error_threshold: 4
        error_threshold: -1
        logging_level: DEBUG
        retry_settings: {max_retries: 0, timeout: 9}
        resources: {instance_count: 2, shm_size: 1g}
        environment_variables: {A: b}
        task:
          type: run_function
          code: ./src
          entry_script: score.py
          program_arguments: >-
            --model ${{inputs.model}}
            --error_threshold 5
          append_row_to: ${{outputs.rows}}
"""
COMPONENT = """
    $schema: https://azuremlschemas.azureedge.net/latest/parallelComponent.schema.json
    type: parallel
    name: scorer
    inputs:
      data: {type: mltable}
    outputs:
      folder: {type: uri_folder}
    input_data: ${{inputs.data}}
    mini_batch_size: 10kb
    task:
      type: run_function
      code: .
      entry_script: score.py
      environment: {image: "some/image:1"}
"""


def project(folder: Path, files: Mapping[str, str]) -> Path:
    for name in ("data", "model"):
        (folder / name).mkdir()
        (folder / name / "x.txt").write_text("1\n")
    for name, text in {"src/score.py": RUN, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def read(folder: Path, text: str, **inputs: str) -> Pipeline:
    (folder / "file.yml").write_text(textwrap.dedent(text))
    return load_pipeline(folder / "file.yml", inputs)


def options(command: str) -> tuple[dict[str, str], list[str]]:
    """What the driver is told, and what its script is."""
    words = shlex.split(command)
    assert words[:3] == ["exec", "python", "$AZUREML_PARALLEL_RUN"]
    own, theirs = words[3:], list[str]()
    if "--" in own:
        place = own.index("--")
        own, theirs = own[:place], own[place + 1 :]
    return dict(zip(own[::2], own[1::2], strict=True)), theirs


def test_a_parallel_job_is_a_command_of_the_driver(tmp_path: Path) -> None:
    found = read(project(tmp_path, {}), JOB)
    step = found.steps[0]
    known, arguments = options(step.command)
    assert known == {
        "--entry-script": "score.py",
        "--input": "${{inputs.data}}",
        "--input-type": "uri_folder",
        "--mini-batch-size": "7",
        "--processes": "3",
        "--mini-batch-error-threshold": "4",
        "--error-threshold": "-1",
        "--max-retries": "0",
        "--timeout": "9",
        "--logging-level": "DEBUG",
        "--append-row-to": "${{outputs.rows}}",
        "--output": "${{outputs.rows}}",
    }
    assert arguments == ["--model", "${{inputs.model}}", "--error_threshold", "5"]
    assert (step.code, step.kind, step.ranks, step.shm_size) == (tmp_path / "src", "parallel", 1, "1g")
    assert (step.outputs, dict(step.variables)) == ({"rows": "uri_file"}, {"A": "b"})
    assert is_parallel(step)
    assert found.notes == ("`resources.instance_count` is not acted on here (score)",)


def test_a_job_says_more_than_its_component(tmp_path: Path) -> None:
    files = {"parts/scorer.yml": COMPONENT, "parts/score.py": RUN, "data/MLTable": "paths:\n- file: ./x.txt\n"}
    pipeline = """
        type: pipeline
        jobs:
          score:
            type: parallel
            component: ./parts/scorer.yml
            mini_batch_size: 5kb
            inputs:
              data: {type: mltable, path: ./data}
    """
    step = read(project(tmp_path, files), pipeline).steps[0]
    known, arguments = options(step.command)
    assert known == {
        "--entry-script": "score.py",
        "--input": "${{inputs.data}}",
        "--input-type": "mltable",
        "--mini-batch-size": "5kb",
        "--processes": "1",
        "--output": "${{outputs.folder}}",
    }
    assert (step.code, arguments) == (tmp_path / "parts", [])
    assert step.environment is not None and step.environment.image == "some/image:1"


def test_a_component_alone_is_a_pipeline_of_one_step(tmp_path: Path) -> None:
    files = {"score.py": RUN, "data/MLTable": "paths:\n- file: ./x.txt\n"}
    found = read(project(tmp_path, files), COMPONENT, data=str(tmp_path / "data"))
    assert [(step.name, step.kind) for step in found.steps] == [("scorer", "parallel")]


@pytest.mark.parametrize(
    ("was", "now", "told", "line"),
    [
        ("entry_script: score.py", "entry_script: no.py", "The entry script of step `score`, no.py, is not in", 25),
        ("          entry_script: score.py\n", "", "has no `entry_script`", 22),
        ("input_data: ${{inputs.data}}", "input_data: ${{inputs.date}}", "has no input `date`", 13),
        ("input_data: ${{inputs.data}}", "input_data: ./data", "`input_data` of step `score` cannot be `./data`", 13),
        ("        input_data: ${{inputs.data}}\n", "", "has no `input_data`", 6),
        ("max_retries: 0", "max_retries: x", "`max_retries` of step `score` has to be a whole number from 0", 19),
        ("timeout: 9", "timeout: 0", "`timeout` of step `score` has to be a whole number from 1", 19),
        ("max_concurrency_per_instance: 3", "max_concurrency_per_instance: -1", "has to be a whole number from 1", 15),
        ("type: run_function", "type: fly", "The task of step `score` is of type `fly`", 23),
        ("${{inputs.model}}", "${{inputs.modell}}", "names `${{inputs.modell}}`, which it does not have", 25),
        ("code: ./src", "code: ./nowhere", "which does not exist", 24),
    ],
)
def test_a_wrong_parallel_job_is_refused_at_its_line(tmp_path: Path, was: str, now: str, told: str, line: int) -> None:
    text = JOB.replace(was, now)
    assert text != JOB
    with pytest.raises(UserError) as caught:
        read(project(tmp_path, {}), text)
    assert told in caught.value.problem
    assert caught.value.line == line


def test_one_mini_batch_is_asked_of_the_parallel_step_that_is_meant(tmp_path: Path) -> None:
    two = JOB + textwrap.indent(textwrap.dedent(JOB).split("jobs:\n")[1].replace("score:", "again:"), "    ")
    found = read(project(tmp_path, {}), two)
    changed = Parts(mini_batch=0).select_from(replace(found, asked=("again",)))
    assert ["--only 0" in step.command for step in changed.steps] == [False, True]
    with pytest.raises(UserError, match="Several steps have mini-batches: score, again"):
        Parts(mini_batch=0).select_from(found)


def test_a_mini_batch_that_there_is_not_is_refused_before_the_start(tmp_path: Path) -> None:
    found = read(project(tmp_path, {f"data/{number}.txt": "1" for number in range(9)}), JOB)
    assert "--only 1" in Parts(mini_batch=1).select_from(found).steps[0].command
    with pytest.raises(UserError, match=r"There is no mini-batch 2 of step `score`: its input has 2, from 0 on\."):
        Parts(mini_batch=2).select_from(found)


def test_data_that_is_empty_is_refused_before_the_start_and_an_output_is_not_looked_at(tmp_path: Path) -> None:
    folder = project(tmp_path, {})
    (folder / "data" / "x.txt").unlink()
    with pytest.raises(UserError, match=r"The input .*data is empty") as caught:
        read(folder, JOB)
    assert caught.value.line == 9
    made = JOB.replace("{type: uri_folder, path: ./data}", "${{parent.jobs.make.outputs.o}}")
    assert len(read(folder, made + "      make: {command: ls, outputs: {o: {type: uri_folder}}}\n").steps) == 2


def test_a_step_of_tables_is_known_by_its_data(tmp_path: Path) -> None:
    files = {
        "parts/scorer.yml": COMPONENT,
        "parts/score.py": RUN,
        "table/MLTable": "paths:\n- file: ./a.csv\ntransformations:\n- read_delimited\n",
        "table/a.csv": "a\n1\n",
        "files/MLTable": "paths:\n- file: ./a.csv\n",
        "files/a.csv": "a\n1\n",
    }
    folder = project(tmp_path, files)
    job = "type: pipeline\njobs:\n  s:\n    component: ./parts/scorer.yml\n    inputs: "
    job += "{data: {type: mltable, path: PATH}}\n"
    found = {name: takes_table(read(folder, job.replace("PATH", name)).steps[0]) for name in ("table", "files")}
    assert found == {"table": True, "files": False}


def test_a_mini_batch_of_what_has_none_is_refused(tmp_path: Path) -> None:
    text = "type: pipeline\njobs:\n  a: {command: echo}\n"
    with pytest.raises(UserError, match="--mini-batch needs a parallel job, and a step of this pipeline is not one"):
        Parts(mini_batch=0).select_from(read(project(tmp_path, {}), text))
    with pytest.raises(UserError, match="--trials needs a sweep, and no step is one"):
        Parts(trials=2).select_from(read(tmp_path, text))
    # What was typed for an earlier run may be about what does not run again.
    assert Parts(2, 0, is_from_run=True).select_from(read(tmp_path, text)) == read(tmp_path, text)


def test_a_mini_batch_of_a_step_that_has_none_is_of_the_one_that_it_needs(tmp_path: Path) -> None:
    found = read(project(tmp_path, {}), textwrap.dedent(JOB) + "  tell: {command: echo}\n")
    only = Parts(mini_batch=0).select_from(replace(found, asked=("tell",)))
    assert {step.name: "--only 0" in step.command for step in only.steps} == {"score": True, "tell": False}


# Batch deployments

BATCH = """
    $schema: https://azuremlschemas.azureedge.net/latest/batchDeployment.schema.json
    name: heart
    endpoint_name: hearts
    model: {path: ./model}
    code_configuration: {code: ./src, scoring_script: score.py}
    environment: {image: "some/image:1"}
    compute: azureml:cluster
    resources: {instance_count: 1}
    max_concurrency_per_instance: 2
    mini_batch_size: 10
    output_action: append_row
    output_file_name: rows.csv
    retry_settings: {max_retries: 3, timeout: 30}
    error_threshold: -1
    logging_level: info
    environment_variables: {A: b}
"""


def test_a_batch_deployment_is_a_parallel_step_for_its_data(tmp_path: Path) -> None:
    found = read(project(tmp_path, {}), BATCH, data=str(tmp_path / "data"))
    assert found.name == "heart" and dict(found.outputs) == {"score": ("heart", "score")}
    step = found.steps[0]
    known, _ = options(step.command)
    assert known == {
        "--entry-script": "score.py",
        "--input": "${{inputs.data}}",
        "--mini-batch-size": "10",
        "--processes": "2",
        "--error-threshold": "-1",
        "--max-retries": "3",
        "--timeout": "30",
        "--logging-level": "info",
        "--append-row-to": "${{outputs.score}}/rows.csv",
        "--output": "${{outputs.score}}/rows.csv",
        "--model": "${{inputs.model}}",
    }
    assert step.inputs["model"].path == tmp_path / "model" and dict(step.variables) == {"A": "b"}
    assert step.environment is not None and step.environment.image == "some/image:1"


@pytest.mark.parametrize("name", ["data", "Mödel eins"])
def test_a_model_whose_name_no_input_can_have_keeps_it(tmp_path: Path, name: str) -> None:
    folder = project(tmp_path, {f"{name}/weights": ""})
    step = read(folder, BATCH.replace("./model", f"./{name}"), data=str(tmp_path / "data" / "x.txt")).steps[0]
    assert step.inputs["model"].path == folder / name
    assert step.inputs["data"].path == tmp_path / "data" / "x.txt"
    known, _ = options(step.command)
    assert (known["--model"], known["--model-name"]) == ("${{inputs.model}}", name)


def test_settings_of_the_newer_schema_and_summary_only(tmp_path: Path) -> None:
    old = textwrap.dedent(BATCH)
    head, settings = old.split("max_concurrency_per_instance")
    new = f"{head}settings:\n" + textwrap.indent("max_concurrency_per_instance" + settings, "  ")
    new = new.replace("output_action: append_row", "output_action: summary_only")
    step = read(project(tmp_path, {}), new, data=str(tmp_path / "data")).steps[0]
    known, _ = options(step.command)
    assert known["--output"] == "${{outputs.score}}" and "--append-row-to" not in known
    assert known["--mini-batch-size"] == "10" and dict(step.variables) == {"A": "b"}


def test_the_data_of_a_batch_deployment_may_be_one_file_and_has_to_be_given(tmp_path: Path) -> None:
    folder = project(tmp_path, {})
    step = read(folder, BATCH, data=str(tmp_path / "data" / "x.txt")).steps[0]
    assert step.inputs["data"].path == tmp_path / "data" / "x.txt"
    with pytest.raises(UserError, match="`data`"):
        read(folder, BATCH)


def test_a_registered_model_is_a_file_of_that_name_that_is_here(tmp_path: Path) -> None:
    folder = project(
        tmp_path, {"assets/model.yml": "name: heart-model\nversion: 2\ntype: custom_model\npath: ../model\n"}
    )
    text = BATCH.replace("{path: ./model}", "azureml:heart-model@latest")
    assert read(folder, text, data=str(tmp_path / "data")).steps[0].inputs["model"].path == tmp_path / "model"
    with pytest.raises(UserError, match="The registered model `azureml:other:1` is not on this machine"):
        read(folder, BATCH.replace("{path: ./model}", "azureml:other:1"), data=str(tmp_path / "data"))


def test_a_deployment_of_a_pipeline_component_is_that_pipeline(tmp_path: Path) -> None:
    component = """
        type: pipeline
        name: whole
        inputs: {data: {type: uri_folder}}
        jobs:
          one: {command: "ls ${{inputs.data}}", inputs: {data: "${{parent.inputs.data}}"}}
    """
    text = """
        $schema: https://azuremlschemas.azureedge.net/latest/pipelineComponentBatchDeployment.schema.json
        name: deployed
        endpoint_name: e
        type: pipeline
        component: ./whole.yml
        settings: {continue_on_step_failure: false, default_compute: cluster}
    """
    found = read(project(tmp_path, {"whole.yml": component}), text, data=str(tmp_path / "data"))
    assert data_input(tmp_path / "file.yml") == "data"
    assert [step.name for step in found.steps] == ["one"]
    assert not found.continue_on_failure


def test_the_data_of_a_component_is_the_only_input_that_takes_any(tmp_path: Path) -> None:
    (tmp_path / "file.yml").write_text("name: a\nendpoint_name: b\ncomponent: ./c.yml\n")
    (tmp_path / "c.yml").write_text("inputs: {n: {type: integer}, images: {type: uri_folder}}\njobs: {}\n")
    assert data_input(tmp_path / "file.yml") == "images"
    (tmp_path / "c.yml").write_text("inputs: {a: {type: uri_file}, b: {type: uri_folder}}\njobs: {}\n")
    with pytest.raises(UserError, match="several inputs of data: `a`, `b`"):
        data_input(tmp_path / "file.yml")


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("    code_configuration: {code: ./src, scoring_script: score.py}\n", "", "has no scoring script"),
        (", scoring_script: score.py", "", "has no `scoring_script`"),
        ("scoring_script: score.py", "scoring_script: no.py", "The entry script of step `heart`, no.py, is not in"),
        ("append_row", "append_all", "`output_action` cannot be `append_all`"),
        ("rows.csv", "../rows.csv", "`output_file_name` cannot be `../rows.csv`"),
        ("{path: ./model}", "{path: ./nothing}", "which does not exist"),
    ],
)
def test_a_wrong_batch_deployment_is_refused(tmp_path: Path, was: str, now: str, told: str) -> None:
    text = BATCH.replace(was, now)
    assert text != BATCH
    with pytest.raises(UserError) as caught:
        read(project(tmp_path, {}), text, data=str(tmp_path / "data"))
    assert told in caught.value.problem


# Sweeps

SWEEP = """
    type: pipeline
    jobs:
      tune:
        type: sweep
        trial: {command: "echo ${{search_space.c}} ${{inputs.d}}"}
        inputs: {d: 1}
        outputs: {model: {type: uri_folder}}
        search_space:
          c: {type: choice, values: [a, b, c]}
        sampling_algorithm: grid
        objective: {goal: minimize, primary_metric: loss}
      use:
        command: ls ${{inputs.model}}
        inputs: {model: "${{parent.jobs.tune.outputs.model}}"}
"""


def test_trials_are_steps_and_the_best_stands_for_the_sweep(tmp_path: Path) -> None:
    found = Parts(trials=2).select_from(read(project(tmp_path, {}), SWEEP))
    assert [(step.name, step.kind, step.after) for step in found.steps] == [
        ("tune.trial0", "trial", ()),
        ("tune.trial1", "trial", ()),
        ("tune", "best", ("tune.trial0", "tune.trial1")),
        ("use", "command", ("tune",)),
    ]
    assert [step.inputs["c"].text for step in found.steps[:2]] == ["a", "b"]
    several = SWEEP.replace(
        'command: "echo', 'distribution: {type: pytorch, process_count_per_instance: 2}, command: "echo'
    )
    (tmp_path / "ranks").mkdir()
    ranks = Parts(trials=2).select_from(read(project(tmp_path / "ranks", {}), several)).steps
    assert [step.ranks for step in ranks] == [2, 2, 1, 1]
    sweep = found.steps[2].sweep
    assert sweep is not None and (sweep.metric, sweep.goal) == ("loss", "minimize")


LIMITED = SWEEP.replace(
    "sampling_algorithm: grid",
    "sampling_algorithm: {type: random, rule: sobol}\n"
    "        limits: {max_total_trials: '2', max_concurrent_trials: 1, trial_timeout: 60, timeout: 600}\n"
    "        early_termination: {type: bandit, slack_factor: 0.1}",
)


def test_the_limits_of_a_sweep_hold_and_what_does_not_is_noted(tmp_path: Path) -> None:
    found = read(project(tmp_path, {}), LIMITED)
    assert not any("limits" in note or "early" in note or "sampling" in note for note in found.notes)
    several = Parts(trials=3).select_from(found)
    assert [(step.name, step.seconds) for step in several.steps if step.kind == "trial"] == [
        ("tune.trial0", 60),
        ("tune.trial1", 60),
    ]
    assert several.notes[len(found.notes) :] == (
        "`early_termination` of `tune` is not acted on here: every trial goes on to its end",
        "`limits.timeout` of `tune` is not acted on here; `trial_timeout` is",
        "`rule` of the sampling of `tune` is not acted on here: its trials are drawn at random",
        "`max_total_trials` of `tune` is 2: there are no more trials than that",
    )
    bayesian = SWEEP.replace("sampling_algorithm: grid", "sampling_algorithm: bayesian")
    (tmp_path / "bayesian").mkdir()
    noted = Parts(trials=2).select_from(read(project(tmp_path / "bayesian", {}), bayesian)).notes
    assert "the trials of `tune` are drawn at random: what earlier ones have shown does not count here" in noted


def test_a_limit_that_is_no_number_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`max_total_trials` of step `tune` has to be a whole number, not `few`"):
        read(project(tmp_path, {}), LIMITED.replace("'2'", "few"))
    (tmp_path / "other").mkdir()
    noted = Parts(trials=2).select_from(read(project(tmp_path / "other", {}), LIMITED.replace("'2'", "-1"))).notes
    assert "`max_total_trials: -1` of `tune` is not acted on here" in noted


def test_a_value_of_the_command_line_is_that_of_every_trial(tmp_path: Path) -> None:
    found = read(project(tmp_path, {}), SWEEP, **{"tune.c": "z"})
    changed = Parts(trials=3).select_from(found)
    assert [step.inputs["c"].text for step in changed.steps if step.kind == "trial"] == ["z"]
    assert changed.notes[-1] == "the search space of `tune` has no more than 1 trial"


def test_one_trial_alone_is_asked_for_by_its_name(tmp_path: Path) -> None:
    parts, file = Parts(trials=3), read(project(tmp_path, {}), SWEEP).file
    assert parts.without_trials(["tune.trial1", "use"]) == ("tune", "use")
    found = parts.select_from(load_pipeline(file, only=parts.without_trials(["tune.trial1"])), ["tune.trial1"])
    assert [step.name for step in found.steps] == ["tune.trial1"] == list(found.asked)
    whole = parts.select_from(load_pipeline(file, only=["tune"]), ["tune"])
    assert [step.name for step in whole.steps][-1] == "tune" and len(whole.steps) == 4
    assert whole.asked == ("tune.trial0", "tune.trial1", "tune.trial2")
    with pytest.raises(UserError, match=r"There is no trial tune\.trial7"):
        parts.select_from(load_pipeline(file, only=["tune"]), ["tune.trial7"])
