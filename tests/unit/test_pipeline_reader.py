"""Pipeline files: what good ones become."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from workflows.errors import BadValue
from workflows.pipelines.definition import Pipeline, Step
from workflows.pipelines.expressions import render_command
from workflows.pipelines.reader import load_pipeline

ROOT = Path(__file__).resolve().parents[2]
Load = Callable[..., Pipeline]

COMPONENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json
type: command
name: fit
version: 1
inputs:
  data: {type: uri_folder}
  epochs: {type: integer, default: 3, min: 1, max: 10}
  rate: {type: number, default: 0.1}
  verbose: {type: boolean, default: false}
  schedule: {type: string, default: step, enum: [step, time-based]}
  start_from: {type: uri_folder, optional: true}
outputs:
  model: {type: uri_folder}
code: ./src
environment: azureml:some-env@latest
command: >-
  python fit.py --data ${{inputs.data}} --epochs ${{inputs.epochs}} --rate ${{inputs.rate}}
  --verbose ${{inputs.verbose}} --schedule ${{inputs.schedule}}
  $[[--start-from ${{inputs.start_from}}]] --model ${{outputs.model}}
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write pipeline.yml beside a component and some data, and load it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "fit/src", "src", "elsewhere", "docker"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("data/a.csv", "fit/src/fit.py", "src/x.py", "docker/Dockerfile", "docker/Other", "elsewhere/b.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "conda.yml").write_text("dependencies: [pip]\n")
    (tmp_path / "fit" / "fit.yml").write_text(COMPONENT)

    def load(
        text: str,
        inputs: Mapping[str, str] | None = None,
        *,
        encoding: str = "utf-8",
        only: Sequence[str] = (),
        skip: Sequence[str] = (),
    ) -> Pipeline:
        (tmp_path / "pipeline.yml").write_bytes(text.encode(encoding))
        return load_pipeline(Path("pipeline.yml"), inputs or {}, only=only, skip=skip)

    return load


def job(rest: str, *, top: str = "") -> str:
    """A pipeline of one inline job `s`; `rest` are its further keys, without indentation."""
    body = "".join(f"    {line}\n" for line in rest.splitlines())
    return f"type: pipeline\n{top}jobs:\n  s:\n    type: command\n{body}"


def only(pipeline: Pipeline) -> Step:
    (step,) = pipeline.steps
    return step


def test_the_example_is_three_steps_in_a_row() -> None:
    pipeline = load_pipeline(ROOT / "examples" / "pipeline" / "pipeline.yml")
    assert [(step.name, step.after) for step in pipeline.steps] == [
        ("train", ()),
        ("score", ("train",)),
        ("evaluate", ("score",)),
    ]
    assert (pipeline.name, pipeline.outputs) == ("House-prices", {"report": ("evaluate", "report")})
    assert (pipeline.notes, pipeline.continue_on_failure) == ((), False)
    for step in pipeline.steps:
        assert step.code == ROOT / "examples" / "pipeline" / step.name


def test_a_component_gives_what_the_job_does_not_say(load: Load, tmp_path: Path) -> None:
    step = only(
        load(
            "type: pipeline\njobs:\n  s:\n    type: command\n    component: ./fit/fit.yml\n    inputs:\n"
            "      data: {type: uri_folder, path: ./data}\n      epochs: 5\n"
        )
    )
    assert {name: item.text for name, item in step.inputs.items() if item.text is not None} == {
        "epochs": "5",
        "rate": "0.1",
        "verbose": "False",
        "schedule": "step",
    }
    assert step.inputs["data"].path == tmp_path / "data"
    assert not step.inputs["start_from"].given
    assert (step.code, step.file, step.line) == (tmp_path / "fit" / "src", tmp_path / "fit" / "fit.yml", 16)
    assert step.environment is not None
    assert step.environment.name == "azureml:some-env@latest"
    assert (step.inputs["epochs"].file, step.inputs["epochs"].line) == (tmp_path / "pipeline.yml", 8)
    values = {"inputs.data": "/d", "outputs.model": "/m"} | {
        f"inputs.{name}": item.text for name, item in step.inputs.items() if item.text is not None
    }
    assert render_command(step, values) == (
        "python fit.py --data /d --epochs 5 --rate 0.1 --verbose False --schedule step  --model /m"
    )


def test_a_components_default_stands_in_for_a_pipeline_input_without_a_value(load: Load) -> None:
    text = "component: fit/fit.yml\ninputs: {data: ./data, rate: '${{parent.inputs.rate}}'}"
    assert only(load(job(text, top="inputs: {rate: {type: number}}\n"))).inputs["rate"].text == "0.1"


def test_code_may_be_a_single_file(load: Load, tmp_path: Path) -> None:
    assert only(load(job("command: python ./x.py\ncode: src/x.py"))).code == tmp_path / "src" / "x.py"


def test_an_optional_input_with_an_empty_default_is_left_out(load: Load) -> None:
    component = "component:\n  command: a $[[--r ${{inputs.r}}]]$[[--s ${{inputs.s}}]]\n  inputs:\n"
    component += "    r: {type: string, optional: true, default: ''}\n    s: {type: string, optional: true, default: x}"
    step = only(load(job(component)))
    assert [item.text for item in step.inputs.values()] == [None, "x"]


@pytest.mark.parametrize("tags", ['""', "${{parent.inputs.none}}"])
def test_an_optional_input_that_is_given_as_the_empty_text_is_left_out(load: Load, tags: str) -> None:
    component = "component:\n  command: a $[[--tags ${{inputs.tags}}]]\n"
    component += "  inputs:\n    tags: {type: string, optional: true, default: x}\n"
    step = only(load(job(f"{component}inputs:\n  tags: {tags}", top="inputs: {none: ''}\n")))
    assert [item.text for item in step.inputs.values()] == [None]
    assert render_command(step, {}) == "a "


@pytest.mark.parametrize("spelling", ["./fit/fit.yml", "fit/fit.yml", "file:./fit/fit.yml", ".\\fit\\fit.yml"])
def test_a_component_file_can_be_named_in_each_spelling(load: Load, spelling: str) -> None:
    assert only(load(job(f"component: {spelling}\ninputs: {{data: {{path: ./data}}}}"))).command.startswith("python")


@pytest.mark.parametrize(
    ("written", "type_", "text"),
    [
        ("5", "integer", "5"),
        ("0.10", "number", "0.1"),
        ("1.0e-5", "number", "1e-05"),
        ("1e-5", "string", "1e-5"),
        ("true", "boolean", "True"),
        ("no", "boolean", "False"),
        ("'False'", "string", "False"),
        ('"(.*)\\\\.jpg"', "string", "(.*)\\.jpg"),
        ("2021-02-03", "string", "2021-02-03"),
        ("2021-02-31", "string", "2021-02-31"),
        ("''", "string", ""),
        ("https://example.org/x", "string", "https://example.org/x"),
        ("./data", "string", "./data"),
        ("{type: integer, value: 7.0}", "integer", "7"),
        ("{type: number, default: 2}", "number", "2"),
        ("{value: 3}", "integer", "3"),
        ("{type: boolean, value: 'TRUE'}", "boolean", "True"),
    ],
)
def test_a_literal_becomes_the_text_that_azure_makes_of_it(load: Load, written: str, type_: str, text: str) -> None:
    item = only(load(job(f"command: echo ${{{{inputs.x}}}}\ninputs:\n  x: {written}"))).inputs["x"]
    assert (item.type, item.text, item.line) == (type_, text, 7)


@pytest.mark.parametrize(
    ("written", "type_", "where"),
    [
        ("{type: uri_folder, path: ./data}", "uri_folder", "data"),
        ("{type: uri_folder, path: data/, mode: ro_mount}", "uri_folder", "data"),
        ("{type: uri_file, path: 'file:./data/a.csv'}", "uri_file", "data/a.csv"),
        ("{type: uri_file, path: 'file:data/a.csv'}", "uri_file", "data/a.csv"),
        ("{type: UriFile, path: 'data\\a.csv'}", "uri_file", "data/a.csv"),
        ("{path: ./data/a.csv}", "uri_file", "data/a.csv"),
        ("{path: ./data}", "uri_folder", "data"),
        ("{type: mltable, path: ./data, mode: eval_mount}", "mltable", "data"),
        ("{type: custom_model, path: ./data/a.csv}", "custom_model", "data/a.csv"),
        ("{dataset: {local_path: ./data}}", "uri_folder", "data"),
        ("{type: path, path: ./data}", "uri_folder", "data"),
    ],
)
def test_data_is_found_beside_the_file(load: Load, tmp_path: Path, written: str, type_: str, where: str) -> None:
    item = only(load(job(f"command: ls ${{{{inputs.x}}}}\ninputs:\n  x: {written}"))).inputs["x"]
    assert (item.type, item.path, item.url) == (type_, tmp_path / where, None)


def test_a_file_on_the_web_is_left_to_be_fetched(load: Load) -> None:
    url = "https://example.org/a.csv"
    for written in (f"{{type: uri_file, path: '{url}'}}", f"{{path: '{url}'}}"):
        item = only(load(job(f"command: ls\ninputs:\n  x: {written}"))).inputs["x"]
        assert (item.type, item.path, item.url) == ("uri_file", None, url)


def test_the_jobs_word_on_file_or_folder_counts_more_than_its_components(load: Load, tmp_path: Path) -> None:
    given = "component: fit/fit.yml\ninputs:\n  data: {type: uri_file, path: ./data/a.csv}"
    item = only(load(job(given))).inputs["data"]
    assert (item.type, item.path) == ("uri_file", tmp_path / "data" / "a.csv")


BINDINGS = """\
type: pipeline
inputs:
  epochs: 5
  data: {type: uri_folder, path: ./data}
  unused: {type: uri_folder, path: 'azureml:cloud:1'}
  maybe: {type: string, optional: true}
  rate: {type: number, default: 0.5}
outputs:
  result: {type: uri_file, mode: upload}
  plain:
jobs:
  last:
    command: cat ${{inputs.model}} > ${{outputs.out}}
    inputs:
      model: {path: '${{parent.jobs.a-first.outputs.model}}', mode: ro_mount}
    outputs: {out: '${{parent.outputs.result}}'}
  a-first:
    command: touch ${{inputs.epochs}} ${{inputs.data}} ${{inputs.rate}} $[[${{inputs.maybe}}]]
    inputs:
      epochs: ${{parent.inputs.epochs}}
      data: ${{ parent.inputs.data }}
      rate: ${{parent.inputs['rate']}}
      maybe: ${{parent.inputs.maybe}}
    outputs:
      model: {type: mlflow_model, path: '${{parent.outputs.plain}}'}
      log:
  middle:
    command: ls ${{inputs.a}} ${{inputs.b}}
    inputs: {a: '${{parent.jobs.a-first.outputs.model}}', b: '${{parent.jobs.a-first.outputs.log}}'}
"""


def test_bindings_lead_to_the_pipelines_inputs_and_to_other_steps(load: Load, tmp_path: Path) -> None:
    pipeline = load(BINDINGS)
    assert [step.name for step in pipeline.steps] == ["a-first", "last", "middle"]
    first, last, middle = pipeline.steps
    assert [(name, item.type, item.text) for name, item in first.inputs.items()] == [
        ("epochs", "integer", "5"),
        ("data", "uri_folder", None),
        ("rate", "number", "0.5"),
        ("maybe", "string", None),
    ]
    assert first.inputs["data"].path == tmp_path / "data"
    assert first.outputs == {"model": "mlflow_model", "log": "uri_folder"}
    assert last.outputs == {"out": "uri_file"}
    assert (last.inputs["model"].type, last.inputs["model"].step, last.inputs["model"].output) == (
        "mlflow_model",
        "a-first",
        "model",
    )
    assert (last.after, middle.after) == (("a-first",), ("a-first",))
    assert pipeline.outputs == {"result": ("last", "out"), "plain": ("a-first", "model")}


def test_bindings_of_the_preview_without_parent_are_understood(load: Load, tmp_path: Path) -> None:
    pipeline = load(
        "type: pipeline\n"
        "inputs: {d: {dataset: {local_path: ./data}}, n: 20}\noutputs: {o: {mode: rw_mount}}\n"
        "jobs:\n"
        "  a-job:\n    type: component\n    component:\n      name: A\n      version: 10\n      type: command\n"
        "      inputs: {d: {type: path}, n: {type: integer}}\n      outputs: {o: {type: path}}\n"
        "      code: {local_path: ./src}\n      environment: azureml:E:5\n"
        "      command: python x.py ${{inputs.d}} ${{inputs.n}} ${{outputs.o}}\n"
        "    inputs: {d: '${{inputs.d}}', n: '${{inputs.n}}'}\n    outputs: {o: '${{outputs.o}}'}\n"
        "  b-job:\n    type: command\n    command: ls ${{inputs.i}}\n    inputs: {i: '${{jobs.a-job.outputs.o}}'}\n"
    )
    first, second = pipeline.steps
    assert (first.inputs["d"].path, first.inputs["n"].text, first.code) == (tmp_path / "data", "20", tmp_path / "src")
    assert (first.outputs, pipeline.outputs, second.after) == ({"o": "uri_folder"}, {"o": ("a-job", "o")}, ("a-job",))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("azureml:AzureML-sklearn-1.0@latest", {"name": "azureml:AzureML-sklearn-1.0@latest"}),
        ("azureml://registries/r/environments/e", {"name": "azureml://registries/r/environments/e"}),
        ("some-env:3", {"name": "some-env:3"}),
        ("{image: python:3.11}", {"image": "python:3.11"}),
        (
            "{name: mine, version: 2, image: i, conda_file: ./conda.yml}",
            {"name": "mine:2", "image": "i", "conda_file": "conda.yml"},
        ),
        ("{image: i, conda_file: 'file:./conda.yml'}", {"image": "i", "conda_file": "conda.yml"}),
        (
            "{image: i, conda_file: {channels: [c], dependencies: [pip, {pip: [x]}]}}",
            {"image": "i", "conda": {"channels": ["c"], "dependencies": ["pip", {"pip": ["x"]}]}},
        ),
        ("{build: {path: ./docker}}", {"build": "docker", "dockerfile": "Dockerfile"}),
        ("{build: {path: docker, dockerfile_path: Other}}", {"build": "docker", "dockerfile": "Other"}),
        ("{docker: {image: i}, conda_file: conda.yml}", {"image": "i", "conda_file": "conda.yml"}),
        ("file:./env.yml", {"image": "from-file", "conda_file": "conda.yml"}),
    ],
)
def test_an_environment_is_a_name_or_a_definition(
    load: Load, tmp_path: Path, written: str, expected: dict[str, object]
) -> None:
    (tmp_path / "env.yml").write_text("image: from-file\nconda_file: conda.yml\n")
    environment = only(load(job(f"command: ls\nenvironment: {written}"))).environment
    assert environment is not None
    for field in ("name", "image", "conda_file", "conda", "build", "dockerfile"):
        wanted = expected.get(field)
        if field in ("conda_file", "build") and wanted is not None:
            wanted = tmp_path / str(wanted)
        assert getattr(environment, field) == wanted, field


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", ("", 1, 1, "")),
        ("resources: {instance_count: 2, shm_size: 2G, instance_type: Standard_D2}", ("", 1, 2, "2g")),
        ("distribution: {type: pytorch, process_count_per_instance: 4}", ("pytorch", 4, 1, "")),
        ("distribution: {type: PyTorch}\nresources: {instance_count: '3'}", ("pytorch", 1, 3, "")),
        ("distribution: {type: mpi, process_count_per_instance: 2}\nresources: {instance_count: 2}", ("mpi", 2, 2, "")),
        ("distribution: {type: mpi, process_count_per_node: 2}", ("mpi", 2, 1, "")),
        ("distribution: {type: tensorflow, worker_count: 4}\nresources: {instance_count: 2}", ("tensorflow", 2, 2, "")),
        ("distribution: {type: tensorflow}", ("tensorflow", 1, 1, "")),
        ("distribution: {type: pytorch, process_count_per_instance: '${{parent.inputs.n}}'}", ("pytorch", 8, 1, "")),
    ],
)
def test_processes_and_instances_are_counted(load: Load, written: str, expected: tuple[object, ...]) -> None:
    step = only(load(job(f"command: ls\n{written}", top="inputs: {n: 8}\n")))
    assert (step.distribution, step.processes, step.instances, step.shm_size) == expected


def test_the_jobs_own_fields_go_before_the_components(load: Load, tmp_path: Path) -> None:
    component = tmp_path / "fit" / "fit.yml"
    component.write_text(COMPONENT + "resources: {instance_count: 4}\ndistribution: {type: mpi}\n")
    step = only(
        load(
            job(
                "component: fit/fit.yml\ninputs: {data: ./data}\nenvironment: azureml:other:1\n"
                "environment_variables: {A: 1, B: '', C: ~, D: '${{parent.inputs.n}}'}\n"
                "resources: {instance_count: 2}\noutputs: {model: {type: mlflow_model}}",
                top="inputs: {n: 8}\n",
            )
        )
    )
    assert step.environment is not None
    assert (step.environment.name, step.environment.file) == ("azureml:other:1", tmp_path / "pipeline.yml")
    assert step.variables == {"A": "1", "B": "", "C": "", "D": "8"}
    assert (step.distribution, step.ranks, step.outputs) == ("mpi", 2, {"model": "mlflow_model"})


NOTED = """\
command: ls
limits: {timeout: 60}
identity: {type: managed}
services: {s: {type: ssh}}
resources: {docker_args: --gpus all}
compute: azureml:cpu
description: d
display_name: d
tags: {a: b}
properties: {a: b}
comment: c
name: other
outputs: {o: {type: uri_folder, path: 'azureml://datastores/d/paths/${{name}}/o', mode: upload}}
something_else: 1
"""


def test_fields_that_are_not_acted_on_are_noted_once(load: Load) -> None:
    text = job(NOTED, top="description: d\ntags: {a: b}\nexperiment_name: e\ncompute: azureml:cpu\n")
    text += text[text.index("  s:") :].replace("  s:", "  t:")
    notes = load(text + "settings: {default_datastore: azureml:x, force_rerun: true, on_init: s}\n").notes
    assert sorted(note.split("`")[1] for note in notes) == [
        "identity",
        "limits.timeout",
        "on_init",
        "outputs.o.path",
        "resources.docker_args",
        "services",
        "something_else",
    ]
    assert "`limits.timeout` is not acted on here (s, t)" in notes


def test_anchors_merge_keys_and_comments_are_read(load: Load) -> None:
    pipeline = load(
        "x-common: &common  # shared\n  type: command\n  command: echo ${{inputs.x}}\n  inputs: {x: 1}\n"
        "type: pipeline\njobs:\n  a:\n    <<: *common\n  b:\n    <<: [*common]\n    inputs: {x: 2}\n  c: *common\n"
    )
    assert [(step.name, step.inputs["x"].text) for step in pipeline.steps] == [("a", "1"), ("b", "2"), ("c", "1")]
    assert pipeline.notes == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_do_not_matter(load: Load, encoding: str, newline: str) -> None:
    text = job("command: |\n  echo 'grüße'\n  ls\ninputs:\n  x: 1").replace("\n", newline)
    step = only(load(text, encoding=encoding))
    assert (step.command, step.line, step.inputs["x"].line) == ("echo 'grüße'\nls\n", 5, 9)


def test_independent_steps_keep_the_files_order(load: Load) -> None:
    jobs = {f"s{index:02}": f"s{index - 10:02}" if index >= 10 and index % 3 == 0 else "" for index in range(30)}
    text = "type: pipeline\njobs:\n"
    for name, needed in reversed(jobs.items()):
        text += f"  {name}:\n    command: ls\n    outputs: {{o: }}\n"
        text += f"    inputs: {{i: '${{{{parent.jobs.{needed}.outputs.o}}}}'}}\n" if needed else ""
    names = [step.name for step in load(text).steps]
    # The order of the file, but each right after the last that it needs where that comes later.
    assert names[:3] == ["s29", "s28", "s26"]
    assert sorted(names) == sorted(jobs)
    assert all(names.index(needed) < names.index(name) for name, needed in jobs.items() if needed)


def test_a_chain_of_two_thousand_steps_is_put_in_order(load: Load) -> None:
    text = "type: pipeline\njobs:\n"
    for index in range(2000):
        text += f"  s{index}: {{command: ls, outputs: {{o: }}, inputs: "
        text += f"{{i: '${{{{parent.jobs.s{index + 1}.outputs.o}}}}'}}}}\n" if index < 1999 else "{}}\n"
    names = [step.name for step in load(text).steps]
    assert names == [f"s{index}" for index in reversed(range(2000))]


def test_a_usual_pipeline_takes_little_longer_than_its_yaml_alone() -> None:
    file = ROOT / "examples" / "pipeline" / "pipeline.yml"

    def seconds(read: Callable[[Path], object]) -> float:
        start = time.process_time()
        read(file)
        return time.process_time() - start

    def only_yaml(path: Path) -> object:
        return yaml.safe_load(path.read_text())

    # In turn, so that both have the same machine; the first of each has something to import.
    taken = [(seconds(load_pipeline), seconds(only_yaml)) for _ in range(9)]
    ours, theirs = (min(column) for column in zip(*taken, strict=True))
    # A tenth more.
    assert ours < 3 * theirs, taken


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ("name: fancy\ndisplay_name: other\n", "fancy"),
        ("display_name: 'My: pipeline / v1'\n", "My-pipeline-v1"),
        ("display_name: ../..\n", ""),
        ("display_name: Обучение\n", ""),
        ("", ""),
    ],
)
def test_the_name_is_fit_for_a_file(load: Load, tmp_path: Path, top: str, expected: str) -> None:
    assert load(job("command: ls", top=top)).name == (expected or tmp_path.name)


def test_a_pipeline_may_have_its_jobs_in_a_component_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "p.yml").write_text(
        "type: pipeline\ninputs:\n  d: {type: uri_file}\n  n: {type: integer, default: 3}\n"
        "jobs:\n  a:\n    command: ls ${{inputs.d}} ${{inputs.n}} ${{inputs.e}}\n"
        "    inputs: {d: '${{parent.inputs.d}}', n: '${{parent.inputs.n}}', e: {path: ./b.csv}}\n"
    )
    text = "type: pipeline\ncomponent: ./elsewhere/p.yml\ninputs:\n  d: {type: uri_file, path: ./data/a.csv}\n"
    step = only(load(text))
    assert step.inputs["d"].path == tmp_path / "data" / "a.csv"
    assert (step.inputs["n"].text, step.inputs["e"].path) == ("3", tmp_path / "elsewhere" / "b.csv")
    assert only(load(text + "  n: 4\n")).inputs["n"].text == "4"


CLOUD = """\
type: pipeline
inputs:
  raw: {type: uri_folder, path: 'azureml://datastores/d/paths/p'}
  rows: 10
  quick: false
jobs:
  a:
    component: fit/fit.yml
    inputs: {data: '${{parent.inputs.raw}}', epochs: '${{parent.inputs.rows}}'}
  b:
    command: ls ${{inputs.x}} ${{inputs.q}}
    inputs: {x: {type: uri_file, path: 'azureml:asset:1'}, q: '${{parent.inputs.quick}}'}
"""


def test_inputs_of_the_command_line_take_the_place_of_cloud_data(load: Load, tmp_path: Path) -> None:
    pipeline = load(CLOUD, {"raw": "elsewhere", "rows": "7", "quick": "true", "b.x": "data/a.csv"})
    a, b = pipeline.steps
    assert (a.inputs["data"].path, a.inputs["data"].file) == (tmp_path / "elsewhere", None)
    assert (a.inputs["epochs"].text, b.inputs["q"].text) == ("7", "True")
    assert b.inputs["x"].path == tmp_path / "data" / "a.csv"


@pytest.mark.parametrize(
    ("inputs", "problem", "remedy"),
    [
        ({"row": "7"}, "no input `row`", "`raw`, `rows`, `quick`; of its steps: `a.data`"),
        ({"rows": "abc"}, "number, not `abc`", "Give it a number"),
        ({"rows": "11"}, "is 11", "at most 10"),
        ({"quick": "maybe"}, "boolean, not `maybe`", "true or false"),
        ({"raw": "nowhere"}, "nowhere, which does not exist", "--input raw=PATH"),
        ({"raw": "data/a.csv"}, "is a file", "uri_file"),
        ({"b.x": "data"}, "is a folder", "Name a file"),
        ({"raw": "azureml:x:1"}, "registered asset `azureml:x:1`", "--input raw=PATH"),
        ({"raw": ""}, "has to be a path", "Name a file"),
    ],
)
def test_an_input_of_the_command_line_that_does_not_fit_is_a_bad_value(
    load: Load, inputs: dict[str, str], problem: str, remedy: str
) -> None:
    good = {"raw": "data", "b.x": "data/a.csv"}
    with pytest.raises(BadValue) as caught:
        load(CLOUD, good | inputs)
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy
    assert caught.value.file is None


def test_a_setting_that_nothing_acts_on_is_noted(load: Load) -> None:
    pipeline = load("type: pipeline\nsettings: {environment: {image: python}}\njobs: {a: {command: ls}}\n")
    assert pipeline.notes == ("`settings.environment` is not acted on here",)


INCLUDING = COMPONENT + "additional_includes:\n  - ../elsewhere\n  - ../data/a.csv\n"


def test_additional_includes_are_relative_to_the_file_that_names_them(load: Load, tmp_path: Path) -> None:
    (tmp_path / "fit" / "fit.yml").write_text(INCLUDING)
    step = only(load(job("component: fit/fit.yml\ninputs:\n  data: {path: ./data}")))
    assert step.includes == (tmp_path / "elsewhere", tmp_path / "data" / "a.csv")
    (tmp_path / "elsewhere" / "x.py").touch()
    pipeline = load(job("command: python elsewhere/x.py\ncode: src\nadditional_includes: [elsewhere/]"), {})
    assert only(pipeline).includes == (tmp_path / "elsewhere",) and pipeline.notes == ()


def test_additional_includes_may_be_listed_in_a_file_beside_the_component(load: Load, tmp_path: Path) -> None:
    (tmp_path / "fit" / "fit.additional_includes").write_text("../elsewhere/\n\n  ../data/a.csv  \n")
    step = only(load(job("component: fit/fit.yml\ninputs:\n  data: {path: ./data}")))
    assert step.includes == (tmp_path / "elsewhere", tmp_path / "data" / "a.csv")
