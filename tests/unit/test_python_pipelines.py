"""Pipelines written in Python: what the SDK makes of them is read as a file is, and failures name the own line."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
from conftest import missing
from ready import CLIENT, RELAY, ROOT, ready

from workflows.errors import UserError
from workflows.paths import shown
from workflows.pipelines import python_file
from workflows.pipelines.definition import Pipeline
from workflows.pipelines.reader import load_pipeline

COMPONENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandComponent.schema.json
type: command
name: load_numbers
version: 3
inputs:
  raw: {type: uri_folder}
  count: {type: integer, default: 3}
outputs:
  numbers: {type: uri_folder}
code: ./load
environment: azureml:AzureML-sklearn-1.0@latest
command: python load.py ${{inputs.raw}} ${{inputs.count}} ${{outputs.numbers}}
"""
MAKE = """\
from azure.ai.ml import Input, Output, command, dsl, load_component
from azure.ai.ml.entities import Environment

load = load_component("load.yml")
train = command(
    name="train",
    command="python train.py --data ${{inputs.data}} --rate ${{inputs.rate}} --model ${{outputs.model}}",
    code="./train",
    inputs={"data": Input(type="uri_folder"), "rate": 0.1},
    outputs={"model": Output(type="uri_folder")},
    environment=Environment(image="python:3.11", conda_file={"name": "x", "dependencies": ["python=3.11"]}),
    environment_variables={"COLOUR": "red"},
    instance_count=2,
    distribution={"type": "pytorch", "process_count_per_instance": 2},
)


@dsl.pipeline(compute="cpu-cluster", default_compute="cpu-cluster", description="adds")
def numbers(raw, rate: float = 0.3, words="two words"):
    loaded = load(raw=raw, count=7)
    trained = train(data=loaded.outputs.numbers, rate=rate)
    return {"model": trained.outputs.model}


def whole(where: str = "data"):
    return numbers(raw=Input(type="uri_folder", path=f"./{where}"))


ready = whole()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pipeline in Python, a component file, code and data; not the current one."""
    place = tmp_path / "a project" / "pipelines"
    for name in ("load", "train", "data"):
        (place / name).mkdir(parents=True)
        (place / name / f"{name}.py").write_text("print(1)\n")
    (place / "load.yml").write_text(COMPONENT)
    (place / "make.py").write_text(MAKE)
    monkeypatch.chdir(place.parent)
    return place


#: Runs a script as Python does, where the words are those of `python -c`.
SCRIPT = (
    "import os, runpy, sys; del sys.argv[0]; sys.path[0] = os.path.dirname(sys.argv[0]); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def python_with_sdk() -> str:
    """A Python with azure-ai-ml."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK_V2", "")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK_V2 names no Python with azure-ai-ml")
    return python


@pytest.fixture
def started_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python with azure-ai-ml comes first on the path, as in a person's shell."""
    monkeypatch.setenv("PATH", os.path.dirname(python_with_sdk()), prepend=os.pathsep)


@pytest.fixture
def sdk(started_sdk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, where what builds a pipeline starts with the SDK loaded; see `ready`."""
    python = python_with_sdk()
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(CLIENT)]))
    source = ready(python, ROOT, {**os.environ, "PYTHONPATH": path})
    if source is None:
        return
    place = tmp_path / "bin" / "python"
    place.parent.mkdir()
    relayed = shlex.join([sys.executable, "-I", "-S", str(RELAY), source.asked, "-c", SCRIPT])
    place.write_text(
        f'#!/bin/sh\n[ "${{1##*/}}" = build_in_python.py ] && exec {relayed} "$@"\nexec {shlex.quote(python)} "$@"\n'
    )
    place.chmod(0o755)
    monkeypatch.setenv("PATH", str(place.parent), prepend=os.pathsep)


@pytest.fixture
def any_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """For code that comes to its end before the SDK is asked for anything."""
    monkeypatch.setattr(python_file, "_python", lambda _first: sys.executable)


def refused(folder: Path, function: str, **inputs: str) -> UserError:
    with pytest.raises(UserError) as told:
        load_pipeline(folder / f"make.py:{function}", inputs)
    return told.value


def steps_of(pipeline: Pipeline, folder: Path) -> None:
    load, train = pipeline.steps
    assert (load.name, train.name) == ("loaded", "trained")
    assert (load.code, train.code) == (folder / "load", folder / "train")
    assert load.inputs["raw"].path == folder / "data"
    assert load.inputs["count"].text == "7"
    assert (train.inputs["data"].step, train.inputs["data"].output) == ("loaded", "numbers")
    assert train.variables == {"COLOUR": "red"}
    assert (train.distribution.lower(), train.ranks) == ("pytorch", 4)
    assert train.environment is not None
    assert train.environment.conda == {"name": "x", "dependencies": ["python=3.11"]}
    assert load.environment is not None
    assert load.environment.name == "azureml:AzureML-sklearn-1.0@latest"
    assert pipeline.outputs == {"model": ("trained", "model")}


def test_a_function_with_pipeline_is_called_with_the_inputs_that_are_its_parameters(
    folder: Path, started_sdk: None
) -> None:
    inputs = {"raw": "pipelines/data", "rate": "0.9", "loaded.count": "7"}
    found = load_pipeline(folder / "make.py:numbers", inputs)
    steps_of(found, folder)
    assert found.steps[1].inputs["rate"].text == "0.9"
    assert found.file == folder / "make.py:numbers"
    # Nothing of what the SDK writes twice, or beside, is told as not acted on.
    assert [note for note in found.notes if "environment_variables" in note] == []


def test_a_function_that_returns_a_pipeline_and_a_pipeline_itself_do_as_well(folder: Path, sdk: None) -> None:
    steps_of(load_pipeline(folder / "make.py:whole", {}), folder)
    steps_of(load_pipeline(folder / "make.py:ready", {}), folder)
    told = refused(folder, "whole", where="nowhere")
    assert str(folder / "nowhere") in told.problem


def test_truth_values_are_the_words_that_azure_gets(folder: Path, sdk: None) -> None:
    flagged = """

tell = command(name="tell", command="echo ${{inputs.flag}}", inputs={"flag": True}, environment="azureml:any@latest")


@dsl.pipeline()
def inside(flag: bool):
    told = tell(flag=flag)
    other = tell(flag=False)


@dsl.pipeline()
def flags(flag: bool = True):
    by_default = tell()
    given = tell(flag=flag)
    nested = inside(flag=True)
"""
    (folder / "make.py").write_text(MAKE + flagged)
    found = load_pipeline(folder / "make.py:flags", {})
    assert {step.name: step.inputs["flag"].text for step in found.steps} == {
        "by_default": "True",
        "given": "True",
        "nested.told": "True",
        "nested.other": "False",
    }
    assert not any("boolean" in note for note in found.notes)


def test_nested_pipelines_have_their_parameters_without_an_annotation_as_inputs(folder: Path, sdk: None) -> None:
    nested = """

@dsl.pipeline()
def inner(raw, count):
    return {"numbers": load(raw=raw, count=count).outputs.numbers}


@dsl.pipeline()
def middle(raw, count):
    return {"numbers": inner(raw=raw, count=count).outputs.numbers}


@dsl.pipeline(default_compute="cpu-cluster")
def outer(raw):
    first = middle(raw=raw, count=5)
    second = middle(raw=first.outputs.numbers, count=6)
"""
    (folder / "make.py").write_text(MAKE + nested)
    found = load_pipeline(folder / "make.py:outer", {"raw": "pipelines/data"})
    assert [step.name for step in found.steps] == ["first.inner.load_numbers", "second.inner.load_numbers"]
    first, second = (step.inputs for step in found.steps)
    assert (first["raw"].path, first["count"].text) == (folder / "data", "5")
    assert (second["raw"].step, second["count"].text) == ("first.inner.load_numbers", "6")


def test_what_a_function_needs_and_did_not_get_is_told_at_once(folder: Path, any_python: None) -> None:
    (folder / "make.py").write_text("def numbers(raw, place, rate=1):\n    return None\n")
    told = refused(folder, "numbers", rate="2")
    assert told.problem == "numbers needs raw, place."
    assert told.remedy == "Give it: --input raw=VALUE --input place=VALUE"
    assert refused(folder, "numbers", raw="1", place="2").problem == "numbers gives nothing, not a pipeline."
    assert "which is not of type int" in refused(folder, "numbers", raw="1", place="2", rate="much").problem
    assert refused(folder, "number").remedy == "Existing ones: numbers"


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("x = 1\n\ndef numbers():\n    raise ValueError('no numbers')\n", "numbers fails: ValueError: no numbers", 4),
        ("import json\n\ndef numbers():\n    return json.loads('{')\n", "numbers fails: JSONDecodeError", 4),
        ("def numbers(:\n", "numbers fails: SyntaxError", 1),
        ("x = 1\nimport no_such_module\n", "numbers fails: ModuleNotFoundError: No module named 'no_such_module'", 2),
        ("import sys\nsys.exit('usage: make.py')\n", "numbers fails: SystemExit: usage: make.py", 2),
        ("import helper\n\ndef numbers():\n    helper.fail()\n", "numbers fails: KeyError: 'of the helper'", 3),
    ],
)
def test_a_failure_names_the_persons_own_line(
    folder: Path, any_python: None, text: str, problem: str, line: int
) -> None:
    (folder / "make.py").write_text(text)
    (folder / "helper.py").write_text("import json\ndef fail():\n    {}['of the helper']\n")
    told = refused(folder, "numbers")
    assert told.problem.startswith(problem)
    assert told.line == line
    assert str(told.file).endswith("helper.py" if "helper" in text else "make.py")


def line_of(text: str, part: str) -> int:
    """The line of a text that has a part in it, counted from 1."""
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def test_the_lines_that_have_led_to_a_failure_are_the_persons_with_the_innermost_first(
    folder: Path, any_python: None
) -> None:
    (folder / "helper.py").write_text("import json\n\n\ndef read(text):\n    return json.loads(text)\n")
    (folder / "make.py").write_text("import helper\n\n\ndef numbers():\n    return helper.read('{')\n")
    told = refused(folder, "numbers")
    places = [Path(line.split(":")[0]).name for line in told.details]
    assert places == ["helper.py", "make.py"]
    assert told.details[0].endswith("helper.py:5 in read: return json.loads(text)")
    assert (Path(str(told.file)).name, told.line) == ("helper.py", 5)


WRONG = """

broken = command(
    name="broken", command="python train.py ${{inputs.data}}", code="./nowhere",
    inputs={"data": Input(type="uri_folder")}, environment=Environment(image="python:3.11"),
)


@dsl.pipeline()
def inner(raw):
    far = broken(
        data=raw,
    )


@dsl.pipeline()
def wrong_folder(raw):
    near = load(raw=raw)
    nested = inner(raw=near.outputs.numbers)


@dsl.pipeline()
def never_bound(
    raw,
    rate=0.1,
):
    trained = train(rate=rate)
    unused = load(raw=raw)


@dsl.pipeline()
def unknown_input(raw):
    loaded = load(raws=raw)


@dsl.pipeline()
def broken_file(raw):
    loaded = load_component("broken.yml")(raw=raw)


def at_once():
    return wrong_folder(raw=Input(type="uri_folder", path="./data"))


built = at_once()
"""


def test_what_is_wrong_with_a_pipeline_is_told_at_the_line_that_makes_the_step(folder: Path, sdk: None) -> None:
    (folder / "make.py").write_text(text := MAKE + WRONG)
    (folder / "broken.yml").write_text("$schema: 3\ntype: command\ncommand: [\n")
    raw = {"raw": "pipelines/data"}
    expected = {
        "never_bound": ("`trained`", "    trained = train(rate=rate)"),
        "unknown_input": ("unknown_input fails: ", "    loaded = load(raws=raw)"),
        "broken_file": ("broken_file fails: ", "    loaded = load_component("),
        # Of wrong_folder, which both of them call.
        "at_once": ("nowhere", "    far = broken("),
        "built": ("nowhere", "    far = broken("),
    }
    for function, (problem, line) in expected.items():
        told = refused(folder, function, **({} if function in ("at_once", "built") else raw))
        assert problem in told.problem
        assert (str(told.file), told.line) == (str(shown(folder / "make.py")), line_of(text, line)), function
        assert "/built/" not in str(told) + "".join(told.details)
        assert not [one for one in told.details if "site-packages" in one or "build_in_python" in one]
    # An input of the pipeline is at its parameter.
    told = refused(folder, "never_bound")
    assert "raw" in told.problem and told.line == line_of(text, "def never_bound(")


def test_a_file_without_a_function_says_which_there_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UserError) as told:
        load_pipeline(folder / "make.py", {})
    assert told.value.remedy == f"Name the function that gives it: {folder.name}/make.py:numbers"
    with pytest.raises(UserError, match="does not exist"):
        load_pipeline(folder / "other.py:numbers", {})


def test_without_the_sdk_its_name_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    told = refused(folder, "numbers")
    assert "azure-ai-ml, which is not installed" in told.problem
    assert "pip install azure-ai-ml" in told.remedy


def test_code_that_does_not_come_to_an_end_is_ended(
    folder: Path, any_python: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python_file, "BUILD_SECONDS", 2)
    (folder / "make.py").write_text(
        "import os, time\nopen('pid', 'w').write(str(os.getpid()))\nprint('waiting')\ntime.sleep(600)\n"
    )
    told = refused(folder, "numbers")
    assert told.problem == "numbers has not returned a pipeline after 2 s."
    assert not Path("/proc", (folder / "pid").read_text()).exists()


def test_code_that_ends_the_process_is_told_with_what_it_said(folder: Path, any_python: None) -> None:
    (folder / "make.py").write_text("import os\nprint('said', flush=True)\nos._exit(7)\n")
    told = refused(folder, "numbers")
    assert "has ended with 7 before numbers was done" in told.problem
    assert list(told.details) == ["said"]


MAKE_V1 = """\
from azureml.core import Environment, Workspace
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.runconfig import MpiConfiguration, RunConfiguration
from azureml.data import OutputFileDatasetConfig
from azureml.pipeline.core import Pipeline, PipelineData, PipelineParameter
from azureml.pipeline.steps import PythonScriptStep


def configuration():
    config = RunConfiguration()
    config.environment = Environment("mine")
    config.environment.python.conda_dependencies = CondaDependencies.create(pip_packages=["debugpy"])
    config.environment_variables = {"COLOUR": "red"}
    return config


def steps(workspace, rate: float = 0.5):
    config = configuration()
    prepared = OutputFileDatasetConfig(name="prepared")
    model = PipelineData("model", datastore=workspace.get_default_datastore())
    prepare = PythonScriptStep(
        name="prepare it", script_name="load.py", source_directory="load", runconfig=config,
        arguments=["--out", prepared, "--text", "two words"], compute_target=workspace.compute_targets["cpu"],
    )
    ranks = configuration()
    ranks.communicator, ranks.node_count, ranks.mpi = "OpenMpi", 2, MpiConfiguration()
    ranks.mpi.process_count_per_node = 2
    train = PythonScriptStep(
        name="train", script_name="train.py", source_directory="train", runconfig=ranks, compute_target="gpu",
        arguments=["--in", prepared.as_input(name="data"), "--rate", PipelineParameter("rate", rate), "--model", model],
        outputs=[model],
    )
    last = PythonScriptStep(
        name="last", script_name="load.py", source_directory="load", runconfig=config, compute_target="cpu",
        arguments=["--text", 3],
    )
    last.run_after(train)
    return [prepare, train, last]


def whole():
    workspace = Workspace.from_config()
    return Pipeline(workspace=workspace, steps=steps(workspace)[1:])
"""


@pytest.fixture
def sdk_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python with azureml-pipeline-steps comes first on the path, as in a person's shell."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK", "")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK names no Python with azureml-pipeline-steps")
    monkeypatch.setenv("PATH", os.path.dirname(python), prepend=os.pathsep)


@pytest.mark.parametrize(("function", "rate"), [("steps", "0.9"), ("whole", "0.5")])
def test_steps_of_sdk_v1_are_read_without_a_workspace(folder: Path, sdk_v1: None, function: str, rate: str) -> None:
    (folder / "make.py").write_text(MAKE_V1)
    given = {"rate": rate} if function == "steps" else {}
    found = load_pipeline(folder / f"make.py:{function}", given)
    steps = {step.name: step for step in found.steps}
    # What a step takes its input from comes with it, also where it is not in the list.
    train = steps["train"]
    assert (train.code, train.compute) == (folder / "train", "gpu")
    assert train.inputs["rate"].text == rate
    assert (train.distribution, train.ranks, train.variables) == ("mpi", 4, {"COLOUR": "red"})
    assert train.environment is not None and train.environment.conda is not None
    assert train.environment.conda["dependencies"][-1] == {"pip": ["debugpy"]}
    assert (steps["last"].command, steps["last"].after) == ("python load.py --text 3", ("train",))
    if function == "steps":
        assert list(steps) == ["prepare_it", "train", "last"]
        assert steps["prepare_it"].command == "python load.py --out ${{outputs.prepared}} --text 'two words'"
        assert (train.inputs["data"].step, train.inputs["data"].output) == ("prepare_it", "prepared")


def test_a_step_of_sdk_v1_that_is_no_script_is_refused_by_its_kind(folder: Path, sdk_v1: None) -> None:
    code = "from azureml.pipeline.core import PipelineStep\n\n\ndef f():\n    return [PipelineStep('copy', [], [])]\n"
    (folder / "make.py").write_text(code)
    told = refused(folder, "f")
    assert told.problem == "The step copy is a PipelineStep: steps of Python scripts are built here."
    assert (told.line, str(told.file)) == (5, str(shown(folder / "make.py")))


def test_a_wrong_folder_of_sdk_v1_is_told_at_the_line_that_makes_the_step(folder: Path, sdk_v1: None) -> None:
    (folder / "make.py").write_text(text := MAKE_V1.replace('source_directory="train"', 'source_directory="trains"'))
    told = refused(folder, "steps")
    assert "trains" in told.problem
    assert told.line in (line_of(text, "train = PythonScriptStep("), line_of(text, 'source_directory="trains"'))


def test_sdk_v1_that_is_not_there_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "make.py").write_text(MAKE_V1)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "azureml-pipeline-steps" in refused(folder, "steps").remedy
