"""The backend of an Azure ML workspace: pipelines are submitted there, and followed from here.

A run has a folder here as one of this machine has: a follower in the background (azureml/follower.py) keeps
its record, logs and announcements as the workspace tells them, so that every command reads files of this machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..azureml.place import Place, load_place, save_place
from ..background import spawn
from ..console import Console
from ..console import Step as Shown
from ..engines import reservations
from ..errors import UserError
from ..interrupts import uninterrupted
from ..models import ImageRef
from ..paths import cache_folder
from ..paths import shown as show
from ..pipelines.commands import debugged_command, names_own_script, published_option, published_port
from ..pipelines.definition import FILE_TYPES, Input, Pipeline, Step
from ..pipelines.expressions import substitute
from ..runs import plan as plans
from ..runs import record as records
from ..runs import store
from ..runs.allotment import Allotted, all_ports, allot, configuration_names
from ..runs.plan import Plan, PlannedDebug, PlannedStep
from ..runs.record import IN_WORKSPACE, RunRecord, StepRecord
from ..settings import Settings
from .base import DebugRequest

KIND = "pipeline"
FOLLOWER = "workflows.azureml.follower"
#: The published port, for nodes where no other one is wanted.
DEFAULT_PORT = 5678
#: Ports that a step on a node may try: others may share it.
TRIES = 20
#: Seconds for the workspace to end a run, before this goes on without it.
CANCEL_SECONDS = 60.0
LOOK_SECONDS = 0.05
#: Seconds between two looks at whether a run's follower is still there.
ALIVE_SECONDS = 1.0


class AzureBackend:
    """Runs pipelines in a workspace.

    Args:
        settings: The settings.
        console: Where steps show themselves.
    """

    name = "azureml"
    takes_cloud_data = True

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._looked: dict[Path, float] = {}

    def submit(self, pipeline: Pipeline, debug: DebugRequest | None, options: str = "") -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        settings, console = self._settings, self._console
        computes = {step.name: self._compute(step) for step in pipeline.steps}
        environments = self._environments(pipeline, debug)
        notes = [*pipeline.notes, *self._moved(pipeline), *(one.note for one in environments.values() if one.note)]
        for note in dict.fromkeys(notes):
            console.line(f"  note: {note}")
        with console.step("connect") as shown:
            workspace, place = self._connect(shown)
            shown.text = f"workspace {place.workspace}"
        allotted: dict[str, dict[int, int]] = {}
        run: RunRecord | None = None
        try:
            allotted = allot(pipeline, debug, settings.debug_port, console)
            with console.step("submit") as shown:
                run = store.new_run(settings.project, KIND, pipeline.name, IN_WORKSPACE)
                run.file, run.options, run.debugged = str(pipeline.file), options, bool(allotted)
                run.on_error = bool(debug and debug.on_error)
                token = secrets.token_urlsafe(32) if debug is not None and not debug.open_port else ""
                if token:
                    _keep(run.folder / "token", token)
                self._stage(run, pipeline, debug, allotted, token, workspace)
                place = self._start(run, pipeline, place, workspace, computes, environments, allotted, shown)
                run.run_id = place.run_id
                plans.save(self._plan(pipeline, environments, allotted, debug), run.folder)
                run.steps = _records(pipeline, allotted, debug)
                records.save(run)
                _follow(run)
                ending = "s" if len(run.steps) > 1 else ""
                shown.text = f"run {run.run_id}, {len(run.steps)} step{ending} of {show(pipeline.file)}"
            console.line(f"  {place.page}")
        except BaseException:
            with uninterrupted():
                reservations.release(all_ports(allotted))
                if run is not None:
                    self._discard(run, workspace)
            raise
        return run

    def runs(self) -> list[RunRecord]:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.all_runs(self._settings.project, KIND)

    def find(self, wanted: str | None) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`; by its id also one that was submitted from elsewhere."""
        try:
            return self.refresh(store.find_run(self._settings.project, KIND, wanted))
        except UserError:
            if not wanted or not re.fullmatch(r"[\w-]{20,}", wanted):
                raise
        return self._adopt(wanted)

    def refresh(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        if not run.in_workspace:
            return store.refresh(run)
        run = records.load(run.folder) or run
        if not run.final and time.monotonic() - self._looked.get(run.folder, 0.0) > ALIVE_SECONDS:
            self._looked[run.folder] = time.monotonic()
            self._keep_followed(run)
        return run

    def cancel(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        if not run.in_workspace:
            return store.cancel(run, 5.0)
        (run.folder / "cancel").touch()
        deadline = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < deadline:
            run = self.refresh(run)
            if run.final:
                return run
            time.sleep(LOOK_SECONDS)
        raise UserError(
            f"The workspace was asked to cancel the run {run.run_id} and has not done so in {CANCEL_SECONDS:.0f} s"
            f"{': ' + run.trouble if run.trouble else ''}.",
            f"It goes on trying; see: inv pipeline.status --run {run.number}",
        )

    # The connection

    def _connect(self, shown: Shown) -> tuple[Any, Place]:
        from ..azureml.workspace import connect, find_workspace

        shown.waiting("the workspace")
        name = find_workspace(self._settings)
        workspace = connect(self._settings, shown.detail)
        place = Place(name.subscription_id, name.resource_group, name.workspace, self._settings.auth)
        return workspace, place

    def _keep_followed(self, run: RunRecord) -> None:
        """Start a run's follower again where there is none, such as after the machine was restarted."""
        if run.foreign or store.runner_is_alive(run):
            return
        place = load_place(run.folder)
        if place is None:
            return
        for step in run.steps:
            if not step.final:
                # The ports that it tells of ended with the follower.
                run.events(step).unlink(missing_ok=True)
        with self._console.step("connect") as shown:
            # Here and not in the background: what is wrong is told to the person, who may have to sign in.
            from ..azureml.workspace import connect

            connect(place.settings(self._settings), shown.detail)
            shown.text = f"workspace {place.workspace}"
        _follow(run)

    def _adopt(self, run_id: str) -> RunRecord:
        """A run of the workspace that this project has not submitted."""
        from ..azureml.errors import NotThere, attempt
        from ..azureml.service import PipelineService

        with self._console.step("connect") as shown:
            workspace, place = self._connect(shown)
            service = PipelineService(workspace, run_id)
            try:
                children = attempt(service.children, f"reading the run {run_id}", shown.detail)
            except NotThere as error:
                raise UserError(
                    f"There is no run {run_id} here or in the workspace {place.workspace}.",
                    "The runs there are: inv pipeline.list",
                ) from error
            shown.text = f"run {run_id} of the workspace {place.workspace}"
        run = store.new_run(self._settings.project, KIND, service.experiment, IN_WORKSPACE)
        run.run_id = run_id
        run.steps = [StepRecord(name=child.step, run_id=child.run_id) for child in children]
        records.save(run)
        save_place(run.folder, replace(place, run_id=run_id))
        _follow(run)
        self._console.line(
            "  note: it was submitted from elsewhere, where its token is: it cannot be debugged from here"
        )
        return run

    # Before the start

    def _compute(self, step: Step) -> str:
        """The compute target's name: the setting's, which knows the workspace, before the file's."""
        settings = self._settings
        name = settings.compute_target or step.compute
        if not name:
            raise UserError(
                f"Step {step.name} names no compute target.",
                "Set AML_COMPUTE_TARGET, or `settings.default_compute` of the pipeline.",
                file=str(step.file),
                line=step.line,
            )
        return name

    def _moved(self, pipeline: Pipeline) -> list[str]:
        """Which steps run elsewhere than the pipeline file says."""
        chosen = self._settings.compute_target
        others = list(dict.fromkeys(step.compute for step in pipeline.steps if step.compute not in ("", chosen)))
        return (
            [f"steps run on {chosen}, not on {', '.join(others)} as the pipeline file says"]
            if chosen and others
            else []
        )

    def _environments(self, pipeline: Pipeline, debug: DebugRequest | None) -> dict[str, Any]:
        from ..azureml.environments import cloud_environment

        return {
            step.name: cloud_environment(step.environment, self._settings, _is_debugged(step.name, debug))
            for step in pipeline.steps
        }

    def _stage(
        self,
        run: RunRecord,
        pipeline: Pipeline,
        debug: DebugRequest | None,
        allotted: Allotted,
        token: str,
        workspace: Any,
    ) -> None:
        """The folders that become the steps' snapshots."""
        from ..azureml.staging import stage
        from ..environments.references import debugpy_folder

        client = _address_towards(workspace) if debug is not None else None
        digest = hashlib.sha256(token.encode()).hexdigest() if token else ""
        for step in pipeline.steps:
            ports = allotted.get(step.name)
            stage(
                _staged(run, step.name),
                step.code,
                step.includes,
                self._told(step, debug if ports else None, ports or {}, digest, client),
                debugpy_folder(cache_folder()) if ports else None,
                step.name,
            )

    def _told(
        self, step: Step, debug: DebugRequest | None, ports: Mapping[int, int], digest: str, client: str | None
    ) -> dict[str, Any]:
        """What node.py is told: the command, with marks where the node's paths go."""
        places = [f"inputs.{name}" for name, entry in step.inputs.items() if entry.given and entry.text is None]
        places += [f"outputs.{name}" for name in step.outputs]
        values = {name: f"@azureml_debug:{name}@" for name in places}
        values |= {f"inputs.{name}": entry.text for name, entry in step.inputs.items() if entry.text is not None}
        command = substitute(step.command, values.get)
        files = {f"outputs.{name}": name for name, kind in step.outputs.items() if kind in FILE_TYPES}
        for name, entry in step.inputs.items():
            if entry.step is not None and entry.type in FILE_TYPES:
                files[f"inputs.{name}"] = str(entry.output)
        told: dict[str, Any] = {
            "command": command,
            "variables": {name: substitute(value, values.get) for name, value in step.variables.items()},
            "files": files,
        }
        if debug is not None:
            told["command"] = debugged_command(command, "@azureml_debug:debuggee@/inject/launch.py")
            wanted = published_port(step.command) or self._settings.debug_port or DEFAULT_PORT
            told["debug"] = {
                "client": published_option(step.command, "--remote_debug_client_ip") or client,
                "variables": {
                    "AZUREML_DEBUGGEE_PORT": str(wanted),
                    "AZUREML_DEBUGGEE_PORTS": str(TRIES),
                    "AZUREML_DEBUGGEE_RANKS": ",".join(map(str, sorted(ports))),
                    "AZUREML_DEBUGGEE_WAIT": "1" if debug.wait else "0",
                    "AZUREML_DEBUGGEE_TIMEOUT": str(self._settings.debug_timeout),
                    "AZUREML_DEBUGGEE_ON_ERROR": "1" if debug.on_error else "0",
                    "AZUREML_DEBUGGEE_ANY": "0" if names_own_script(step.command, step.code, step.includes) else "1",
                    "AZUREML_DEBUGGEE_TOKEN": digest,
                },
            }
        return told

    def _start(
        self,
        run: RunRecord,
        pipeline: Pipeline,
        place: Place,
        workspace: Any,
        computes: Mapping[str, str],
        environments: Mapping[str, Any],
        allotted: Allotted,
        shown: Shown,
    ) -> Place:
        """Submit it; where it is then."""
        from ..azureml import graph
        from ..azureml.errors import attempt, attempt_once
        from ..azureml.plan import CloudPipeline, CloudStep
        from ..azureml.staging import SCRIPT
        from ..pipelines.fetching import fetch_all

        entries = [entry for step in pipeline.steps for entry in step.inputs.values() if entry.url is not None]
        fetched = fetch_all(entries, shown.detail) if entries else {}
        submitted = CloudPipeline(
            experiment=re.sub(r"[^A-Za-z0-9_-]+", "-", pipeline.name).strip("-_") or KIND,
            steps=tuple(
                CloudStep(
                    name=step.name,
                    source=_staged(run, step.name),
                    script=SCRIPT,
                    compute=computes[step.name],
                    environment=environments[step.name],
                    inputs={
                        name: _cloud_input(entry, fetched)
                        for name, entry in step.inputs.items()
                        if entry.given and entry.text is None
                    },
                    outputs=tuple(step.outputs),
                    after=step.after,
                    distribution=step.distribution,
                    processes=step.processes,
                    nodes=step.instances,
                    shm_size=step.shm_size,
                    # A step that is debugged has to run.
                    reuse=step.name not in allotted,
                    file=step.file,
                    line=step.line,
                )
                for step in pipeline.steps
            ),
            continue_on_failure=pipeline.continue_on_failure,
            tags={"azureml_debug.run": run.folder.name},
            uploads=f"azureml-debug/{hashlib.sha256(str(run.project).encode()).hexdigest()[:12]}",
        )

        # What the SDK prints of each step is said by this program's own lines.
        with redirect_stdout(io.StringIO()):
            made = attempt(
                lambda: graph.prepare(workspace, submitted, shown.detail), "preparing the pipeline", shown.detail
            )

            def start() -> Place:
                # Interrupted, it would leave a run that nobody here knows.
                with uninterrupted():
                    run_id, page = graph.start(workspace, submitted, made)
                    started = replace(place, run_id=run_id, experiment=submitted.experiment, page=page)
                    save_place(run.folder, started)
                return started

            started = attempt_once(start, "starting the run", shown.detail)
        shutil.rmtree(run.folder / "snapshots", ignore_errors=True)
        return started

    def _plan(
        self,
        pipeline: Pipeline,
        environments: Mapping[str, Any],
        allotted: Allotted,
        debug: DebugRequest | None,
    ) -> Plan:
        """What was submitted, as other commands look it up."""
        return Plan(
            tuple(
                PlannedStep(
                    name=step.name,
                    command=step.command,
                    code=str(step.code) if step.code else None,
                    image=ImageRef(IN_WORKSPACE, "", environments[step.name].name),
                    ranks=step.ranks,
                    processes=step.processes,
                    after=step.after,
                    includes=tuple(map(str, step.includes)),
                    debug=PlannedDebug(
                        ports=dict(allotted[step.name]),
                        wait=debug.wait,
                        timeout=self._settings.debug_timeout,
                        on_error=debug.on_error,
                        any_program=False,
                    )
                    if debug is not None and step.name in allotted
                    else None,
                )
                for step in pipeline.steps
            ),
            pipeline.outputs,
            pipeline.continue_on_failure,
        )

    def _discard(self, run: RunRecord, workspace: Any) -> None:
        """Take away what a submission that failed has made, here and, where it got so far, there."""
        from ..azureml.errors import attempt
        from ..azureml.service import PipelineService

        place = load_place(run.folder)
        if place is not None:
            service = PipelineService(workspace, place.run_id)
            try:
                attempt(service.cancel, "canceling what was begun", self._console.line)
            except UserError as error:
                self._console.line(f"  note: the run {place.run_id} may go on ({error.problem}): {place.page}")
        store.end_follower(run)
        shutil.rmtree(run.folder, ignore_errors=True)


def _is_debugged(step: str, debug: DebugRequest | None) -> bool:
    return debug is not None and (not debug.steps or step in debug.steps)


def _staged(run: RunRecord, step: str) -> Path:
    return run.folder / "snapshots" / step


def _records(pipeline: Pipeline, allotted: Allotted, debug: DebugRequest | None) -> list[StepRecord]:
    names = configuration_names(pipeline, allotted, debug)
    found = []
    for step in pipeline.steps:
        ports = dict(allotted.get(step.name, {}))
        found.append(
            StepRecord(
                name=step.name,
                run_id="",
                ranks=step.ranks,
                ports=ports,
                configurations={rank: names(step.name, rank) for rank in ports},
                after=list(step.after),
            )
        )
    return found


def _cloud_input(entry: Input, fetched: Mapping[str, Path]) -> Any:
    from ..azureml.plan import CloudInput

    return CloudInput(
        path=fetched[entry.url] if entry.url is not None else entry.path,
        asset=entry.asset or "",
        step=entry.step or "",
        output=entry.output or "",
        file=entry.file,
        line=entry.line,
        option=entry.option,
    )


def _address_towards(workspace: Any) -> str | None:
    """This machine's address on the way to the workspace, by which a node finds its own way back; nothing is sent."""
    from urllib.parse import urlsplit

    try:
        host = urlsplit(str(workspace.service_context._get_run_history_url())).hostname
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 443))
            return str(probe.getsockname()[0])
    except Exception:  # whatever keeps it from being known, the node's own route will do
        return None


def _keep(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def _follow(run: RunRecord) -> None:
    """Start a run's follower and let it go its own way, whatever becomes of this process and its terminal."""
    with open(run.folder / "runner.log", "ab") as log:
        child = spawn(FOLLOWER, [str(run.folder)], cwd=run.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    # It is meant to outlive this command, so nobody waits for it.
    child.returncode = 0
    store.note_runner(run.folder, child.pid)
