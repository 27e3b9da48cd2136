"""Projects whose workspace is the server of `azureml_server`, and a Python that has both the program and the SDK."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from azureml_server import AzureMLServer, client_environment, write_configuration
from conftest import make_project, missing
from projects import Project
from ready import run_lines

#: Signing in is the person's own: what the program needs to know of the server.
OWN = "azureml_server_authentication:ServerAuthentication"
SCORE = '''"""A service of a registered model."""
import os

import helper


def init():
    global text
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "weights.txt")) as file:
        text = file.read()


def run(raw_data):
    length = helper.double(len(text))
    return {"length": length, "text": text}
'''
#: The line of SCORE at which `length` is known.
SCORE_LINE = 15


def _what_is_missing(python: str, *packages: str) -> str:
    """What an interpreter says of the first package that it does not have; nothing is imported, which takes seconds."""
    tried = "import sys; from importlib.metadata import version; [version(name) for name in sys.argv[1:]]"
    done = subprocess.run([python, "-c", tried, *packages], capture_output=True, text=True)
    return (done.stderr.strip() or "it ends")[-200:] if done.returncode else ""


@functools.cache
def python_with_the_sdk() -> str:
    """The interpreter of AZUREML_DEBUG_TEST_SDK, which has to have the program's packages too."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK", "")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK names no Python that has this program and its extra azureml-v1")
    wanted = ("azureml-core", "azureml-pipeline-core", "debugpy", "docker", "fabric", "invoke", "tenacity")
    lacks = _what_is_missing(python, *wanted)
    if lacks:
        missing(f"{python} has not all of this program and its extra azureml-v1: {lacks}")
    return python


WATCH = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("azure", "azureml"):
            with open({seen!r}, "a") as file:
                file.write(f"{{name}} in {{sys.argv}}\\n")
sys.meta_path.insert(0, Watch())
"""


def watch_imports(folder: Path, python: str = sys.executable) -> tuple[str, Path]:
    """Have Python write down what is imported of either SDK, installed or not.

    Args:
        folder: For files of its own.
        python: Tried once, so that a watch that sees nothing is noticed.

    Returns:
        What has to be on PYTHONPATH, and the file, which does not exist before the first such import.
    """
    place, seen = folder / "watch", folder / "seen"
    place.mkdir()
    (place / "sitecustomize.py").write_text(WATCH.format(seen=str(seen)))
    # The first look for a module tells; to run it takes a second.
    code = "import contextlib, importlib.util\nfor name in ('azureml.core', 'azure.ai'):\n"
    code += "    with contextlib.suppress(ImportError):\n        importlib.util.find_spec(name)"
    environ = {**os.environ, "PYTHONPATH": str(place)}
    subprocess.run([python, "-c", code], env=environ, check=True)
    found = seen.read_text()
    assert "azureml in" in found and "azure in" in found, "an import is seen"
    seen.unlink()
    return str(place), seen


@functools.cache
def python_with_sdk_v2() -> str:
    """The interpreter of AZUREML_DEBUG_TEST_SDK_V2, which has to have the program's packages too."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK_V2", "")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK_V2 names no Python that has this program and its extra azureml")
    wanted = ("azure-ai-ml", "azure-identity", "debugpy", "docker", "fabric", "invoke", "tenacity", "websocket-client")
    lacks = _what_is_missing(python, *wanted)
    if lacks:
        missing(f"{python} has not all of this program and its extra azureml: {lacks}")
    return python


@dataclass
class Workspace:
    """A project and the server that is its workspace."""

    server: AzureMLServer
    project: Project

    def register(self, name: str, text: str = "1 2 3", times: int = 1) -> None:
        """Register a model through the SDK, as a person would."""
        folder = self.project.folder / "made" / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.txt").write_text(text)
        code = (
            "from azureml.core import Model, Workspace\nworkspace = Workspace.from_config('..')\n"
            f"for _ in range({times}):\n    Model.register(workspace, model_path='model', model_name={name!r})\n"
        )
        environ = client_environment(self.server, self.project.folder / "home", sign_in=True)
        done = run_lines(self.project.python, code, folder.parent, environ)
        assert done.returncode == 0, done.stderr


def make_workspace_project(server: AzureMLServer, folder: Path, python: str, token_seconds: float = 3600) -> Project:
    """A person's project with config.json in it, for the Docker engine."""
    project = make_project(folder, "docker")
    project.python = python
    project.score.write_text(SCORE)
    (project.score.parent / "helper.py").write_text("def double(number):\n    return 2 * number\n")
    write_configuration(server, folder)
    environ = client_environment(server, folder / "home", {}, sign_in=False, token_seconds=token_seconds)
    # Docker's tags are shared with the tests that run beside this one.
    project.environ |= {**environ, "AML_AUTH": OWN, "AML_IMAGE_TAG": f"packaged-{os.getpid()}:1"}
    return project
