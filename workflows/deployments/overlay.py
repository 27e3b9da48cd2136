"""Applies a deployment's file to the settings: its values replace the settings for the same things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..debuggee import FOLDER as DEBUGGEE
from ..errors import BadValue, UserError
from ..paths import shown
from ..settings import Settings
from ..settings_table import BY_FIELD
from .definition import Model, OnlineDeployment
from .reader import load_deployment

#: The script by which MLflow serves a model that has no code of its own.
MLFLOW_SCRIPT = Path(DEBUGGEE, "mlflow_scoring", "score.py")
#: The settings for things that a deployment's file has as well.
_CODE = ("score_script", "source_directory")
FIELDS = (*_CODE, "model_dir", "inference_env")
_TYPED = 2


@dataclass(frozen=True)
class DescribedDeployment:
    """A deployment's file, applied to the settings.

    Attributes:
        settings: The settings to use.
        deployment: The deployment; None where no file is named.
        notes: Notes for the user on both.
    """

    settings: Settings
    deployment: OnlineDeployment | None = None
    notes: tuple[str, ...] = ()


def takes_precedence(settings: Settings, field: str) -> bool:
    """Whether a setting counts more than a deployment's file.

    It does where its source has a higher rank than that of the file's name: a flag, then the environment, then `.env`.
    From the same source, a model's folder and an environment count more than the file, which may have neither; and so
    does every flag.
    """
    if field not in settings.set_by:
        return False
    rank, files = _rank(settings, field), _rank(settings, "deployment")
    return rank > files or (rank == files and (rank == _TYPED or field not in _CODE))


def overruled_settings(settings: Settings) -> frozenset[str]:
    """The settings that are set but do not count, because a deployment's file replaces them."""
    if settings.deployment is None:
        return frozenset()
    return frozenset(name for name in FIELDS if name in settings.set_by and not takes_precedence(settings, name))


def _rank(settings: Settings, field: str) -> int:
    source = settings.set_by.get(field, "")
    return _TYPED if source == BY_FIELD[field].flag else 1 if source == BY_FIELD[field].variable else 0


def apply_deployment_file(settings: Settings, download: Callable[[str], Model] | None = None) -> DescribedDeployment:
    """Apply the deployment's file to the settings, where one is named.

    Args:
        settings: The settings.
        download: Downloads a registered model; None where that is not wanted.

    Raises:
        UserError: Something is wrong with the file or what it names.
    """
    if settings.deployment is None:
        return DescribedDeployment(settings)
    model_dir = settings.model_dir if takes_precedence(settings, "model_dir") else None
    if takes_precedence(settings, "model_dir") and model_dir is not None and not model_dir.is_dir():
        # The check of the model folder, which comes later, reports what is wrong with it.
        return DescribedDeployment(replace(settings, deployment=None))
    found = load_deployment(settings.deployment, settings.project, model_dir, download)
    if takes_precedence(settings, "score_script"):
        found = _replace_script(found, settings)
    changed: dict[str, Any] = {}
    set_by: dict[str, str] = dict(settings.set_by)
    notes = list(found.notes)
    for name in _CODE:
        if takes_precedence(settings, name):
            notes.append(f"{BY_FIELD[name].variable} takes precedence over {shown(found.file)}")
            continue
        changed[name] = _code_settings(found)[name]
        set_by[name] = str(found.file)
    if not takes_precedence(settings, "model_dir"):
        changed["model_dir"] = _model_dir(found)
        set_by["model_dir"] = str(found.file)
    if takes_precedence(settings, "inference_env") and found.environment is not None and found.routes is None:
        notes.append(f"{BY_FIELD['inference_env'].variable} takes precedence over {shown(found.file)}")
        found = replace(found, environment=None)
    return DescribedDeployment(replace(settings, set_by=set_by, **changed), found, tuple(notes))


def _replace_script(found: OnlineDeployment, settings: Settings) -> OnlineDeployment:
    """The deployment with the script that the settings name.

    Raises:
        UserError: Its image serves by itself.
    """
    if found.routes is not None:
        raise UserError(
            f"{BY_FIELD['score_script'].variable} names a script, and {shown(found.file)} an image that serves by "
            "itself (`inference_config`).",
            "Leave out one of the two.",
        )
    return replace(found, code=settings.source_root, script=settings.score_script)


def _code_settings(found: OnlineDeployment) -> Mapping[str, Path]:
    """The settings for the script and the source folder."""
    if found.script is not None and found.code is not None:
        return {"score_script": found.script, "source_directory": found.code}
    if found.routes is not None:
        # The image's own program serves; its sources are beside the deployment's file.
        return {"score_script": found.file, "source_directory": found.file.parent}
    return {"score_script": MLFLOW_SCRIPT, "source_directory": MLFLOW_SCRIPT.parent}


def _model_dir(found: OnlineDeployment) -> Path | None:
    if found.model is None or found.model.elsewhere:
        return None
    return found.model.path if found.model.path.is_dir() else found.model.path.parent


def model_below(found: OnlineDeployment | None) -> str:
    """The model folder's name in the folder that AZUREML_MODEL_DIR names; empty where it is that folder itself."""
    if found is None or found.model is None or found.model_dir is not None or not found.model.path.is_dir():
        return ""
    return found.model.path.name


def refuse_with_packages(settings: Settings) -> None:
    """Check that ``--deployment`` was not typed together with ``--source azureml``.

    Raises:
        BadValue: It was.
    """
    if settings.set_by.get("deployment") == BY_FIELD["deployment"].flag:
        raise BadValue(
            "--deployment goes with an image that is built here, not with --source azureml.",
            "Leave out one of the two.",
        )
