"""Files in the style of each kind that holds jobs of Azure ML, and what each takes to be read here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

S = "$schema: https://azuremlschemas.azureedge.net/latest/"
_ENV = "environment: azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest\n"
_INLINE = f"    {_ENV}    compute: azureml:cpu-cluster\n"
_LIMITS = "objective: {goal: maximize, primary_metric: score}\nlimits: {max_total_trials: 4, timeout: 600}\n"
_SETTINGS = "settings: {default_compute: azureml:cpu-cluster}\n"

#: Beside the files that are read: what they name.
PARTS: Mapping[str, str] = {
    "data/a.csv": "1\n",
    "src/train.py": "",
    "src/score.py": "",
    "src/batch.py": "def init():\n    pass\n\n\ndef run(mini_batch):\n    return list(mini_batch)\n",
    "conda.yml": "dependencies: [python=3.11, pip]\n",
    "docker/Dockerfile": "FROM debian\n",
    "train.yml": f"""\
{S}commandComponent.schema.json
type: command
name: train
version: 3
display_name: Train
is_deterministic: false
inputs:
  data: {{type: uri_folder, description: what to learn from}}
  epochs: {{type: integer, default: 3, min: 1, max: 10}}
  rate: {{type: number, default: 0.1}}
  loss: {{type: string, default: l2, enum: [l1, l2]}}
  verbose: {{type: boolean, default: false}}
  start: {{type: uri_folder, optional: true}}
outputs:
  model: {{type: mlflow_model}}
code: ./src
{_ENV}command: >-
  python train.py --data ${{{{inputs.data}}}} --epochs ${{{{inputs.epochs}}}} --rate ${{{{inputs.rate}}}}
  --loss ${{{{inputs.loss}}}} $[[--start ${{{{inputs.start}}}}]] --model ${{{{outputs.model}}}}
resources: {{instance_count: 1}}
""",
    "score.yml": f"""\
{S}commandComponent.schema.json
type: command
name: score
inputs:
  model: {{type: mlflow_model}}
  data: {{type: uri_folder}}
outputs:
  report: {{type: uri_file}}
code: ./src
{_ENV}command: python score.py ${{{{inputs.model}}}} ${{{{inputs.data}}}} ${{{{outputs.report}}}}
""",
    "inner.yml": f"""\
{S}pipelineComponent.schema.json
type: pipeline
name: train_and_score
version: 1
inputs:
  data: {{type: uri_folder}}
  epochs: {{type: integer, default: 2}}
outputs:
  report: {{type: uri_file}}
jobs:
  train_step:
    type: command
    component: ./train.yml
    inputs: {{data: '${{{{parent.inputs.data}}}}', epochs: '${{{{parent.inputs.epochs}}}}'}}
  score_step:
    type: command
    component: ./score.yml
    inputs:
      model: ${{{{parent.jobs.train_step.outputs.model}}}}
      data: ${{{{parent.inputs.data}}}}
    outputs:
      report: ${{{{parent.outputs.report}}}}
""",
}

#: The files that are read.
FILES: Mapping[str, str] = {
    "pipeline-inline.yml": f"""\
{S}pipelineJob.schema.json
type: pipeline
display_name: inline
experiment_name: tests
tags: {{a: b}}
settings:
  default_compute: azureml:cpu-cluster
  default_datastore: azureml:workspaceblobstore
  continue_on_step_failure: false
  force_rerun: true
inputs:
  raw: {{type: uri_folder, path: ./data}}
  rate: 0.5
outputs:
  final: {{type: uri_folder, mode: rw_mount}}
jobs:
  first_job:
    type: command
    command: ls ${{{{inputs.raw}}}} ${{{{outputs.clean}}}}
    code: ./src
{_INLINE}    inputs: {{raw: '${{{{parent.inputs.raw}}}}', rate: '${{{{parent.inputs.rate}}}}'}}
    outputs: {{clean: {{type: uri_folder, mode: upload}}}}
    environment_variables: {{LEVEL: high}}
    limits: {{timeout: 300}}
  second_job:
    type: command
    command: ls ${{{{inputs.clean}}}} ${{{{outputs.final}}}}
{_INLINE}    inputs: {{clean: '${{{{parent.jobs.first_job.outputs.clean}}}}'}}
    outputs: {{final: '${{{{parent.outputs.final}}}}'}}
    resources: {{instance_count: 2, shm_size: 4g}}
    distribution: {{type: pytorch, process_count_per_instance: 2}}
""",
    "pipeline-components.yml": f"""\
{S}pipelineJob.schema.json
type: pipeline
{_SETTINGS}jobs:
  train_step:
    type: command
    component: ./train.yml
    inputs: {{data: {{type: uri_folder, path: ./data}}, epochs: 5, loss: l1}}
    outputs: {{model: {{mode: upload}}}}
  score_step:
    component: ./score.yml
    inputs:
      model: ${{{{parent.jobs.train_step.outputs.model}}}}
      data: {{path: ./data, type: uri_folder, mode: ro_mount}}
""",
    "pipeline-nested.yml": f"""\
{S}pipelineJob.schema.json
type: pipeline
{_SETTINGS}inputs:
  raw: {{type: uri_folder, path: ./data}}
outputs:
  best: {{type: uri_file}}
jobs:
  one:
    type: pipeline
    component: ./inner.yml
    inputs: {{data: '${{{{parent.inputs.raw}}}}', epochs: 4}}
  two:
    type: pipeline
    component: ./inner.yml
    inputs: {{data: '${{{{parent.inputs.raw}}}}'}}
    outputs: {{report: '${{{{parent.outputs.best}}}}'}}
""",
    "pipeline-sweep.yml": f"""\
{S}pipelineJob.schema.json
type: pipeline
{_SETTINGS}jobs:
  tune:
    type: sweep
    trial: ./train.yml
    inputs: {{data: {{type: uri_folder, path: ./data}}}}
    sampling_algorithm: random
    search_space:
      epochs: {{type: choice, values: [1, 2]}}
      rate: {{type: uniform, min_value: 0.1, max_value: 0.9}}
    objective: {{goal: maximize, primary_metric: score}}
    limits: {{max_total_trials: 4, max_concurrent_trials: 2}}
  score_step:
    type: command
    component: ./score.yml
    inputs: {{model: '${{{{parent.jobs.tune.outputs.model}}}}', data: {{type: uri_folder, path: ./data}}}}
""",
    "pipeline-mixed.yml": f"""\
{S}pipelineJob.schema.json
type: pipeline
{_SETTINGS}inputs:
  table: {{type: mltable, path: ./data}}
jobs:
  auto:
    type: automl
    task: regression
    primary_metric: r2_score
    target_column_name: price
    training_data: ${{{{parent.inputs.table}}}}
    outputs: {{best_model: {{type: mlflow_model}}}}
  registered:
    type: command
    component: azureml://registries/azureml/components/some/versions/1
  use:
    type: command
    command: ls ${{{{inputs.model}}}}
{_INLINE}    inputs: {{model: {{type: mlflow_model, path: '${{{{parent.jobs.auto.outputs.best_model}}}}'}}}}
""",
    "pipeline-lenient.yml": f"""\
{S}pipelineJob.schema.json
type: pipeline
settings: {{default_compute: azureml:cpu-cluster, some_setting: 1, continue_on_step_failur: true}}
jobs:
  train_step:
    type: command
    component: ./train.yml
    inputs: {{data: {{type: uri_folder, path: ./data}}, epochs: 99, loss: l3, verbose: 'no', rate: fast, more: 1}}
""",
    "pipeline-parallel.yml": f"""\
{S}pipelineJob.schema.json
type: pipeline
{_SETTINGS}jobs:
  batch_step:
    type: parallel
    inputs: {{files: {{type: uri_folder, path: ./data}}}}
    outputs: {{report: {{type: uri_file}}}}
    input_data: ${{{{inputs.files}}}}
    mini_batch_size: "1"
    mini_batch_error_threshold: 5
    retry_settings: {{max_retries: 2, timeout: 60}}
    resources: {{instance_count: 2}}
    max_concurrency_per_instance: 2
    task:
      type: run_function
      code: ./src
      entry_script: batch.py
      {_ENV}      append_row_to: ${{{{outputs.report}}}}
""",
    "pipeline-component.yml": PARTS["inner.yml"],
    "command-job.yml": f"""\
{S}commandJob.schema.json
type: command
command: python train.py --data ${{{{inputs.data}}}} --rate ${{{{inputs.rate}}}} --model ${{{{outputs.model}}}}
code: src
environment:
  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04
  conda_file: ./conda.yml
environment_variables: {{A: b}}
inputs:
  data: {{type: uri_folder, path: ./data}}
  rate: 0.1
outputs:
  model: {{type: mlflow_model}}
compute: azureml:gpu-cluster
resources: {{instance_count: 2}}
distribution: {{type: mpi, process_count_per_instance: 2}}
display_name: a job
experiment_name: tests
description: One job.
queue_settings: {{job_tier: standard}}
""",
    "command-job-short.yml": f"{S}commandJob.schema.json\ncommand: echo hello\n{_ENV}compute: azureml:cpu-cluster\n",
    "command-job-docker.yml": f"{S}commandJob.schema.json\ncommand: ls\nenvironment: {{build: {{path: ./docker}}}}\n",
    "command-component.yml": PARTS["train.yml"],
    "sweep-job.yml": f"""\
{S}sweepJob.schema.json
type: sweep
trial:
  command: python train.py --a ${{{{inputs.a}}}} --b ${{{{search_space.b}}}} --c ${{{{search_space.c}}}}
  code: src
  {_ENV}inputs: {{a: 0.5}}
compute: azureml:cpu-cluster
sampling_algorithm: random
search_space:
  b: {{type: choice, values: [hello, world]}}
  c: {{type: loguniform, min_value: -6, max_value: -1}}
{_LIMITS}""",
    "schedule.yml": f"""\
{S}schedule.schema.json
name: nightly
display_name: Every night
trigger: {{type: cron, expression: '0 3 * * *', time_zone: UTC}}
create_job:
  type: pipeline
  job: ./pipeline-inline.yml
  settings: {{continue_on_step_failure: true}}
  inputs: {{rate: 0.7}}
""",
    "schedule-file.yml": f"""\
{S}schedule.schema.json
name: hourly
trigger: {{type: recurrence, frequency: hour, interval: 1}}
create_job: ./pipeline-components.yml
""",
}
#: Values for inputs that have none in the file, or lie where only Azure can reach them.
GIVEN: Mapping[str, Mapping[str, str]] = {
    "pipeline-mixed.yml": {"auto.best_model": "data"},
    "pipeline-component.yml": {"data": "data"},
    "command-component.yml": {"data": "data"},
}


def write(folder: Path) -> None:
    """Write all of them."""
    for name, text in {**PARTS, **FILES}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
