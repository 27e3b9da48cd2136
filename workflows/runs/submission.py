"""What pipelines and experiments share when a run is submitted: ports, records, the start, and the clean-up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from .. import engines
from ..console import Console
from ..engines import ports
from ..engines.docker_client import engine_answers
from ..engines.steps import StepDebug, StepEngine, StepSpec
from ..errors import UserError
from ..private import touch
from . import active_markers, runner, store
from . import plan as plans
from . import record as records
from .plan import Plan
from .record import RunRecord, StepRecord


def wanted_base(console: Console, wanted: int, count: int) -> int:
    """Choose the first of consecutive debug ports, which is the configured one if that is possible.

    Args:
        console: Gets a note if other ports are used.
        wanted: The port of the setting; 0 for a free one.
        count: How many ports, one for each rank.

    Raises:
        UserError: A program of another kind holds one of them.
    """
    if wanted + count > 65536:
        raise UserError(
            f"{count} ranks need the ports from {wanted} on, and the last one is 65535.",
            "Choose a lower one: --debug-port 5678, or 0 for free ones.",
        )
    if not ports.may_listen(wanted or 65535):
        raise UserError(f"Only root may listen on port {wanted}.", "Choose a port from 1024 on.")
    base, note = ports.choose_port("debug_port", wanted, frozenset(), _container_on)
    if note and count == 1:
        console.line(f"  note: {note}")
    moved = min(free_ports(base, count, frozenset()).values())
    held = next((port for port in range(base, base + count) if not ports.is_free(port)), None)
    if moved != base and wanted and held is not None:
        _other, note = ports.choose_port("debug_port", held, frozenset(), _container_on)
        console.line(f"  note: {note.partition(', so')[0]}, so the ranks' ports begin at {moved}")
    elif note and count > 1:
        console.line(f"  note: {note.partition(', so')[0]}, so the ranks' ports begin at {moved}")
    return moved


def free_ports(base: int, count: int, taken: frozenset[int]) -> dict[int, int]:
    """Consecutive free ports by number from 0; they begin at ``base`` if those are free."""
    first = base if base + count <= 65536 else 1024
    return ports.next_free_ports({number: first + number for number in range(count)}, taken)


def _container_on(port: int) -> tuple[str, bool] | None:
    return engines.load("docker").port_holder(port) if engine_answers() else None


def step_records(run: RunRecord, plan: Plan, engine: StepEngine, names: Callable[[str, int], str]) -> list[StepRecord]:
    """The records of a run's steps before the first one is started.

    Args:
        run: The run.
        plan: Its plan.
        engine: The engine, which determines the paths of the steps' code.
        names: Returns the launch configuration's name for a step and a rank.
    """
    found = []
    for step in plan.steps:
        allotted: Mapping[int, int] = step.debug.ports if step.debug else {}
        spec = StepSpec(
            run_id=run.run_id,
            step=step.name,
            project=run.project,
            folder=run.step_folder(step.name),
            image=step.image,
            code=Path(step.code) if step.code else None,
            includes=tuple(map(Path, step.includes)),
            ranks=step.ranks,
            debug=StepDebug(allotted) if allotted else None,
        )
        found.append(
            StepRecord(
                name=step.name,
                run_id=run.run_id if run.single else f"{run.run_id}-{step.name}",
                ranks=step.ranks,
                ports=dict(allotted),
                configurations={rank: names(step.name, rank) for rank in allotted},
                mappings=[(str(one.local_root), one.remote_root) for one in engine.mappings(spec)],
                after=list(step.after),
            )
        )
    return found


def start(run: RunRecord, plan: Plan, waiting: subprocess.Popen[bytes] | None = None) -> None:
    """Write a run's plan and record, and start its runner or use one that waits."""
    plans.save(plan, run.folder)
    records.save(run)
    runner.start(run, waiting)


def discard(run: RunRecord) -> None:
    """Remove what a failed submission has made."""
    touch(run.folder / "cancel")
    store.end_processes(run)
    shutil.rmtree(run.folder, ignore_errors=True)
    active_markers.remove_marker(run.folder)
