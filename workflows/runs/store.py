"""The runs of a project: made, listed, found; and one whose runner is gone, recognised as such."""

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
from . import begun, given
from . import plan as plans
from . import record as records
from .record import RunRecord

#: Seconds that a run may be without a runner: it is just being started.
STARTING_SECONDS = 10.0
#: Seconds for another process to take a run over, or to end what is left of it.
TAKING_SECONDS = 30.0


def runs_folder(project: Path, *, reading: bool = False) -> Path:
    """Where a project's runs are kept; as :func:`workflows.project.state_folder`."""
    return state_folder(project, "runs", reading=reading)


def new_run(project: Path, kind: str, name: str, engine: str) -> RunRecord:
    """A folder and an id for a new run."""
    from ..locks import hold

    root = runs_folder(project)
    plain = name if kind == "experiment" else re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40] or kind
    with hold(root / "lock", 10):
        number = int((read_json(root / "counter.json") or {}).get("last", 0)) + 1
        number = max(number, 1 + max((found for _folder, found in _folders(root)), default=0))
        write_json(root / "counter.json", {"last": number})
        # The end of it tells runs of two projects apart.
        run_id = f"{plain}-{number}-{secrets.token_hex(3)}"
        folder = root / run_id
        begun.note(folder)
        folder.mkdir(FOLDER)
    return RunRecord(
        run_id, number, kind, name, folder, project, engine, created=time.time(), stamp=clock.current_moment()
    )


def _folders(root: Path) -> Iterator[tuple[Path, int]]:
    try:
        entries = list(os.scandir(root))
    except FileNotFoundError:
        # It could not be made, on a full disk.
        return
    for entry in entries:
        match = re.fullmatch(r".+-(\d{1,9})-[0-9a-f]{6}", entry.name)
        if match and entry.is_dir():
            yield Path(entry.path), int(match[1])


def name_of(folder: Path) -> str:
    """The name in a run's id, before its number."""
    return folder.name.rsplit("-", 2)[0]


def all_runs(project: Path, kind: str) -> list[RunRecord]:
    """Every run of a kind, the latest first."""
    found = sorted(_folders(runs_folder(project, reading=True)), key=lambda pair: -pair[1])
    loaded = (records.load(folder) for folder, _number in found)
    return [recovered(run) for run in loaded if run is not None and run.kind == kind]


def latest_runs(project: Path, kind: str, names: Collection[str], limit: int | None) -> list[RunRecord]:
    """Runs of those names, the latest first; no more are read than are returned.

    Args:
        project: The project's folder.
        kind: ``pipeline`` or ``experiment``.
        names: What they may be called, as in their ids.
        limit: How many at most; None for all.
    """
    found: list[RunRecord] = []
    for folder, _number in sorted(_folders(runs_folder(project, reading=True)), key=lambda pair: -pair[1]):
        if limit is not None and len(found) >= limit:
            break
        run = records.load(folder) if name_of(folder) in names else None
        if run is not None and run.kind == kind:
            found.append(recovered(run))
    return found


def count_runs(project: Path) -> Counter[str]:
    """How many runs there are by name, told from the folders' names alone."""
    return Counter(name_of(folder) for folder, _number in _folders(runs_folder(project, reading=True)))


def active_runs(project: Path, kind: str) -> list[RunRecord]:
    """The runs that are not over, the latest first."""
    return [run for run in all_runs(project, kind) if not run.final]


@contextlib.contextmanager
def submitting(project: Path) -> Iterator[None]:
    """One submission at a time in a project, for the moment in which a run is made.

    Raises:
        UserError: Another one takes too long.
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
    """A run by its number, its id, its name (then the latest of that), or the beginning of its id.

    Without any the latest.

    Raises:
        UserError: There is none.
    """
    if wanted is not None and not wanted.strip():
        # A variable of a shell's that is not set: the latest one may be somebody else's work.
        raise UserError("--run is empty.", f"Name a run, by number or id: inv {kind}.list")
    found = sorted(_folders(runs_folder(project, reading=True)), key=lambda pair: -pair[1])
    ways: list[Callable[[Path, int], bool]] = [lambda folder, number: True]
    if wanted:
        ways = [
            lambda folder, number: wanted == str(number),
            lambda folder, number: wanted in (folder.name, name_of(folder)),
            lambda folder, number: folder.name.startswith(wanted),
        ]
    for meant in ways:
        matching = [folder for folder, number in found if meant(folder, number)]
        if wanted and len({name_of(folder) for folder in matching}) > 1:
            # A beginning of several names: the wrong one might be canceled.
            names = ", ".join(folder.name for folder in matching[:5])
            raise UserError(f"{wanted} may be one of several runs.", f"Name one by its number or id: {names}")
        for folder in matching:
            run = records.load(folder)
            if run is not None and run.kind == kind:
                if run.in_workspace:
                    given.keep_secrets(run)
                return recovered(run)
    if wanted:
        # By the id that the workspace gave it.
        runs = [run for folder, _number in found if (run := records.load(folder)) and run.kind == kind]
        matches = [run for run in runs if run.in_workspace and run.run_id.startswith(wanted)]
        if len({run.run_id for run in matches}) > 1:
            raise UserError(f"{wanted} may be one of several runs.", "Name one by its number or whole id.")
        if matches:
            return recovered(matches[0])
    if not wanted:
        name = " NAME" if kind == "experiment" else ""
        raise UserError(f"No {kind} of this project has been run yet.", f"First: inv {kind}.debug{name}")
    raise UserError(f"There is no run {wanted} here.", f"The runs there are: inv {kind}.list")


def refresh(run: RunRecord) -> RunRecord:
    """What is known of a run by now."""
    return recovered(records.load(run.folder) or run)


def runner_file(folder: Path) -> Path:
    """Where the runner's process id and start time are kept."""
    return folder / "runner.json"


def note_runner(folder: Path, pid: int) -> None:
    """Keep which process runs a run."""
    found = identity.identify(pid)
    if found is not None:
        write_json(runner_file(folder), found)


def runner_is_alive(run: RunRecord) -> bool:
    """Whether somebody does a run's steps; also somebody on another machine who shares the folder."""
    known = read_json(runner_file(run.folder))
    return known is not None and identity.is_alive(known)


def runner_pid(run: RunRecord) -> int | None:
    """The process that does a run's steps; None where it is gone, or where no signal reaches it."""
    known = read_json(runner_file(run.folder))
    return int(known["pid"]) if known and identity.is_alive(known) and identity.shares_pid_namespace(known) else None


def recovered(run: RunRecord) -> RunRecord:
    """The run; where it is not over and nobody does its steps, it is ended and recorded as interrupted."""
    if run.final or run.foreign or run.in_workspace or runner_is_alive(run):
        # One in a workspace goes on there, whoever follows it here.
        return run
    try:
        with taking(run.folder):
            return _recovered(run)
    except OSError:
        # No lock can be made, on a full disk for one.
        return _recovered(run)


def taking(folder: Path) -> AbstractContextManager[None]:
    """The moment in which a runner takes its run over, or another command finds that none will."""
    from ..locks import hold

    return hold(folder / "taking", TAKING_SECONDS)


def _recovered(run: RunRecord) -> RunRecord:
    # Read again: it may have ended, or begun, between the two looks.
    run = records.load(run.folder) or run
    starting = not runner_file(run.folder).exists() and run.seconds < STARTING_SECONDS
    if run.final or runner_is_alive(run) or (starting and not begun.abandoned(run.folder)):
        return run
    end_processes(run)
    reason = "its runner was killed, or the machine went down"
    if (short := storage.shortage(run.folder)) is not None:
        reason = f"its runner could not record its end: {short.problem}"
    remove_leftovers(run.folder)
    # On a full disk it is told all the same, and recorded by a later command.
    with contextlib.suppress(OSError):
        close(run, records.INTERRUPTED, reason)
    return run


def sweep(project: Path) -> None:
    """End what runners have left that were killed, and take away what commands have left half made.

    Every command begins with it, so it never keeps one from its work.
    """
    for folder in begun.unfinished(project):
        with contextlib.suppress(OSError, UserError):
            run = records.load(folder)
            if run is None:
                begun.remove_half_made(folder)
            elif run.foreign:
                continue
            elif recovered(run).final:
                begun.forget(folder)


def replace_abandoned(
    project: Path, kind: str, same: Callable[[RunRecord], bool], say: Callable[[str], object], seconds: float
) -> None:
    """End the runs on this machine whose commands were killed: the same command comes again in their place.

    Args:
        project: The project's folder.
        kind: ``pipeline`` or ``experiment``.
        same: Whether a run is what this command would begin.
        say: Told of each.
        seconds: As for :func:`cancel`.
    """
    for folder in begun.unfinished(project):
        run = records.load(folder) if begun.abandoned(folder) else None
        if run is None or run.final or run.kind != kind or run.in_workspace or run.foreign or not same(run):
            continue
        if not cancel(run, seconds).final:
            continue
        say(f"  note: the run {run.run_id} was ended, its command had been killed")


def close(run: RunRecord, status: str, reason: str) -> None:
    """Record a run, and those of its steps that are not over, as ended; what they have written stays in its folder."""
    if not run.in_workspace:
        from ..engines.work_folder import settle

        for step in run.steps:
            settle(run.step_folder(step.name))
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
    begun.forget(run.folder)
    with contextlib.suppress(OSError):
        plans.settle(run.folder)


def end_processes(run: RunRecord) -> None:
    """End whatever of a run is still there."""
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
    """Have a runner that was stopped by a signal go on."""
    import signal

    pid = runner_pid(run)
    if pid is not None and hasattr(signal, "SIGCONT"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGCONT)


def cancel(run: RunRecord, seconds: float) -> RunRecord:
    """End everything of a run at once.

    Args:
        run: The run.
        seconds: How long its runner may take, before it is ended itself.
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
        # On a full disk there is another way to tell its runner.
        end_follower(run)
    _wake(run)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = refresh(run)
        if run.final:
            return run
        time.sleep(0.02)
    # It hangs, or was stopped by a signal.
    pid = runner_pid(run)
    if pid is not None:
        import signal

        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    end_processes(run)
    with contextlib.suppress(OSError):
        close(run, records.CANCELED, "")
    return run
