"""Converts the environment of a pipeline file's step to one for a workspace."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..environments.definition import load_definition
from ..environments.references import REQUIRED, absolute_entry
from ..environments.requirements import normalise
from ..errors import UserError
from ..paths import shown
from ..pipelines.definition import EnvironmentReference
from ..reading import read_text
from ..settings import Settings, packaged_defaults
from .cloud_pipeline import CloudEnvironment

#: The package that a debugged run needs besides the user's, according to Azure ML's documentation for SDK v1.
DEFAULTS = "azureml-defaults"
#: The Python of an environment that names none: the latest that every release of azureml-defaults supports.
PYTHON = "3.10"


def cloud_environment(reference: EnvironmentReference | None, settings: Settings, debugged: bool) -> CloudEnvironment:
    """A step's environment.

    Args:
        reference: What the pipeline file says; None for the training environment of the settings.
        settings: For that one.
        debugged: Whether debugpy is needed. It is added to packages, but never to a finished image.

    Raises:
        UserError: The definition or one of its files is missing or cannot be read, or it names something that only
            this machine has.
    """
    if reference is None:
        folder = settings.training_env
        dockerfile = folder / "Dockerfile"
        own = dockerfile.is_file() and folder != packaged_defaults() / "env" / "training"
        return _of_folder(folder, None, settings.base_image or "", dockerfile if own else None, debugged)
    if reference.build is not None:
        return CloudEnvironment(
            f"azureml-debug-{_digest(str(reference.build), reference.dockerfile)}",
            context=reference.build,
            context_dockerfile=reference.dockerfile or "Dockerfile",
        )
    if reference.conda_file is not None:
        return _of_folder(reference.conda_file.parent, reference.conda_file, reference.image or "", None, debugged)
    if reference.conda is not None:
        dependencies = reference.conda.get("dependencies")
        if isinstance(dependencies, list):
            for entry in dependencies:
                _check_remote(absolute_entry(entry, reference.file.parent), reference)
        return _of_conda(dict(reference.conda), reference.image or "", debugged)
    if reference.image is not None:
        return CloudEnvironment(f"azureml-debug-{_digest(reference.image)}", image=reference.image)
    assert reference.name is not None
    name = reference.name.strip()
    if name.startswith("azureml://registries/"):
        place = shown(settings.training_env)
        note = f"environment {name} is in a registry, which SDK v1 does not support: {place} is used"
        return replace(cloud_environment(None, settings, debugged), note=note)
    return CloudEnvironment(name.removeprefix("azureml:"), registered=True)


def _of_folder(
    folder: Path, conda_file: Path | None, image: str, dockerfile: Path | None, debugged: bool
) -> CloudEnvironment:
    """The environment of a folder with conda.yml or requirements.txt, or of a conda file."""
    required = REQUIRED if debugged else ()
    default = packaged_defaults() / "env" / "training" / "Dockerfile"
    definition = load_definition(folder, conda_file=conda_file, required=required, default_dockerfile=default)
    local = next((one for one in definition.pip if one.local is not None), None)
    if local is not None:
        raise UserError(
            f"{local.local} is on this machine only, but the workspace builds the environment.",
            "Put the package into the step's `code`, or name one that pip can fetch.",
            file=local.file,
            line=local.line,
        )
    pip = [*definition.options, *(one.render() for one in definition.pip)]
    packages = [one.text for one in definition.conda]
    conda = {
        "name": "azureml-debug",
        "channels": list(definition.channels) or ["conda-forge"],
        "dependencies": [_python(definition.python), "pip", *packages, {"pip": _with_defaults(pip, debugged)}],
    }
    text = read_text(dockerfile) if dockerfile is not None else ""
    return CloudEnvironment(f"azureml-debug-{_digest(conda, image, text)}", image=image, conda=conda, dockerfile=text)


def _of_conda(conda: dict[str, Any], image: str, debugged: bool) -> CloudEnvironment:
    """The environment of a conda file's content in the pipeline file."""
    entries = list(conda.get("dependencies") or [])
    pip = next((list(entry["pip"]) for entry in entries if isinstance(entry, Mapping) and "pip" in entry), [])
    plain = [entry for entry in entries if not isinstance(entry, Mapping)]
    names = [re.split(r"[\s=<>!~\[]", str(entry), maxsplit=1)[0] for entry in plain]
    if "python" not in names:
        plain.insert(0, _python(""))
    if "pip" not in names:
        plain.append("pip")
    if debugged and not any(_named(line) == "debugpy" for line in pip):
        pip += list(REQUIRED)
    conda = {**conda, "name": "azureml-debug", "dependencies": [*plain, {"pip": _with_defaults(pip, debugged)}]}
    return CloudEnvironment(f"azureml-debug-{_digest(conda, image)}", image=image, conda=conda)


def _python(wanted: str) -> str:
    if not wanted:
        own = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return f"python={own if (3, 8) <= sys.version_info[:2] <= (3, 10) else PYTHON}"
    return f"python{wanted}" if wanted[0] in "=<>!~" else f"python={wanted}"


def _named(line: object) -> str:
    return normalise(re.split(r"[\s\[=<>!~;@]", str(line).strip(), maxsplit=1)[0])


def _with_defaults(pip: Sequence[Any], debugged: bool) -> list[Any]:
    known = {_named(line) for line in pip}
    return [*pip, *([DEFAULTS] if debugged and not known & {DEFAULTS, "azureml-core"} else [])]


def _check_remote(entry: Any, reference: EnvironmentReference) -> None:
    """Refuse pip's lines that name files of this machine."""
    for line in entry.get("pip", []) if isinstance(entry, Mapping) else []:
        if re.search(r"^(?:-\w+\s*)?/", str(line)):
            raise UserError(
                f"`{line}` is on this machine only, but the workspace builds the environment.",
                "Name a package that pip can fetch.",
                file=reference.file,
                line=reference.line,
            )


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
