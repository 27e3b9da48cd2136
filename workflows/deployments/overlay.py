"""A deployment's file among the settings: what it says takes the place of those that it says something of."""

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
#: The settings that a deployment's file says something of.
_CODE = ("score_script", "source_directory")
FIELDS = (*_CODE, "model_dir", "inference_env")
_TYPED = 2


@dataclass(frozen=True)
class DescribedDeployment:
    """A deployment that a file describes, and the settings with what it says.

    Attributes:
        settings: The settings, as they are to be used.
        deployment: What the file says; None where no file is named.
        notes: What there is to say of the two.
    """

    settings: Settings
    deployment: OnlineDeployment | None = None
    notes: tuple[str, ...] = ()


def takes_precedence(settings: Settings, field: str) -> bool:
    """Whether a setting counts although a deployment's file says something else.

    It does where it comes from a place that counts more than that of the file's name: a flag, then the environment,
    then `.env`. From the same place a model's folder and an environment count, which the file may not have, and of
    flags everything that is typed.
    """
    if field not in settings.set_by:
        return False
    rank, files = _rank(settings, field), _rank(settings, "deployment")
    return rank > files or (rank == files and (rank == _TYPED or field not in _CODE))


def overruled_settings(settings: Settings) -> frozenset[str]:
    """The settings that do not count, since a deployment's file says something else."""
    if settings.deployment is None:
        return frozenset()
    return frozenset(name for name in FIELDS if name in settings.set_by and not takes_precedence(settings, name))


def _rank(settings: Settings, field: str) -> int:
    source = settings.set_by.get(field, "")
    return _TYPED if source == BY_FIELD[field].flag else 1 if source == BY_FIELD[field].variable else 0


def apply_deployment_file(settings: Settings, download: Callable[[str], Model] | None = None) -> DescribedDeployment:
    """The settings with what the deployment's file says, where one is named.

    Args:
        settings: The settings.
        download: Downloads a registered model; None where that is not wanted.

    Raises:
        UserError: The file, or what it names, is not as it has to be.
    """
    if settings.deployment is None:
        return DescribedDeployment(settings)
    model_dir = settings.model_dir if takes_precedence(settings, "model_dir") else None
    if takes_precedence(settings, "model_dir") and model_dir is not None and not model_dir.is_dir():
        # What is wrong with it is said where every model folder is looked at.
        return DescribedDeployment(replace(settings, deployment=None))
    found = load_deployment(settings.deployment, settings.project, model_dir, download)
    if takes_precedence(settings, "score_script"):
        found = _replace_script(found, settings)
    changed: dict[str, Any] = {}
    set_by: dict[str, str] = dict(settings.set_by)
    notes = list(found.notes)
    for name in _CODE:
        if takes_precedence(settings, name):
            notes.append(f"{BY_FIELD[name].variable} counts, whatever {shown(found.file)} says")
            continue
        changed[name] = _code_settings(found)[name]
        set_by[name] = str(found.file)
    if not takes_precedence(settings, "model_dir"):
        changed["model_dir"] = _model_dir(found)
        set_by["model_dir"] = str(found.file)
    if takes_precedence(settings, "inference_env") and found.environment is not None and found.routes is None:
        notes.append(f"{BY_FIELD['inference_env'].variable} counts, whatever {shown(found.file)} says")
        found = replace(found, environment=None)
    return DescribedDeployment(replace(settings, set_by=set_by, **changed), found, tuple(notes))


def _replace_script(found: OnlineDeployment, settings: Settings) -> OnlineDeployment:
    """A deployment whose script is named beside its file.

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
    """The script and the source folder that are run."""
    if found.script is not None and found.code is not None:
        return {"score_script": found.script, "source_directory": found.code}
    if found.routes is not None:
        # The image's own program serves. What is here of it lies beside the deployment's file.
        return {"score_script": found.file, "source_directory": found.file.parent}
    return {"score_script": MLFLOW_SCRIPT, "source_directory": MLFLOW_SCRIPT.parent}


def _model_dir(found: OnlineDeployment) -> Path | None:
    if found.model is None or found.model.elsewhere:
        return None
    return found.model.path if found.model.path.is_dir() else found.model.path.parent


def model_below(found: OnlineDeployment | None) -> str:
    """What the model folder is called in the one that AZUREML_MODEL_DIR names; empty where it is that one itself."""
    if found is None or found.model is None or found.model_dir is not None or not found.model.path.is_dir():
        return ""
    return found.model.path.name


def refuse_with_packages(settings: Settings) -> None:
    """See that a deployment's file was not typed beside ``--source azureml``.

    Raises:
        BadValue: It was.
    """
    if settings.set_by.get("deployment") == BY_FIELD["deployment"].flag:
        raise BadValue(
            "--deployment goes with an image that is built here, not with --source azureml.",
            "Leave out one of the two.",
        )
