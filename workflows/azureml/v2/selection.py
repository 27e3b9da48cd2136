"""Which steps of a loaded pipeline are submitted: those that are wanted and what they need, without those left out."""

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
    """The steps of a job of the SDK's; none of one that is no pipeline."""
    found: Mapping[str, Any] = job.jobs if job.type == "pipeline" else {}
    return found


class Selection:
    """Takes steps out of a job of the SDK's.

    Args:
        job: The SDK's job; changed.
        loaded: What is known of it.

    Attributes:
        removed: Names of the top-level steps that have been taken out.
    """

    def __init__(self, job: Any, loaded: LoadedJob) -> None:
        self._job, self._loaded = job, loaded
        self._jobs = jobs_of(job)
        self.removed: set[str] = set()

    def choose(self, only: Sequence[str], skip: Sequence[str]) -> tuple[str, ...]:
        """Keep what is wanted.

        Of a pipeline that is nested in it, all is kept where something of it is wanted.

        Args:
            only: Steps that are wanted, with what they need; empty for all.
            skip: Steps that are left out.

        Returns:
            The full names of the steps that were asked for; empty where all were.

        Raises:
            UserError: There is none of such a name, or several.
        """
        if not (only or skip):
            return ()
        asked = [name for text in only for name in self._found(text)]
        if not self._jobs:
            return tuple(asked)
        left = {self._top(name) for text in skip for name in self._found(text)}
        for text in skip:
            if self._top(text) != text and text not in self._jobs:
                raise UserError(
                    f"{text} is a step of a nested pipeline, which is submitted to a workspace as it is.",
                    f"Leave the whole one out: --skip {self._top(text)}",
                )
        kept = self._needed({self._top(name) for name in asked} or set(self._jobs), left)
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

    def _found(self, text: str) -> list[str]:
        """The steps of a name, of the last part of one, or of a nested pipeline."""
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

    def _top(self, name: str) -> str:
        """The step of the pipeline itself that a step is in."""
        return name if name in self._jobs else name.partition(".")[0]

    def _needed(self, wanted: set[str], left: set[str]) -> set[str]:
        kept, waiting = set[str](), list(wanted - left)
        while waiting:
            name = waiting.pop()
            if name in kept or name not in self._jobs:
                continue
            kept.add(name)
            waiting += [one for one, _output in NEEDED.findall(_bindings(self._jobs[name].inputs)) if one not in left]
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
