"""Reads ``distribution`` and ``resources``: the processes and instances of a step."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UserError
from .literals import unknown_keys
from .notes import Notes
from .problems import AlreadyReported, Problems
from .yaml_file import Value, did_you_mean, refuse

_TYPES = ("pytorch", "mpi", "tensorflow")
_KEYS = (
    *("type", "process_count_per_instance", "process_count_per_node", "process_count", "worker_count"),
    *("parameter_server_count", "added_properties"),
    *("port", "address", "include_dashboard", "dashboard_port", "head_node_additional_args"),
    "worker_node_additional_args",
)
_RESOURCES = (
    *("instance_count", "instance_type", "shm_size", "docker_args", "properties", "locations"),
    *("max_instance_count", "gpu", "target", "instance_types"),
)


@dataclass(frozen=True)
class Layout:
    """The processes and instances of a step.

    Attributes:
        distribution: ``pytorch``, ``mpi``, ``tensorflow``, or empty.
        processes: Processes of each instance.
        instances: Instances.
        shm_size: Size of /dev/shm, such as ``2g``; empty for the default.
    """

    distribution: str = ""
    processes: int = 1
    instances: int = 1
    shm_size: str = ""


def read_layout(
    distribution: Value | None,
    resources: Value | None,
    what: str,
    name: str,
    notes: Notes,
    problems: Problems,
    resolve_value: Callable[[Value], Value],
) -> Layout:
    """Read the two fields of a step.

    Args:
        distribution: The field ``distribution``.
        resources: The field ``resources``.
        what: The step in a message.
        name: Its name.
        notes: Gets ignored fields, and wrong values that Azure's own check accepts.
        problems: Gets errors.
        resolve_value: Replaces ``${{parent.inputs.x}}`` by the pipeline's input.
    """

    def count(place: Value | None, *keys: str) -> int | None:
        key = next((one for one in keys if place is not None and place.get(one) is not None), "")
        value = place.get(key) if place is not None and key else None
        if value is not None:
            with problems.collect_errors():
                settled = resolve_value(value)
                if isinstance(settled.data, int) and settled.data < 1 and key != "parameter_server_count":
                    notes.add_remark(f"`{key}` of {what.lower()} is {settled.data}: it is taken as 1", value, name)
                    return 1
                return _count(settled, key, what)
        return None

    instances, shm_size, type_, processes = 1, "", "", 1
    if resources is not None:
        whose = f"`resources` of {what.lower()}"
        resources = unknown_keys(problems.mapping(resources, whose), _RESOURCES, whose, problems).with_corrected_keys(
            resources
        )
        instances = count(resources, "instance_count") or 1
        shm = resources.get("shm_size")
        if shm is not None:
            with problems.collect_errors():
                shm_size = _shm_size(shm, name, notes, resolve_value)
        for key in ("docker_args", "properties"):
            if resources.get(key) is not None:
                notes.add_field(f"resources.{key}", name)
    if distribution is not None:
        whose = f"`distribution` of {what.lower()}"
        distribution = unknown_keys(problems.mapping(distribution, whose), _KEYS, whose, problems).with_corrected_keys(
            distribution
        )
        named = distribution.get("type")
        if named is None and distribution.is_mapping:
            problems.add(distribution, f"The distribution of {what.lower()} has no type.", "Add `type: pytorch`.")
        type_ = problems.text(named, "`type`").lower()
        if named is not None and type_ == "ray":
            notes.add_remark(f"{what} is distributed by `ray`: its command is run once, without a cluster", named, name)
            return Layout("", 1, 1, shm_size)
        if named is not None and type_ and type_ not in _TYPES:
            problem = f"{what} is distributed by `{named.data}`, which cannot run here."
            problems.add(named, problem, did_you_mean(type_, _TYPES))
        if type_ == "tensorflow":
            workers = count(distribution, "worker_count") or instances
            processes = max(1, -(-workers // instances))
            if count(distribution, "parameter_server_count"):
                notes.add_field("distribution.parameter_server_count", name)
        else:
            processes = count(distribution, "process_count_per_instance", "process_count_per_node") or 1
    return Layout(type_, processes, instances, shm_size)


def _shm_size(shm: Value, name: str, notes: Notes, resolve_value: Callable[[Value], Value]) -> str:
    try:
        return memory_size(resolve_value(shm), "`shm_size`")
    except UserError as error:
        if isinstance(error, AlreadyReported) or not isinstance(shm.data, str):
            raise
        notes.add_remark(f"{error.problem.rstrip('.')}: the default is taken", shm, name)
        return ""


def _count(value: Value, key: str, what: str) -> int:
    text = str(value.data)
    least = 0 if key == "parameter_server_count" else 1
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise refuse(
            value, f"`{key}` of {what.lower()} has to be a whole number from {least}, not `{text}`.", "Correct it."
        )
    return int(text)


def memory_size(value: Value, what: str) -> str:
    """A size of memory in Docker's format.

    Raises:
        UserError: It is not a valid size.
    """
    text = str(value.data).strip().lower()
    if not re.fullmatch(r"[1-9]\d*[bkmg]?", text):
        raise refuse(value, f"{what} cannot be `{value.plain()}`.", "Write a number and b, k, m or g, such as `2g`.")
    return text
