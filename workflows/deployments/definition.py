"""An online deployment as it is run here: what its file says, resolved.

The terms are those of the schemas of managed and Kubernetes online deployments:
https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online and
https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-kubernetes-online
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..pipelines.definition import EnvironmentReference

#: A name or version that can be a folder's.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
#: Where Azure ML puts models, and code, in a container.
MODELS_ROOT, CODE_ROOT = "/var/azureml-app/azureml-models", "/var/azureml-app"


@dataclass(frozen=True)
class Model:
    """A deployment's model.

    Attributes:
        path: Absolute local path of the file or folder.
        name: Its name; empty for one that is defined inline without.
        version: Its version.
        type: ``custom_model``, ``mlflow_model`` or ``triton_model``.
    """

    path: Path
    name: str = ""
    version: str = ""
    type: str = "custom_model"

    @property
    def is_mlflow(self) -> bool:
        """Whether MLflow can load it."""
        return (self.path / "MLmodel").is_file()

    def place(self, root: str = MODELS_ROOT) -> str:
        """The folder of a container that Azure ML gives it to, itself in it."""
        if not _NAME.fullmatch(self.name):
            return root
        return str(PurePosixPath(root, self.name, self.version if _NAME.fullmatch(self.version) else ""))


@dataclass(frozen=True)
class Route:
    """A path of HTTP, and the port that answers it."""

    path: str
    port: int


@dataclass(frozen=True)
class Routes:
    """How an image that serves by itself is reached: ``inference_config``."""

    scoring: Route
    readiness: Route
    liveness: Route


@dataclass(frozen=True)
class Probe:
    """When a service counts as ready; the defaults are Azure ML's own.

    Attributes:
        initial_delay: Seconds until it is asked for the first time.
        period: Seconds between two questions.
        timeout: Seconds that an answer may take.
        success_threshold: Answers in a row that it takes.
        failure_threshold: Failures in a row at which it is given up.
    """

    initial_delay: int = 10
    period: int = 10
    timeout: int = 2
    success_threshold: int = 1
    failure_threshold: int = 30

    @property
    def limit(self) -> int:
        """Seconds after which a service that has never answered is given up."""
        return self.initial_delay + self.period * self.failure_threshold


@dataclass(frozen=True)
class OnlineDeployment:
    """One deployment.

    Attributes:
        file: Its file, absolute.
        name: Its name; empty where the file has none.
        endpoint: Its endpoint's name; empty where nothing says it.
        kind: ``managed`` or ``kubernetes``.
        code: Absolute folder of its code; None where the image or MLflow serves.
        script: Absolute path of the scoring script.
        model: Its model; None where there is none.
        model_dir: The folder that takes the model's place, where one was typed or set.
        environment: What it runs in; None where the file does not say.
        routes: How an image that serves by itself is reached; None where the inference server serves.
        model_mount_path: Where an image that serves by itself wants its model.
        variables: ``environment_variables``.
        readiness: ``readiness_probe``.
        liveness: ``liveness_probe``; nothing restarts a service here.
        notes: What is not done here as in Azure ML, one line each.
    """

    file: Path
    name: str = ""
    endpoint: str = ""
    kind: str = "managed"
    code: Path | None = None
    script: Path | None = None
    model: Model | None = None
    model_dir: Path | None = None
    environment: EnvironmentReference | None = None
    routes: Routes | None = None
    model_mount_path: str = ""
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    readiness: Probe = Probe()
    liveness: Probe = Probe()
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What it is called in a message."""
        name = self.name or self.file.name
        return f"{name} of {self.endpoint}" if self.endpoint else name
