"""Announces the SSH host keys of this container, so that a client of the relay can tell it from another container.

A job's ssh service creates the keys when it starts, which may be minutes after the command has begun.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import os
import re
import sys
import threading
import time

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, List, Set

#: Seconds between two checks, and seconds after which they stop.
POLL_SECONDS, WATCH_SECONDS = 2.0, 900.0
#: OpenSSH's usual configuration, and its keys if the configuration names none (sshd(8), sshd_config(5)).
_CONFIGURATION, _USUAL = "/etc/ssh/sshd_config", "/etc/ssh/ssh_host_*_key"
_LISTENER = re.compile(r"(?:sshd: )?(?:\S*/)?sshd(?: |$)")
_NAMED = re.compile(r" -f ?(\S+)")
#: Fingerprints that are announced at most: a tag holds 1,000 characters.
_MOST = 16


def announce_host_keys(tags: Any, node: int = 0) -> None:
    """Look for host keys in the background, and write those found to the tags and the log.

    Args:
        tags: The run's tags.
        node: This node's number, from 0.
    """
    thread = threading.Thread(target=_watch_keys, args=(tags, node), name="azureml-debuggee-host-keys")
    thread.daemon = True
    thread.start()


def fingerprints() -> List[str]:
    """The fingerprints of the keys of every sshd that runs here now, as ``ssh-keygen -l`` shows them.

    Returns:
        An empty list if the keys of any sshd cannot be read: the relay may lead to that one.
    """
    found = set()
    for configuration in _find_configurations():
        keys = _read_fingerprints(configuration)
        if not keys:
            return []
        found.update(keys)
    return sorted(found)


def _find_configurations() -> Set[str]:
    """The configuration file of every sshd of this container."""
    found = set()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit():
            continue
        try:
            with open("/proc/{}/cmdline".format(name), "rb") as file:
                line = os.fsdecode(file.read(1 << 16)).replace("\0", " ").strip()
        except OSError:
            continue
        # Its command line looks like `sshd: /usr/sbin/sshd -D -f FILE [listener] 0 of 10-100 startups`.
        if _LISTENER.match(line):
            named = _NAMED.search(line)
            found.add(named.group(1) if named else _CONFIGURATION)
    return found


def _read_fingerprints(configuration: str) -> Set[str]:
    """The fingerprints of the keys that a configuration names; empty if one cannot be read."""
    found = set()
    try:
        with open(configuration, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file.read(1 << 20).splitlines()]
        named = [line[1] for line in lines if len(line) == 2 and line[0].lower() == "hostkey"]
        for path in named or glob.glob(_USUAL):
            with open(path + ".pub", encoding="ascii") as file:
                key = base64.b64decode(file.read(1 << 16).split()[1])
            digest = base64.b64encode(hashlib.sha256(key).digest()).decode("ascii").rstrip("=")
            found.add("SHA256:" + digest)
    except (OSError, IndexError, ValueError):
        return set()
    return found


def _watch_keys(tags: Any, node: int) -> None:
    known: List[str] = []
    deadline = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        try:
            found = fingerprints()
        except Exception as error:  # the run goes on whatever happens here
            sys.stderr.write("azureml_debug: the host keys cannot be read ({})\n".format(type(error).__name__))
            return
        if found and found != known:
            known = found
            tags.put({"azureml_debug.hostkeys.{}".format(node): " ".join(found[:_MOST])})
            sys.stdout.write("".join("azureml_debug: host key {}\n".format(key) for key in found[:_MOST]))
            sys.stdout.flush()
        time.sleep(POLL_SECONDS)
