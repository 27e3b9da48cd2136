"""Sets the values of ``--input``: inputs of a loaded job and its steps, and outputs of steps that are left out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from ...errors import BadValue, UserError
from ...pipelines.yaml_file import did_you_mean
from .selection import NEEDED, binding, consumers, jobs_of

_ADDRESS = re.compile(r"azureml:|[a-z][a-z0-9+.-]*://")
_BOOLEANS = {"true": True, "false": False}


def set_inputs(job: Any, inputs: Mapping[str, str], removed: Collection[str], optional: Collection[str] = ()) -> None:
    """Set the inputs of a job to what was typed.

    Args:
        job: The SDK's job; changed.
        inputs: Texts by ``NAME``, ``STEP.NAME`` or, of a step that is left out, ``STEP.OUTPUT``.
        removed: The steps that are left out.
        optional: Names that may be unused.

    Raises:
        BadValue: The job has no such input, or a value does not fit.
        UserError: An output of a step that is left out is needed and not given.
    """
    jobs = jobs_of(job)
    for name, text in inputs.items():
        ports = [(job.inputs, name)] if name in job.inputs else []
        step, _dot, inner = name.rpartition(".")
        if not ports and step in jobs and inner in jobs[step].inputs:
            ports = [(jobs[step].inputs, inner)]
        if not ports and step in removed:
            ports = [(node.inputs, taken) for node, taken in consumers(jobs, step, inner)]
        if not ports and len(jobs) == 1 and not step:
            (only,) = jobs.values()
            ports = [(only.inputs, name)] if name in only.inputs else []
        if not ports and name in optional:
            continue
        if not ports:
            known = [*job.inputs, *(f"{one}.{port}" for one, node in jobs.items() for port in node.inputs)]
            raise BadValue(f"There is no input {name}.", did_you_mean(name, known))
        for port, key in ports:
            value = _value(name, text, port[key])
            setattr(port, key, value)
            if port is getattr(job, "inputs", None) and (own := getattr(job, "_job_inputs", None)) is not None:
                # A job that is not a step of a pipeline is submitted with these inputs.
                own[key] = value
    _require_missing_outputs(jobs, removed)


def _require_missing_outputs(jobs: Mapping[str, Any], removed: Collection[str]) -> None:
    missing = {
        f"{step}.{output}": name
        for name, node in jobs.items()
        for port in node.inputs.values()
        for step, output in NEEDED.findall(str(binding(port)))
        if step in removed
    }
    if missing:
        needs = ", ".join(f"{output} (for {step})" for output, step in missing.items())
        typed = " ".join(f"--input {output}=PATH" for output in missing)
        raise UserError(f"Steps need outputs of steps that are left out: {needs}.", f"Give it: {typed}")


def _value(name: str, text: str, port: Any) -> Any:
    """The value of a text, for the type of the input."""
    from azure.ai.ml import Input

    before = getattr(port, "_data", port)
    meta = getattr(port, "_meta", None)
    kind = str(getattr(before, "type", None) or getattr(meta, "type", None) or "")
    if isinstance(before, bool) or kind == "boolean":
        if text.lower() not in _BOOLEANS:
            raise BadValue(f"The input {name} is {text}, which is neither true nor false.", "Give one of them.")
        return _BOOLEANS[text.lower()]
    if kind in ("integer", "number") or (isinstance(before, (int, float)) and not kind):
        try:
            return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
        except ValueError:
            raise BadValue(f"The input {name} is {text}, which is not a number.", "Give a number.") from None
    is_data = kind not in ("", "string") or (kind == "" and not isinstance(before, str) and os.path.exists(text))
    if not is_data:
        return text
    mode = getattr(before, "mode", None)
    kind = kind or ("uri_folder" if os.path.isdir(text) else "uri_file")
    if _ADDRESS.match(text):
        return Input(type=kind, path=text, mode=mode)
    if not os.path.exists(text):
        raise BadValue(f"The input {name} is {text}, which does not exist.", "Check the path.")
    return Input(type=kind, path=os.path.abspath(text), mode=mode)
