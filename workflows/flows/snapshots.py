"""Finds the snapshots of a run or of a service, chooses one, and opens it in an editor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import report, sessions
from ..console import Console
from ..debugger import launch_json
from ..engines import ports, reservations
from ..errors import UserError
from ..models import DebugEndpoint, PathMapping
from ..project import read_json
from ..runs import plan as plans
from ..runs import record as records
from ..runs.record import RunRecord, StepRecord
from ..settings import Settings
from ..settings_table import BY_FIELD
from ..snapshots import selection, server_process
from ..snapshots.model import Snapshot
from ..snapshots.selection import FoundSnapshots
from ..snapshots.sources import Sources, mappings_from
from ..vscode import f5

FAMILY = "Azure Machine Learning Snapshot"
#: The name of a deployment in a configuration's name.
DEPLOYMENT = "deployment"


def configuration_name(name: str) -> str:
    """The name of the launch configuration for the snapshots of a step, an experiment, or the deployment."""
    return f"{FAMILY}: {name}"


@dataclass
class Found:
    """The snapshots of a run or service.

    Attributes:
        what: The run or service, for messages.
        kept: The snapshots.
        mappings: The path mappings of each snapshot's step, by the snapshot's file.
        names: The name in the launch configuration, by the snapshot's file.
        code: Folders that the code may have come from, if there is no mapping.
        latest: Whether the latest one is chosen by default, instead of the first.
    """

    what: str
    kept: FoundSnapshots
    mappings: dict[Path, tuple[PathMapping, ...]] = field(default_factory=dict)
    names: dict[Path, str] = field(default_factory=dict)
    code: tuple[Path, ...] = ()
    latest: bool = False

    def choose(self, rank: int | None, number: int | None = None) -> Snapshot:
        """Choose a snapshot; raises as :func:`workflows.snapshots.selection.choose_snapshot`."""
        return selection.choose_snapshot(self.kept, rank, number, self.what, self.latest)

    def sources(self, snapshot: Snapshot) -> Sources:
        """The sources of a snapshot on this machine."""
        return Sources(self.mappings.get(snapshot.path, ()), self.guesses(snapshot))

    def guesses(self, snapshot: Snapshot) -> list[PathMapping]:
        """Guessed path mappings if there is none: the program's working folder probably held the code."""
        if self.mappings.get(snapshot.path):
            return []
        folders = [snapshot.program.get(name) for name in ("started_in", "folder")]
        return [PathMapping(one, at) for at in folders if isinstance(at, str) for one in self.code]

    def name(self, snapshot: Snapshot) -> str:
        """The launch configuration that opens it."""
        return configuration_name(self.names[snapshot.path])


def snapshots_of_run(
    run: RunRecord,
    step: StepRecord | None,
    fetch: Callable[[RunRecord, Sequence[StepRecord]], object] = lambda run, steps: None,
) -> Found:
    """Find the snapshots of a run.

    Args:
        run: The run.
        step: Only those of this step.
        fetch: Fetches those of a run in a workspace.

    Raises:
        UserError: There are none; the message has the reason.
    """
    chosen = [step] if step is not None else list(run.steps)
    if run.in_workspace:
        failed = [one for one in chosen if one.status == records.FAILED or not one.final]
        missing = [one for one in failed if not files_of(run, one)]
        if missing:
            fetch(run, missing)
    files = {path: one for one in chosen for path in files_of(run, one)}
    if not files:
        raise _no_snapshot_error(run, chosen)
    found = Found(
        f"{step.name} of the run {run.run_id}" if step else f"the run {run.run_id}", selection.load_snapshots(files)
    )
    found.code = (*_planned_code(run), run.project)
    for path, one in files.items():
        found.mappings[path] = one.path_mappings()
        found.names[path] = run.name if run.single else one.name
    return found


def _planned_code(run: RunRecord) -> list[Path]:
    """Folders of the submitted code; none for a run that was submitted from elsewhere."""
    try:
        codes = [Path(step.code) for step in plans.load(run.folder).steps if step.code]
    except ValueError:
        return []
    return list(dict.fromkeys(one if one.is_dir() else one.parent for one in codes))


def _planned(run: RunRecord) -> bool:
    """Whether the run was to write snapshots; True if that is not known here."""
    try:
        return plans.load(run.folder).snapshots
    except ValueError:
        return True


def files_of(run: RunRecord, step: StepRecord) -> list[Path]:
    """The snapshot files of a step."""
    return selection.files_of_step(run.step_folder(step.name))


def snapshot_command(run: RunRecord, step: StepRecord) -> str:
    """The command that shows a failed step's variables; empty if it has no snapshot."""
    if not files_of(run, step):
        return ""
    named = "" if run.single or sum(one.status == records.FAILED for one in run.steps) < 2 else f" --step {step.name}"
    return f"inv {run.kind}.snapshot --run {run.number}{named}"


def _no_snapshot_error(run: RunRecord, steps: Sequence[StepRecord]) -> UserError:
    """The error for a run without snapshots, with the reason."""
    show = f"inv {run.kind}.{'show' if run.single else 'status'} --run {run.number}"
    what = f"The run {run.run_id}" if run.single or len(steps) > 1 else f"{steps[0].name} of the run {run.run_id}"
    failed = [one for one in steps if one.status == records.FAILED]
    if not failed:
        states = steps[0].status if len(steps) == 1 else run.status
        return UserError(
            f"{what} has no snapshot: it is {states}, and nothing in it has failed.",
            f"A script leaves one when it ends with an exception. Look at the run: {show}",
        )
    names = ", ".join(one.name for one in failed)
    who = "The run" if run.single else names
    log = f"inv experiment.logs --run {run.number}" if run.single else f"inv pipeline.tail-log --run {run.number}"
    if not _planned(run):
        return UserError(
            f"{who} failed and has no snapshot: AML_SNAPSHOT was off, or the run was made before snapshots existed.",
            f"Set AML_SNAPSHOT=on and run it again; its log: {log}",
        )
    if any(selection.was_cut_off(run.step_folder(one.name)) for one in failed):
        return UserError(
            f"{who} failed, and was killed while its snapshot was being written.", f"Look at its log: {log}"
        )
    return UserError(
        f"{who} failed and has left no snapshot: its Python did not end with an exception. Signals, sys.exit "
        "and other programs leave none.",
        f"Look at its log: {log}",
    )


def snapshots_of_service(settings: Settings) -> Found:
    """Find the snapshots of the project's service, and of the last one that failed.

    Raises:
        UserError: There are none; the message has the reason.
    """
    folder = sessions.session_folder(settings.project, reading=True)
    files = files_of_service(settings.project)
    if not files:
        service = sessions.load(settings.project)
        if not (settings.leaves_snapshots if service is None else "AZUREML_DEBUGGEE_SNAPSHOTS" in service.variables):
            when = "is" if service is None else "was"
            raise UserError(
                f"The service has no snapshot: AML_SNAPSHOT {when} off.",
                "Set AML_SNAPSHOT=on, and then: inv deploy.debug",
            )
        raise UserError(
            "The service has no snapshot: neither its init() nor its run() has raised since it was started.",
            "One is written when they do; its log: inv container.logs",
        )
    service = sessions.load(settings.project)
    if service is not None:
        mappings = service.path_mappings
    else:
        ended = read_json(folder / "last" / "ended.json") or {}
        mappings = tuple(mappings_from(ended.get("path_mappings")))
    found = Found("the service", selection.load_snapshots(files), latest=True)
    for path in files:
        found.mappings[path], found.names[path] = tuple(mappings), DEPLOYMENT
    return found


def files_of_service(project: Path) -> list[Path]:
    """The snapshot files of a project's service, or of the last one that ended."""
    return selection.files_in([sessions.snapshot_folder(project, sessions.load(project))])


# An editor


def report_snapshot(found: Found, snapshot: Snapshot) -> None:
    """Report a snapshot to the machine on which the command was typed, which fetches and opens it."""
    places = {"mappings": found.mappings.get(snapshot.path, ()), "guesses": found.guesses(snapshot)}
    told = {name: [one.as_json() for one in entries] for name, entries in places.items()}
    report.add(snapshot={"path": str(snapshot.path), "configuration": found.name(snapshot), **told})


def open_in_editor(
    settings: Settings,
    console: Console,
    path: Path,
    name: str,
    mappings: Sequence[PathMapping],
    guesses: Sequence[PathMapping],
    write: bool,
) -> dict[str, Any]:
    """Start the debug adapter that shows a snapshot to an editor, and write its launch configuration.

    Args:
        settings: The settings.
        console: Where progress is shown.
        path: The snapshot's file.
        name: The launch configuration.
        mappings: Path mappings for the run's code.
        guesses: Guessed path mappings.
        write: Whether launch.json is written.

    Raises:
        UserError: launch.json cannot be edited, or another program holds its port.
    """
    project = settings.project
    launch_json.check_launch_json(project)
    name = f5.configuration_name() or name
    known = launch_json.read_configurations(project).get(name, {})
    with console.step("attach") as step:
        port = _port_in(known)
        if port:
            # End an adapter that still waits on that port.
            server_process.end_server(port)
        # F5 connects to the port in launch.json. Otherwise any port will do, and is written to launch.json.
        if not f5.configuration_name() and not (port and ports.is_free(port)):
            port = _first_free(settings)
        port = server_process.start_server(path, mappings, guesses, port, project)
        endpoint = DebugEndpoint("127.0.0.1", port, tuple(mappings))
        outcome = "unchanged"
        if write:
            entry = launch_json.attach_configuration(name, endpoint, project)
            if f5.configuration_name():
                # VS Code uses the mappings that it has already read.
                entry["pathMappings"] = known.get("pathMappings", entry["pathMappings"])
            outcome = launch_json.write_configurations(project, [entry])
        step.text = f".vscode/launch.json {outcome}" if write else f"127.0.0.1:{port}"
    return {
        "snapshot": str(path),
        "debug": {"host": "127.0.0.1", "port": port},
        "path_mappings": [one.as_json() for one in mappings],
        "launch_configuration": name,
    }


def _port_in(entry: Any) -> int:
    connect = entry.get("connect") if isinstance(entry, dict) else None
    port = connect.get("port") if isinstance(connect, dict) else None
    return port if type(port) is int and 0 < port < 65536 else 0


def _first_free(settings: Settings) -> int:
    """A free port, 1000 above those of debug sessions; 0 if there is none."""
    first = (settings.debug_port or int(BY_FIELD["debug_port"].default)) + 1000
    for port in range(first, min(first + 100, 65536)):
        if ports.is_free(port) and not reservations.is_reserved(port):
            return port
    return 0
