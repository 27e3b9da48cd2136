"""Pipelines and the pipelines nested in them, read to any depth into scopes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadValue
from ..paths import shown
from .component import Components, Opened
from .job_kinds import PIPELINE, NotHere
from .literals import read_type
from .notes import Notes
from .pipeline_inputs import read_nested_inputs, read_pipeline_inputs
from .problems import Problems
from .scope import Broken, Entry, LeftOut, Scope
from .yaml_file import Value, listed, refuse

#: Pipelines inside each other; each is a few calls of Python's own.
MOST_LEVELS = 50


@dataclass
class Levels:
    """Reads one pipeline file, and all that it names.

    Attributes:
        components: Reads jobs.
        replaced: Values of the command line by name of an input.
        skip: Steps and nested pipelines to be left out: full names, or the last part where only one has it.
        problems: What is wrong, as far as it concerns single steps.
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
        """The whole.

        Args:
            root: The mapping with ``jobs``.

        Raises:
            UserError: Something is wrong with the whole; what concerns single steps is kept in ``problems``.
            BadValue: ``skip`` names what there is not.
        """
        scope = Scope(
            "", root, read_pipeline_inputs(_entries(root, "inputs"), self.replaced, self._notes), _types(root)
        )
        chain = [(root.file, root)] if root.file is not None else []
        self._jobs(root, scope, chain)
        self._check_skip(scope)
        return scope

    def _jobs(self, root: Value, scope: Scope, chain: list[tuple[Path, Value]]) -> None:
        for key, job in _jobs(root).items():
            name = scope.full(key)
            asked = [text for text in self.skip if name == text or name.endswith(f".{text}")]
            for text in asked:
                self._skipped.setdefault(text, []).append(name)
            scope.jobs[key] = Broken(name)
            if asked:
                scope.jobs[key] = LeftOut(name, job)
                continue
            with self.problems.of(name):
                try:
                    scope.jobs[key] = self._job(name, job, scope, chain)
                except NotHere as error:
                    scope.jobs[key] = LeftOut(name, job, error)
        with self.problems.of(scope.name):
            scope.bind_outputs(self._notes)

    def _job(self, name: str, job: Value, scope: Scope, chain: list[tuple[Path, Value]]) -> Entry:
        opened = self.components.open(name, job)
        if opened.kind != PIPELINE:
            return self.components.command(opened, scope)
        return self._nested(opened, scope, chain)

    def _nested(self, opened: Opened, outer: Scope, chain: list[tuple[Path, Value]]) -> Scope:
        name, job = opened.name, opened.job
        place = opened.named if opened.named is not None else job
        root = opened.component if opened.component is not None else job
        if opened.named is not None and not opened.named.is_mapping and root.file is not None:
            _check_chain(chain, root.file, place)
            chain = [*chain, (root.file, place)]
        if name.count(".") >= MOST_LEVELS:
            raise refuse(place, f"There are more than {MOST_LEVELS} pipelines inside each other.", "Simplify them.")
        given = _entries(job, "inputs")
        # Without a component the job's inputs are declared by what they are bound to.
        declared = (
            _entries(root, "inputs")
            if root is not job
            else {key: Value(None, v.file, v.line) for key, v in given.items()}
        )
        inputs = read_nested_inputs(declared, given, job, outer, name, self.replaced, self._notes)
        bound = _entries(job, "outputs")
        types = _types(root) if root is not job else dict.fromkeys(bound, "")
        scope = Scope(name, job, inputs, types, bound)
        self._jobs(root, scope, chain)
        return scope

    def _check_skip(self, scope: Scope) -> None:
        for text in self.skip:
            found = self._skipped.get(text, [])
            if text in found or len(found) == 1:
                continue
            names = [entry.name for entry in scope.entries()]
            if not found:
                raise BadValue(f"There is no step `{text}` to leave out.", f"The steps there are: {listed(names)}.")
            raise BadValue(f"Several steps are called `{text}`.", f"Name one in full: {listed(found)}.")


def _check_chain(chain: list[tuple[Path, Value]], file: Path, place: Value) -> None:
    """See that a pipeline is not inside itself."""
    at = next((index for index, (one, _) in enumerate(chain) if one == file), None)
    if at is None:
        return
    # Each with the line that names the next one.
    lines = [named.line for _, named in chain[at + 1 :]] + [place.line]
    steps = [f"{shown(one)}:{line}" for (one, _), line in zip(chain[at:], lines, strict=True)]
    problem = f"The pipelines contain each other: {' → '.join([*steps, str(shown(file))])}."
    raise refuse(place, problem, "Take one of these jobs out.")


def _entries(place: Value, key: str) -> Mapping[str, Value]:
    value = place.get(key)
    return value.mapping(f"`{key}`") if value is not None else {}


def _types(root: Value) -> dict[str, str]:
    outputs = _entries(root, "outputs")
    return {name: read_type(value, f"Output `{name}`", output=True, control=True) for name, value in outputs.items()}


def _jobs(root: Value) -> Mapping[str, Value]:
    jobs = _entries(root, "jobs")
    if not jobs:
        raise refuse(root.get("jobs") or root, "The pipeline has no jobs.", "Add a job under `jobs:`.")
    folded: dict[str, str] = {}
    for name, job in jobs.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            raise refuse(job, f"A job cannot be called `{name}`.", "Use letters, digits, `_` and `-`.")
        # Each has a folder, and some file systems do not tell A from a.
        if (other := folded.setdefault(name.lower(), name)) != name:
            raise refuse(job, f"The jobs `{other}` and `{name}` differ only in case.", "Rename one of them.")
    return jobs
