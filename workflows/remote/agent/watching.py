"""Watches the runs and services that tunnels belong to: whether they have ended, and what they report."""

from __future__ import annotations

import os
import queue
import time
from typing import Any

from .following import LastContact
from .machine import is_over, read_reports
from .task import Task
from .wire import Wire, parse_message

#: Seconds between two checks of the runs and services.
WATCH_SECONDS = 0.3
#: Seconds for which a service may be missing while it is replaced; its tunnels are used by the next one.
REPLACED_SECONDS = 3.0


def watch(wire: Wire, request: dict[str, Any]) -> None:
    """Report when an owner of tunnels has ended, and what tasks report after their command has returned."""
    owners: dict[str, dict[str, Any]] = {}
    contact = LastContact()
    while not contact.too_long_ago:
        try:
            got = wire.inbox.get(timeout=WATCH_SECONDS)
            if got is None:
                wire.inbox.put(None)
                return
            contact.renew()
            asked = parse_message(got[1])
            if "owner" in asked:
                owners[asked["name"]] = asked
                asked["reports"] |= find_earlier_reports(asked["reports"], asked["owner"])
            owners.pop(asked.get("forget", ""), None)
        except queue.Empty:
            pass
        for name, entry in list(owners.items()):
            for path, before in entry["reports"].items():
                for offset, value in read_reports(path, before):
                    entry["reports"][path] = offset
                    wire.send(name=name, report=value, path=path, offset=offset)
            now = time.monotonic()
            if not is_over(entry["owner"]):
                entry["over"] = 0.0
            elif now - (entry.get("over") or now) >= (REPLACED_SECONDS if "service" in entry["owner"] else 0):
                del owners[name]
                wire.send(name=name, over=True, number=entry.get("number", 0))
            else:
                entry["over"] = entry.get("over") or now


def find_earlier_reports(reports: dict[str, int], owner: dict[str, Any]) -> dict[str, int]:
    """The report files of other commands with the same owner, and the offset from which to read each.

    A run keeps reporting to the command that started it, even if another command has opened tunnels to it since.
    """
    found: dict[str, int] = {}
    for path in reports:
        tasks = os.path.dirname(os.path.dirname(path))
        since = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        for name in sorted(os.listdir(tasks)) if os.path.isdir(tasks) else []:
            other = Task(os.path.join(tasks, name)).report_file
            lines = [(0, {}), *read_reports(other, 0)] if other not in reports else []
            owners = [value["configurations"]["owner"] for _offset, value in lines if "configurations" in value]
            if any(one.items() <= owner.items() for one in owners):
                # The last report is sent again if the others may not have received it.
                unheard = os.stat(other).st_mtime_ns > since
                found[other] = lines[-2 if unheard else -1][0]
    return found
