"""The existing service of a project: finds, inspects and ends it, and cleans up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .. import engines, sessions, storage
from ..console import Console
from ..debugger.readiness import current_worker
from ..engines.base import Engine
from ..engines.docker_client import engine_answers
from ..errors import UserError
from ..formatting import format_size
from ..interrupts import uninterrupted
from ..models import Ended, Service
from ..settings import Settings

if TYPE_CHECKING:
    from ..debugger.inspect_places import Report
    from .failed_requests import FailedRequest
    from .service_inspection import Look
    from .stacks import Target


@dataclass
class ExistingService:
    """Operations on a project's existing service.

    Attributes:
        settings: The settings.
        console: Where progress is shown.
        wait: Hold for a debugger before score.py is loaded.
        held: Whether this command holds the lock of the project's deployment.
    """

    settings: Settings
    console: Console
    wait: bool = False
    held: bool = False
    _engine: Engine | None = field(default=None, init=False)
    #: The service that was ended to be replaced.
    _replaced: Service | None = field(default=None, init=False)

    @property
    def engine(self) -> Engine:
        """The engine of the settings, chosen once."""
        if self._engine is None:
            self._engine, word = engines.choose(self.settings.engine)
            if word:
                self.console.line(f"Engine: {word}.")
        return self._engine

    def _engine_of(self, service: Service) -> Engine:
        if self._engine is None or self._engine.name != service.engine:
            return engines.load(service.engine)
        return self._engine

    def stop(self) -> bool:
        """Stop and remove the service; returns False if there is none."""
        service = sessions.load(self.settings.project)
        if service is None:
            return self._stop_leftovers()
        with self.console.step("stop") as step:
            ended = self._end(service)
            # 143 is the exit code after SIGTERM. A program that is the container's only process ignores the signal by
            # default, and is killed.
            crashed = ended.exit_code not in (None, 0, 143, *((137,) if service.by_itself else ()))
            step.text = service.name + (f" had ended with exit code {ended.exit_code}" if crashed else "")
        return True

    def _stop_leftovers(self) -> bool:
        """Remove services without a record, for example after `git clean`; returns whether there were any."""
        found = False
        for name in ("process", "docker") if engine_answers() else ("process",):
            engine = engines.load(name)
            for handle in engine.list_leftovers(self.settings.project):
                with uninterrupted():
                    engine.remove(handle)
                found = True
        if found:
            self.console.line("Took away a service of this project that no file told of.")
        return found

    def inspect(self, look: Look, failed: int | None, tell: Report) -> dict[str, Any]:
        """Stop during one request, look, and let it go on; see :func:`.service_inspection.inspect_service`.

        Args:
            look: What is wanted.
            failed: Post the kept request of this number in place of the one in ``look``; 0 for the latest.
            tell: Called with results as they arrive.
        """
        from . import failed_requests, service_inspection

        service = self._started("First: inv deploy.debug")
        if failed is not None:
            self._check_keeps(service)
            one = failed_requests.find_request(service, failed or None)
            look = replace(look, request=failed_requests.repeat_request(one), number=one.number)
            self.console.line(f"Request {one.number}: {one.method} {one.route}, {format_size(one.bytes)}")
            if failed_requests.is_of_former_code(one, service):
                self.console.line(f"  note: {service.score_script.name} was loaded anew since this request failed")
        return service_inspection.inspect_service(service, look, tell)

    def failed_requests(self) -> tuple[Service, list[FailedRequest]]:
        """The service, which may have ended, and the requests to it that failed."""
        from . import failed_requests

        service = self._load_service("First: inv deploy.debug")
        self._check_keeps(service)
        return service, failed_requests.list_failed_requests(service)

    def _check_keeps(self, service: Service) -> None:
        if service.by_itself:
            raise UserError(
                "The image of this service serves by itself, so its failed requests are not kept.",
                "Post one and stop where it raises: inv deploy.inspect --on-error --request FILE",
            )

    def stack_target(self) -> Target:
        """The service as a target for reading stacks."""
        from .stacks import Target

        service = self._started("First: inv deploy.debug")
        pid = current_worker(service.events) if service.engine == "process" else 0
        return Target(service.name, None, service.endpoint, pid)

    def running(self) -> Service | None:
        """The project's service, or None."""
        return sessions.load(self.settings.project)

    def state(self, service: Service) -> str:
        """The state of the project's service: ``made``, ``running`` or ``ended``."""
        if not service.started:
            return "made"
        return "running" if self._engine_of(service).is_alive(service) else "ended"

    def _running(self, remedy: str) -> Service:
        service = self._load_service(remedy)
        if not self._engine_of(service).is_alive(service):
            if self.held:
                # Without the lock, another command may just be creating it.
                self._end(service)
            raise UserError(f"The service {service.name} has ended; inv container.logs shows its last log.", remedy)
        self._engine_of(service).ensure_forwarder(service)
        return service

    def _load_service(self, remedy: str) -> Service:
        service = sessions.load(self.settings.project)
        if service is None:
            raise UserError("No service of this project is running.", remedy)
        if service.project != self.settings.project:
            raise UserError("The project was moved while its service ran.", "Start it again here: inv deploy.debug")
        return service

    def _started(self, remedy: str) -> Service:
        service = self._running(remedy)
        if not service.started:
            raise UserError("The service has not been started.", "First: inv deploy.runsvdir")
        return service

    def _remove_leftovers(self) -> None:
        with uninterrupted():
            for handle in self.engine.list_leftovers(self.settings.project):
                self.engine.remove(handle)

    @contextlib.contextmanager
    def _report_ended_service(self) -> Iterator[None]:
        """If the block fails, note once that the earlier service has been ended."""
        try:
            yield
        except BaseException:
            before, self._replaced = self._replaced, None
            if before is not None and sessions.load(self.settings.project) != before:
                self.console.line(f"  note: the service {before.name} that ran before is gone.")
            raise

    def _replace(self, own: Service) -> None:
        try:
            self._end(own)
        except UserError:
            if own.engine == self.engine.name:
                raise
            # Its engine does not answer any more, so it does not run. If its container comes back with the engine,
            # the container's label names the project.
            sessions.remove(own, Ended(None, b""))

    def _end(self, service: Service) -> Ended:
        engine = self._engine_of(service)
        with uninterrupted():
            ended = engine.stop(service)
            lost = sessions.remove(service, ended)
        if lost is not None:
            told = storage.explain(lost, service.session)
            why = told.problem if told is not None else f"{lost.strerror or lost}."
            self.console.line(f"  note: the last log of {service.name} could not be kept: {why}")
        return ended

    def shell(self, command: list[str]) -> int:
        """Run a command, or a shell, where the service runs; returns the exit code."""
        service = self._running("First: inv deploy.debug")
        return self._engine_of(service).shell(service, command)

    def container(self) -> tuple[str, str, dict[str, str]]:
        """The container's name, the source folder in it, and the address of its engine.

        Raises:
            UserError: No service runs, or it does not run in a container.
        """
        service = self._running("First: inv deploy.debug")
        if service.engine != "docker":
            raise UserError(
                "The service runs as processes on the machine itself, so there is no container.",
                f"Open its folder: {service.source}",
            )
        from ..engines.docker_address import explicit_engine

        return service.name, service.remote_root, explicit_engine()

    def logs(self, follow: bool, tail: int | None = None) -> Iterator[bytes]:
        """The service's log, or its last lines; a service that has ended by itself still has one."""
        service = self._load_service("First: inv deploy.debug")
        return self._engine_of(service).logs(service, follow, tail)
