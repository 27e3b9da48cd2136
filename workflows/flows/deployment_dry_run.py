"""The dry run of a deployment: what exists, what would be built, and what is missing. Nothing is created."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import engines
from ..deployments import overlay
from ..deployments.definition import OnlineDeployment
from ..deployments.overlay import DescribedDeployment
from ..engines.base import Engine
from ..environments.references import ResolvedEnvironment
from ..errors import UserError
from ..findings import Finding
from ..paths import shown
from ..pipelines.problems import SeveralErrors
from ..redaction import scrub
from ..settings import Settings
from . import entry_checks, inference, service_variables
from .specification import serving_of


def check_deployment(settings: Settings, env: Sequence[str]) -> Iterator[Finding]:
    """Check the parts of a deployment; yields a finding for each.

    Args:
        settings: The settings; if ``deployment`` is set, that file is used.
        env: Variables as they were typed.
    """
    found = DescribedDeployment(settings)
    try:
        from ..azureml.named_assets import model_locator

        found = overlay.apply_deployment_file(settings, model_locator(settings))
    except UserError as error:
        # If the file is wrong, only what does not depend on it can be checked.
        yield from _findings_of_errors("deployment", *(error.errors if isinstance(error, SeveralErrors) else (error,)))
        for name, look in (
            ("engine", lambda: engines.choose(settings.engine)),
            ("variables", lambda: service_variables.collect_variables(settings, env)),
        ):
            try:
                look()
            except UserError as wrong:
                yield from _findings_of_errors(name, wrong)
        return
    settings, deployment = found.settings, found.deployment
    if deployment is not None:
        yield Finding("deployment", True, f"{deployment.label} ({deployment.kind}), {shown(deployment.file)}")
    yield from _code(settings, deployment)
    yield from _model(settings, deployment)
    try:
        engine, word = engines.choose(settings.engine)
    except UserError as error:
        yield from _findings_of_errors("engine", error)
    else:
        yield Finding("engine", True, word or engine.name)
        yield from _environment(settings, deployment, engine)
    try:
        named = service_variables.collect_variables(
            settings, env, described=deployment.variables if deployment is not None else None
        )
    except UserError as error:
        yield from _findings_of_errors("variables", error)
    else:
        texts = [scrub(f"{name}={value}") for name, value in sorted(named.values.items())]
        yield Finding("variables", True, ", ".join(texts) or "none")
        yield from (Finding("variables", None, note) for note in named.notes)
    yield from _ready(deployment)
    yield from (Finding("note", None, note) for note in found.notes)


def _findings_of_errors(name: str, *errors: UserError) -> Iterator[Finding]:
    for error in errors:
        problem, _, remedy = str(error).partition("\n")
        yield Finding(name, False, problem.removeprefix("error: "), remedy)


def _code(settings: Settings, deployment: OnlineDeployment | None) -> Iterator[Finding]:
    serving = serving_of(deployment)
    if serving is not None:
        text = f"in the image; it serves by itself, POST {serving.path} on its port {serving.port}"
        if serving.code is not None:
            text = (
                f"{shown(serving.code)} at {serving.code_place}; the image serves by itself on its port {serving.port}"
            )
        yield Finding("code", True, text)
        return
    try:
        entry_checks.check_entry_script(settings)
    except UserError as error:
        yield from _findings_of_errors("code", error)
        return
    if deployment is not None and deployment.code is None:
        yield Finding("code", True, "none: MLflow serves the model")
        return
    script = settings.score_script.relative_to(settings.source_root)
    yield Finding("code", True, f"{script.as_posix()} in {shown(settings.source_root)}")


def _model(settings: Settings, deployment: OnlineDeployment | None) -> Iterator[Finding]:
    model = deployment.model if deployment is not None else None
    if model is None:
        text = f"{shown(settings.model_dir)} as AZUREML_MODEL_DIR" if settings.model_dir is not None else "none"
        yield Finding("model", True, text)
        return
    if model.elsewhere:
        yield Finding("model", None, f"{model.path}: not looked for here, it would be brought from {model.elsewhere}")
        return
    named = f"{model.name}{f':{model.version}' if model.version else ''}, " if model.name else ""
    yield Finding("model", True, f"{named}{shown(model.path)} as AZUREML_MODEL_DIR/{model.path.name}")


def _environment(settings: Settings, deployment: OnlineDeployment | None, engine: Engine) -> Iterator[Finding]:
    model = deployment.model if deployment is not None else None
    by_mlflow = deployment is not None and deployment.code is None and deployment.environment is None
    if by_mlflow and model is not None and model.elsewhere:
        yield Finding("environment", None, "that of the model, which MLflow has put beside it")
        return
    try:
        environment = inference.environment_of(settings, deployment, engine.name)
        built = inference.found(environment, settings, engine)
    except UserError as error:
        yield from _findings_of_errors("environment", error)
        return
    what = _describe_environment(environment)
    if built is not None:
        where = built.name if engine.name == "docker" else shown(Path(built.name))
        yield Finding("environment", True, f"{what}: built ({where})")
    elif environment.definition is not None or (
        environment.reference is not None and environment.reference.build is not None
    ):
        yield Finding("environment", True, f"{what}: to be built")
    else:
        yield Finding("environment", None, f"{what}: not here, it would be pulled")
    yield from (Finding("environment", None, note) for note in environment.notes)


def _describe_environment(environment: ResolvedEnvironment) -> str:
    reference = environment.reference
    if environment.definition is None:
        assert reference is not None
        if reference.build is not None:
            return f"the image of {shown(reference.build)} ({reference.dockerfile})"
        return f"the image {reference.image}"
    source = f"{shown(environment.definition.source)}"
    return f"{source} on the image {environment.base_image}" if environment.base_image else source


def _ready(deployment: OnlineDeployment | None) -> Iterator[Finding]:
    if deployment is None:
        return
    probe, where = deployment.readiness, deployment.ready.text
    text = f"{where}, {probe.success_threshold} in a row, {probe.timeout} s each, within {probe.limit} s"
    yield Finding("readiness", True, text)
    probe, where = deployment.liveness, deployment.alive.text
    text = f"{where}, every {probe.period} s, given up after {probe.failure_threshold}; nothing restarts a service here"
    yield Finding("liveness", True, text)
