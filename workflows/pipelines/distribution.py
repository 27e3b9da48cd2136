"""``distribution`` and ``resources``: how many processes a step is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UserError
from .literals import unknown_keys
from .notes import Notes
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
    """How a step is spread.

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
    settle: Callable[[Value], Value],
) -> Layout:
    """Read the two fields of a step.

    Args:
        distribution: The one.
        resources: The other.
        what: The step in a message.
        name: Its name.
        notes: Takes fields that are not acted on, and what Azure's own check takes although it is nothing.
        settle: Puts the pipeline's input in the place of ``${{parent.inputs.x}}``.

    Raises:
        UserError: Not of the schema's shape, or a kind that does not exist here; with the line.
    """

    def count(place: Value | None, *keys: str) -> int | None:
        for key in keys:
            if place is not None and (value := place.get(key)) is not None:
                settled = settle(value)
                if isinstance(settled.data, int) and settled.data < 1 and key != "parameter_server_count":
                    notes.say(f"`{key}` of {what.lower()} is {settled.data}: it is taken as 1", value, name)
                    return 1
                return _count(settled, key, what)
        return None

    instances, shm_size, type_, processes = 1, "", "", 1
    if resources is not None:
        unknown_keys(resources.mapping(f"`resources` of {what.lower()}"), _RESOURCES, f"`resources` of {what.lower()}")
        instances = count(resources, "instance_count") or 1
        shm = resources.get("shm_size")
        try:
            shm_size = memory_size(settle(shm), "`shm_size`") if shm is not None else ""
        except UserError as error:
            if shm is None or not isinstance(shm.data, str):
                raise
            notes.say(f"{error.problem.rstrip('.')}: the default is taken", shm, name)
        for key in ("docker_args", "properties"):
            if resources.get(key) is not None:
                notes.add(f"resources.{key}", name)
    if distribution is not None:
        unknown_keys(distribution.mapping("distribution"), _KEYS, f"`distribution` of {what.lower()}")
        named = distribution.get("type")
        if named is None:
            raise refuse(distribution, f"The distribution of {what.lower()} has no type.", "Add `type: pytorch`.")
        type_ = named.text("`type`").lower()
        if type_ == "ray":
            notes.say(f"{what} is distributed by `ray`: its command is run once, without a cluster", named, name)
            return Layout("", 1, 1, shm_size)
        if type_ not in _TYPES:
            raise refuse(
                named, f"{what} is distributed by `{named.data}`, which cannot run here.", did_you_mean(type_, _TYPES)
            )
        if type_ == "tensorflow":
            workers = count(distribution, "worker_count") or instances
            processes = max(1, -(-workers // instances))
            if count(distribution, "parameter_server_count"):
                notes.add("distribution.parameter_server_count", name)
        else:
            processes = count(distribution, "process_count_per_instance", "process_count_per_node") or 1
    return Layout(type_, processes, instances, shm_size)


def _count(value: Value, key: str, what: str) -> int:
    text = str(value.data)
    least = 0 if key == "parameter_server_count" else 1
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise refuse(
            value, f"`{key}` of {what.lower()} has to be a whole number from {least}, not `{text}`.", "Correct it."
        )
    return int(text)


def memory_size(value: Value, what: str) -> str:
    """A size of memory as Docker takes it.

    Raises:
        UserError: It is none.
    """
    text = str(value.data).strip().lower()
    if not re.fullmatch(r"[1-9]\d*[bkmg]?", text):
        raise refuse(value, f"{what} cannot be `{value.data}`.", "Write a number and b, k, m or g, such as `2g`.")
    return text
