"""Converts the inputs and outputs of an SDK's step to this program's, which later runs are compared with."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...pipelines.definition import Input, Step
from .selection import NEEDED, binding

_WHOLE_INPUT = re.compile(r"\$\{\{\s*parent\.inputs\.([\w-]+)\s*\}\}")


def with_ports(step: Step, node: Any, given: Mapping[str, Any], folder: Path) -> Step:
    """A step with its inputs, its outputs, and the steps that it comes after.

    Args:
        step: The step.
        node: The SDK's node.
        given: The inputs of the pipeline.
        folder: The folder that its paths are relative to.
    """
    # The name of a step in a nested pipeline begins with the pipeline's name, as do the names of steps that it needs.
    prefix = step.name.rpartition(".")[0]
    known = given if not prefix else {}
    inputs = {name: _input(port, known, prefix, folder) for name, port in node.inputs.items()}
    after = dict.fromkeys(entry.step for entry in inputs.values() if entry.step is not None)
    return replace(
        step,
        inputs={name: entry for name, entry in inputs.items() if entry.given},
        outputs={name: _type(port, "uri_folder") for name, port in getattr(node, "outputs", {}).items()},
        after=tuple(after),
    )


def _input(port: Any, given: Mapping[str, Any], prefix: str, folder: Path) -> Input:
    bound = binding(port)
    if isinstance(bound, str) and (whole := _WHOLE_INPUT.fullmatch(bound.strip())) and whole[1] in given:
        bound = binding(given[whole[1]])
    if isinstance(bound, str) and (needed := NEEDED.fullmatch(bound.strip())):
        step, output = needed.groups()
        return Input(_type(port, "uri_folder"), step=f"{prefix}.{step}" if prefix else step, output=output)
    path = getattr(bound, "path", None)
    if isinstance(path, (str, Path)):
        text = str(path)
        # An address names data of the workspace; anything else is a path on this machine.
        there = re.match(r"[a-z][a-z0-9+.-]+:", text) is not None
        if there:
            return Input(_type(bound, ""), asset=text)
        return Input(_type(bound, ""), path=Path(os.path.abspath(folder / text)))
    return Input("string", text=None if bound is None else str(bound))


def _type(port: Any, default: str) -> str:
    found = getattr(port, "type", None) or getattr(getattr(port, "_meta", None), "type", None)
    return found if isinstance(found, str) else default
