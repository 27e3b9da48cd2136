"""Launch configurations that a task on the other machine has made, for the editor on this one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .places import Places

#: Asks for tunnels; the ports here, by the tunnels' names.
Ensure = Callable[[list[dict[str, Any]]], Mapping[str, int]]
_FOLDER = "${workspaceFolder}"


#: Ports that a system gives out by itself begin here at the latest, of those that are in use.
_OWN_CHOICE = 32768
#: So many from a port that the settings name are taken for the ones that follow it: other sessions, steps, ranks.
_FOLLOWING = 1000


def tunnels(told: Mapping[str, Any], named: Sequence[int]) -> list[dict[str, Any]]:
    """The tunnels that reported configurations need.

    Args:
        told: What the task has reported.
        named: The ports that the settings here name.
    """
    found = []
    for entry in told["entries"]:
        place = entry["connect"]
        found.append(
            {
                "name": entry["name"],
                "what": entry["name"],
                "host": place["host"],
                "port": place["port"],
                "wanted": _port_here(place["port"], named),
            }
        )
    for name, port in told["ports"].items():
        wanted = _port_here(port, named)
        found.append(
            {"name": name, "what": f"{told['what']}: {name}", "host": "127.0.0.1", "port": port, "wanted": wanted}
        )
    return found


def _port_here(port: int, named: Sequence[int]) -> int:
    """The port here for one there; 0 for any that is free.

    The same number, where a person counts on it. The other machine is not to choose among those of services that
    other programs look for on this one.
    """
    near = any(first and first <= port <= first + _FOLLOWING for first in named)
    return port if near or port >= _OWN_CHOICE else 0


def apply(
    project: Path, told: Mapping[str, Any], places: Places, named: Sequence[int], ensure: Ensure
) -> tuple[str, Mapping[str, int]]:
    """Open the tunnels and write the launch configurations here.

    Args:
        project: The project's folder here.
        told: What the task has reported.
        places: Where the paths of the other machine are here.
        named: The ports that the settings here name.
        ensure: Asks for the tunnels.

    Returns:
        ``added``, ``updated`` or ``unchanged``, and the ports here by the tunnels' names.

    Raises:
        UserError: launch.json cannot be understood or written.
    """
    ports = ensure(tunnels(told, named))
    return write(project, told, places, ports), ports


def write(project: Path, told: Mapping[str, Any], places: Places, ports: Mapping[str, int]) -> str:
    """Write the launch configurations, with the tunnels' ports."""
    from ..debugger.launch_json import write_configurations
    from ..runs.attachable import is_retired

    entries = []
    for entry in told["entries"]:
        own = copy.deepcopy(dict(entry))
        own["connect"] = {"host": "127.0.0.1", "port": ports[entry["name"]]}
        for mapping in own["pathMappings"]:
            mapping["localRoot"] = _local_root(mapping["localRoot"], places)
        entries.append(own)
    in_use = told["in_use"]
    return write_configurations(
        project,
        entries,
        told["compounds"],
        lambda name: in_use is not None and is_retired(name, in_use),
        told.get("also", {}),
    )


def ports_of(project: Path) -> dict[str, int]:
    """The ports in launch.json, by the configurations' names.

    Raises:
        UserError: launch.json cannot be understood.
    """
    from ..debugger.launch_json import configurations

    places = {name: entry.get("connect") for name, entry in configurations(project).items()}
    ports = {name: place.get("port") for name, place in places.items() if isinstance(place, dict)}
    return {name: port for name, port in ports.items() if type(port) is int}


def _local_root(root: str, places: Places) -> str:
    """A folder as the other machine's editor would see it, for the editor here."""
    here = folder_here(root, places)
    path = Path(here)
    if path.is_relative_to(places.project):
        return "/".join([_FOLDER, *path.relative_to(places.project).parts])
    return here


def folder_here(root: str, places: Places) -> str:
    """The path here of a folder as the other machine's editor would see it."""
    if root == _FOLDER or root.startswith(_FOLDER + "/"):
        return places.here(places.root + root[len(_FOLDER) :])
    return places.here(root)
