"""Launch configurations of a task on the remote machine, for the editor on this machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .remote_paths import RemotePaths

#: Opens tunnels and returns the local ports by the tunnels' names.
Ensure = Callable[[list[dict[str, Any]]], Mapping[str, int]]
_FOLDER = "${workspaceFolder}"


#: Systems choose free ports from this number on, or from a lower one.
_OWN_CHOICE = 32768
#: This many ports from one in the settings belong to it: those of further sessions, steps and ranks.
_FOLLOWING = 1000


def tunnels(report: Mapping[str, Any], named: Sequence[int]) -> list[dict[str, Any]]:
    """The tunnels that the reported configurations need.

    Args:
        report: What the task has reported.
        named: The ports in the local settings.
    """
    found = []
    for entry in report["entries"]:
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
    for name, port in report["ports"].items():
        wanted = _port_here(port, named)
        found.append(
            {"name": name, "what": f"{report['what']}: {name}", "host": "127.0.0.1", "port": port, "wanted": wanted}
        )
    return found


def _port_here(port: int, named: Sequence[int]) -> int:
    """The local port for a remote one; 0 for any free port.

    It is the same number if the user may rely on it. The remote machine must not choose a port at which programs on
    this machine expect another service.
    """
    near = any(first and first <= port <= first + _FOLLOWING for first in named)
    return port if near or port >= _OWN_CHOICE else 0


def apply(
    project: Path, report: Mapping[str, Any], paths: RemotePaths, named: Sequence[int], ensure: Ensure
) -> tuple[str, Mapping[str, int]]:
    """Open the tunnels and write the launch configurations on this machine.

    Args:
        project: The local project folder.
        report: What the task has reported.
        paths: Translates paths between the two machines.
        named: The ports in the local settings.
        ensure: Opens the tunnels.

    Returns:
        ``added``, ``updated`` or ``unchanged``, and the local ports by the tunnels' names.

    Raises:
        UserError: launch.json cannot be understood or written.
    """
    ports = ensure(tunnels(report, named))
    return write(project, report, paths, ports), ports


def write(project: Path, report: Mapping[str, Any], paths: RemotePaths, ports: Mapping[str, int]) -> str:
    """Write the launch configurations with the tunnels' ports."""
    from ..debugger.launch_json import write_configurations
    from ..runs.attachable import is_retired

    entries = []
    for entry in report["entries"]:
        own = copy.deepcopy(dict(entry))
        own["connect"] = {"host": "127.0.0.1", "port": ports[entry["name"]]}
        for mapping in own["pathMappings"]:
            mapping["localRoot"] = _local_root(mapping["localRoot"], paths)
        entries.append(own)
    in_use = report["in_use"]
    return write_configurations(
        project,
        entries,
        report["compounds"],
        lambda name: in_use is not None and is_retired(name, in_use),
        report.get("also", {}),
    )


def ports_of(project: Path) -> dict[str, int]:
    """The ports in launch.json, by the names of the configurations.

    Raises:
        UserError: launch.json cannot be understood.
    """
    from ..debugger.launch_json import read_configurations

    paths = {name: entry.get("connect") for name, entry in read_configurations(project).items()}
    ports = {name: place.get("port") for name, place in paths.items() if isinstance(place, dict)}
    return {name: port for name, port in ports.items() if type(port) is int}


def _local_root(root: str, paths: RemotePaths) -> str:
    """A folder as the remote machine's editor would name it, as the local editor names it."""
    here = folder_here(root, paths)
    path = Path(here)
    if path.is_relative_to(paths.project):
        return "/".join([_FOLDER, *path.relative_to(paths.project).parts])
    return here


def folder_here(root: str, paths: RemotePaths) -> str:
    """The local path of a folder as the remote machine's editor would name it."""
    if root == _FOLDER or root.startswith(_FOLDER + "/"):
        return paths.to_local(paths.root + root[len(_FOLDER) :])
    return paths.to_local(root)
