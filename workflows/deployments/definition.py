"""An online deployment, as read from its file and resolved to this machine.

The terms are those of the schemas of managed and Kubernetes online deployments:
https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-managed-online and
https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-kubernetes-online
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..models import Check
from ..pipelines.definition import EnvironmentReference

#: A name or version that is valid as a folder's name.
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
        elsewhere: Where it would be downloaded from; empty where the path exists.
    """

    path: Path
    name: str = ""
    version: str = ""
    type: str = "custom_model"
    elsewhere: str = ""

    @property
    def is_mlflow(self) -> bool:
        """Whether MLflow can load it."""
        return not self.elsewhere and (self.path / "MLmodel").is_file()

    def place(self, root: str = MODELS_ROOT) -> str:
        """The folder of a container in which Azure ML puts the model."""
        if not _NAME.fullmatch(self.name):
            return root
        return str(PurePosixPath(root, self.name, self.version if _NAME.fullmatch(self.version) else ""))


@dataclass(frozen=True)
class Route:
    """An HTTP path, and the port that serves it."""

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
    """A readiness or liveness probe; the defaults are Azure ML's.

    Attributes:
        initial_delay: Seconds until the first request.
        period: Seconds between two requests.
        timeout: Seconds that an answer may take.
        success_threshold: Successes in a row after which the service counts as ready.
        failure_threshold: Failures in a row after which it counts as failed.
        path: The path of the requests; empty where the probe has none.
        port: The port in the container; 0 where the probe has none.
        scheme: ``http`` or ``https``.
        method: The HTTP method.
    """

    initial_delay: int = 10
    period: int = 10
    timeout: int = 2
    success_threshold: int = 1
    failure_threshold: int = 30
    path: str = ""
    port: int = 0
    scheme: str = "http"
    method: str = "GET"

    @property
    def limit(self) -> int:
        """Seconds after which a service that has never answered counts as failed."""
        return self.initial_delay + self.period * self.failure_threshold

    def check(self, name: str, route: Route | None) -> Check:
        """The check that this probe makes.

        Args:
            name: ``readiness`` or ``liveness``.
            route: The image's own route; the probe's path and port take precedence. None where the inference server
                serves, which is checked at ``/``.
        """
        bounds = Check(seconds=self.limit, timeout=self.timeout, successes=self.success_threshold)
        if route is None:
            return bounds
        by = f"{name}_probe" if self.path or self.port else f"{name}_route"
        port, path = self.port or route.port, self.path or route.path
        return replace(bounds, by=by, port=port, path=path, scheme=self.scheme, method=self.method)


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
        environment: Its environment; None where the file has none.
        routes: The routes of an image that serves by itself; None where the inference server serves.
        model_mount_path: Where an image that serves by itself expects its model.
        variables: ``environment_variables``.
        readiness: ``readiness_probe``.
        liveness: ``liveness_probe``; nothing restarts a service here.
        notes: Differences from how Azure ML runs it, one line each.
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
    def ready(self) -> Check:
        """The check for whether it is ready."""
        return self.readiness.check("readiness", self.routes.readiness if self.routes is not None else None)

    @property
    def alive(self) -> Check:
        """The check for whether it is alive."""
        return self.liveness.check("liveness", self.routes.liveness if self.routes is not None else None)

    @property
    def label(self) -> str:
        """Its name in messages."""
        name = self.name or self.file.name
        return f"{name} of {self.endpoint}" if self.endpoint else name
