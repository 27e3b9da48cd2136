"""A pipeline that is written in Python is debugged as one in a file is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import missing
from pipelines import ADD_LINE, PipelineProject
from projects import ANY_ENGINE

MAKE = """\
from azure.ai.ml import Input, Output, command, dsl

prepare = command(
    command="python prepare.py --data ${{inputs.data}} --doubled ${{outputs.doubled}}",
    code="./prepare", environment="azureml:any@latest",
    inputs={"data": Input(type="uri_folder")}, outputs={"doubled": Output(type="uri_folder")},
)
add = command(
    command="python add.py ${{inputs.numbers}} ${{inputs.factor}} ${{outputs.result}}",
    code="./add", environment="azureml:any@latest",
    inputs={"numbers": Input(type="uri_folder"), "factor": 1}, outputs={"result": Output(type="uri_file")},
)


@dsl.pipeline()
def numbers(data, factor: int = 3):
    first = prepare(data=data)
    second = add(numbers=first.outputs.doubled, factor=factor)


def broken(data):
    return numbers(data=data).no_such_thing
"""


@pytest.fixture
def in_python(pipelines: PipelineProject) -> PipelineProject:
    """A project with a pipeline in Python beside its scripts, and a shell in which azure-ai-ml is."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK_V2", "")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK_V2 names no Python with azure-ai-ml")
    (pipelines.folder / "make.py").write_text(MAKE)
    pipelines.environ["PATH"] = os.pathsep.join([os.path.dirname(python), os.environ["PATH"]])
    return pipelines


@ANY_ENGINE
def test_it_is_debugged_to_a_breakpoint_and_runs_to_its_end(in_python: PipelineProject) -> None:
    place = ["--pipeline-file", "make.py:numbers"]
    inputs = ["--input", "data=some data", "--input", "factor=5"]
    found = in_python.ok("pipeline.debug", "--json", "--step", "second", *place, *inputs).json
    assert [one["step"] for one in found["endpoints"]] == ["second"]
    stopped = in_python.ok("pipeline.inspect", f"add/add.py:{ADD_LINE}", "--json", "--eval", "factor").json
    assert stopped["stopped"]["line"] == ADD_LINE
    assert stopped["values"]["factor"] == "5"
    assert in_python.until_final()["status"] == "Completed"
    log = Path(in_python.step("second")["log"]).read_text()
    assert "total" in log


@ANY_ENGINE
def test_a_failure_in_the_persons_python_is_two_lines_with_the_own_line_first(in_python: PipelineProject) -> None:
    told = in_python.inv("pipeline.submit", "--pipeline-file", "make.py:broken", "--input", "data=some data")
    assert told.code == 1
    lines = [line for line in told.err.splitlines() if "broken fails: AttributeError" in line]
    assert len(lines) == 1
    line = MAKE.splitlines().index("    return numbers(data=data).no_such_thing") + 1
    assert lines[0].startswith(f"make.py:{line}: error: ")
    assert not in_python.runs.exists() or not list(in_python.runs.glob("*/run.json"))
