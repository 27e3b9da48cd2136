"""Reads a pipeline and the pipelines nested in it, to any depth, into scopes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import BadValue
from ..paths import shown
from .component import Components, ResolvedJob
from .job_kinds import COMMAND, PIPELINE, NotRunnableHere
from .literals import read_type
from .notes import Notes
from .pipeline_inputs import read_nested_inputs, read_pipeline_inputs
from .problems import Problems
from .scope import Broken, Entry, LeftOut, Scope
from .yaml_file import Value, listed, refuse

#: How deep pipelines may be nested. Each level takes a few calls of Python.
MOST_LEVELS = 50


@dataclass
class NestingReader:
    """Reads one pipeline file, and all that it names.

    Attributes:
        components: Reads jobs.
        replaced: Values of the command line by name of an input.
        skip: Steps and nested pipelines to leave out: full names, or the last part if only one has it.
        problems: Gets errors.
    """

    components: Components
    replaced: Mapping[str, str]
    skip: Sequence[str]
    problems: Problems
    _skipped: dict[str, list[str]] = field(default_factory=dict)

    @property
    def _notes(self) -> Notes:
        return self.components.notes

    def read(self, root: Value) -> Scope:
        """Read the outermost pipeline.

        Args:
            root: The mapping with ``jobs``.
        """
        problems = self.problems
        inputs = read_pipeline_inputs(_entries(root, "inputs", problems), self.replaced, self._notes, problems)
        scope = Scope("", root, inputs, _types(root, problems), unreadable=_unreadable_fields(root))
        chain = [(root.file, root)] if root.file is not None else []
        self._jobs(root, scope, chain)
        self._check_skip(scope)
        return scope

    def _jobs(self, root: Value, scope: Scope, chain: list[tuple[Path, Value]]) -> None:
        problems = self.problems.for_step(scope.name)
        jobs = _jobs(root, problems)
        for key, job in jobs.items():
            name = scope.full_name(key)
            asked = [text for text in self.skip if name == text or name.endswith(f".{text}")]
            for text in asked:
                self._skipped.setdefault(text, []).append(name)
            scope.jobs[key] = Broken(name)
            if asked:
                scope.jobs[key] = LeftOut(name, job)
                continue
            before = len(problems)
            try:
                with problems.for_step(name).collect_errors():
                    scope.jobs[key] = self._job(name, job, scope, chain)
            except NotRunnableHere as error:
                scope.jobs[key] = LeftOut(name, job, error)
                # Further errors of a step that is left out do not matter.
                del problems.found[before:]
        scope.bind_outputs(self._notes, problems)

    def _job(self, name: str, job: Value, scope: Scope, chain: list[tuple[Path, Value]]) -> Entry:
        opened = self.components.read_job(name, job)
        if opened.kind == PIPELINE and not opened.broken:
            return self._nested(opened, scope, chain)
        source = self.components.read_step(replace(opened, kind=COMMAND) if opened.broken else opened, scope)
        return Broken(name, source) if opened.broken else source

    def _nested(self, opened: ResolvedJob, outer: Scope, chain: list[tuple[Path, Value]]) -> Scope:
        name, job = opened.name, opened.job
        place = opened.named if opened.named is not None else job
        root = opened.component if opened.component is not None else job
        problems = self.problems.for_step(name)
        given = _entries(job, "inputs", problems)
        # Without a component, the values of the job's inputs also declare them.
        declared = (
            _entries(root, "inputs", problems)
            if root is not job
            else {key: Value(None, v.file, v.line) for key, v in given.items()}
        )
        inputs = read_nested_inputs(declared, given, job, outer, name, self.replaced, self._notes, problems)
        bound = _entries(job, "outputs", problems)
        types = _types(root, problems) if root is not job else dict.fromkeys(bound, "")
        if opened.named is not None and not opened.named.is_mapping and root.file is not None:
            _check_chain(chain, root.file, place)
            chain = [*chain, (root.file, place)]
        if name.count(".") >= MOST_LEVELS:
            raise refuse(place, f"There are more than {MOST_LEVELS} pipelines inside each other.", "Simplify them.")
        for one in (root,) if root is job else (root, job):
            self._note_settings(one, name)
        scope = Scope(
            name, job, inputs, types, bound, unreadable=_unreadable_fields(root, *([job] if root is not job else []))
        )
        self._jobs(root, scope, chain)
        return scope

    def _note_settings(self, place: Value, name: str) -> None:
        """Note settings of a nested pipeline's run, which are ignored because it is part of the outer run."""
        if place.get("limits") is not None:
            self._notes.add_field("limits", name)
        settings = place.get("settings")
        for key in ("continue_on_step_failure", "on_init", "on_finalize"):
            if settings is not None and settings.is_mapping and settings.get(key) is not None:
                self._notes.add_field(f"settings.{key}", name)

    def _check_skip(self, scope: Scope) -> None:
        for text in self.skip:
            found = self._skipped.get(text, [])
            if text in found or len(found) == 1:
                continue
            names = [entry.name for entry in scope.entries()]
            wrong = BadValue(f"Several steps are called `{text}`.", f"Name one in full: {listed(found)}.")
            if not found:
                wrong = BadValue(f"There is no step `{text}` to leave out.", f"Existing steps: {listed(names)}.")
            self.problems.add_error(wrong)


def _check_chain(chain: list[tuple[Path, Value]], file: Path, place: Value) -> None:
    """Check that a pipeline does not contain itself."""
    at = next((index for index, (one, _) in enumerate(chain) if one == file), None)
    if at is None:
        return
    # Each with the line that names the next one.
    lines = [named.line for _, named in chain[at + 1 :]] + [place.line]
    steps = [f"{shown(one)}:{line}" for (one, _), line in zip(chain[at:], lines, strict=True)]
    problem = f"The pipelines contain each other: {' → '.join([*steps, str(shown(file))])}."
    raise refuse(place, problem, "Take one of these jobs out.")


def _unreadable_fields(*places: Value) -> frozenset[str]:
    """The fields that could not be read, so their entries are unknown."""
    found = ((key, place.get(key)) for key in ("inputs", "outputs", "jobs") for place in places)
    return frozenset(key for key, value in found if value is not None and not value.is_mapping)


def _entries(place: Value, key: str, problems: Problems) -> Mapping[str, Value]:
    return problems.mapping(place.get(key), f"`{key}`")


def _types(root: Value, problems: Problems) -> dict[str, str]:
    found = {}
    for name, value in _entries(root, "outputs", problems).items():
        found[name] = ""
        with problems.collect_errors():
            found[name] = read_type(value, f"Output `{name}`", output=True, control=True)
    return found


def _jobs(root: Value, problems: Problems) -> Mapping[str, Value]:
    jobs = _entries(root, "jobs", problems)
    if not jobs and "jobs" not in _unreadable_fields(root):
        problems.add(root.get("jobs") or root, "The pipeline has no jobs.", "Add a job under `jobs:`.")
    folded: dict[str, str] = {}
    for name, job in jobs.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            problems.add(job, f"A job cannot be called `{name}`.", "Use letters, digits, `_` and `-`.")
        # Each job has a folder, and some file systems ignore case.
        if (other := folded.setdefault(name.lower(), name)) != name:
            problems.add(job, f"The jobs `{other}` and `{name}` differ only in case.", "Rename one of them.")
    return jobs
