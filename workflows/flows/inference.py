"""The environment that a service runs in: the inference environment, or the one of a deployment file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..deployments.definition import OnlineDeployment
from ..engines.base import Engine
from ..environments.definition import EnvironmentDefinition
from ..environments.references import ResolvedEnvironment, resolve_environment
from ..errors import UserError
from ..models import ImageRef
from ..paths import shown
from ..pipelines.definition import EnvironmentReference
from ..settings import Settings

#: Packages that a service needs in addition to its own definition.
REQUIRED = (
    "azureml-inference-server-http>=1.5,<2",
    # Later versions conflict with the server's pins, and pip would try a dozen of them.
    "azure-monitor-opentelemetry-exporter<=1.0.0b40",
    "debugpy>=1.8.22,<2",
)
_MLFLOW = ("mlflow", "mlflow-skinny")


def environment_of(settings: Settings, deployment: OnlineDeployment | None, engine: str) -> ResolvedEnvironment:
    """The environment for a service; nothing is built yet.

    Args:
        settings: For the default environment and the base image.
        deployment: The deployment of the deployment file; None if no file is named.
        engine: ``docker`` or ``process``.

    Raises:
        UserError: Its definition is missing or cannot be read, or this engine cannot run it.
    """
    reference = None if deployment is None else deployment.environment
    by_mlflow = deployment is not None and deployment.code is None and deployment.routes is None
    if deployment is not None and deployment.routes is not None and engine != "docker":
        raise UserError(
            f"{deployment.label} is an image that serves by itself (`inference_config`), which needs Docker.",
            "Start a Docker engine and set AML_ENGINE=docker or auto.",
            file=shown(deployment.file),
            line=deployment.environment.line if deployment.environment is not None else None,
        )
    if deployment is not None and by_mlflow and deployment.model is not None:
        own = next((deployment.model.path / name for name in ("conda.yaml", "conda.yml")), None)
        if reference is None and own is not None and own.is_file():
            reference = EnvironmentReference(deployment.file, 1, conda_file=own)
    found = resolve_environment(reference, settings, engine, REQUIRED, "inference")
    if deployment is not None and by_mlflow:
        check_mlflow(found.definition, deployment)
    return found


def check_mlflow(definition: EnvironmentDefinition | None, deployment: OnlineDeployment) -> None:
    """Check that an environment has MLflow, which is to serve the model.

    Raises:
        UserError: It does not.
    """
    if definition is None:
        # An image may have it. If it has not, the service fails with a message.
        return
    asked = {item.name for item in definition.pip} | {item.name for item in definition.conda}
    if asked.isdisjoint(_MLFLOW):
        raise UserError(
            f"{deployment.label} has no code, so MLflow has to serve its model, and {shown(definition.source)} does "
            "not ask for mlflow.",
            "Add mlflow there, or give the deployment a `code_configuration`.",
            file=shown(deployment.file),
        )


def built(
    environment: ResolvedEnvironment,
    settings: Settings,
    deployment: OnlineDeployment | None,
    engine: Engine,
    report: Callable[[str], None],
) -> tuple[ImageRef, ResolvedEnvironment]:
    """Build the environment of a service, unless it is built already; returns the image and its environment.

    Raises:
        UserError: It cannot be built.
    """
    from ..engines.docker_contexts import ImageUnreachable

    try:
        image = environment.build(engine, report)
    except ImageUnreachable as error:
        if deployment is None or deployment.routes is not None:
            raise
        # The script depends on the packages, and the default environment has those of the server.
        other = environment_of(settings, replace(deployment, environment=None), engine.name)
        note = f"{error.problem.rstrip('.')}: {shown(settings.inference_env)} is used"
        image = replace(other.build(engine, report), notes=(note,))
        return image, other
    return replace(image, notes=(*environment.notes, *image.notes)), environment


def found(environment: ResolvedEnvironment, settings: Settings, engine: Engine) -> ImageRef | None:
    """The image of an environment if it is built already; an image that is used as it is has to be on this machine."""
    if environment.definition is not None:
        bases = dict.fromkeys((environment.base_image, settings.base_image))
        return next(filter(None, (engine.find(environment.definition, base) for base in bases)), None)
    from ..engines.docker_contexts import find_image

    assert environment.reference is not None
    return find_image(environment.reference)
