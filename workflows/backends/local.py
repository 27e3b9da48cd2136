"""The embedded backend: a pipeline's steps in containers, or in processes, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import engines, uses
from ..console import Console
from ..engines import ports
from ..engines.docker_client import engine_answers
from ..engines.steps import StepDebug, StepEngine, StepSpec
from ..interrupts import uninterrupted
from ..models import ImageRef
from ..pipelines.commands import names_own_script, wanted_port
from ..pipelines.definition import FILE_TYPES, Input, Pipeline, Step
from ..runs import plan as plans
from ..runs import record as records
from ..runs import runner, store
from ..runs.attachable import configuration_name
from ..runs.plan import Plan, PlannedDebug, PlannedInput, PlannedStep
from ..runs.record import RunRecord, StepRecord
from ..settings import Settings
from .base import DebugRequest

KIND = "pipeline"
#: Seconds that a run's runner has to end its steps by itself.
CANCEL_SECONDS = 5.0
LOOK_SECONDS = 0.02


class LocalBackend:
    """Runs pipelines on this machine.

    Args:
        settings: The settings.
        console: Where steps show themselves.
    """

    name = "local"

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console

    def submit(self, pipeline: Pipeline, debug: DebugRequest | None) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        settings, console = self._settings, self._console
        engine, word = engines.choose(settings.engine)
        if word:
            console.line(f"Engine: {word}.")
        steps = engines.load_steps(engine.name)
        allotted = self._allot(pipeline, debug, engine.name)
        images = self._build(pipeline, engine.name)
        with console.step("submit") as shown:
            fetched = _fetch(pipeline, shown.detail)
            run = store.new_run(settings.project, KIND, pipeline.name, engine.name)
            try:
                run.file, run.debugged = str(pipeline.file), bool(allotted)
                run.on_error = bool(debug and debug.on_error)
                plan = Plan(
                    tuple(
                        self._planned(step, images[step.name], allotted.get(step.name), debug, fetched)
                        for step in pipeline.steps
                    ),
                    pipeline.outputs,
                    pipeline.continue_on_failure,
                )
                run.steps = _records(run, plan, steps)
                plans.save(plan, run.folder)
                records.save(run)
                runner.start(run)
            except BaseException:
                with uninterrupted():
                    _discard(run)
                raise
            shown.text = f"run {run.run_id}, {len(run.steps)} step{'s' if len(run.steps) > 1 else ''}"
        return run

    def runs(self) -> list[RunRecord]:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.all_runs(self._settings.project, KIND)

    def find(self, wanted: str | None) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.find_run(self._settings.project, KIND, wanted)

    def refresh(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.refresh(run)

    def cancel(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.cancel(run, CANCEL_SECONDS)

    # Before the start

    def _allot(self, pipeline: Pipeline, debug: DebugRequest | None, engine: str) -> dict[str, dict[int, int]]:
        """Debug ports by step and rank, each base + rank; none for steps that are not debugged."""
        if debug is None:
            return {}
        taken: set[int] = set()
        allotted: dict[str, dict[int, int]] = {}
        for step in pipeline.steps:
            if debug.steps and step.name not in debug.steps:
                continue
            ranks = range(step.ranks) if debug.rank is None else [debug.rank]
            if step.ranks == 1:
                ranks = [0]
            wanted = wanted_port(step.command) or (max(taken) + 1 if taken else self._settings.debug_port)
            base = self._free_base(wanted, max(ranks) + 1, frozenset(taken), engine, first=not taken)
            allotted[step.name] = {rank: base + rank for rank in ranks}
            taken.update(allotted[step.name].values())
        return allotted

    def _free_base(self, wanted: int, count: int, taken: frozenset[int], engine: str, first: bool) -> int:
        """The first of consecutive ports that are free.

        Only the setting's own port is one that a person counts on: where another program holds
        that, it is an error that names the program; the further ones move out of the way.
        """
        if first:
            base, word = ports.pick("debug_port", wanted, taken, self._container_on)
            if word:
                self._console.line(f"  note: {word}")
        else:
            base = wanted if wanted + count <= 65536 else 1024
        while True:
            moved = ports.next_free({number: base + number for number in range(count)}, taken)
            if not first or min(moved.values()) == base:
                return min(moved.values())
            # A rank's port: the base plus the rank, so all of them move.
            held = next(port for port in range(base, base + count) if not ports.is_free(port))
            _chosen, word = ports.pick("debug_port", held, taken, self._container_on)
            self._console.line(f"  note: {word}, and the ranks' ports begin at {min(moved.values())}")
            return min(moved.values())

    def _container_on(self, port: int) -> tuple[str, bool] | None:
        if not engine_answers():
            return None
        return engines.load("docker").port_holder(port)

    def _build(self, pipeline: Pipeline, engine_name: str) -> dict[str, ImageRef]:
        """The environment of every step, each built once."""
        from ..environments.references import resolve_environment

        engine = engines.load(engine_name)
        notes: list[str] = list(pipeline.notes)
        with self._console.step("build") as shown:
            resolved = {
                step.name: resolve_environment(step.environment, self._settings, engine.name) for step in pipeline.steps
            }
            built: dict[str, ImageRef] = {}
            images: dict[str, ImageRef] = {}
            for step in pipeline.steps:
                one = resolved[step.name]
                notes += one.notes
                if one.key not in built:
                    built[one.key] = one.build(engine, shown.detail)
                    notes += built[one.key].notes
                    uses.record(self._settings.project, f"{KIND} {one.key}", built[one.key].digest)
                images[step.name] = built[one.key]
            words = {
                image.name if engine.name == "docker" else f"environment {image.digest[:12]}": image.reused
                for image in built.values()
            }
            shown.text = ", ".join(f"{name} ({'reused' if reused else 'built'})" for name, reused in words.items())
        for note in dict.fromkeys(notes):
            self._console.line(f"  note: {note}")
        return images

    def _planned(
        self,
        step: Step,
        image: ImageRef,
        allotted: dict[int, int] | None,
        debug: DebugRequest | None,
        fetched: dict[str, Path],
    ) -> PlannedStep:
        planned_debug = None
        if allotted and debug is not None:
            planned_debug = PlannedDebug(
                ports=allotted,
                wait=debug.wait,
                timeout=self._settings.debug_timeout,
                on_error=debug.on_error,
                any_program=not names_own_script(step.command, step.code),
            )
        return PlannedStep(
            name=step.name,
            command=step.command,
            code=str(step.code) if step.code else None,
            image=image,
            inputs={name: _planned_input(entry, fetched) for name, entry in step.inputs.items() if entry.given},
            outputs={name: kind in FILE_TYPES for name, kind in step.outputs.items()},
            variables=step.variables,
            distribution=step.distribution,
            ranks=step.ranks,
            processes=step.processes,
            shm_size=step.shm_size,
            after=step.after,
            debug=planned_debug,
        )


def _planned_input(entry: Input, fetched: dict[str, Path]) -> PlannedInput:
    if entry.url is not None:
        return PlannedInput(path=str(fetched[entry.url]))
    path = str(entry.path) if entry.path is not None else None
    return PlannedInput(text=entry.text, path=path, step=entry.step, output=entry.output)


def _records(run: RunRecord, plan: Plan, engine: StepEngine) -> list[StepRecord]:
    """The run's steps as they are before the first is started."""
    several = sum(step.debug is not None for step in plan.steps) > 1
    found = []
    for step in plan.steps:
        allotted = dict(step.debug.ports) if step.debug else {}
        spec = StepSpec(
            run_id=run.run_id,
            step=step.name,
            project=run.project,
            folder=run.step_folder(step.name),
            image=step.image,
            code=Path(step.code) if step.code else None,
            ranks=step.ranks,
            debug=StepDebug(allotted) if allotted else None,
        )
        found.append(
            StepRecord(
                name=step.name,
                run_id=f"{run.run_id}-{step.name}",
                ranks=step.ranks,
                ports=allotted,
                configurations={
                    rank: configuration_name(
                        step.name if several or step.ranks > 1 else None, rank if step.ranks > 1 else None
                    )
                    for rank in allotted
                },
                mappings=[(str(one.local_root), one.remote_root) for one in engine.mappings(spec)],
                after=list(step.after),
            )
        )
    return found


def _fetch(pipeline: Pipeline, report: Callable[[str], None]) -> dict[str, Path]:
    """Inputs that are fetched from the web, by their address."""
    found: dict[str, Path] = {}
    for step in pipeline.steps:
        for entry in step.inputs.values():
            if entry.url is not None and entry.url not in found:
                from ..pipelines.fetching import fetch

                found[entry.url] = fetch(entry, report)
    return found


def _discard(run: RunRecord) -> None:
    """Take away what a submission that failed has made."""
    import shutil

    (run.folder / "cancel").touch()
    store.end_processes(run)
    shutil.rmtree(run.folder, ignore_errors=True)
