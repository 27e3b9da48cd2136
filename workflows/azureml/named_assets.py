"""Downloads models, data and environments that are given by the names of a workspace's assets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ..console import Console
from ..deployments.definition import Model
from ..errors import BadValue, UserError
from ..paths import shown
from ..pipelines.definition import EnvironmentReference, Step
from ..settings import Settings
from ..settings_table import BY_FIELD
from .data_references import MODELS, AssetName, parse


def can_download(settings: Settings) -> bool:
    """Whether names are looked up in a workspace: one is set, and SDK v2 is installed. No SDK is imported."""
    from . import sdk
    from .sdk_choice import PACKAGE
    from .workspace import is_named

    return settings.sdk != "v1" and sdk.version_of(PACKAGE) is not None and is_named(settings)


def with_model(settings: Settings, console: Console, text: str) -> Settings:
    """Download a registered model; returns the settings with it as the model folder.

    Args:
        settings: The settings.
        console: Shown what is fetched.
        text: What was typed after ``--model``.

    Raises:
        BadValue: It names no model.
        UserError: It cannot be downloaded.
    """
    try:
        named = parse(text, MODELS)
    except UserError as error:
        raise BadValue(f"--model is azureml:NAME[:VERSION|@latest], not {text!r}.", "Correct it.") from error
    if not isinstance(named, AssetName) or named.collection != MODELS:
        raise BadValue(f"{text} is not the name of a model.", "Write azureml:NAME, or azureml:NAME:VERSION.")
    if "model_dir" in settings.set_by and settings.set_by["model_dir"] == BY_FIELD["model_dir"].flag:
        raise BadValue("--model and --model-dir both say which model it is.", "Leave out one of the two.")
    _require_v2(settings, text)
    from .v2.asset_downloads import download_model

    got = download_model(settings, console, text)
    set_by = {**settings.set_by, "model_dir": BY_FIELD["model_dir"].flag}
    return replace(settings, model_dir=got.path.parent, set_by=set_by)


def _require_v2(settings: Settings, text: str) -> None:
    """Check that SDK v2 is chosen.

    Raises:
        UserError: It is not.
    """
    from .sdk_choice import chosen_sdk

    if chosen_sdk(settings) != "v2":
        raise UserError(
            f"{text} is downloaded by SDK v2, but v1 is set.",
            "Set AML_SDK=v2, or have the model packaged: --source azureml --model NAME[:VERSION].",
        )


def model_downloader(settings: Settings, console: Console) -> Callable[[str], Model] | None:
    """A function that downloads a deployment's registered model, or raises the reason why it cannot.

    Returns:
        The function; None where no workspace is set.
    """
    if not can_download(settings):
        return _model_refuser(settings)

    def download(text: str) -> Model:
        from .v2.asset_downloads import download_model

        got = download_model(settings, console, text)
        named = got.location.named
        return Model(got.path, named.name if named else "", named.version if named else "", "custom_model")

    return download


def _model_refuser(settings: Settings) -> Callable[[str], Model] | None:
    """A function that raises the reason why models cannot be downloaded; None where no workspace is set."""
    from . import sdk
    from .sdk_choice import PACKAGE
    from .workspace import is_named

    if not is_named(settings):
        return None

    def refuse(text: str) -> Model:
        v1 = settings.sdk == "v1"
        why = "AML_SDK=v1 is chosen" if v1 else f"{PACKAGE} is not installed"
        remedy = "Set AML_SDK=v2" if v1 else f"Install the extra: {sdk.install_command('v2')}"
        raise UserError(
            f"The model `{text}` is not on this machine. SDK v2 can download it from the workspace, but {why}.",
            f"{remedy}. Or name its folder: --model-dir FOLDER",
        )

    return refuse


def model_locator(settings: Settings) -> Callable[[str], Model] | None:
    """A function for dry runs that says where a model would come from, without downloading it."""
    if not can_download(settings):
        return _model_refuser(settings)

    def name(text: str) -> Model:
        found = parse(text, MODELS)
        named = found if isinstance(found, AssetName) else None
        where = f"the registry {named.registry}" if named and named.registry else "the workspace"
        if settings.workspace and not (named and named.registry):
            where = f"{where} {settings.workspace}"
        return Model(Path(text), named.name if named else "", named.version if named else "", elsewhere=where)

    return name


def download_inputs(settings: Settings, console: Console, steps: Iterable[Step]) -> dict[str, Path]:
    """Download the inputs of steps that are in a workspace; returns their local paths by their names there.

    Raises:
        UserError: They cannot be downloaded.
    """
    wanted = {entry.asset: entry.type for step in steps for entry in step.inputs.values() if entry.asset is not None}
    if not wanted:
        return {}
    from .v2.asset_downloads import download_inputs

    return download_inputs(settings, console, wanted)


def find_environment(
    reference: EnvironmentReference, settings: Settings, report: Callable[[str], None] = lambda line: None
) -> tuple[EnvironmentReference | None, str]:
    """Find the definition of an environment by its name in a workspace or a registry.

    Args:
        reference: The name, and the file and line that name it.
        settings: Which workspace.
        report: Called with what is being waited for.

    Returns:
        Its definition, or None where no workspace can be reached; and the reason where one should be reachable.

    Raises:
        UserError: There is none of that name.
    """
    if not can_download(settings) or reference.name is None:
        return None, ""
    from .errors import NotFound
    from .v2.named_environments import find_definition

    try:
        return find_definition(reference, settings, report), ""
    except NotFound as error:
        raise UserError(error.problem, error.remedy, file=shown(reference.file), line=reference.line) from error
    except UserError as error:
        # Without a connection, the caller continues with what is on this machine.
        return None, error.problem
