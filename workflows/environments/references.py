"""Resolves the environment that a step or deployment names to what an engine builds.

The fields are those of ``environment`` in a job of Azure ML:
https://learn.microsoft.com/azure/machine-learning/reference-yaml-environment
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..models import ImageRef
from ..paths import cache_folder, shown
from ..private import make_folder
from ..project import write_bytes
from ..settings import packaged_defaults
from .added_requirements import check_debugpy
from .definition import EnvironmentDefinition, load_definition
from .separate_debugpy import debugpy_folder

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..pipelines.definition import EnvironmentReference
    from ..settings import Settings

#: The requirements that are added to an environment that is debugged in Azure ML. debugpy 1.8.22 needs Python 3.10.
REQUIRED = ("debugpy>=1.8.22,<2 ; python_version >= '3.10'", "debugpy>=1.8,<2 ; python_version < '3.10'")
_RELATIVE = re.compile(
    r"^(?P<option>(?:-[rce]|--requirement|--constraint|--editable)(?:\s+|\s*=\s*))?(?P<path>.+)$", re.DOTALL
)


@dataclass(frozen=True)
class ResolvedEnvironment:
    """The environment of one step.

    Attributes:
        key: Equal for steps with the same environment; does not change when its files are edited.
        notes: Where it differs from what the pipeline file says, one line each.
        definition: Its definition; None where an image is used as it is, or is built from a context.
        base_image: The base image of the definition: the setting's, or the step's own.
        reference: The entry in the pipeline file; None for the default environment.
        inline: The file to which a conda file inside the pipeline file was written.
    """

    key: str
    notes: tuple[str, ...] = ()
    definition: EnvironmentDefinition | None = None
    base_image: str | None = None
    reference: EnvironmentReference | None = None
    inline: Path | None = None

    def build(self, engine: Engine, report: Callable[[str], None], *, debugged: bool = False) -> ImageRef:
        """The engine's image or environment, built where needed; the same whether it is debugged or not.

        Args:
            engine: The engine.
            report: Called with each line of progress.
            debugged: Whether a separate debugpy is provided where it has none of its own.

        Raises:
            UserError: It cannot be built or pulled. Nothing of it is left.
        """
        if debugged and self.definition is not None:
            try:
                check_debugpy(self.definition.pip, self.definition.conda, self.definition.limits)
            except UserError as error:
                raise _at_reference(error, self.reference, self.inline) from error
        image = self._build_image(engine, report)
        if not debugged or (self.definition is not None and _has_debugpy(self.definition)):
            return image
        return replace(image, debugpy=str(debugpy_folder(cache_folder(), engine.read_python(image), report)))

    def _build_image(self, engine: Engine, report: Callable[[str], None]) -> ImageRef:
        if self.definition is not None:
            try:
                made = self._install(engine, self.definition, report)
                return replace(made, variables=self.definition.variables, source=str(self.definition.source))
            except UserError as error:
                raise _at_reference(error, self.reference, self.inline) from error
        from ..engines.docker_contexts import build_context_image, image_by_name
        from .progress import brief_reporter

        reference = self.reference
        assert reference is not None
        if reference.build is not None:
            dockerfile = reference.dockerfile or "Dockerfile"
            return build_context_image(
                reference.build, dockerfile, brief_reporter(report), file=reference.file, line=reference.line
            )
        assert reference.image is not None
        return image_by_name(reference.image, report, file=reference.file, line=reference.line)

    def _install(self, engine: Engine, definition: EnvironmentDefinition, report: Callable[[str], None]) -> ImageRef:
        reference = self.reference
        if (
            engine.name != "docker"
            or reference is None
            or reference.image is None
            or reference.image != self.base_image
        ):
            return engine.build(definition, self.base_image, report)
        from ..engines.docker_contexts import ImageUnreachable, image_by_name

        try:
            image_by_name(reference.image, report, file=reference.file, line=reference.line)
        except ImageUnreachable as error:
            # The script needs the packages, and these can be installed on another base image.
            built = engine.build(definition, None, report)
            note = f"{error.problem.rstrip('.')}; {shown(definition.source)} is installed on the local base image"
            return replace(built, notes=(note, *built.notes))
        return engine.build(definition, reference.image, report)


def resolve_environment(
    reference: EnvironmentReference | None,
    settings: Settings,
    engine: str,
    required: Sequence[str] = (),
    purpose: str = "training",
    report: Callable[[str], None] = lambda line: None,
) -> ResolvedEnvironment:
    """Resolve the environment of a step or a service; nothing is built yet.

    Args:
        reference: The entry in the pipeline's or deployment's file.
        settings: The settings, with the default environment and the base image.
        engine: ``docker`` or ``process``.
        required: Requirements that are added where the definition has none of that name; not to an image.
        purpose: ``training`` or ``inference``, which decides on the default environment and Dockerfile.
        report: Called with a line of progress before a workspace is queried.

    Raises:
        UserError: The definition, or a file of it, is missing or cannot be read.
    """
    if reference is None:
        return _default_environment(settings, required, purpose)
    if reference.build is not None:
        if engine == "docker":
            return ResolvedEnvironment(f"{reference.build} {reference.dockerfile}", reference=reference)
        reason = f"the build context {shown(reference.build)} is not used without Docker"
        return _default_environment(settings, required, purpose, reason)
    if reference.conda_file is not None or reference.conda is not None:
        return _conda_environment(reference, settings, engine, required, purpose)
    if reference.image is not None:
        if engine == "docker":
            return ResolvedEnvironment(f"image {reference.image}", reference=reference)
        return _default_environment(
            settings, required, purpose, f"the image {reference.image} is not used without Docker"
        )
    from ..azureml import named_assets

    named, reason = named_assets.find_environment(reference, settings, report)
    if named is not None:
        found = resolve_environment(named, settings, engine, required, purpose)
        return replace(found, notes=(f"environment {reference.name}: as {_source_of(reference)} has it", *found.notes))
    reason = f": {reason.rstrip('.')}" if reason else ""
    return _default_environment(
        settings, required, purpose, f"environment {reference.name} is not on this machine{reason}"
    )


def _source_of(reference: EnvironmentReference) -> str:
    return "its registry" if str(reference.name).startswith("azureml://registries/") else "the workspace"


def _has_debugpy(definition: EnvironmentDefinition) -> bool:
    """Whether a definition has debugpy itself, on every Python."""
    named = [item.name for item in definition.pip if ";" not in item.text]
    return "debugpy" in (*named, *(item.name for item in definition.conda))


def _default_environment(
    settings: Settings, required: Sequence[str], purpose: str, reason: str = ""
) -> ResolvedEnvironment:
    folder: Path = getattr(settings, f"{purpose}_env")
    default = packaged_defaults() / "env" / purpose / "Dockerfile"
    definition = load_definition(folder, required=required, default_dockerfile=default)
    own = folder != packaged_defaults() / "env" / purpose or folder.is_relative_to(settings.project)
    place = shown(folder) if own else f"the program's own env/{purpose}"
    yours = "" if own else f". For packages of yours, make env/{purpose} in your project"
    notes = (f"{reason}: {place} is used{yours}",) if reason else ()
    return ResolvedEnvironment(purpose, notes, definition, settings.base_image)


def _conda_environment(
    reference: EnvironmentReference, settings: Settings, engine: str, required: Sequence[str], purpose: str
) -> ResolvedEnvironment:
    inline = None
    conda_file = reference.conda_file
    if conda_file is None:
        assert reference.conda is not None
        conda_file = inline = _write_conda_file(reference.conda, reference.file.parent)
    default = packaged_defaults() / "env" / purpose / "Dockerfile"
    try:
        definition = load_definition(
            conda_file.parent, conda_file=conda_file, required=required, default_dockerfile=default
        )
    except UserError as error:
        raise _at_reference(error, reference, inline) from error
    notes: tuple[str, ...] = ()
    base_image = reference.image or settings.base_image
    if engine != "docker":
        base_image = None
        if reference.image is not None:
            what = "its conda file" if inline is not None else shown(conda_file)
            notes = (f"the image {reference.image} is not used without Docker: {what} is installed as an environment",)
    return ResolvedEnvironment(f"{conda_file} {base_image or ''}", notes, definition, base_image, reference, inline)


def _at_reference(error: UserError, reference: EnvironmentReference | None, inline: Path | None) -> UserError:
    """The error with the place in the pipeline file, if its own place is the file of an inline conda file."""
    if reference is None or inline is None or error.file is None or Path(error.file) != inline:
        return error
    remedy = error.remedy
    if str(inline) in remedy:
        remedy = "Correct the environment's `conda_file`, then run the same command again."
    return UserError(error.problem, remedy, file=reference.file, line=reference.line, details=error.details)


def _write_conda_file(conda: Mapping[str, Any], folder: Path) -> Path:
    """Write a conda file that is inline in the pipeline file to a file of its own.

    Args:
        conda: The content.
        folder: The pipeline file's, to which its paths are relative.
    """
    import yaml

    dependencies = conda.get("dependencies")
    if isinstance(dependencies, list):
        conda = {**conda, "dependencies": [absolute_entry(entry, folder) for entry in dependencies]}
    text = yaml.safe_dump(dict(conda), sort_keys=False, allow_unicode=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = cache_folder() / "conda" / name / "conda.yml"
    if not path.is_file():
        make_folder(path.parent)
        write_bytes(path, text.encode(), private=True)
    return path


def absolute_entry(entry: Any, folder: Path) -> Any:
    """An entry of a conda file's dependencies; in the one for pip, paths are made absolute."""
    if not isinstance(entry, dict) or not isinstance(entry.get("pip"), list):
        return entry

    def line(text: Any) -> Any:
        match = _RELATIVE.match(text) if isinstance(text, str) else None
        if match is None or "://" in text or not (match["option"] or match["path"].startswith(("./", "../"))):
            return text
        return f"{match['option'] or ''}{folder / match['path'].strip()}"

    return {**entry, "pip": [line(text) for text in entry["pip"]]}
