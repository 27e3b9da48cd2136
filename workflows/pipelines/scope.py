"""A pipeline, or one nested in another: a scope of names, with what they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from .expressions import Malformed, whole
from .job_kinds import NotHere
from .literals import literal_text
from .notes import Notes
from .pipeline_inputs import PipelineInput
from .problems import Problems, Told
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
        error: Why it cannot; None where somebody has asked for it to be left out.
    """

    name: str
    place: Value
    error: NotHere | None = None

    @property
    def reason(self) -> str:
        """Why, for a note."""
        return self.error.problem.rstrip(".") if self.error is not None else f"`--skip` names `{self.name}`"


@dataclass(frozen=True)
class Broken:
    """A job in which something is wrong, of which its error tells; what refers to it is not wrong as well.

    Attributes:
        name: Its full name.
        source: As much of it as could be read; None where nothing could.
    """

    name: str
    source: Source | None = None


Entry = Union["Source", "Scope", LeftOut, Broken]


@dataclass(eq=False)
class Scope:
    """One pipeline.

    Attributes:
        name: Full name of the job that it is; empty for the whole.
        place: Where it is written.
        inputs: Its inputs.
        types: Type of each of its outputs; empty where a step decides.
        bound: The job's ``outputs``, in the terms of the pipeline around it.
        jobs: Its jobs by their keys.
        writers: Which job writes each of its outputs: the job's key, and that one's output.
        open: Those of ``inputs``, ``outputs`` and ``jobs`` that could not be read: nobody knows what is in them.
    """

    name: str
    place: Value
    inputs: Mapping[str, PipelineInput]
    types: Mapping[str, str] = field(default_factory=dict)
    bound: Mapping[str, Value] = field(default_factory=dict)
    jobs: dict[str, Entry] = field(default_factory=dict)
    writers: dict[str, tuple[str, str]] = field(default_factory=dict)
    open: frozenset[str] = frozenset()

    def full(self, job: str) -> str:
        """A job's name in the whole."""
        return f"{self.name}.{job}" if self.name else job

    @property
    def _what(self) -> str:
        return f"The pipeline `{self.name}`" if self.name else "The pipeline"

    def entries(self) -> Iterator[Entry]:
        """Every job of it and of the pipelines nested in it, in the order of the files; those pipelines as well."""
        for entry in self.jobs.values():
            yield entry
            if isinstance(entry, Scope):
                yield from entry.entries()

    def input(self, name: str, place: Value) -> PipelineInput:
        """One of its inputs.

        Raises:
            UserError: It has none of that name.
            Told: Something is wrong with it.
        """
        if (name not in self.inputs and "inputs" in self.open) or (
            name in self.inputs and self.inputs[name].declared.broken
        ):
            raise Told
        if name not in self.inputs:
            raise refuse(place, f"{self._what} has no input `{name}`.", did_you_mean(name, self.inputs))
        return self.inputs[name]

    def writer(self, job: str, output: str, place: Value) -> tuple[Source | LeftOut | Broken, str]:
        """The step that writes what a job of this pipeline has as an output, and its name there.

        Raises:
            UserError: There is no such job, it has no such output, or none of its own jobs writes it.
            Told: The jobs, or its outputs, cannot be read.
        """
        if job not in self.jobs and "jobs" in self.open:
            raise Told
        if job not in self.jobs:
            raise refuse(place, f"There is no job `{job}`.", did_you_mean(job, self.jobs))
        entry = self.jobs[job]
        if isinstance(entry, (LeftOut, Broken)):
            return entry, output
        outputs = entry.types if isinstance(entry, Scope) else entry.outputs
        if output not in outputs and "outputs" in entry.open:
            raise Told
        if output not in outputs:
            raise refuse(place, f"Job `{job}` has no output `{output}`.", did_you_mean(output, outputs))
        if not isinstance(entry, Scope):
            return entry, output
        return entry.written(output, place)

    def written(self, output: str, place: Value) -> tuple[Source | LeftOut | Broken, str]:
        """The step that writes one of this pipeline's own outputs; errors as of :meth:`writer`."""
        if output not in self.writers:
            if "jobs" in self.open or any("outputs" in one.open for one in self.jobs.values() if _is_read(one)):
                raise Told
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
            notes: Takes remarks.
            problems: Takes those that a job writes and that there are not.
        """
        for job, entry in self.jobs.items():
            if isinstance(entry, Broken):
                bound = entry.source.bound if entry.source is not None else {}
            else:
                bound = _entries_of(entry.place) if isinstance(entry, LeftOut) else entry.bound
            own = problems.of(self.full(job)) if bound else problems
            for output, value in bound.items():
                with own.kept():
                    self._bind(job, output, value, notes)

    def _bind(self, job: str, output: str, value: Value, notes: Notes) -> None:
        place = value.get("path") or value
        try:
            expression = whole(place.data) if isinstance(place.data, str) else None
        except Malformed:
            expression = None  # a path in a datastore, with ${{name}} in it
        name = self.full(job)
        if expression is None:
            if isinstance(value.data, (str, int, float, list)):
                text = f"output `{output}` of step `{name}` is `{value.plain()}`, which is not acted on here"
                notes.say(text, value, name)
            return
        path = expression.path[1:] if expression.path[0] == "parent" else expression.path
        own = ".".join(path[1:])
        if path[0] == "outputs" and own not in self.types and "outputs" in self.open:
            return
        if path[0] != "outputs" or own not in self.types:
            raise refuse(place, f"{self._what} has no output `{own or path[0]}`.", did_you_mean(own, self.types))
        if own in self.writers:
            other = self.full(self.writers[own][0])
            notes.say(f"two steps write output `{own}`: that of {other} is taken, not that of {name}", place)
            return
        self.writers[own] = (job, output)

    def settle(self, value: Value) -> Value:
        """A field's value, with this pipeline's input in the place of ``${{parent.inputs.x}}``.

        Raises:
            UserError: There is none of that name, or it has no value yet when the step starts.
        """
        try:
            expression = whole(value.data) if isinstance(value.data, str) else None
        except Malformed:
            return value
        if expression is None or expression.path[:2] != ("parent", "inputs"):
            return value
        name = ".".join(expression.path[2:])
        found = self.inputs.get(name)
        if found.declared.broken if found is not None else "inputs" in self.open:
            raise Told
        given = found.given.value if found is not None else None
        if found is None or given is None or found.given.scope is not None:
            problem = f"{self._what} has no input `{name}` with a value."
            raise refuse(value, problem, did_you_mean(name, self.inputs))
        text = literal_text(given, found.declared, f"Input `{name}`", _silent) if found.declared.type else given.data
        return Value(text, value.file, value.line)


def _is_read(entry: Entry) -> TypeGuard[Source | Scope]:
    return not isinstance(entry, (LeftOut, Broken))


def _silent(text: str, place: Value) -> None:
    """It has been told where the input is read."""


def _entries_of(job: Value) -> Mapping[str, Value]:
    outputs = job.get("outputs")
    return outputs.data if outputs is not None and outputs.is_mapping else {}
