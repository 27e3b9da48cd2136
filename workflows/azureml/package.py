"""Packages a model with Azure ML: calls `Model.package`, follows its log, and finds its image or build context."""

from __future__ import annotations

import codecs
import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadValue, UserError
from ..models import RegistryLogin
from ..reading import read_text
from ..received import Refused, image_name, sent_by
from ..redaction import LineScrubber, keep_secret, scrub
from ..scratch import scratch_folder
from ..settings import Settings
from . import limited_requests
from .errors import NotFound, Report, attempt
from .workspace import connect

if TYPE_CHECKING:
    from ..environments.definition import EnvironmentDefinition

#: Seconds between two polls of a build; the SDK itself polls every 5.
POLL_SECONDS = 1.0
#: Seconds after which a build is given up.
BUILD_SECONDS = 3 * 3600
_SHOWN_LINES = 15
#: Characters after which a line of a log is split.
_LINE_LETTERS = 1 << 16


@dataclass(frozen=True)
class ModelName:
    """A registered model.

    Attributes:
        name: Its name.
        version: Its version; None for the latest.
    """

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}:{self.version}"


def parse_model(text: str) -> ModelName:
    """Read `NAME` or `NAME:VERSION`.

    Raises:
        BadValue: It is neither.
    """
    match = re.fullmatch(r"(?P<name>[A-Za-z0-9][\w.-]*)(?::(?P<version>[1-9][0-9]*))?", text)
    if match is None:
        raise BadValue(f"--model is NAME or NAME:VERSION, not {text!r}.", "Correct the value after --model.")
    return ModelName(match["name"], int(match["version"]) if match["version"] else None)


@dataclass(frozen=True)
class Recipe:
    """The content of a package.

    Attributes:
        name: The environment's name.
        conda: The content of its conda.yml, including the files that it refers to.
        base_image: The image it builds on; None for the service's own.
        base_dockerfile: Or the Dockerfile that makes it.
        source: The folder of the entry script.
        entry: The entry script's name.
    """

    name: str
    conda: str
    base_image: str | None
    base_dockerfile: str | None
    source: Path
    entry: str


@dataclass(frozen=True)
class Package:
    """A package that the workspace has made.

    Attributes:
        location: The full name of its image; empty where it is a build context.
        context: The folder of its build context; None where it is an image.
        login: The login for the registry; None where the workspace provides none.
    """

    location: str
    context: Path | None
    login: RegistryLogin | None


def make_recipe(
    definition: EnvironmentDefinition, base_image: str | None, script: Path, source: Path
) -> tuple[Recipe, tuple[str, ...]]:
    """Make the recipe of a package from an environment's definition, with notes on what is not sent.

    Raises:
        UserError: It names something that only this machine has.
    """
    for requirement in definition.pip:
        if requirement.local is not None:
            raise UserError(
                f"{requirement.local} is only on this machine, but Azure ML builds the image.",
                "Name a package that an index has, or leave out --source azureml.",
                file=requirement.file,
                line=requirement.line,
            )
    local = [option for option in definition.options if option.startswith("--find-links /")]
    if local:
        raise UserError(
            f"`{local[0]}` names a folder of this machine, but Azure ML builds the image.",
            "Use an index, or leave out --source azureml.",
            file=definition.source,
        )
    notes = ["constraints (-c) are not sent to Azure ML"] if definition.constraints else []
    pip = [*definition.options, *(item.render() for item in definition.pip)]
    conda = {
        "name": definition.name,
        "channels": list(definition.channels) or ["conda-forge"],
        "dependencies": [f"python{definition.python}", *(item.text for item in definition.conda), "pip", {"pip": pip}],
    }
    name = re.sub(r"[^\w.-]+", "-", definition.name).strip("-.") or "inference"
    dockerfile = None if base_image else _base_dockerfile(definition)
    # JSON is YAML.
    entry = script.relative_to(source).as_posix()
    return Recipe(name, json.dumps(conda, indent=2), base_image, dockerfile, source, entry), tuple(notes)


def _base_dockerfile(definition: EnvironmentDefinition) -> str | None:
    """The folder's own Dockerfile if it defines a base image; None for this program's, which needs its own context."""
    path = definition.folder / "Dockerfile"
    if definition.dockerfile != path:
        return None
    text = read_text(path, errors="replace")
    if ".azureml-debug" in text:
        return None
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*(COPY|ADD)\s+(?=\S)(?!.*--from=)(?!https?://)", line, re.IGNORECASE):
            raise UserError(
                "Azure ML builds this Dockerfile without a folder to copy from.",
                "Remove the line, or name the finished image in AML_BASE_IMAGE.",
                file=path,
                line=number,
            )
    return text


class ModelPackages:
    """Packages of one workspace.

    Args:
        settings: Which workspace, and who signs in.
        report: Called with each line of progress.

    Raises:
        UserError: See :func:`~workflows.azureml.workspace.connect`.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._report = report
        self._workspace: Any = connect(settings, report)

    @property
    def name(self) -> str:
        """The workspace's unique name."""
        one = self._workspace
        return f"{one.subscription_id}/{one.resource_group}/{one.name}".lower()

    def find(self, wanted: ModelName) -> ModelName:
        """A registered model, with its version.

        Raises:
            UserError: There is none; the error lists similar names, or its versions.
        """
        from azureml.core import Model

        def get() -> ModelName:
            try:
                found = Model(self._workspace, name=wanted.name, version=wanted.version, expand=False)
            except Exception as error:
                if "not found" in str(getattr(error, "message", "")).lower() or "ModelNotFound" in type(error).__name__:
                    raise NotFound(f"There is no model {wanted}.", "") from error
                raise
            return ModelName(found.name, int(found.version))

        try:
            return attempt(get, f"looking for the model {wanted}", self._report)
        except NotFound as error:
            raise self._no_model(wanted) from error

    def _no_model(self, wanted: ModelName) -> UserError:
        from difflib import get_close_matches

        from azureml.core import Model

        def listed() -> list[tuple[str, int]]:
            return [(one.name, int(one.version)) for one in Model.list(self._workspace, expand=False)]

        models = attempt(listed, "listing the models", self._report)
        problem = f"There is no model {wanted} in the workspace {self._workspace.name}."
        versions = sorted((version for name, version in models if name == wanted.name), reverse=True)
        if versions:
            some = ", ".join(map(str, versions[:8])) + (", …" if len(versions) > 8 else "")
            return UserError(problem, f"Its versions: {some}.")
        names = sorted({name for name, _ in models})
        near = get_close_matches(wanted.name, names, n=3, cutoff=0.5) or names[:5]
        if not near:
            return UserError(problem, "It has no models: register one first (az ml model create).")
        return UserError(problem, f"Models there are: {', '.join(near)}.")

    def make(self, model: ModelName, recipe: Recipe, log: Callable[[str], None], context: Path | None) -> Package:
        """Have the workspace build a package, and follow its log.

        Args:
            model: The model, with its version.
            recipe: The rest of its content.
            log: Called with each line of the build's log, as it grows.
            context: Where to save the build context, in place of having an image built.

        Raises:
            UserError: It cannot be made; with the last lines of its log.
        """
        from azureml.core import Model
        from azureml.core.model import InferenceConfig

        from . import sdk

        def submit() -> Any:
            with sdk.prints_to_standard_error():
                return Model.package(
                    self._workspace,
                    [Model(self._workspace, name=model.name, version=model.version, expand=False)],
                    InferenceConfig(
                        source_directory=str(recipe.source), entry_script=recipe.entry, environment=_environment(recipe)
                    ),
                    generate_dockerfile=context is not None,
                )

        package = attempt(submit, f"packaging the model {model}", self._report)
        self._follow_build(package, log)
        if context is None:
            with sent_by(f"The workspace {self._workspace.name}"):
                location = image_name(package.location, "the name of an image")
            return Package(location, None, self._registry_login(package))

        def save() -> None:
            from . import build_context

            build_context.save_build_context(package.location, build_context.Artifacts(self._workspace), context)

        with sent_by(f"The workspace {self._workspace.name}"):
            attempt(save, "fetching the build context", self._report)
        return Package("", context, self._registry_login(package))

    def _follow_build(self, package: Any, log: Callable[[str], None]) -> None:
        """Pass on the build's log until the build has ended."""
        kept = deque[str](maxlen=_SHOWN_LINES)

        def show(line: str) -> None:
            kept.append(line)
            log(line)

        import requests

        http = requests.Session()
        lines = _LogLines(show)
        offset, until = 0, time.monotonic() + BUILD_SECONDS
        while True:
            attempt(package.update_creation_state, "asking how the build goes", self._report)
            ended = package.state not in ("NotStarted", "Running")
            with sent_by(f"The workspace {self._workspace.name}"):
                fetch = partial(limited_requests.fetch_part, http, package.package_build_log_uri, offset)
                part = attempt(fetch, "reading the build's log", self._report)
            offset += len(part)
            if offset > limited_requests.LOG_BYTES:
                raise Refused("a log without an end", f"The workspace {self._workspace.name}")
            is_complete = len(part) < limited_requests.PART_BYTES
            lines.add(part, last=ended and is_complete)
            if ended and is_complete:
                break
            if not is_complete:
                continue
            if time.monotonic() > until:
                raise UserError(
                    f"Azure ML has not built the image in {BUILD_SECONDS // 3600} hours.",
                    "See https://ml.azure.com; the log so far stands above.",
                    details=list(kept),
                )
            time.sleep(POLL_SECONDS)
        if package.state == "Succeeded":
            return
        error = package.error if isinstance(package.error, dict) else {}
        reason = scrub(str(error.get("message") or package.error or "no reason given")).rstrip(".")
        raise UserError(
            f"Azure ML could not build the image ({package.state}): {reason}.",
            "Correct what its log tells of, in the environment's definition or the base image, then run this again.",
            details=list(kept),
        )

    def _registry_login(self, package: Any) -> RegistryLogin | None:
        """The login for the registry; None where the workspace has none: then docker's own login is used."""
        try:
            registry = attempt(package.get_container_registry, "asking for the registry", self._report)
        except UserError as error:
            self._report(f"{error.problem} Pulling with docker's own login.")
            return None
        if not registry.username or not registry.password:
            return None
        keep_secret(str(registry.password))
        return RegistryLogin(str(registry.address), str(registry.username), str(registry.password))


def _environment(recipe: Recipe) -> Any:
    from azureml.core import Environment

    with scratch_folder() as folder:
        path = folder / "conda.yml"
        path.write_text(recipe.conda, encoding="utf-8")
        environment = Environment.from_conda_specification(recipe.name, str(path))
    if recipe.base_image:
        environment.docker.base_image = recipe.base_image
    elif recipe.base_dockerfile:
        environment.docker.base_image = None
        environment.docker.base_dockerfile = recipe.base_dockerfile
    # The server that serves the packaged model, as in the service.
    environment.inferencing_stack_version = "latest"
    return environment


class _LogLines:
    """Turns bytes that arrive in parts into lines without secrets."""

    def __init__(self, handle_line: Callable[[str], object]) -> None:
        self._handle_line = handle_line
        self._scrub = LineScrubber()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._rest = ""

    def add(self, part: bytes, last: bool) -> None:
        *lines, self._rest = (self._rest + self._decode(part, last)).replace("\r", "\n").split("\n")
        # An overlong line is split.
        while len(self._rest) > _LINE_LETTERS:
            lines.append(self._rest[:_LINE_LETTERS])
            self._rest = self._rest[_LINE_LETTERS:]
        for line in [*lines, *([self._rest] if last else [])]:
            if line.strip():
                self._handle_line(self._scrub(line.rstrip()))
