"""Printing what any DAP client needs to attach: host, port, path mappings, and the attach request's arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import report

if TYPE_CHECKING:
    from ..console import Console

PRINT_HELP = "Print host, port and path mappings for any DAP client, and leave launch.json as it is."


def list_endpoints(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The endpoints for debuggers in a task's result."""
    if "debug" in result:
        return [{**result["debug"], **{key: result[key] for key in ("path_mappings", "launch_configuration")}}]
    return [dict(one) for one in result["endpoints"]]


def print_endpoints(console: Console, result: Mapping[str, Any]) -> None:
    """Print the endpoints of a task's result; with ``--json`` the result itself has them."""
    if console.as_json or report.is_wanted():
        # With --remote the other machine prints them, with its own ports.
        return
    found: Sequence[Mapping[str, Any]] = list_endpoints(result)
    for one in found:
        console.line()
        console.line(str(one["launch_configuration"]))
        console.line(f"host           {one['host']}")
        console.line(f"port           {one['port']}")
        for mapping in one["path_mappings"]:
            console.line(f"path mapping   {mapping['localRoot']} -> {mapping['remoteRoot']}")
        arguments = {
            "request": "attach",
            "connect": {"host": one["host"], "port": one["port"]},
            "pathMappings": one["path_mappings"],
            "justMyCode": True,
        }
        console.line(f"attach request {json.dumps(arguments)}")
