"""Continues an earlier run: its completed steps are taken over, and the others run with their outputs.

A step that is taken over is left out of the new run, as with ``--skip``, and its outputs become the inputs of other
steps, as with ``--input STEP.OUTPUT=PATH``. The options typed for the earlier run apply as well.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..models import ImageRef
from ..paths import shown
from ..pipelines import python_file
from ..pipelines.definition import Pipeline, Step
from ..pipelines.parts import Parts, read_parts
from ..redaction import MASK
from ..runs.outputs import plan_of
from ..runs.plan import Plan, PlannedStep
from ..runs.record import IN_WORKSPACE, RunRecord
from ..runs.step_copies import KEPT_BYTES, kept_code_folder

if TYPE_CHECKING:
    from ..console import Console
    from .pipeline import Wanted

#: The flag, as in a run's recorded options.
FLAG = "--from-run"
#: How many names of steps are shown in one line.
_SHOWN = 6
#: Returns the paths of outputs of a run's steps, by ``STEP.OUTPUT``; see :meth:`Backend.outputs`.
Outputs = Callable[[RunRecord, Sequence[str]], Mapping[str, str]]


@dataclass(frozen=True)
class TakenOver:
    """What is taken over from an earlier run.

    Attributes:
        run: The earlier run.
        file: Its pipeline file.
        wanted: What is run now.
        steps: The steps that are taken over.
        inherited: The outputs, by step, that the earlier run itself had taken over.
        outputs: The outputs of ``steps``, by ``STEP.OUTPUT``.
        typed_skip: The steps that were left out by name.
        typed: What was typed now.
        code: Whether the steps that run use the code of the earlier run.
    """

    run: RunRecord
    file: Path
    wanted: Wanted
    steps: tuple[str, ...]
    inherited: Mapping[str, Sequence[str]]
    outputs: Mapping[str, str]
    typed_skip: tuple[str, ...]
    typed: Wanted
    code: bool = False

    @property
    def all_steps(self) -> tuple[str, ...]:
        """The steps that are taken over from the earlier run and from the runs before it."""
        return (*self.inherited, *self.steps)

    def line(self, pipeline: Pipeline) -> str:
        """One line about it for the user; if steps were named, only about the steps that they need."""
        entries = [entry for step in pipeline.steps for entry in step.inputs.values()]
        used = {str(entry.path or entry.asset) for entry in entries}
        by_step = {name: list(self.inherited.get(name, ())) for name in self.all_steps}
        for output, path in self.outputs.items():
            by_step[output.rpartition(".")[0]].append(path)
        steps = [name for name in self.all_steps if not self.wanted.only or used & {*by_step[name]}]
        if not steps:
            return f"Nothing is taken over from the run {self.run.run_id}."
        names = ", ".join(steps[:_SHOWN])
        more = f" and {len(steps) - _SHOWN} more" if len(steps) > _SHOWN else ""
        return f"Taken over from the run {self.run.run_id}: {names}{more}."

    def check_steps_exist(self, names: Sequence[str], error: UserError | None) -> None:
        """Check that the pipeline file still has the steps that are taken over.

        Args:
            names: The steps of the file.
            error: What is wrong with the file. If anything is, nothing is checked, since a step may not have been read.

        Raises:
            UserError: A step is missing.
        """
        gone = [name for name in self.all_steps if not any(f"{one}.".startswith(f"{name}.") for one in names)]
        if gone and error is None:
            raise UserError(
                f"{gone[0]} of the run {self.run.run_id} is not in {shown(self.file)} any more: {', '.join(names)}.",
                "If it has another name now, give its outputs by that: --skip NAME --input NAME.OUTPUT=PATH",
            )

    def print_changes(self, console: Console, whole: Pipeline | None, pipeline: Pipeline) -> None:
        """Print what is taken over, and what has changed since; see :func:`changes`."""
        console.line(self.line(pipeline))
        for line in changes(self, whole, pipeline):
            console.line(f"  note: {line}")

    def print_environment_changes(self, console: Console, run: RunRecord) -> None:
        """Print which steps of a submitted run have another environment than in the earlier run."""
        for line in environments_changed(self, run):
            console.line(f"  note: {line}")

    def with_kept_code(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with the code that its steps had in the earlier run.

        Raises:
            UserError: The code of a step was not kept.
        """
        steps = []
        for step in pipeline.steps:
            if step.code is not None:
                kept = kept_code_folder(self.run.step_folder(step.name))
                if not kept.is_dir():
                    raise UserError(
                        f"The code that {step.name} had in the run {self.run.run_id} was not kept.",
                        f"Up to {KEPT_BYTES >> 20} MB are kept for each step that was started. Leave out --code-of-run "
                        "to run the present code.",
                    )
                step = replace(step, code=kept / step.code.name if step.code.is_file() else kept)
            steps.append(step)
        return pipeline.with_steps(steps)

    def without_notes(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline without the notes that these steps are left out."""
        mine = tuple(f"`{name}` is left out" for name in self.all_steps if name not in self.typed_skip)
        return replace(pipeline, notes=tuple(note for note in pipeline.notes if not note.startswith(mine)))


def take_over(
    run: RunRecord, wanted: Wanted, outputs_of: Outputs, file: Path | None, *, whole: bool = False, code: bool = False
) -> TakenOver:
    """Find what can be taken over from an earlier run.

    Args:
        run: The earlier run.
        wanted: What was typed now. If it names steps, these run; otherwise all steps that have not completed run.
        outputs_of: Returns the paths of outputs.
        file: The pipeline file that was typed now, or None.
        whole: Whether nested pipelines are only taken over completely, because they are submitted as one job.
        code: Whether the steps run the code of the earlier run.

    Raises:
        UserError: It is not over, nothing of it is left to run, or a needed output is gone.
    """
    if not run.final:
        raise UserError(
            f"The run {run.run_id} is not over: {run.status}.",
            f"Wait for it (inv pipeline.tail-log --run {run.number} --follow), or end it: inv pipeline.cancel",
        )
    if file is None:
        file = _file_of(run)
    typed, inherited = _merge_typed(run, wanted, outputs_of)
    plan = _plan(run)
    done = [one for one in plan.steps if run.step(one.name).ended_well and not _is_named_by(one.name, wanted.only)]
    if not wanted.only and len(done) == len(plan.steps):
        raise UserError(
            f"Every step of the run {run.run_id} has completed, so nothing is left to run.",
            "Name the step that is to run again: --step NAME",
        )
    needed = [step.name for step in _needed(plan, _without_trials(plan, done), wanted.only)]
    if whole:
        needed = _whole_jobs(plan, needed)
    outputs = dict(outputs_of(run, needed))
    _check_outputs_exist(run, plan, needed, outputs)
    skip = tuple(dict.fromkeys([*typed.skip, *needed]))
    inputs = {**outputs, **typed.inputs}
    return TakenOver(
        run,
        file,
        replace(typed, inputs=inputs, skip=skip),
        tuple(needed),
        inherited,
        outputs,
        tuple(name for name in typed.skip if name not in inherited),
        wanted,
        code,
    )


def _file_of(run: RunRecord) -> Path:
    """The pipeline file of a run.

    Raises:
        UserError: It is gone, or not known here.
    """
    if not run.file:
        raise UserError(
            f"The run {run.run_id} was submitted from elsewhere, so its pipeline file is not known here.",
            "Name it: --pipeline-file FILE",
        )
    in_python = python_file.parse_place(Path(run.file))
    file = in_python.file if in_python is not None else Path(run.file)
    if not file.exists():
        raise UserError(
            f"The pipeline file of the run {run.run_id} is gone: {shown(file)}.", "Put it back, and try again."
        )
    return Path(run.file)


def _plan(run: RunRecord) -> Plan:
    """The plan of a run; for a run that was submitted from elsewhere it only has the names of the steps."""
    if run.in_workspace and not run.file:
        image = ImageRef(IN_WORKSPACE, "", "")
        return Plan(tuple(PlannedStep(step.name, "", None, image) for step in run.steps))
    return plan_of(run)


def _check_outputs_exist(run: RunRecord, plan: Plan, names: Sequence[str], outputs: Mapping[str, str]) -> None:
    """Check that the outputs of some steps that the others need exist.

    Raises:
        UserError: An output does not.
    """
    for step in plan.steps:
        for entry in step.inputs.values() if step.name not in names else ():
            if entry.step in names and f"{entry.step}.{entry.output}" not in outputs:
                raise UserError(
                    f"The output {entry.output} of {entry.step} of the run {run.run_id} is gone.",
                    f"Have {entry.step} run again (--step {entry.step}), or give it: --skip {entry.step} "
                    f"--input {entry.step}.{entry.output}=PATH",
                )


def _whole_jobs(plan: Plan, names: Sequence[str]) -> list[str]:
    """Replace steps by the jobs of the outermost pipeline; a nested pipeline counts if all of its steps are given."""
    tops = dict.fromkeys(name.partition(".")[0] for name in names)
    left = {step.name.partition(".")[0] for step in plan.steps if step.name not in names}
    return [top for top in tops if top not in left]


def _without_trials(plan: Plan, steps: Iterable[PlannedStep]) -> list[PlannedStep]:
    """Remove the trials of sweeps from steps: a sweep is taken over completely or not at all."""
    trials = {name for step in plan.steps if step.best is not None for name in step.best.trials}
    return [step for step in steps if step.name not in trials]


def _merge_typed(run: RunRecord, wanted: Wanted, outputs_of: Outputs) -> tuple[Wanted, dict[str, list[str]]]:
    """Merge the earlier run's options with what was typed now, which wins; also returns what that run had taken over.

    Raises:
        UserError: An earlier value was a secret, which is not kept.
    """
    inputs: dict[str, str] = {}
    skip: list[str] = []
    inherited: dict[str, list[str]] = {}
    before = Parts()
    parts: dict[str, str | None] = {"--trials": None, "--mini-batch": None}
    words = iter(shlex.split(run.options))
    for word in words:
        value = next(words, "")
        if word == "--input":
            name, _, text = value.partition("=")
            inputs[name] = text
        elif word == "--skip":
            skip.append(value)
        elif word in parts:
            parts[word] = value
        elif word == FLAG:
            # The earlier run had itself continued another one.
            first, inherited = _inherited(run, value, wanted.only, outputs_of)
            before = first.parts
            # Steps that the earlier run has run again are its own.
            again = {step.name for step in run.steps} & {*first.skip}
            inherited = {name: paths for name, paths in inherited.items() if name not in again}
            older = {name: text for name, text in first.inputs.items() if name.rpartition(".")[0] not in again}
            inputs, skip = {**older, **inputs}, [*(name for name in first.skip if name not in again), *skip]
    lost = [name for name, text in inputs.items() if MASK in text and name not in wanted.inputs]
    if lost:
        raise UserError(
            f"The input {lost[0]} of the run {run.run_id} was a secret, which is not kept.",
            f"Give it again: --input {lost[0]}=VALUE",
        )
    skip = [name for name in skip if not _is_named_by(name, wanted.only)]
    own = wanted.parts
    if not own.flags:
        own = read_parts(parts["--trials"], parts["--mini-batch"])
        own = replace(own if own.flags else before, is_from_run=True)
    return replace(wanted, inputs={**inputs, **wanted.inputs}, skip=(*skip, *wanted.skip), parts=own), inherited


def _inherited(
    run: RunRecord, earlier: str, only: Sequence[str], outputs_of: Outputs
) -> tuple[Wanted, dict[str, list[str]]]:
    """What a run had taken over from the run that it continued, as if it had been typed.

    Raises:
        UserError: That run is gone, or is not an earlier one.
    """
    from ..runs import store
    from .pipeline import Wanted

    gone = UserError(f"The run {earlier}, which {run.run_id} went on from, is gone.", "Submit the pipeline again.")
    try:
        found = store.find_run(run.project, run.kind, earlier)
    except UserError:
        raise gone from None
    if found.number >= run.number:
        raise gone
    typed, taken = _merge_typed(found, Wanted(only=tuple(only)), outputs_of)
    plan = _plan(found)
    mine = {step.name for step in run.steps}
    names = [
        step.name
        for step in _without_trials(plan, plan.steps)
        if found.step(step.name).ended_well and step.name not in mine and not _is_named_by(step.name, only)
    ]
    outputs = outputs_of(found, names)
    for name in names:
        taken[name] = [path for output, path in outputs.items() if output.rpartition(".")[0] == name]
    skip = [name for name in taken if name not in typed.skip]
    return replace(typed, inputs={**typed.inputs, **outputs}, skip=(*typed.skip, *skip)), taken


def _is_named_by(name: str, only: Sequence[str]) -> bool:
    """Whether a step is named by one of the names: in full, by its last part, or by its nested pipeline."""
    return any(name == one or name.endswith(f".{one}") or name.startswith(f"{one}.") for one in only)


def _needed(plan: Plan, done: Iterable[PlannedStep], only: Sequence[str]) -> list[PlannedStep]:
    """The completed steps that are taken over: all of them, or those that the named steps depend on."""
    completed = {step.name: step for step in done}
    names = [step.name for step in plan.steps]
    if not all(any(_is_named_by(name, [one]) for name in names) for one in only or [""]):
        # No step is named, or a named step was not in the earlier run and may need any of its outputs.
        return list(completed.values())
    after = {step.name: step.after for step in plan.steps}
    waiting = [step.name for step in plan.steps if _is_named_by(step.name, only)]
    found: set[str] = set()
    while waiting:
        for name in after.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                if name not in completed:
                    waiting.append(name)
    return [step for name, step in completed.items() if name in found]


def changes(taken: TakenOver, whole: Pipeline | None, pipeline: Pipeline) -> list[str]:
    """What has changed since the earlier run, one line each.

    Args:
        taken: What is taken over.
        whole: The complete pipeline of the file, without steps left out; None if it cannot be read.
        pipeline: What is run now.
    """
    before = {step.name: step for step in _plan(taken.run).steps if step.command}
    now = {step.name: step for step in (whole.steps if whole is not None else ())} | {
        step.name: step for step in pipeline.steps
    }
    told = []
    for name, earlier in before.items():
        step = now.get(name)
        if step is None:
            if whole is not None and name in taken.steps:
                told.append(f"{name} is not in the pipeline file any more; its outputs are taken over all the same")
            continue
        changed = _changed(earlier, step)
        if changed:
            what = "is taken over as it was" if name in taken.steps else "runs with what the file says now"
            told.append(f"{', '.join(changed)} of {name} {'have' if changed[1:] else 'has'} changed since; it {what}")
    return told


def _changed(earlier: PlannedStep, now: Step) -> list[str]:
    """The parts of a step that have changed."""
    changed = []
    if earlier.command != now.command:
        changed.append("the command")
    texts = {name: entry.text for name, entry in earlier.inputs.items() if entry.text is not None}
    given = {name: entry.text for name, entry in now.inputs.items() if entry.text is not None}
    changed += [f"the input {name}" for name in _different(texts, given)]
    changed += [f"the variable {name}" for name in _different(earlier.variables, now.variables)]
    paths = {name: entry.path for name, entry in earlier.inputs.items() if entry.path is not None}
    others = sorted(
        name
        for name, path in paths.items()
        if name in now.inputs and now.inputs[name].path is not None and str(now.inputs[name].path) != path
    )
    changed += [f"the path of the input {name}" for name in others]
    return changed


def _different(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names whose values differ; secrets are not kept, and count as equal."""
    return sorted(
        name for name in {*before, *now} if before.get(name) != now.get(name) and MASK not in before.get(name, "")
    )


def environments_changed(taken: TakenOver, run: RunRecord) -> list[str]:
    """The steps whose environment differs from that of the earlier run, one line each.

    Args:
        taken: What is taken over.
        run: The new run.
    """
    before = {step.name: step.image for step in _plan(taken.run).steps}
    told = []
    for step in plan_of(run).steps:
        old, new = before.get(step.name), step.image
        # Environments of different engines cannot be compared.
        if old is not None and old.engine == new.engine and (old.digest or old.name) != (new.digest or new.name):
            told.append(f"the environment of {step.name} has changed since; it runs in what the file says now")
    return told
