"""`AML_SUMMARIES=off` reaches the programs that are debugged."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines import PipelineProject
from projects import ANY_ENGINE, Project, _request

from workflows.azureml.step_debug import debuggee_variables
from workflows.backends.base import DebugRequest
from workflows.pipelines.reader import load_pipeline
from workflows.settings import resolve

SWITCH = "AZUREML_DEBUGGEE_SUMMARIES"
SERVICE = f'''"""A service that tells what it was told."""
import os


def init():
    pass


def run(raw_data):
    return {{"told": os.environ.get("{SWITCH}")}}
'''


@ANY_ENGINE
def test_a_service_is_told(project: Project) -> None:
    project.write_score(SERVICE)
    for setting, told in (("off", "off"), ("on", None)):
        url = project.debug(AML_SUMMARIES=setting)["scoring_url"]
        assert json.loads(_request("POST", url, b"{}", 30)[1]) == {"told": told}


@ANY_ENGINE
def test_a_step_is_told(pipelines: PipelineProject) -> None:
    pipelines.single(f"import os\nprint('told', os.environ.get('{SWITCH}'))\n")
    for setting, told in (("off", "told off"), ("on", "told None")):
        assert pipelines.inv("pipeline.debug", "--no-wait", AML_SUMMARIES=setting).code == 0
        run = pipelines.until_final()["run_id"]
        assert told in pipelines.inv("pipeline.tail-log", "--run", run).out.splitlines()
    pipelines.inv("pipeline.debug", AML_SUMMARIES="no").says("AML_SUMMARIES must be on or off")


def test_a_step_on_a_node_is_told(tmp_path: Path) -> None:
    (tmp_path / "job.yml").write_text("command: python work.py\ncode: .\nenvironment: azureml:any@latest\n")
    (tmp_path / "work.py").touch()
    (step,) = load_pipeline(tmp_path / "job.yml").steps
    for setting, told in (("off", "off"), ("on", None)):
        settings = resolve(tmp_path, environ={"AML_SUMMARIES": setting})
        assert debuggee_variables(step, {0: 5678}, DebugRequest(), settings, "").get(SWITCH) == told
