"""Submits a pipeline to a workspace by SDK v1: chooses compute targets and environments, and stages snapshots."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import received
from ..backends.base import DebugRequest
from ..errors import UserError
from ..interrupts import uninterrupted
from ..paths import cache_folder
from ..pipelines.commands import debugged_command, published_option
from ..pipelines.definition import FILE_TYPES, Input, Pipeline, Step
from ..pipelines.expressions import substitute
from ..runs.debug_ports import Allotted
from ..runs.plan import Plan
from ..runs.record import RunRecord, StepRecord
from ..settings import Settings
from .cloud_pipeline import CloudInput, CloudPipeline, CloudStep
from .connection import V1Connection
from .environments import cloud_environment
from .run_location import RunLocation, save_location
from .staging import SCRIPT, stage
from .step_debug import address_towards, debuggee_variables
from .submission_records import make_plan, make_step_records


class Submission:
    """A pipeline that is to run in a workspace.

    Args:
        pipeline: The pipeline.
        debug: What is to be debugged.
        settings: The settings.

    Attributes:
        allotted: Debug ports on this machine by step and rank; to be set before anything is staged.

    Raises:
        UserError: A step has no compute target, or an environment that no node can have.
    """

    def __init__(self, pipeline: Pipeline, debug: DebugRequest | None, settings: Settings) -> None:
        self._pipeline, self._settings = pipeline, settings
        self.debug = debug
        self._computes = {step.name: self._compute(step) for step in pipeline.steps}
        self._environments = {
            step.name: cloud_environment(
                step.environment, settings, debug is not None and (not debug.steps or step.name in debug.steps)
            )
            for step in pipeline.steps
        }
        self.allotted: Allotted = {}

    @property
    def notes(self) -> list[str]:
        """Notes on what is done differently from the pipeline file."""
        found = list(self._pipeline.notes)
        chosen = self._settings.compute_target
        others = list(dict.fromkeys(step.compute for step in self._pipeline.steps if step.compute not in ("", chosen)))
        if chosen and others:
            found.append(f"steps run on {chosen}, not on {', '.join(others)} as the pipeline file says")
        found += [one.note for one in self._environments.values() if one.note]
        return list(dict.fromkeys(found))

    def stage(self, run: RunRecord, token: str, workspace: V1Connection) -> None:
        """Make the folders that become the steps' snapshots.

        Args:
            run: The run's record, in whose folder they are.
            token: The token that the gates of its steps require; empty for none. Only its digest is sent.
            workspace: The workspace.

        Raises:
            UserError: A step's code cannot be sent.
        """
        from ..environments.separate_debugpy import debugpy_folder

        history = str(workspace.sdk.service_context._get_run_history_url())
        client = address_towards(history) if self.debug is not None else None
        digest = hashlib.sha256(token.encode()).hexdigest() if token else ""
        for step in self._pipeline.steps:
            ports = self.allotted.get(step.name, {})
            stage(
                _snapshot_folder(run, step.name),
                step.code,
                step.includes,
                self._step_json(step, ports, digest, client),
                debugpy_folder(cache_folder()) if ports else None,
                step.name,
            )

    def start(
        self, run: RunRecord, place: RunLocation, workspace: V1Connection, report: Callable[[str], None]
    ) -> RunLocation:
        """Submit the staged pipeline.

        Args:
            run: The run's record.
            place: The location of the workspace.
            workspace: The workspace.
            report: Called with each line of progress.

        Returns:
            The run's location. It is saved in the run's folder before an interrupt can lose it.

        Raises:
            UserError: It cannot be submitted.
        """
        from ..pipelines.fetching import fetch_all
        from . import graph
        from .errors import attempt, attempt_once

        pipeline = self._pipeline
        entries = [entry for step in pipeline.steps for entry in step.inputs.values() if entry.url is not None]
        fetched = fetch_all(entries, report) if entries else {}
        submitted = CloudPipeline(
            experiment=re.sub(r"[^A-Za-z0-9_-]+", "-", pipeline.name).strip("-_") or "pipeline",
            steps=tuple(
                CloudStep(
                    name=step.name,
                    source=_snapshot_folder(run, step.name),
                    script=SCRIPT,
                    compute=self._computes[step.name],
                    environment=self._environments[step.name],
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
                    reuse=step.name not in self.allotted,
                    file=step.file,
                    line=step.line,
                )
                for step in pipeline.steps
            ),
            continue_on_failure=pipeline.continue_on_failure,
            tags={"azureml_debug.run": run.folder.name},
            uploads=f"azureml-debug/{hashlib.sha256(str(run.project).encode()).hexdigest()[:12]}",
        )

        # This program reports each step itself, so the SDK's output is dropped.
        with redirect_stdout(io.StringIO()):
            made = attempt(lambda: graph.prepare(workspace.sdk, submitted, report), "preparing the pipeline", report)

            def start() -> RunLocation:
                # An interrupt would leave a run that is not recorded here.
                with uninterrupted():
                    run_id, page = graph.start(workspace.sdk, submitted, made)
                    received.name(run_id, "a run's id")
                    started = replace(place, run_id=run_id, experiment=submitted.experiment, page=page)
                    save_location(run.folder, started)
                return started

            with received.sent_by(f"The workspace {place.workspace}"):
                started = attempt_once(start, "starting the run", report)
        shutil.rmtree(run.folder / "snapshots", ignore_errors=True)
        return started

    def plan(self) -> Plan:
        """The plan of what is submitted, which other commands read."""
        names = {name: environment.name for name, environment in self._environments.items()}
        return make_plan(self._pipeline, self.allotted, self.debug, self._settings, names)

    def records(self) -> list[StepRecord]:
        """The initial records of the steps."""
        return make_step_records(self._pipeline, self.allotted, self.debug)

    def _compute(self, step: Step) -> str:
        """The compute target's name. The setting, which is made for the workspace, overrides the file."""
        name = self._settings.compute_target or step.compute
        if not name:
            raise UserError(
                f"Step {step.name} names no compute target.",
                "Set AML_COMPUTE_TARGET, or `settings.default_compute` of the pipeline.",
                file=str(step.file),
                line=step.line,
            )
        return name

    def _step_json(self, step: Step, ports: Mapping[int, int], digest: str, client: str | None) -> dict[str, Any]:
        """The content of node.py's step.json: the command, with marks in place of the node's paths."""
        places = [f"inputs.{name}" for name, entry in step.inputs.items() if entry.given and entry.text is None]
        places += [f"outputs.{name}" for name in step.outputs]
        values = {name: f"@azureml_debug:{name}@" for name in places}
        values |= {f"inputs.{name}": entry.text for name, entry in step.inputs.items() if entry.text is not None}
        command = substitute(step.command, values.get)
        files = {f"outputs.{name}": name for name, kind in step.outputs.items() if kind in FILE_TYPES}
        for name, entry in step.inputs.items():
            if entry.step is not None and entry.type in FILE_TYPES:
                files[f"inputs.{name}"] = str(entry.output)
        step_json: dict[str, Any] = {
            "command": command,
            "variables": {name: substitute(value, values.get) for name, value in step.variables.items()},
            "files": files,
        }
        debug = self.debug
        if debug is not None and ports:
            step_json["command"] = debugged_command(command, "@azureml_debug:debuggee@/inject/launch.py")
            step_json["debug"] = {
                "client": published_option(step.command, "--remote_debug_client_ip") or client,
                "variables": debuggee_variables(step, ports, debug, self._settings, digest),
            }
        return step_json


def _snapshot_folder(run: RunRecord, step: str) -> Path:
    return run.folder / "snapshots" / step


def _cloud_input(entry: Input, fetched: Mapping[str, Path]) -> CloudInput:
    return CloudInput(
        path=fetched[entry.url] if entry.url is not None else entry.path,
        asset=entry.asset or "",
        step=entry.step or "",
        output=entry.output or "",
        file=entry.file,
        line=entry.line,
        option=entry.option,
    )
