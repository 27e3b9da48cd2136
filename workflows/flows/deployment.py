"""The chain of steps for a deployment: build, tag, run, runsvdir, attach-config; later stop."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .. import environment_uses, report, sessions
from ..environments.definition import EnvironmentDefinition, local_files
from ..errors import NameTaken, PortHeld, UserError
from ..interrupts import uninterrupted
from ..models import ImageRef, Service, ServiceSpec
from ..paths import shown
from ..private import make_folder, open_file
from . import copied_packages, entry_checks, failed_requests, inference, service_variables, serving
from .examples import note_example
from .existing_service import ExistingService
from .inference import REQUIRED as REQUIRED
from .service_requests import Ready
from .specification import Specification, root_of, serving_of

if TYPE_CHECKING:
    from ..deployments.definition import OnlineDeployment
    from ..engines.docker import DockerEngine
    from ..environments.references import ResolvedEnvironment
    from .packaging import Packaging, Source

CONFIGURATION = "Azure Machine Learning Deployment: Docker Debug"
#: How often another name or port is tried if another command or program takes it first.
_NAMES = 10


@dataclass
class Deployment(ExistingService):
    """The steps for one project. Each can be used alone; `debug` chains them.

    Attributes:
        source: Where the image comes from, if it is not built here.
        env: Variables for the service as they were typed: NAME=value, or NAME.
        described: The deployment of the deployment file; None if there is none, or it is not used.
    """

    source: Source | None = None
    env: Sequence[str] = ()
    described: OnlineDeployment | None = None
    _environment: ResolvedEnvironment | None = None

    @property
    def environment(self) -> ResolvedEnvironment:
        """The environment that the service runs in, resolved once."""
        if self._environment is None:
            settings, described = self.settings, self.described
            if described is None and self.source is None and settings.deployment is not None:
                from ..deployments import overlay

                found = overlay.apply_deployment_file(settings)
                settings, described = found.settings, found.deployment
            self._environment = inference.environment_of(settings, described, self.engine.name)
        return self._environment

    def definition(self) -> EnvironmentDefinition:
        """The definition of the service's environment.

        Raises:
            UserError: It has none, because its image is used as it is.
        """
        found = self.environment.definition
        if found is None:
            raise UserError(
                "The image of this deployment is used as it is, so no environment is installed.",
                "Name packages in a conda file: `conda_file` of its `environment`.",
            )
        return found

    # The steps

    def build(self) -> ImageRef:
        """Build the environment, unless it is built already."""
        with self.console.step("build") as step:
            environment = self.environment
            if self.source is not None:
                entry_checks.check_entry_script(self.settings)
                image = self._packaging().build(self._docker(), self.definition(), step)
                step.text = f"{image.name} ({'reused' if image.reused else 'packaged by Azure ML'})"
                return self._print_notes(image)
            engine = self.engine
            built = inference.built(environment, self.settings, self.described, engine, step.detail_sometimes)
            image, self._environment = built
            if self._environment.definition is not None:
                image = replace(
                    image, notes=(*image.notes, *copied_packages.notes_on_copies(self._environment.definition, image))
                )
            environment_uses.record_use(self.settings.project, f"inference {engine.name}", image.digest)
            word = "reused" if image.reused else "built"
            what = image.name if engine.name == "docker" else f"environment {image.digest[:12]}"
            step.text = f"{what} ({word})"
        return self._print_notes(image)

    def _print_notes(self, image: ImageRef) -> ImageRef:
        for note in image.notes:
            self.console.line(f"  note: {note}")
        return image

    def _packaging(self) -> Packaging:
        from .packaging import Packaging

        assert self.source is not None
        return Packaging(self.settings, self.console, self.source)

    def _docker(self) -> DockerEngine:
        """The Docker engine, which is needed for an image that comes from Azure ML."""
        from ..engines.docker import DockerEngine

        if not isinstance(self.engine, DockerEngine):
            raise UserError(
                "--source azureml needs a Docker engine, since what Azure ML makes is an image.",
                "Start one and set AML_ENGINE=docker or auto, or leave out --source azureml.",
            )
        return self.engine

    def tag(self, image: ImageRef | None = None) -> ImageRef:
        """Tag the built environment with the tag that :meth:`run` uses."""
        with self.console.step("tag") as step:
            if image is None and self.source is not None:
                image = self._packaging().last(self._docker())
            if image is None:
                image = inference.found(self.environment, self.settings, self.engine)
                if image is None:
                    raise UserError("This environment has not been built.", "First: inv deploy.build")
            self.engine.tag(image, self.settings.image_tag, self.settings.project)
            step.text = self.settings.image_tag
        return image

    def run(self, image: ImageRef | None = None) -> Service:
        """Create the container; a running service of this project is replaced."""
        settings = self.settings
        with self.console.step("run") as step:
            self._check_files()
            image = image or self._tagged()
            own = sessions.load(settings.project)
            notes: list[str] = []
            if own is None:
                # The file of a running service may have been deleted, for example by `git clean`.
                self._remove_leftovers()
            spec = self._specification().make_specification(image, own, notes)
            if own is not None:
                self._replaced = own
            with self._report_ended_service():
                if own is not None:
                    self._replace(own)
                    notes.append("replaced the one before")
                service = self._create(spec, notes)
            where = "container" if service.engine == "docker" else "service"
            step.text = "; ".join([f"{where} {service.name}", *notes])
        return service

    def _tagged(self) -> ImageRef:
        """The image with the tag; another project may have tagged it.

        Raises:
            UserError: There is none.
        """
        settings = self.settings
        image = self.engine.find_tagged(settings.image_tag, settings.project)
        if image is None:
            raise UserError(f"There is no image {settings.image_tag}.", "First: inv deploy.tag")
        own = inference.found(self.environment, settings, self.engine) if image.digest else None
        if image.digest and (own is None or own.digest != image.digest):
            # All projects of a machine share Docker's tags.
            self.console.line(
                f"  note: {settings.image_tag} is the environment {image.digest[:12]}, not this project's as it is "
                "now: inv deploy.build, inv deploy.tag"
            )
        return image

    def runsvdir(self, service: Service | None = None, again: str = "inv deploy.debug") -> Ready:
        """Start the services and wait until they serve, or hold for a debugger.

        Args:
            service: The service; by default the project's.
            again: The command to type after a failure, once its cause is corrected.
        """
        with self.console.step("runsvdir") as step:
            service = service or self._running("First: inv deploy.run")
            engine = self._engine_of(service)
            try:
                if not service.started:
                    # An interrupt between the two would leave a started service without a record.
                    with uninterrupted():
                        service = engine.start(service)
                        sessions.save(service)
                ready = serving.wait_until_ready(service, engine, step, again=again)
            except BaseException:
                self._end(service)
                raise
            step.text = ready.text
        if ready.note:
            self.console.line(f"  note: {ready.note}")
        return ready

    def attach_config(self, write: bool = True) -> None:
        """Write the launch configuration of the running service.

        Args:
            write: If False, only check that it runs.
        """
        from ..debugger.launch_json import attach_configuration, write_configurations

        with self.console.step("attach-config") as step:
            service = self._running("First: inv deploy.run")
            project = self.settings.project
            configuration = attach_configuration(CONFIGURATION, service.endpoint, project)
            if report.is_wanted():
                owner = {"service": str(service.session), "created": service.created}
                ports = {"scoring": service.scoring_port}
                report.add_configurations(owner, f"service {service.name}", [configuration], ports=ports)
                step.hidden = True
                report.wait_until_done()
                return
            if not write:
                step.hidden = True
                return
            step.text = f".vscode/launch.json {write_configurations(project, [configuration])}"

    # The chains

    def debug(self) -> dict[str, Any]:
        """Run the complete chain; on any failure what it has started is removed."""
        from ..debugger.launch_json import check_launch_json

        note_example(self.settings, self.console, "score_script", "score.py")
        self._check_files()
        # Checked before the build, which may take minutes.
        service_variables.collect_variables(self.settings, self.env)
        check_launch_json(self.settings.project)
        self.tag(image := self.build())
        before = sessions.load(self.settings.project)
        self._check_before_replacing(before, image)
        try:
            with self._report_ended_service():
                ready = self.runsvdir(self.run(image), f"inv {report.typed_command()}")
                self.attach_config()
        except BaseException:
            left = sessions.load(self.settings.project)
            # A service that was there before and has not been replaced yet stays.
            if left is not None and left != before:
                self._end(left)
            raise
        packaged = {"package": image.name} if self.source is not None else {}
        named = {}
        if self.described is not None:
            named = {"deployment": self.described.name, "endpoint": self.described.endpoint}
        return {**self._result(ready.service), **packaged, **named}

    def join(self) -> dict[str, Any] | None:
        """Attach to the service that was started with `--wait` and still holds; None if there is none.

        A second service would only hold at the same place, after another wait.
        """
        service = sessions.load(self.settings.project)
        if (
            service is None
            or self.source is not None
            or (service.project, service.score_script) != (self.settings.project, self.settings.score_script)
            or service.source != root_of(serving_of(self.described), self.settings)
            or not serving.holds_unloaded(service)
            or service.engine != self.engine.name
            or not self.engine.is_alive(service)
        ):
            return None
        self.console.line(f"The service {service.name} is there already: {Ready(service, holds=True).text}.")
        self.attach_config()
        return self._result(service)

    def _result(self, service: Service) -> dict[str, Any]:
        return {
            "engine": service.engine,
            "image": service.tag,
            "container": service.name,
            "scoring_url": service.scoring_url,
            "debug": {"host": service.endpoint.host, "port": service.endpoint.port},
            "path_mappings": [mapping.as_json() for mapping in service.path_mappings],
            "launch_configuration": CONFIGURATION,
            "seconds": self.console.seconds,
        }

    def reload(self) -> None:
        """Load the edited score.py in the running service."""
        with self.console.step("reload") as step:
            first = "First: inv deploy.debug"
            service = self._load_service(first)
            # For a service that is processes on this machine, a reload starts the ended ones again.
            if service.engine != "process" or not service.started:
                service = self._started(first)
            if not service.by_itself:
                self._check_links(service)
                entry_checks.check_loadable(service, self._engine_of(service), serving.RELOAD)
            ready = serving.reload(service, self._engine_of(service), step)
            step.text = ready.text
        if ready.note:
            self.console.line(f"  note: {ready.note}")
        if service.by_itself and "AML_APP_ROOT" not in service.variables:
            self.console.line(
                "  note: its code is in the image, and that was started again: inv deploy.debug takes an edit"
            )
        self._note_not_reloaded(service)

    def _note_not_reloaded(self, service: Service) -> None:
        """Note changed packages of which the environment has copies, since a reload does not update those."""
        try:
            definition = self.definition()
        except UserError:
            # The build reports it.
            return
        changed = [
            str(shown(item.local))
            for item in copied_packages.find_copied_packages(definition, service.engine, [*service.links])
            if any(path.stat().st_mtime > service.created for _, path in local_files(item.local))
        ]
        if changed:
            self.console.line(
                f"  note: {', '.join(changed)} has changed, and the service has a copy: inv deploy.debug takes the edit"
            )

    def _check_links(self, service: Service) -> None:
        """Check that a container has the targets of links that were made or changed since it was created."""
        from ..engines.links import find_missing_path

        found = self._engine_of(service).links(service.source, None, service.environment)
        lacks = find_missing_path(found, service.links)
        if lacks is not None:
            raise UserError(
                f"A link in {shown(service.source)} leads to {lacks} by now, which the container {service.name} lacks.",
                "Create it again: inv deploy.debug",
            )

    # Parts of steps

    def _check_files(self) -> None:
        """Check the user's own files; an image with its own server has its script inside."""
        if self.described is None or self.described.routes is None:
            entry_checks.check_entry_script(self.settings)

    def _specification(self) -> Specification:
        settings, console = self.settings, self.console
        return Specification(settings, console, self.engine, self.environment, self.described, self.env, self.wait)

    def _create(self, spec: ServiceSpec, notes: list[str]) -> Service:
        announce = spec.session / "announce"
        # The folder may still be mounted in a container that is being replaced.
        make_folder(announce)
        with open_file(announce / "events.jsonl", "wb"):
            pass
        # These belong to an earlier service.
        shutil.rmtree(announce / failed_requests.FOLDER, ignore_errors=True)
        try:
            service = self._create_container(spec, notes)
            sessions.save(service)
        except BaseException:
            # Ctrl-C may come before the container's id is known.
            self._remove_leftovers()
            raise
        return service

    def _create_container(self, spec: ServiceSpec, notes: list[str]) -> Service:
        from ..engines import ports

        for _ in range(_NAMES):
            try:
                return self.engine.create(spec)
            # Another command or program has taken it in the meantime.
            except NameTaken:
                spec = replace(spec, name=self._specification().container_name(notes))
            except PortHeld as error:
                scoring = error.port == spec.scoring_port
                if (self.settings.scoring_port if scoring else self.settings.debug_port) != 0:
                    raise
                (port,) = ports.reserve_free(1)
                spec = replace(spec, scoring_port=port) if scoring else replace(spec, debug_port=port)
        return self.engine.create(spec)

    def _check_before_replacing(self, service: Service | None, image: ImageRef) -> None:
        """Before replacing a running service, check with its Python that the new script can be loaded."""
        if service is None or (service.engine, service.digest) != (image.engine, image.digest) or service.by_itself:
            return
        if service.started and service.score_script == self.settings.score_script:
            engine = self._engine_of(service)
            if engine.is_alive(service):
                entry_checks.check_loadable(service, engine, f"inv {report.typed_command()}")
