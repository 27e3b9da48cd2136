"""What a service runs in: the inference environment, or what a deployment's file asks for."""

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

#: What a service needs besides what its own definition lists.
REQUIRED = (
    "azureml-inference-server-http>=1.5,<2",
    # What the server pins does not fit later ones, and pip would try a dozen of them.
    "azure-monitor-opentelemetry-exporter<=1.0.0b40",
    "debugpy>=1.8.22,<2",
)
_MLFLOW = ("mlflow", "mlflow-skinny")


def environment_of(settings: Settings, deployment: OnlineDeployment | None, engine: str) -> ResolvedEnvironment:
    """What a service is to run in; nothing is built yet.

    Args:
        settings: For the default environment and the base image.
        deployment: What its file says; None where no file is named.
        engine: ``docker`` or ``process``.

    Raises:
        UserError: Its definition is missing or cannot be read, or it cannot be had on this engine.
    """
    reference = None if deployment is None else deployment.environment
    by_mlflow = deployment is not None and deployment.code is None and deployment.routes is None
    if deployment is not None and deployment.routes is not None and engine != "docker":
        raise UserError(
            f"{deployment.label} is an image that serves by itself (`inference_config`), which takes Docker.",
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
        see_mlflow(found.definition, deployment)
    return found


def see_mlflow(definition: EnvironmentDefinition | None, deployment: OnlineDeployment) -> None:
    """See that MLflow can serve a model: that its environment asks for it.

    Raises:
        UserError: It does not.
    """
    if definition is None:
        # An image may have it; the service says so where it has not.
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
    """What the engine runs a service in, built where it is not there yet, and the environment that it is of.

    Raises:
        UserError: It cannot be had.
    """
    from ..engines.docker_contexts import ImageUnreachable

    try:
        image = environment.build(engine, report)
    except ImageUnreachable as error:
        if deployment is None or deployment.routes is not None:
            raise
        # What counts for the script are the packages, and the default environment has the server's.
        other = environment_of(settings, replace(deployment, environment=None), engine.name)
        note = f"{error.problem.rstrip('.')}: {shown(settings.inference_env)} is used"
        image = replace(other.build(engine, report), notes=(note,))
        return image, other
    return replace(image, notes=(*environment.notes, *image.notes)), environment


def found(environment: ResolvedEnvironment, settings: Settings, engine: Engine) -> ImageRef | None:
    """What it runs in, where that is built already; an image that is used as it is counts as such where it is here."""
    if environment.definition is not None:
        bases = dict.fromkeys((environment.base_image, settings.base_image))
        return next(filter(None, (engine.find(environment.definition, base) for base in bases)), None)
    from ..engines.docker_contexts import find_image

    assert environment.reference is not None
    return find_image(environment.reference)
