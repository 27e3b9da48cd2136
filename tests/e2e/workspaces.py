"""Projects whose pipelines run in a workspace: that of `azureml_server`, through the real SDK."""

from __future__ import annotations

from pathlib import Path

from azureml_projects import python_with_sdk_v2, python_with_the_sdk
from azureml_server import AzureMLServer, client_environment, write_configuration
from pipelines import PipelineProject, make_pipeline_project

#: The curated environment that the example pipeline names.
CURATED = "AzureML-sklearn-1.0-ubuntu20.04-py38-cpu"


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
    project.python = python_with_sdk_v2()
    write_configuration(server, folder)
    project.environ |= client_environment(server, home)
    project.environ |= {"AML_BACKEND": "azureml", "AML_COMPUTE_TARGET": "cpu", "AML_SDK": "v2"}
    project.environ |= {"AML_AUTH": "azureml_server_credential:ServerCredential"}
    without_variables(project)
    return project


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
