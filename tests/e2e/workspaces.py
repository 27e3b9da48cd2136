"""Projects whose pipelines run in a workspace: that of `azureml_server`, through the real SDK."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from azureml_projects import python_with_sdk_v2, python_with_the_sdk
from azureml_server import AzureMLServer, client_environment, write_configuration
from experiments import ExperimentProject, make_experiment_project
from pipelines import PipelineProject, make_pipeline_project
from projects import Project

#: The curated environment that the example pipeline names.
CURATED = "AzureML-sklearn-1.0-ubuntu20.04-py38-cpu"


@contextmanager
def workspace(**more: Any) -> Iterator[AzureMLServer]:
    """A workspace that leaves no processes, and was asked nothing that it does not know.

    Args:
        **more: See :class:`~azureml_server.AzureMLServer`.
    """
    with AzureMLServer(**more) as made:
        yield made
        processes = [number for run in made.state.runs.values() for number in made.runner.processes(run)]
    assert not any(map(psutil.pid_exists, processes)), "processes are left"
    assert made.unknown == []


@contextmanager
def workspace_of_v2(**more: Any) -> Iterator[AzureMLServer]:
    """As :func:`workspace`, for SDK v2, with a real sshd in its jobs' containers."""
    if os.geteuid():
        pytest.skip("a container's users are made with mount, which takes root")
    with workspace(secure=True, **{"python": python_with_sdk_v2(), "layout": "user_logs", **more}) as made:
        yield made


def make_workspace_project(
    folder: Path, server: AzureMLServer, home: Path, token_seconds: float = 3600
) -> PipelineProject:
    """A person's project with the pipeline of three steps, and a workspace."""
    project = make_pipeline_project(folder, "process")
    project.python = python_with_the_sdk()
    write_configuration(server, folder)
    register_environments(server)
    project.environ |= client_environment(server, home, token_seconds=token_seconds)
    project.environ |= {"AML_BACKEND": "azureml", "AML_COMPUTE_TARGET": "cpu"}
    return project


def make_v2_project(folder: Path, server: AzureMLServer, home: Path) -> PipelineProject:
    """As :func:`make_workspace_project`, by SDK v2; the server has to be `secure`."""
    project = make_pipeline_project(folder, "process")
    _speak_v2(project, server, home)
    without_variables(project)
    return project


def make_v2_experiments(folder: Path, server: AzureMLServer, home: Path) -> ExperimentProject:
    """A person's project with a training script, whose experiments run in a workspace by SDK v2."""
    project = make_experiment_project(folder, "process")
    _speak_v2(project, server, home)
    return project


def _speak_v2(project: Project, server: AzureMLServer, home: Path) -> None:
    project.python = python_with_sdk_v2()
    write_configuration(server, project.folder)
    project.environ |= client_environment(server, home)
    project.environ |= {"AML_BACKEND": "azureml", "AML_COMPUTE_TARGET": "cpu", "AML_SDK": "v2"}
    project.environ |= {"AML_AUTH": "azureml_server_credential:ServerCredential"}
    # What runs there installs nothing here.
    project.environ |= {"REQUESTS_CA_BUNDLE": str(server.certificate)}


def without_variables(project: PipelineProject) -> None:
    """Take `${{…}}` out of a step's variables: whether the service fills it in there is not known."""
    text = project.pipeline.read_text().replace("&& python tell.py", "&& RESULT=${{inputs.result}} python tell.py")
    project.pipeline.write_text(text.replace("    environment_variables:\n      RESULT: ${{inputs.result}}\n", ""))


def register_environments(server: AzureMLServer) -> None:
    """Let the workspace have the environments that the pipelines of the tests name."""
    for name in (CURATED, "any"):
        server.state.environments[name] = [
            {
                "name": name,
                "version": "1",
                "environmentVariables": {},
                "docker": {"baseImage": "an-image", "platform": {"os": "Linux", "architecture": "amd64"}},
                "python": {"interpreterPath": "python", "userManagedDependencies": True, "condaDependencies": None},
            }
        ]
