"""Whether what tunnels belong to is over, and what it has reported since."""

from __future__ import annotations

import os
import queue
import time
from typing import Any

from .following import Heard
from .machine import is_over, new_reports
from .task import Task
from .wire import Wire, parsed

#: Seconds between two looks at whether a run is over.
WATCH_SECONDS = 0.3
#: Seconds for which a service may be away: it is being replaced, and its tunnels serve the next one.
REPLACED_SECONDS = 3.0


def watch(wire: Wire, request: dict[str, Any]) -> None:
    """Tell when one of several owners is over, and what tasks report after their command has returned."""
    owners: dict[str, dict[str, Any]] = {}
    heard = Heard()
    while not heard.silent:
        try:
            got = wire.inbox.get(timeout=WATCH_SECONDS)
            if got is None:
                wire.inbox.put(None)
                return
            heard.now()
            asked = parsed(got[1])
            if "owner" in asked:
                owners[asked["name"]] = asked
                asked["reports"] |= earlier_reports(asked["reports"], asked["owner"])
            owners.pop(asked.get("forget", ""), None)
        except queue.Empty:
            pass
        for name, entry in list(owners.items()):
            for path, before in entry["reports"].items():
                for offset, value in new_reports(path, before):
                    entry["reports"][path] = offset
                    wire.say(name=name, report=value, path=path, offset=offset)
            now = time.monotonic()
            if not is_over(entry["owner"]):
                entry["over"] = 0.0
            elif now - (entry.get("over") or now) >= (REPLACED_SECONDS if "service" in entry["owner"] else 0):
                del owners[name]
                wire.say(name=name, over=True, number=entry.get("number", 0))
            else:
                entry["over"] = entry.get("over") or now


def earlier_reports(reports: dict[str, int], owner: dict[str, Any]) -> dict[str, int]:
    """The reports of other commands that have started or attached to the same, and where to go on in each.

    A run goes on to report to the command that has started it, whoever asks for its tunnels by now.
    """
    found: dict[str, int] = {}
    for path in reports:
        tasks = os.path.dirname(os.path.dirname(path))
        since = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        for name in sorted(os.listdir(tasks)) if os.path.isdir(tasks) else []:
            other = Task(os.path.join(tasks, name)).reported
            lines = [(0, {}), *new_reports(other, 0)] if other not in reports else []
            owners = [value["configurations"]["owner"] for _offset, value in lines if "configurations" in value]
            if any(one.items() <= owner.items() for one in owners):
                # Its last word is said again if the others may not have heard it.
                unheard = os.stat(other).st_mtime_ns > since
                found[other] = lines[-2 if unheard else -1][0]
    return found
