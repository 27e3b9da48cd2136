"""Selects the steps of a loaded pipeline to submit: the wanted ones and what they need, without those left out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...pipelines.selection import NoStep

if TYPE_CHECKING:
    from .job_file import LoadedJob

NEEDED = re.compile(r"\$\{\{\s*parent\.jobs\.([\w-]+)\.outputs\.([\w-]+)\s*\}\}")
_WHOLE_OUTPUT = re.compile(r"\$\{\{\s*parent\.outputs\.([\w-]+)\s*\}\}")


def jobs_of(job: Any) -> Mapping[str, Any]:
    """The steps of a pipeline of the SDK; empty for a single job."""
    found: Mapping[str, Any] = job.jobs if job.type == "pipeline" else {}
    return found


class Selection:
    """Removes steps from a job of the SDK.

    Args:
        job: The SDK's job, which is changed.
        loaded: The job with this program's steps.

    Attributes:
        removed: Names of the top-level steps that were removed.
    """

    def __init__(self, job: Any, loaded: LoadedJob) -> None:
        self._job, self._loaded = job, loaded
        self._jobs = jobs_of(job)
        self.removed: set[str] = set()

    def choose(self, only: Sequence[str], skip: Sequence[str]) -> tuple[str, ...]:
        """Keep the wanted steps.

        A nested pipeline is kept completely where one of its steps is wanted.

        Args:
            only: Steps that are wanted, with what they need; empty for all.
            skip: Steps that are left out.

        Returns:
            The full names of the steps that were asked for; empty where all were.

        Raises:
            UserError: No step, or more than one step, has such a name.
        """
        if not (only or skip):
            return ()
        asked = [name for text in only for name in self._matching_steps(text)]
        if not self._jobs:
            return tuple(asked)
        left_out = {self._top_level_step(name) for text in skip for name in self._matching_steps(text)}
        for text in skip:
            if self._top_level_step(text) != text and text not in self._jobs:
                raise UserError(
                    f"{text} is a step of a nested pipeline, which is submitted to a workspace as it is.",
                    f"Leave the whole one out: --skip {self._top_level_step(text)}",
                )
        kept = self._needed({self._top_level_step(name) for name in asked} or set(self._jobs), left_out)
        for name in list(self._jobs):
            if name not in kept:
                del self._job.jobs[name]
                self.removed.add(name)
        if not kept:
            raise UserError("No step is left to submit.", "Leave out fewer steps (--skip).")
        bound = {match for node in self._jobs.values() for match in _WHOLE_OUTPUT.findall(_bindings(node.outputs))}
        for name in list(self._job.outputs):
            if name not in bound:
                del self._job.outputs[name]
        return tuple(dict.fromkeys(asked))

    def _matching_steps(self, text: str) -> list[str]:
        """The steps with a name, with a name that ends so, or in a nested pipeline of that name."""
        names = [step.name for step in self._loaded.steps]
        if text in names:
            return [text]
        inside = [name for name in names if name.startswith(f"{text}.")]
        fitting = [name for name in names if name.endswith(f".{text}")]
        if inside or len(fitting) == 1:
            return inside or fitting
        if fitting:
            called = ", ".join(fitting)
            raise UserError(f"Several steps are called {text}: {called}.", "Name one of them in full: --step NAME")
        raise NoStep(text, names)

    def _top_level_step(self, name: str) -> str:
        """The top-level step that a step is in."""
        return name if name in self._jobs else name.partition(".")[0]

    def _needed(self, wanted: set[str], left_out: set[str]) -> set[str]:
        kept, waiting = set[str](), list(wanted - left_out)
        while waiting:
            name = waiting.pop()
            if name in kept or name not in self._jobs:
                continue
            kept.add(name)
            waiting += [
                one for one, _output in NEEDED.findall(_bindings(self._jobs[name].inputs)) if one not in left_out
            ]
        return kept


def _bindings(ports: Mapping[str, Any]) -> str:
    """Every expression that inputs or outputs are bound to, as text."""
    return " ".join(str(binding(port)) for port in ports.values())


def binding(port: Any) -> Any:
    """What an input or output is bound to: an expression, a value, the SDK's Input, or None."""
    data = getattr(port, "_data", port)
    if hasattr(data, "_data_binding") and not isinstance(data, str):
        return data._data_binding()
    path = getattr(data, "path", None)
    return path if isinstance(path, str) and path.startswith("${{") else data


def consumers(jobs: Mapping[str, Any], step: str, output: str) -> list[tuple[Any, str]]:
    """The nodes, and their inputs, that take an output of a step."""
    return [
        (node, name)
        for node in jobs.values()
        for name, port in node.inputs.items()
        if (step, output) in NEEDED.findall(str(binding(port)))
    ]
