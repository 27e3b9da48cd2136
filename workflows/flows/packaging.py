"""The image of a deployment that Azure ML packages: packages it there, fetches it, and finds it again."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import environment_uses
from ..azureml.package import ModelName, ModelPackages, Package, Recipe, make_recipe, parse_model
from ..console import Console, Step
from ..errors import BadValue, UserError
from ..models import ImageRef
from ..project import read_json, state_folder, write_json
from ..scratch import scratch_folder
from ..settings import Settings

if TYPE_CHECKING:
    from ..engines.docker import DockerEngine
    from ..environments.definition import EnvironmentDefinition


@dataclass(frozen=True)
class Source:
    """The source of a deployment's image, if it is not built here.

    Attributes:
        model: The registered model; None for the one that was packaged last.
        generate_dockerfile: Fetch the build context and build the image here.
    """

    model: ModelName | None
    generate_dockerfile: bool = False


def read_source(source: str, model: str | None, generate_dockerfile: bool, needs_model: bool = True) -> Source | None:
    """Read ``--source``, ``--model`` and ``--generate-dockerfile``; None for a build here.

    Raises:
        BadValue: They do not go together.
    """
    if source not in ("local", "azureml"):
        raise BadValue(f"--source is local or azureml, not {source!r}.", "Correct the value after --source.")
    if source == "local":
        if model is not None or generate_dockerfile:
            if model is not None:
                problem = "--model goes with --source azureml."
                raise BadValue(problem, "Add --source azureml. For a folder on this machine: --model-dir FOLDER")
            problem = "--generate-dockerfile goes with --source azureml."
            raise BadValue(problem, "Add --source azureml, or leave out --generate-dockerfile.")
        return None
    if model is None and needs_model:
        raise BadValue("--source azureml needs a model.", "Add --model NAME or --model NAME:VERSION.")
    return Source(parse_model(model) if model is not None else None, generate_dockerfile)


@dataclass
class Packaging:
    """The image of a packaged model.

    Attributes:
        settings: The settings.
        console: Where progress is shown.
        source: What to package.
    """

    settings: Settings
    console: Console
    source: Source

    @property
    def _record(self) -> Path:
        return state_folder(self.settings.project, "deployment") / "package.json"

    def build(self, engine: DockerEngine, definition: EnvironmentDefinition, step: Step) -> ImageRef:
        """Package and fetch the image, unless it is here already.

        Raises:
            UserError: It cannot be packaged or fetched. Nothing incomplete is left here.
        """
        assert self.source.model is not None
        settings = self.settings
        what, notes = make_recipe(definition, settings.base_image, settings.score_script, settings.source_root)
        packages = ModelPackages(settings, step.detail)
        model = packages.find(self.source.model)
        key = _key(packages.name, model, what, self.source.generate_dockerfile)
        known = read_json(self._record) or {}
        if known.get("key") == key and engine.has_image(str(known.get("name"))):
            return ImageRef("docker", key, str(known["name"]), reused=True, notes=notes)
        try:
            if self.source.generate_dockerfile:
                name = self._build_here(engine, packages, model, what, key, step)
            else:
                made = packages.make(model, what, step.log, None)
                name = engine.pull(made.location, made.login, step.detail)
        except KeyboardInterrupt:
            self.console.line("Azure ML may go on with the build; nothing half made is left here.")
            raise
        write_json(self._record, {"key": key, "name": name, "model": str(model)})
        environment_uses.record_use(settings.project, "package docker", key)
        return ImageRef("docker", key, name, notes=notes)

    def _build_here(
        self,
        engine: DockerEngine,
        packages: ModelPackages,
        model: ModelName,
        what: Recipe,
        key: str,
        step: Step,
    ) -> str:
        folder = state_folder(self.settings.project, "packages")
        place = folder / str(model).replace(":", "-")
        with scratch_folder(folder) as partial:
            made: Package = packages.make(model, what, step.log, partial / "context")
            if place.exists():
                shutil.rmtree(place)
            os.replace(partial / "context", place)
        self.console.line(f"The build context is in {place}")
        return engine.build_package(place, key, made.login, step.detail)

    def last(self, engine: DockerEngine) -> ImageRef:
        """The image that was packaged last.

        Raises:
            UserError: There is none, or it has another model.
        """
        known, first = read_json(self._record) or {}, "First: inv deploy.build --source azureml --model "
        if not known or not engine.has_image(str(known.get("name"))):
            raise UserError("No package has been built.", f"{first}{self.source.model or 'NAME'}")
        model, wanted = parse_model(str(known["model"])), self.source.model
        if wanted is not None and (wanted.name != model.name or wanted.version not in (None, model.version)):
            raise UserError(f"The package built last is of {model}, not of {wanted}.", f"{first}{wanted}")
        return ImageRef("docker", str(known["key"]), str(known["name"]), reused=True)


def _key(workspace: str, model: ModelName, what: Recipe, here: bool) -> str:
    """A digest of what a package is made from, without the code, which is mounted over the image's copy."""
    parts = (workspace, str(model), what.conda, what.base_image or "", what.base_dockerfile or "", what.source.name)
    return hashlib.sha256("\0".join((*parts, str(here))).encode()).hexdigest()
