"""A pipeline, or a nested one, as a scope of names for its inputs, jobs and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from .expressions import Malformed, parse_expression
from .job_kinds import NotRunnableHere
from .literals import literal_text
from .notes import Notes
from .pipeline_inputs import PipelineInput
from .problems import AlreadyReported, Problems
from .yaml_file import Value, did_you_mean, refuse

if TYPE_CHECKING:
    from typing import TypeGuard

    from .component import Source


@dataclass(frozen=True)
class LeftOut:
    """A step, or a nested pipeline, that does not run here.

    Attributes:
        name: Its full name.
        place: The job.
        error: Why it cannot run; None if the user has left it out.
    """

    name: str
    place: Value
    error: NotRunnableHere | None = None

    @property
    def reason(self) -> str:
        """Why it is left out, for a note."""
        return self.error.problem.rstrip(".") if self.error is not None else f"`--skip` names `{self.name}`"


@dataclass(frozen=True)
class Broken:
    """A job with an error that has been reported. References to it are not errors as well.

    Attributes:
        name: Its full name.
        source: As much of it as could be read; None if nothing could.
    """

    name: str
    source: Source | None = None


Entry = Union["Source", "Scope", LeftOut, Broken]


@dataclass(eq=False)
class Scope:
    """One pipeline.

    Attributes:
        name: Full name of its job; empty for the outermost pipeline.
        place: Where it is written.
        inputs: Its inputs.
        types: Type of each of its outputs; empty if a step decides.
        bound: The job's ``outputs``, in the terms of the outer pipeline.
        jobs: Its jobs by their keys.
        writers: The job that writes each of its outputs: the job's key, and the name of that job's output.
        unreadable: Those of ``inputs``, ``outputs`` and ``jobs`` that could not be read, so their entries are unknown.
    """

    name: str
    place: Value
    inputs: Mapping[str, PipelineInput]
    types: Mapping[str, str] = field(default_factory=dict)
    bound: Mapping[str, Value] = field(default_factory=dict)
    jobs: dict[str, Entry] = field(default_factory=dict)
    writers: dict[str, tuple[str, str]] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()

    def full_name(self, job: str) -> str:
        """A job's full name."""
        return f"{self.name}.{job}" if self.name else job

    @property
    def _what(self) -> str:
        return f"The pipeline `{self.name}`" if self.name else "The pipeline"

    def entries(self) -> Iterator[Entry]:
        """Every job of it and of its nested pipelines, in the order of the files, including the nested pipelines."""
        for entry in self.jobs.values():
            yield entry
            if isinstance(entry, Scope):
                yield from entry.entries()

    def input(self, name: str, place: Value) -> PipelineInput:
        """One of its inputs.

        Raises:
            UserError: It has none of that name.
            AlreadyReported: The input has an error.
        """
        if (name not in self.inputs and "inputs" in self.unreadable) or (
            name in self.inputs and self.inputs[name].declared.broken
        ):
            raise AlreadyReported
        if name not in self.inputs:
            raise refuse(place, f"{self._what} has no input `{name}`.", did_you_mean(name, self.inputs))
        return self.inputs[name]

    def writer(self, job: str, output: str, place: Value) -> tuple[Source | LeftOut | Broken, str]:
        """The step that writes an output of a job of this pipeline, and the name of the step's output.

        Raises:
            UserError: There is no such job, it has no such output, or none of its own jobs writes it.
            AlreadyReported: The jobs, or its outputs, cannot be read.
        """
        if job not in self.jobs and "jobs" in self.unreadable:
            raise AlreadyReported
        if job not in self.jobs:
            raise refuse(place, f"There is no job `{job}`.", did_you_mean(job, self.jobs))
        entry = self.jobs[job]
        if isinstance(entry, (LeftOut, Broken)):
            return entry, output
        outputs = entry.types if isinstance(entry, Scope) else entry.outputs
        if output not in outputs and "outputs" in entry.unreadable:
            raise AlreadyReported
        if output not in outputs:
            raise refuse(place, f"Job `{job}` has no output `{output}`.", did_you_mean(output, outputs))
        if not isinstance(entry, Scope):
            return entry, output
        return entry.output_writer(output, place)

    def output_writer(self, output: str, place: Value) -> tuple[Source | LeftOut | Broken, str]:
        """The step that writes one of this pipeline's own outputs; errors as of :meth:`writer`."""
        if output not in self.writers:
            if "jobs" in self.unreadable or any(
                "outputs" in one.unreadable for one in self.jobs.values() if _is_read(one)
            ):
                raise AlreadyReported
            broken = next((one for one in self.jobs.values() if isinstance(one, Broken)), None)
            if broken is not None:
                return broken, output
            problem = f"{self._what} has an output `{output}`, which none of its jobs writes."
            raise refuse(
                place, problem, "Bind it in one of them: `outputs: {NAME: ${{parent.outputs." + output + "}}}`."
            )
        job, inner = self.writers[output]
        return self.writer(job, inner, place)

    def bind_outputs(self, notes: Notes, problems: Problems) -> None:
        """Find which job writes each of its outputs.

        Args:
            notes: Gets remarks.
            problems: Gets the outputs that a job writes and that do not exist.
        """
        for job, entry in self.jobs.items():
            if isinstance(entry, Broken):
                bound = entry.source.bound if entry.source is not None else {}
            else:
                bound = _outputs_of(entry.place) if isinstance(entry, LeftOut) else entry.bound
            own = problems.for_step(self.full_name(job)) if bound else problems
            for output, value in bound.items():
                with own.collect_errors():
                    self._bind(job, output, value, notes)

    def _bind(self, job: str, output: str, value: Value, notes: Notes) -> None:
        place = value.get("path") or value
        try:
            expression = parse_expression(place.data) if isinstance(place.data, str) else None
        except Malformed:
            expression = None  # a path in a datastore, with ${{name}} in it
        name = self.full_name(job)
        if expression is None:
            if isinstance(value.data, (str, int, float, list)):
                text = f"output `{output}` of step `{name}` is `{value.plain()}`, which is not acted on here"
                notes.add_remark(text, value, name)
            return
        path = expression.path[1:] if expression.path[0] == "parent" else expression.path
        own = ".".join(path[1:])
        if path[0] == "outputs" and own not in self.types and "outputs" in self.unreadable:
            return
        if path[0] != "outputs" or own not in self.types:
            raise refuse(place, f"{self._what} has no output `{own or path[0]}`.", did_you_mean(own, self.types))
        if own in self.writers:
            other = self.full_name(self.writers[own][0])
            notes.add_remark(f"two steps write output `{own}`: that of {other} is taken, not that of {name}", place)
            return
        self.writers[own] = (job, output)

    def resolve_value(self, value: Value) -> Value:
        """A field's value; ``${{parent.inputs.x}}`` is replaced by the value of this pipeline's input.

        Raises:
            UserError: There is no such input, or it is the output of another step.
        """
        try:
            expression = parse_expression(value.data) if isinstance(value.data, str) else None
        except Malformed:
            return value
        if expression is None or expression.path[:2] != ("parent", "inputs"):
            return value
        name = ".".join(expression.path[2:])
        found = self.inputs.get(name)
        if found.declared.broken if found is not None else "inputs" in self.unreadable:
            raise AlreadyReported
        given = found.given.value if found is not None else None
        if found is None or given is None or found.given.scope is not None:
            problem = f"{self._what} has no input `{name}` with a value."
            raise refuse(value, problem, did_you_mean(name, self.inputs))
        text = (
            literal_text(given, found.declared, f"Input `{name}`", _ignore_remark)
            if found.declared.type
            else given.data
        )
        return Value(text, value.file, value.line)


def _is_read(entry: Entry) -> TypeGuard[Source | Scope]:
    return not isinstance(entry, (LeftOut, Broken))


def _ignore_remark(text: str, place: Value) -> None:
    """Drop a remark that was already made when the input was read."""


def _outputs_of(job: Value) -> Mapping[str, Value]:
    outputs = job.get("outputs")
    return outputs.data if outputs is not None and outputs.is_mapping else {}
