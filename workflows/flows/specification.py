"""Makes the specification of a service for an engine: its folders, variables, ports and name."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import engines, sessions
from ..console import Console
from ..deployments.copied_folders import find_copied_folders
from ..deployments.definition import CODE_ROOT, MODELS_ROOT, OnlineDeployment
from ..deployments.overlay import model_below
from ..engines.base import Engine
from ..engines.docker_client import engine_answers
from ..environments import local_packages
from ..environments.references import ResolvedEnvironment
from ..errors import UserError
from ..models import Check, ImageRef, Service, ServiceSpec, Serving, Snapshots
from ..paths import shown
from ..settings import Settings, packaged_defaults
from . import service_variables


@dataclass(frozen=True)
class Specification:
    """Makes the specification of a service.

    Attributes:
        settings: The settings.
        console: Where notes are shown.
        engine: The engine.
        environment: What it runs in.
        deployment: The deployment of the deployment file; None if no file is named.
        env: Variables as they were typed.
        wait: Hold for a debugger before score.py is loaded.
    """

    settings: Settings
    console: Console
    engine: Engine
    environment: ResolvedEnvironment
    deployment: OnlineDeployment | None
    env: Sequence[str]
    wait: bool

    def make_specification(self, image: ImageRef, own: Service | None, notes: list[str]) -> ServiceSpec:
        """Make the specification, and reserve its ports.

        Args:
            image: What it runs in.
            own: The project's service that it replaces, or None.
            notes: Gets notes on what is not as requested.

        Raises:
            UserError: A port or a name cannot be used, or the service cannot get the target of a link.
        """
        from ..engines import ports

        settings, deployment = self.settings, self.deployment
        if settings.scoring_port == settings.debug_port != 0:
            raise UserError(
                f"The service and the debugger cannot both use port {settings.debug_port}.",
                "Choose two: --scoring-port, --debug-port.",
            )
        # The Docker engine runs as root, so it can publish any port.
        listened = [settings.debug_port] + ([settings.scoring_port] if self.engine.name == "process" else [])
        for port in listened:
            if not ports.may_listen(port):
                raise UserError(f"Only root may listen on port {port}.", "Choose a port from 1024 on.")
        definition, below = self.environment.definition, model_below(deployment)
        serving = serving_of(deployment)
        linked: dict[str, str] = {}
        said: list[str] = []
        if serving is None:
            links = self.engine.links(settings.source_root, settings.model_dir, image.name, below)
            linked, said = dict(links.places), list(links.notes)
        named = service_variables.collect_variables(
            settings, self.env, described=deployment.variables if deployment else None
        )
        conda = definition.variables if definition is not None else {}
        for note in (*said, *named.notes, *service_variables.notes_on_overridden(conda)):
            self.console.line(f"  note: {note}")
        live = self._live(image)
        chosen = self.chosen_ports(self._own_ports(own), notes)
        return ServiceSpec(
            project=settings.project,
            session=sessions.session_folder(settings.project),
            name=self.container_name(notes),
            tag=settings.image_tag,
            image=image,
            score_script=settings.score_script,
            source=root_of(serving, settings),
            model_dir=settings.model_dir,
            model_below=below,
            serving=serving,
            foreign=definition is None and self.engine.name == "docker",
            ready=deployment.ready if deployment is not None else Check(),
            alive=deployment.alive if deployment is not None else Check(),
            links={**linked, **live},
            variables=named.values,
            conda_variables=conda,
            conda_file=definition.source if definition is not None else Path("conda.yml"),
            runit=_runit(settings),
            wait=self.wait,
            debug_timeout=settings.debug_timeout,
            snapshots=Snapshots("deployment", settings.snapshot_redact or "") if settings.leaves_snapshots else None,
            summaries=settings.describes_values,
            **chosen,
        )

    def container_name(self, notes: list[str]) -> str:
        """The configured name, or one with a number if a session of another project has it."""
        wanted = self.settings.container_name
        name, number = wanted, 1
        while True:
            holder = self.engine.holder_of_name(name)
            if holder is None or holder == str(self.settings.project):
                break
            if not holder:
                raise UserError(
                    f"The container name {name} belongs to a container that this program did not create.",
                    f"Remove it (docker rm -f {name}) or choose another name: --container-name {name}-2.",
                )
            number += 1
            name = f"{wanted}-{number}"
        if name != wanted:
            notes.append(f"the name {wanted} belongs to another project's session")
        return name

    def _live(self, image: ImageRef) -> dict[str, str]:
        """Where the folders of editable packages are mounted."""
        try:
            return local_packages.mount_places(image.live, self.settings.source_root)
        except FileNotFoundError as error:
            raise UserError(
                f"The package folder {shown(Path(str(error)))}, which {image.name} runs, is gone.",
                "Correct the environment's requirements.txt or conda.yml, then: inv deploy.debug",
            ) from error

    def chosen_ports(self, mine: frozenset[int], notes: list[str]) -> dict[str, int]:
        """Choose the service's ports by setting, reserved until it listens or this command ends.

        Args:
            mine: Ports of the service that it replaces.
            notes: Gets notes on what is not as requested.
        """
        from ..engines import ports, reservations

        chosen: dict[str, int] = {}
        with reservations.choosing_lock():
            for field in ("scoring_port", "debug_port"):
                wanted = getattr(self.settings, field)
                if wanted in mine and wanted not in chosen.values():
                    # The service that is about to be replaced holds it.
                    chosen[field] = wanted
                    continue
                taken = frozenset(chosen.values())
                chosen[field], word = ports.choose_port(field, wanted, taken, self._container_on)
                if word:
                    notes.append(word)
            reservations.reserve(chosen.values())
        return chosen

    def _own_ports(self, own: Service | None) -> frozenset[int]:
        """Ports of the service that is about to be replaced."""
        if own is None:
            return frozenset()
        engine = self.engine if self.engine.name == own.engine else engines.load(own.engine)
        try:
            return engine.held_ports(own)
        except UserError:
            return frozenset()

    def _container_on(self, port: int) -> tuple[str, bool] | None:
        """The container that holds a port, even if this service runs without containers."""
        found = self.engine.port_holder(port)
        if found is None and self.engine.name != "docker" and engine_answers():
            with contextlib.suppress(UserError):
                found = engines.load("docker").port_holder(port)
        return found


def serving_of(deployment: OnlineDeployment | None) -> Serving | None:
    """How a deployment's image serves with its own server; None if the inference server is used."""
    routes = deployment.routes if deployment is not None else None
    if deployment is None or routes is None:
        return None
    reference, model = deployment.environment, deployment.model
    copies = {}
    if reference is not None and reference.build is not None:
        copies = dict(find_copied_folders(reference.build, reference.dockerfile or "Dockerfile"))
    place = deployment.model_mount_path or MODELS_ROOT
    given = deployment.model_dir or (model.path if model is not None else None)
    script = ""
    if deployment.code is not None and deployment.script is not None:
        script = deployment.script.relative_to(deployment.code).as_posix()
    return Serving(
        port=routes.scoring.port,
        path=routes.scoring.path,
        model=given,
        model_place=place if deployment.model_dir is not None or model is None else model.place(place),
        code=deployment.code,
        code_place=posixpath.join(CODE_ROOT, deployment.code.name) if deployment.code is not None else "",
        script=script,
        copied=copies,
    )


def root_of(serving: Serving | None, settings: Settings) -> Path:
    """The local source folder of a service."""
    if serving is None:
        return settings.source_root
    return serving.code or next((Path(local) for local in serving.copied.values()), settings.source_root)


def _runit(settings: Settings) -> Path:
    own = settings.inference_env / "runit"
    return own if own.is_dir() else packaged_defaults() / "env" / "inference" / "runit"
