"""The runs of a project: creates, lists and finds them, and recognises runs whose runner is gone."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from .. import clock, storage
from .. import process_identity as identity
from ..errors import UserError
from ..private import FOLDER, touch
from ..project import read_json, remove_leftovers, state_folder, write_json
from . import active_markers, source_secrets
from . import plan as plans
from . import record as records
from .record import RunRecord

#: Seconds that a run may have no runner, because it is being started.
STARTING_SECONDS = 10.0
#: Seconds to wait for the process that takes a run over, or ends what is left of it.
TAKING_SECONDS = 30.0


def runs_folder(project: Path, *, reading: bool = False) -> Path:
    """The folder of a project's runs; for ``reading`` see :func:`workflows.project.state_folder`."""
    return state_folder(project, "runs", reading=reading)


def new_run(project: Path, kind: str, name: str, engine: str) -> RunRecord:
    """Create the folder and the id of a new run."""
    from ..locks import hold

    root = runs_folder(project)
    plain = name if kind == "experiment" else re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40] or kind
    with hold(root / "lock", 10):
        number = int((read_json(root / "counter.json") or {}).get("last", 0)) + 1
        number = max(number, 1 + max((found for _folder, found in _folders(root)), default=0))
        write_json(root / "counter.json", {"last": number})
        # The random suffix distinguishes runs of two projects.
        run_id = f"{plain}-{number}-{secrets.token_hex(3)}"
        folder = root / run_id
        active_markers.mark_active(folder)
        folder.mkdir(FOLDER)
    return RunRecord(
        run_id, number, kind, name, folder, project, engine, created=time.time(), stamp=clock.current_moment()
    )


def _folders(root: Path) -> Iterator[tuple[Path, int]]:
    try:
        entries = list(os.scandir(root))
    except FileNotFoundError:
        # On a full disk the folder could not be made.
        return
    for entry in entries:
        match = re.fullmatch(r".+-(\d{1,9})-[0-9a-f]{6}", entry.name)
        if match and entry.is_dir():
            yield Path(entry.path), int(match[1])


def name_from_folder(folder: Path) -> str:
    """The pipeline's or experiment's name in a run's folder name, which is before the number."""
    return folder.name.rsplit("-", 2)[0]


def all_runs(project: Path, kind: str) -> list[RunRecord]:
    """List every run of a kind, the latest first."""
    found = sorted(_folders(runs_folder(project, reading=True)), key=lambda pair: -pair[1])
    loaded = (records.load(folder) for folder, _number in found)
    return [check_interrupted(run) for run in loaded if run is not None and run.kind == kind]


def latest_runs(project: Path, kind: str, names: Collection[str], limit: int | None) -> list[RunRecord]:
    """List runs with certain names, the latest first. Only records that are returned are read.

    Args:
        project: The project's folder.
        kind: ``pipeline`` or ``experiment``.
        names: Their names, as in their ids.
        limit: How many at most; None for all.
    """
    found: list[RunRecord] = []
    for folder, _number in sorted(_folders(runs_folder(project, reading=True)), key=lambda pair: -pair[1]):
        if limit is not None and len(found) >= limit:
            break
        run = records.load(folder) if name_from_folder(folder) in names else None
        if run is not None and run.kind == kind:
            found.append(check_interrupted(run))
    return found


def count_runs(project: Path) -> Counter[str]:
    """Count the runs by name. Only folder names are read."""
    return Counter(name_from_folder(folder) for folder, _number in _folders(runs_folder(project, reading=True)))


def active_runs(project: Path, kind: str) -> list[RunRecord]:
    """List the runs that are not over, the latest first."""
    return [run for run in all_runs(project, kind) if not run.final]


@contextlib.contextmanager
def submission_lock(project: Path) -> Iterator[None]:
    """Hold the lock for creating a run, so that a project has one submission at a time.

    Raises:
        UserError: Another submission takes too long.
    """
    from ..locks import HeldError, hold

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(runs_folder(project) / "submitting", 30))
        except HeldError as error:
            raise UserError(
                "Another command has been starting a run in this project for 30 s.", "End it, then run this again."
            ) from error
        yield


def find_run(project: Path, kind: str, wanted: str | None) -> RunRecord:
    """Find a run by its number, its id, its name (the latest one with that name), or the beginning of its id.

    Args:
        project: The project's folder.
        kind: ``pipeline`` or ``experiment``.
        wanted: What was typed; None for the latest run.

    Raises:
        UserError: There is none, or there are several.
    """
    if wanted is not None and not wanted.strip():
        # An unset variable of a shell, for example. The latest run may not be the one that was meant.
        raise UserError("--run is empty.", f"Name a run, by number or id: inv {kind}.list")
    found = sorted(_folders(runs_folder(project, reading=True)), key=lambda pair: -pair[1])
    tests: list[Callable[[Path, int], bool]] = [lambda folder, number: True]
    if wanted:
        tests = [
            lambda folder, number: wanted == str(number),
            lambda folder, number: wanted in (folder.name, name_from_folder(folder)),
            lambda folder, number: folder.name.startswith(wanted),
        ]
    for matches_run in tests:
        matching = [folder for folder, number in found if matches_run(folder, number)]
        if wanted and len({name_from_folder(folder) for folder in matching}) > 1:
            # Several names begin like this: the wrong run might be canceled.
            names = ", ".join(folder.name for folder in matching[:5])
            raise UserError(f"{wanted} may be one of several runs.", f"Name one by its number or id: {names}")
        for folder in matching:
            run = records.load(folder)
            if run is not None and run.kind == kind:
                if run.in_workspace:
                    source_secrets.keep_secrets(run)
                return check_interrupted(run)
    if wanted:
        # The id that the workspace has given a run differs from its folder's name.
        runs = [run for folder, _number in found if (run := records.load(folder)) and run.kind == kind]
        matches = [run for run in runs if run.in_workspace and run.run_id.startswith(wanted)]
        if len({run.run_id for run in matches}) > 1:
            raise UserError(f"{wanted} may be one of several runs.", "Name one by its number or whole id.")
        if matches:
            return check_interrupted(matches[0])
    if not wanted:
        name = " NAME" if kind == "experiment" else ""
        raise UserError(f"No {kind} of this project has been run yet.", f"First: inv {kind}.debug{name}")
    raise UserError(f"There is no run {wanted} here.", f"List the runs: inv {kind}.list")


def refresh(run: RunRecord) -> RunRecord:
    """Read a run's record again, and check whether it was interrupted."""
    return check_interrupted(records.load(run.folder) or run)


def runner_file(folder: Path) -> Path:
    """The file with the process id and the start time of a run's runner."""
    return folder / "runner.json"


def record_runner(folder: Path, pid: int) -> None:
    """Record which process is a run's runner."""
    found = identity.identify(pid)
    if found is not None:
        write_json(runner_file(folder), found)


def runner_is_alive(run: RunRecord) -> bool:
    """Whether a run's runner is alive, on this machine or on another one that shares the folder."""
    known = read_json(runner_file(run.folder))
    return known is not None and identity.is_alive(known)


def runner_pid(run: RunRecord) -> int | None:
    """The process id of a run's runner; None if it is gone or runs on another machine."""
    known = read_json(runner_file(run.folder))
    return int(known["pid"]) if known and identity.is_alive(known) and identity.shares_pid_namespace(known) else None


def check_interrupted(run: RunRecord) -> RunRecord:
    """Return a run; one that is not over but whose runner is gone is first ended and recorded as interrupted."""
    if run.final or run.foreign or run.in_workspace or runner_is_alive(run):
        # A run in a workspace goes on there, whether or not a process follows it here.
        return run
    try:
        with takeover_lock(run.folder):
            return _check_interrupted_locked(run)
    except OSError:
        # The lock cannot be made, for example on a full disk.
        return _check_interrupted_locked(run)


def takeover_lock(folder: Path) -> AbstractContextManager[None]:
    """The lock that a runner holds while it takes its run over, and a command while it ends an interrupted run."""
    from ..locks import hold

    return hold(folder / "taking", TAKING_SECONDS)


def _check_interrupted_locked(run: RunRecord) -> RunRecord:
    # Read again: it may have ended or begun since it was read.
    run = records.load(run.folder) or run
    starting = not runner_file(run.folder).exists() and run.seconds < STARTING_SECONDS
    if run.final or runner_is_alive(run) or (starting and not active_markers.is_abandoned(run.folder)):
        return run
    end_processes(run)
    reason = "its runner was killed, or the machine went down"
    if (short := storage.shortage(run.folder)) is not None:
        reason = f"its runner could not record its end: {short.problem}"
    remove_leftovers(run.folder)
    # On a full disk the caller still gets the state, and a later command records it.
    with contextlib.suppress(OSError):
        close(run, records.INTERRUPTED, reason)
    return run


def clean_up(project: Path) -> None:
    """End the runs of killed runners, and remove incomplete folders of killed commands.

    Every command begins with this, so it never raises.
    """
    for folder in active_markers.unfinished_folders(project):
        with contextlib.suppress(OSError, UserError):
            run = records.load(folder)
            if run is None:
                active_markers.remove_half_made(folder)
            elif run.foreign:
                continue
            elif check_interrupted(run).final:
                active_markers.remove_marker(folder)


def replace_abandoned(
    project: Path, kind: str, same: Callable[[RunRecord], bool], report: Callable[[str], object], seconds: float
) -> None:
    """End the runs on this machine whose commands were killed, before the same command begins another run.

    Args:
        project: The project's folder.
        kind: ``pipeline`` or ``experiment``.
        same: Whether a run is the one that this command would begin.
        report: Gets a note for each run that is ended.
        seconds: As for :func:`cancel`.
    """
    for folder in active_markers.unfinished_folders(project):
        run = records.load(folder) if active_markers.is_abandoned(folder) else None
        if run is None or run.final or run.kind != kind or run.in_workspace or run.foreign or not same(run):
            continue
        if not cancel(run, seconds).final:
            continue
        report(f"  note: the run {run.run_id} was ended, its command had been killed")


def close(run: RunRecord, status: str, reason: str) -> None:
    """Record a run, and those of its steps that are not over, as ended. The files of the run's folder stay."""
    if not run.in_workspace:
        from ..engines.work_folder import move_run_folders

        for step in run.steps:
            move_run_folders(run.step_folder(step.name))
    for step in run.steps:
        if not step.final:
            started = step.status != records.NOT_STARTED
            step.status = status
            step.reason = reason
            if started:
                step.end()
    run.status, run.reason = status, reason
    run.end()
    records.save(run)
    active_markers.remove_marker(run.folder)
    with contextlib.suppress(OSError):
        plans.remove_secrets(run.folder)


def end_processes(run: RunRecord) -> None:
    """End all processes and containers of a run."""
    from .. import engines

    try:
        engine = engines.load_steps(run.engine)
    except UserError:
        # The Docker engine does not answer, so nothing runs in it.
        return
    engine.end_run(run.run_id)


def end_follower(run: RunRecord) -> None:
    """End the process that follows a run in a workspace."""
    import signal

    pid = runner_pid(run)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)


def _wake(run: RunRecord) -> None:
    """Continue a runner that was stopped by a signal."""
    import signal

    pid = runner_pid(run)
    if pid is not None and hasattr(signal, "SIGCONT"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGCONT)


def cancel(run: RunRecord, seconds: float) -> RunRecord:
    """Cancel a run and end all of its processes.

    Args:
        run: The run.
        seconds: How long its runner may take before it is killed.

    Raises:
        UserError: The run belongs to the project that this one was copied from.
    """
    run = refresh(run)
    if run.final:
        return run
    if run.foreign:
        raise UserError(
            f"The run {run.run_id} came here with a copy of its project; it belongs to the original.",
            "Cancel it there.",
        )
    try:
        touch(run.folder / "cancel")
    except OSError:
        # On a full disk the runner gets a signal instead.
        end_follower(run)
    _wake(run)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = refresh(run)
        if run.final:
            return run
        time.sleep(0.02)
    # The runner hangs.
    pid = runner_pid(run)
    if pid is not None:
        import signal

        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    end_processes(run)
    with contextlib.suppress(OSError):
        close(run, records.CANCELED, "")
    return run
