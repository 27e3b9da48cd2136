"""Submits a job to a workspace by SDK v2, after changing the steps that are debugged.

For a debugged step, these are changed: its code folder (a staged copy with the debuggee), its command (passed to
node.py as a here-document), its services (one more, for SSH), one environment variable, and whether it may be reused.
Only the SDK's objects are changed, never the user's files. The copies have the same bytes in every run, so code is sent
once.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import received
from ...backends.base import DebugRequest
from ...errors import UserError
from ...interrupts import uninterrupted
from ...paths import cache_folder, shown
from ...pipelines.commands import debugged_command, published_option
from ...pipelines.definition import Step
from ...runs.debug_ports import Allotted, experiment_configuration_names
from ...runs.plan import Plan
from ...runs.record import RunRecord, StepRecord
from ...settings import Settings
from ..checks.resource_manager import Manager
from ..errors import NotAllowed
from ..relay.keys import make_key
from ..relay.services import SERVICE
from ..run_location import RunLocation, save_location
from ..staging import SCRIPT, stage
from ..step_debug import address_towards, debuggee_variables
from ..submission_records import compute_not_found, make_plan, make_step_records
from .job_file import LoadedJob, component_of
from .private_files import PrivateFiles, find_private_files
from .sdk_module import quiet
from .workspace import JOBS_VERSION, Workspace

#: The variable with a step's debug settings; see debuggee/node.py.
STEP = "AZUREML_DEBUG_STEP"
_LAUNCHER = "@azureml_debug:debuggee@/inject/launch.py"


class JobSubmission:
    """A job that is to run in a workspace.

    Args:
        loaded: The job.
        debug: What is to be debugged.
        settings: The settings.

    Attributes:
        allotted: Debug ports on this machine by step and rank; to be set before anything is staged.

    Raises:
        UserError: A step that is to be debugged cannot be.
    """

    def __init__(self, loaded: LoadedJob, debug: DebugRequest | None, settings: Settings) -> None:
        self._loaded, self._settings = loaded, settings
        if debug is not None:
            debug = replace(debug, steps=self._debuggable(debug.steps))
        #: What is debugged, with the names of the steps.
        self.debug = debug
        self.allotted: Allotted = {}
        # They are read now, as the files name them: after the submission, all of them are ids.
        self._environments = {name: _environment(node) for name, node in loaded.nodes.items()}
        # An experiment's code is usually the project's folder, which also contains this program's own files.
        staged = debug.steps if debug is not None else tuple(loaded.nodes) if loaded.experiment else ()
        self._staged = staged
        self._private_files: list[PrivateFiles] = find_private_files(loaded, staged)

    def _debuggable(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        loaded = self._loaded
        for name in asked:
            if name in loaded.undebugged:
                raise UserError(
                    f"The step {name} cannot be debugged in a workspace: {loaded.undebugged[name]}.",
                    f"Debug another one: {', '.join(loaded.nodes) or 'there is none'}; --no-debug only runs it.",
                )
        if not loaded.nodes and loaded.experiment:
            (reason,) = loaded.undebugged.values()
            raise UserError(
                f"{shown(loaded.file)} cannot be debugged in a workspace: {reason}.",
                f"Run it without a debugger: inv experiment.run {loaded.experiment} --job {shown(loaded.file)}",
            )
        if not loaded.nodes:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in loaded.undebugged.items())
            raise UserError(
                f"No step of {shown(loaded.file)} can be debugged in a workspace ({reasons}).",
                "Run it without a debugger: inv pipeline.submit --no-debug",
            )
        return asked or tuple(loaded.nodes)

    @property
    def notes(self) -> list[str]:
        """Notes on what is done differently from the file."""
        found = [*self._loaded.notes, *(one.note for one in self._private_files)]
        if self.debug is not None and not self._loaded.asked:
            found += [f"{name} is not debugged: {reason}" for name, reason in self._loaded.undebugged.items()]
        chosen = self._settings.compute_target
        others = list(dict.fromkeys(one for one in self._computes() if one not in ("", chosen)))
        if chosen and others:
            which, what = (
                ("it runs", shown(self._loaded.file)) if self._loaded.experiment else ("steps run", "the pipeline file")
            )
            found.append(f"{which} on {chosen}, not on {', '.join(others)} as {what} says")
        return found

    def _computes(self) -> list[str]:
        settings = getattr(self._loaded.job, "settings", None)
        default = getattr(settings, "default_compute", None) or getattr(self._loaded.job, "compute", None)
        named = [default, *(getattr(node, "compute", None) for node in self._loaded.nodes.values())]
        return [str(one).removeprefix("azureml:") for one in named if isinstance(one, str)]

    # Staging

    def stage(self, run: RunRecord, token: str, workspace: Workspace) -> None:
        """Make the copies of the debugged steps' code, and change their nodes.

        Args:
            run: The run's record, in whose folder they are.
            token: The token that the gates of its steps require; empty for none. Only its digest is sent.
            workspace: The workspace.

        Raises:
            UserError: A step's code cannot be sent.
        """
        from ...environments.separate_debugpy import debugpy_folder

        self._check_compute(workspace)
        self._choose_compute()
        for files in self._private_files:
            files.stage(run.folder / "snapshots" / "kept here" / files.step)
        if not self._staged:
            return
        debugged = self.debug is not None
        key = make_key(run.folder) if debugged and self._settings.reach != "network" else ""
        digest = hashlib.sha256(token.encode()).hexdigest() if token else ""
        client = address_towards(workspace.history)
        steps = {step.name: step for step in self._loaded.steps}
        for name in self._staged:
            step, node = steps[name], self._loaded.nodes[name]
            if step.code is None and not debugged:
                continue
            if step.code is not None and not step.code.exists():
                raise UserError(
                    f"The code of step {name} does not exist: {shown(step.code)}.",
                    "Correct `code`.",
                    file=shown(step.file),
                )
            folder = run.folder / "snapshots" / name
            stage(folder, step.code, step.includes, None, debugpy_folder(cache_folder()) if debugged else None, name)
            if debugged:
                self._make_debuggable(node, step, folder, self._step_settings(step, digest, client), key)
            else:
                component_of(node).code = str(folder)

    def _check_compute(self, workspace: Workspace) -> None:
        """Check that the compute targets exist before anything is sent, if the user may list them."""
        access = workspace.access()
        asked = Manager(access.manager, access.authorization, lambda line: None)
        try:
            listed = asked.values(
                f"{access.scope}/computes", "listing the compute targets", **{"api-version": JOBS_VERSION}
            )
        except NotAllowed:
            return
        names = [str(one.get("name")) for one in listed]
        chosen = self._settings.compute_target
        wanted = [chosen] if chosen else self._computes()
        if not wanted and self._loaded.needs_compute:
            raise UserError(
                f"The experiment {self._loaded.experiment} has no compute target in the workspace.",
                f"Name it with --compute-target or AML_COMPUTE_TARGET: {', '.join(names) or 'there is none yet'}.",
            )
        for name in wanted:
            # An address and these names do not stand for a compute target of the workspace.
            if "/" in name or name.lower() in ("serverless", "local", *(one.lower() for one in names)):
                continue
            raise compute_not_found(name, names, file=None if chosen else self._loaded.file)

    def _choose_compute(self) -> None:
        chosen, job = self._settings.compute_target, self._loaded.job
        if not chosen:
            return
        if self._loaded.single:
            job.compute = chosen
            return
        job.settings.default_compute = chosen
        for node in self._loaded.nodes.values():
            if isinstance(getattr(node, "compute", None), str):
                node.compute = chosen

    def _make_debuggable(self, node: Any, step: Step, folder: Path, settings_json: dict[str, Any], key: str) -> None:
        holder = component_of(node)
        holder.code, holder.command = str(folder), _here_document(debugged_command(step.command, _LAUNCHER))
        if hasattr(holder, "additional_includes"):
            # The copy contains them.
            holder.additional_includes = []
        if holder is not node:
            # A debugged step must run, so its result must not be reused.
            holder._is_deterministic = False
        text = json.dumps(settings_json, sort_keys=True)
        node.environment_variables = {**(node.environment_variables or {}), STEP: text}
        if key:
            from azure.ai.ml.entities import SshJobService

            node.services = {**(node.services or {}), SERVICE: SshJobService(ssh_public_keys=key, nodes="all")}

    def _step_settings(self, step: Step, digest: str, client: str | None) -> dict[str, Any]:
        """The settings for node.py."""
        debug, settings = self.debug, self._settings
        assert debug is not None
        story = "experiment" if self._loaded.experiment else "pipeline"
        variables = debuggee_variables(step, self.allotted[step.name], debug, settings, digest, story)
        if self._settings.reach != "network":
            # Connections come through the container itself, so no port is opened on the cluster's network.
            variables |= {"AZUREML_DEBUGGEE_HOST": "127.0.0.1", "AZUREML_DEBUGGEE_ADDRESS": "127.0.0.1"}
        return {
            "client": published_option(step.command, "--remote_debug_client_ip") or client,
            "relay": "" if self._settings.reach == "network" else self._settings.reach,
            "variables": variables,
        }

    # Submitting

    def start(
        self, run: RunRecord, place: RunLocation, workspace: Workspace, report: Callable[[str], None]
    ) -> RunLocation:
        """Submit the job.

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
        from ..errors import attempt

        job, name = self._loaded.job, self._loaded.name
        job.name = f"azureml-debug-{re.sub(r'[^a-z0-9-]+', '-', name.lower()).strip('-')[:30]}-{uuid.uuid4().hex[:12]}"
        job.experiment_name = (
            self._loaded.experiment
            or job.experiment_name
            or re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")
            or "pipeline"
        )
        job.tags = {**(job.tags or {}), "azureml_debug.run": run.folder.name}
        # The name is chosen before the job exists, so that an interrupted submission can be canceled.
        place = replace(
            place,
            run_id=job.name,
            experiment=job.experiment_name,
            page=workspace.page(job.name),
            sdk="v2",
            single=self._loaded.single,
            reach=self._settings.reach if self.allotted else "network",
        )
        report("code and data are sent")
        with quiet():
            client = workspace.client()
            attempt(lambda: self._create(client, run, place), "submitting the job", report)
        shutil.rmtree(run.folder / "snapshots", ignore_errors=True)
        return place

    def _create(self, client: Any, run: RunRecord, place: RunLocation) -> None:
        """Create the job. A retry has the same name, so it creates no second job."""
        save_location(run.folder, place)
        with received.sent_by(f"The workspace {place.workspace}"):
            made = client.jobs.create_or_update(self._loaded.job)
            received.name(made.name, "a job's name")
        with uninterrupted():
            run.run_id = made.name

    def plan(self) -> Plan:
        """The plan of what is submitted, which other commands read."""
        return make_plan(self._loaded, self.allotted, self.debug, self._settings, self._environments)

    def records(self) -> list[StepRecord]:
        """The initial records of the steps."""
        if self._loaded.experiment:
            (step,) = self._loaded.steps
            names = experiment_configuration_names(step.ranks, self.allotted.get(step.name, {}))
            return make_step_records(self._loaded, self.allotted, self.debug, names)
        return make_step_records(self._loaded, self.allotted, self.debug)


def _environment(node: Any) -> str:
    """A step's environment: its name, or a digest of its definition."""
    found = getattr(component_of(node), "environment", None)
    if found is None or isinstance(found, str):
        return found or ""
    parts = [getattr(found, key, None) for key in ("name", "version", "image", "conda_file")]
    parts.append(getattr(getattr(found, "build", None), "path", None))
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _here_document(command: str) -> str:
    """A command as a here-document for node.py. The service replaces expressions in it; bash passes it on unchanged."""
    mark = f"AZUREML_DEBUG_{hashlib.sha256(command.encode()).hexdigest()[:16].upper()}"
    python = "$(command -v python || command -v python3)"
    # `exec` replaces the shell, so that signals reach Python and its exit ends the step.
    return f'exec "{python}" {SCRIPT} "$0" 3<<\'{mark}\'\n{command}\n{mark}'
